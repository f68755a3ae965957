"""A budget is kept only where the price of everything that may be bought is known, in its currency."""

from __future__ import annotations

import pytest

from spillway_api.compile import Cluster, compile_snapshot

TIER = "spec.rules[0].tiers[1]"
BUDGET = f"{TIER}.limits.budget"
PRICE = {"input": "1", "output": "2"}
NO_PRICE = (
    'ModelPool "openai" has no price for its model "gpt-mini", so no budget can be kept there; '
    "its owner may set spec.models[].price"
)


@pytest.fixture
def compiled(built):
    def make(models, policy=None, last=None):
        objects = [built("pool"), built("provider", {"spec.models": models}), built("policy", policy)]
        return compile_snapshot(objects, "default", lambda *_: True, Cluster(last_good=last))

    return make


@pytest.mark.parametrize(
    ("models", "policy", "message"),
    [
        ([{"name": "gpt-mini"}], {}, NO_PRICE),
        ([{"name": "gpt-mini", "price": {"cachedInput": "1"}}], {}, NO_PRICE),
        (
            [{"name": "gpt-mini", "price": {**PRICE, "currency": "EUR"}}],
            {},
            'ModelPool "openai" has its price for "gpt-mini" in EUR, the budget is in USD; nothing is converted',
        ),
        (
            [{"name": "gpt-mini", "price": PRICE}],
            {f"{BUDGET}.currency": "CHF"},
            'ModelPool "openai" has its price for "gpt-mini" in USD, the budget is in CHF; nothing is converted',
        ),
        (  # asked for by its own name only
            [{"name": "gpt-mini"}, {"name": "gpt-large", "price": PRICE}],
            {f"{TIER}.pools[0].model": "gpt-mini"},
            NO_PRICE,
        ),
        (
            [{"name": "gpt-mini"}, {"name": "claude-x", "price": PRICE}],
            {"spec.models": ["gpt-*", "claude-*"]},
            NO_PRICE,
        ),
    ],
)
def test_a_budget_over_what_has_no_price_is_invalid_and_spends_nothing(models, policy, message, compiled):
    made = compiled(models, policy)
    told = [(each.path, each.reason, each.message, each.fatal) for each in made.problems if each.path == BUDGET]
    assert told == [(BUDGET, "Invalid", message, True)]
    (route,) = made.snapshot.routes
    assert [tier.name for tier in route.rules[0].tiers] == ["local"]


@pytest.mark.parametrize(
    ("models", "policy"),
    [
        ([{"name": "gpt-mini", "price": PRICE}], {}),
        ([{"name": "gpt-mini", "price": {"input": "0"}}], {}),
        ([{"name": "gpt-mini", "price": {**PRICE, "currency": "EUR"}}], {f"{BUDGET}.currency": "EUR"}),
        ([{"name": "gpt-mini"}], {f"{TIER}.limits": {"maxSharePercent": 30, "tokensPerMinute": 1000}}),
        (  # the one without a price is never asked for
            [{"name": "gpt-mini"}, {"name": "gpt-large", "price": PRICE}],
            {f"{TIER}.pools[0].model": "gpt-large"},
        ),
        ([{"name": "gpt-mini", "price": PRICE}, {"name": "other"}], {"spec.models": ["gpt-*"]}),
    ],
)
def test_a_budget_over_what_has_its_price_is_kept(models, policy, compiled):
    made = compiled(models, policy)
    assert not made.problems
    (route,) = made.snapshot.routes
    assert route.rules[0].tiers[1].limits is not None


def test_a_pool_keeps_no_budget_over_a_model_without_a_price(built):
    unpriced = built("funded", {"spec.models": [{"name": "gpt-mini", "price": PRICE}, {"name": "gpt-large"}]})
    made = compile_snapshot([unpriced], "default", lambda *_: True)
    told = [(each.object, each.path, each.reason, each.message, each.fatal) for each in made.problems]
    message = NO_PRICE.replace("openai", "funded").replace("gpt-mini", "gpt-large")
    assert told == [("ModelPool/default/funded", "spec.budget", "Invalid", message, True)]
    assert not compile_snapshot([built("funded")], "default", lambda *_: True).problems


def test_a_price_that_is_taken_away_leaves_the_last_good_policy_in_force(compiled):
    """The balancer lets nobody in there then: what it would cost is unknown."""
    last = compiled([{"name": "gpt-mini", "price": PRICE}]).memory
    made = compiled([{"name": "gpt-mini"}], last=last)
    assert made.kept == {"default/chat"}
    (route,) = made.snapshot.routes
    assert route == last.routes[0]
