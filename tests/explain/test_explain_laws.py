"""Laws of explanations: whatever is assumed, there is an account, and it hangs together."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spillway_balancer.core.account import Attempted, Looked, Served
from spillway_balancer.explain.asking import from_fields
from spillway_balancer.explain.given import CircuitGiven, CredentialGiven, Fails, Health, RequestGiven, State
from spillway_balancer.explain.report import lines
from spillway_balancer.explain.world import Policies, World

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
KNOWN = {path.name: Policies([path], "default", None) for path in EXAMPLES}


endpoints = st.fixed_dictionaries(
    {},
    optional={
        "inFlight": st.integers(20, 60),
        "queued": st.integers(0, 20),
        "kvCachePercent": st.integers(0, 100),
        "errorPercent": st.integers(0, 100),
        "predictedTTFT": st.sampled_from(["1ms", "900ms", "4s", "50s"]),
        "cachedPercent": st.integers(0, 100),
        "health": st.sampled_from(get_args(Health)),
        "circuit": st.sampled_from(get_args(CircuitGiven)),
        "limitedFor": st.sampled_from(["1s", "20s", "200s"]),
        "credential": st.sampled_from(get_args(CredentialGiven)),
        "fails": st.sampled_from(get_args(Fails)),
    },
)
requests = st.builds(
    RequestGiven,
    headers=st.dictionaries(
        st.sampled_from(["x-session-id", "x-tier", "x-data-class", "x-spillway-pool", "x-spillway-no-fallback"]),
        st.sampled_from(["premium", "public", "1", "ann"]),
    ),
    tokens=st.sampled_from([10, 3000, 20_000]),
    body=st.fixed_dictionaries({}, optional={"stream": st.booleans(), "max_tokens": st.integers(1, 5000)}),
)


@pytest.mark.parametrize("example", KNOWN)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_is_assumed_there_is_an_account_that_hangs_together(example: str, data: st.DataObject) -> None:
    policies = KNOWN[example]
    pools = {
        pool.name: {
            **data.draw(endpoints),
            "ready": data.draw(st.integers(0, len(pool.endpoints))),
            "endpoints": {endpoint.name: data.draw(endpoints) for endpoint in pool.endpoints[:1]},
        }
        for pool in policies.snapshot.pools
    }
    state = msgspec.convert({"now": "2026-05-01T21:30:00Z", "pools": pools}, State)
    names = [name.replace("*", "support-de") for route in policies.snapshot.routes for name in route.models]
    request = msgspec.structs.replace(data.draw(requests), model=data.draw(st.sampled_from([*names, "nobody's"])))
    account = World(policies, state).ask(from_fields(request))
    looked = [step for step in account.steps if isinstance(step, Looked)]
    tried = [(step.pool, step.endpoint) for step in account.steps if isinstance(step, Attempted)]
    outcome = account.outcome
    if isinstance(outcome, Served):
        assert outcome.tier in account.tiers
        assert outcome.pool in {step.pool for step in looked}
        assert outcome.attempt == len(tried) + 1
        assert outcome.spilled == (outcome.tier != account.tiers[0])
        assert account.header.startswith(f"rule={account.rule}; tier={outcome.tier}; pool={outcome.pool}; ")
    else:
        assert 400 <= outcome.status <= 599
        assert outcome.message
    assert {step.tier for step in account.steps} <= set(account.tiers)
    assert sum(rule.result in ("holds", "chosen by the caller") for rule in account.rules) == bool(account.rule)
    kept_out = {(each.tier, each.pool) for each in account.left_out}
    assert not kept_out & {(step.tier, step.pool) for step in looked if step.chosen}
    assert msgspec.json.decode(msgspec.json.encode(account))["policy"] == account.policy
    text = "\n".join(line.text for line in lines(account))
    assert "None" not in text
    assert "nan" not in text
    again = World(policies, state).ask(from_fields(request))
    assert (again.outcome, again.steps) == (account.outcome, account.steps)
