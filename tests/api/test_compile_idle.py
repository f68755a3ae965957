"""Settings that do nothing with the pools that a policy leads to: it serves, and says so."""

from __future__ import annotations

import pytest

from spillway_api.compile import compile_snapshot


@pytest.fixture
def problems(built):
    """`problems(policy edits, pool edits, provider edits)`: what is said, and that it serves all the same."""

    def compiled(policy=None, pool=None, provider=None):
        objects = [built("pool", pool or {}), built("provider", provider or {}), built("policy", policy or {})]
        made = compile_snapshot(objects, "default", lambda _secret, _key: True)
        assert len(made.snapshot.routes) == 1
        return [(problem.path, problem.message, problem.fatal) for problem in made.problems]

    return compiled


EUROS = {"spec.models[0].price": {"input": "1.00", "currency": "EUR"}}


def test_a_cost_that_a_model_is_not_paid_in(problems):
    ((path, message, fatal),) = problems({"spec.retry": {"maxCost": {"amount": "0.05"}}}, EUROS)
    assert (path, fatal) == ("spec.retry.maxCost", False)
    assert message == (
        'model "llama-8b" of ModelPool "default/llama" is paid in EUR and not in USD, so it gets no requests; '
        "nothing is converted"
    )
    everywhere = {
        "spec.retry": {"maxCost": {"amount": "0.05", "currency": "EUR"}},
        "spec.rules[0].tiers[1].limits.budget.currency": "EUR",
    }
    assert not problems(everywhere, EUROS, EUROS)
    assert not problems({"spec.retry": {"maxCost": {"amount": "0.05"}}}), "without a price there is nothing to compare"
    assert not problems({}, EUROS)


@pytest.mark.parametrize(("engine", "said"), [("Auto", 0), ("vLLM", 0), ("SGLang", 0), ("Generic", 1)])
def test_a_rest_that_no_engine_says(problems, engine, said):
    found = problems({"spec.streams": {"resume": "SameModel"}}, {"spec.engine": engine})
    assert [(path, fatal) for path, _, fatal in found] == [("spec.streams.resume", False)] * said
    assert not problems({"spec.streams": {"resume": "Never"}}, {"spec.engine": engine})
