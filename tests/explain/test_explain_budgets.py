"""What is assumed of a pool's own budget, and what is said of it."""

from __future__ import annotations

import pytest
from tests.explain.conftest import policy, pool

PRICED = [{"name": "m", "price": {"input": "1", "output": "1"}}]
TIERS = (
    {"name": "cloud", "pools": [{"name": "cloud"}]},
    {"name": "spare", "pools": [{"name": "spare"}], "enterOn": ["Budget"]},
)


@pytest.fixture
def policies(bench):
    cloud = pool("cloud", models=PRICED, budget={"amount": "10.00"})
    return bench.write("policies.yaml", [cloud, pool("spare"), policy(*TIERS)])


@pytest.mark.parametrize(("used", "tier"), [(None, "cloud"), (60, "cloud"), (100, "spare")])
def test_a_pool_whose_budget_is_spent_is_passed(bench, policies, used, tier) -> None:
    given = {} if used is None else {"state": {"pools": {"cloud": {"budget": used}}}}
    account = bench.account(policies, **given)
    look = next(step for step in account["steps"] if step["type"] == "look")
    assert look["limits"] == {"budget of the pool": pytest.approx(used or 0)}
    assert account["outcome"]["tier"] == tier
    said = bench.explain(policies, **given).out
    assert f"limits: {used or 0} % of budget of the pool used" in said


def test_a_pool_without_a_budget_has_none_to_assume(bench, policies) -> None:
    said = bench.explain(policies, state={"pools": {"spare": {"budget": 5}}})
    assert said.code == 2
    assert "pools.spare.budget: the pool has no budget" in said.err
