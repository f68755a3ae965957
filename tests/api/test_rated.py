"""What a tier asks of its models is something that one of them can meet: where it is not, that is said beforehand."""

from __future__ import annotations

from typing import Any

import pytest

from spillway_api.compile import compile_snapshot
from spillway_api.types import Model, Money, Price

TIER = "spec.rules[0].tiers[0]"


def compiled(built: Any, model: dict[str, Any], tier: dict[str, Any]) -> Any:
    edits = {f"{TIER}.{name}": value for name, value in tier.items()}
    pool = built("pool", {"spec.models": [{"name": "llama-8b", **model}]})
    return compile_snapshot([pool, built("provider"), built("policy", edits)], "default", lambda *_: True)


@pytest.mark.parametrize(
    ("model", "tier", "said"),
    [
        ({"qualityPercent": 70}, {"minQualityPercent": 70}, None),
        ({"qualityPercent": 0}, {"minQualityPercent": 0}, None),
        ({"qualityPercent": 69}, {"minQualityPercent": 70}, "no model of this tier has a qualityPercent of 70 or more"),
        ({}, {"minQualityPercent": 0}, "no model of this tier has a qualityPercent of 0 or more"),
        ({"price": {"input": "1"}}, {"maxCost": {"amount": "0.1"}}, None),
        ({}, {"maxCost": {"amount": "0.1"}}, "no model of this tier has a price in USD"),
        ({"price": {"input": "1"}}, {"maxCost": {"amount": "1", "currency": "EUR"}}, "has a price in EUR"),
    ],
)
def test_a_demand_that_no_model_of_the_tier_meets_is_refused(
    built: Any, model: dict[str, Any], tier: dict[str, Any], said: str | None
) -> None:
    problems = compiled(built, model, tier).problems
    if said is None:
        assert problems == ()
        return
    (problem,) = problems
    assert (problem.path, problem.reason, problem.fatal) == (f"{TIER}.{next(iter(tier))}", "Invalid", True)
    assert said in problem.message


def test_one_that_does_is_enough_and_only_those_that_clients_can_ask_for_count(built: Any) -> None:
    good, bad = {"name": "good", "qualityPercent": 90}, {"name": "bad", "qualityPercent": 10}
    pool = built("pool", {"spec.models": [good, bad]})

    def problems(public: str, model: str | None) -> int:
        policy = {"spec.models": [public], f"{TIER}.minQualityPercent": 50, f"{TIER}.pools[0].model": model or "ABSENT"}
        if model is None:
            del policy[f"{TIER}.pools[0].model"]
        objects = [pool, built("provider"), built("policy", policy)]
        return len(compile_snapshot(objects, "default", lambda *_: True).problems)

    assert problems("*", None) == 0
    assert problems("chat", "good") == 0
    assert problems("good", None) == 0
    assert problems("chat", "bad") == 1
    assert problems("bad", None) == 1


def test_what_models_are_and_tiers_ask_for_reaches_the_balancer(built: Any) -> None:
    facts = {
        "contextWindow": 8192,
        "capabilities": ["Chat", "Tools"],
        "qualityPercent": 60,
        "price": {"input": "0.10", "cachedInput": "0.01", "output": "0.40", "currency": "EUR"},
    }
    tier = {"select": "Quality", "minQualityPercent": 5, "maxCost": {"amount": "0.01", "currency": "EUR"}}
    made = compiled(built, facts, tier).snapshot
    price = Price("0.10", "0.01", "0.40", "EUR")
    assert made.pools[0].models == (Model("llama-8b", "llama-8b", price, 8192, ("Chat", "Tools"), 60),)
    first = made.routes[0].rules[0].tiers[0]
    assert (first.select, first.min_quality_percent, first.max_cost) == ("Quality", 5, Money("0.01", "EUR"))
