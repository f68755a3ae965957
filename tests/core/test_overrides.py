"""What callers decide for themselves: only what the policy lets them, only among what it has."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.core.asked import Asked
from tests.core.test_guards import NOW, pool, tier

from spillway_api import snapshot
from spillway_api.types import DataHandling, Guard, Overrides, Ramp, Requirement, Retry, Spill, Timeouts
from spillway_balancer.core.conditions import Moment
from spillway_balancer.core.errors import InvalidOverride, NoCompliantTarget, OverrideNotAllowed
from spillway_balancer.core.planning import Plan, plan
from spillway_balancer.core.runtime import Runtime

RAMP = Spill(in_flight_per_endpoint=Ramp(start=0, full=1))
ALL = Overrides(("Rule", "Pool", "NoFallback"))
RULES = (
    snapshot.RouteRule("premium", (tier("large", "large"), tier("small", "small")), 'headers["x-tier"] == "premium"'),
    snapshot.RouteRule("default", (tier("small", "small", "next", spill=RAMP), tier("large", "large"))),
)
POOLS = ("small", "large", "next")


def served(overrides: Overrides | None = ALL, *guards: Guard, **declared: DataHandling) -> Runtime:
    pools = tuple(pool(name, declared.get(name)) for name in POOLS)
    route = snapshot.Route("default/chat", ("chat",), RULES, Timeouts(), Retry(), guards=guards, overrides=overrides)
    return Runtime(snapshot.Snapshot("default", pools, (route,)))


def decided(runtime: Runtime, **headers: str) -> Plan:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return plan(runtime.routes, Asked(given=given), Moment(NOW, NOW, random.Random(1)))


def led_to(made: Plan) -> list[tuple[str, list[str]]]:
    return [(each.spec.name, [target.pool.name for target in each.targets]) for each in made.tiers]


def test_a_rule_that_is_named_is_taken_whether_it_holds_or_not() -> None:
    made = decided(served(), x_spillway_rule="premium")
    assert (made.rule, made.refused) == ("premium", None)
    assert led_to(made) == [("large", ["default/large"]), ("small", ["default/small"])]


@pytest.mark.parametrize("name", ["large", "default/large"])
def test_a_pool_that_is_named_is_all_that_is_left(name: str) -> None:
    assert led_to(decided(served(), x_spillway_pool=name)) == [("large", ["default/large"])]


def test_a_pool_of_no_weight_can_be_tried_by_name() -> None:
    idle = (snapshot.Target("default/small"), snapshot.Target("default/next", weight=0))
    rule = snapshot.RouteRule("default", (snapshot.RouteTier("only", idle, "Weighted", ()),))
    route = snapshot.Route("default/chat", ("chat",), (rule,), Timeouts(), Retry(), overrides=ALL)
    runtime = Runtime(snapshot.Snapshot("default", tuple(map(pool, POOLS)), (route,)))
    assert led_to(decided(runtime, x_spillway_pool="next")) == [("only", ["default/next"])]


@pytest.mark.parametrize("flag", ["1", "true", "True"])
def test_without_fallback_the_first_tier_is_the_only_one_and_keeps_its_requests(flag: str) -> None:
    made = decided(served(), x_spillway_no_fallback=flag)
    assert led_to(made) == [("small", ["default/small", "default/next"])]
    assert made.tiers[0].spilling is None
    assert made.tiers[0].spec.spill is None


def test_0_asks_for_nothing() -> None:
    assert len(decided(served(), x_spillway_no_fallback="0").tiers) == 2


def test_all_three_together() -> None:
    made = decided(served(), x_spillway_rule="premium", x_spillway_pool="small", x_spillway_no_fallback="1")
    assert led_to(made) == [("small", ["default/small"])]


# headers, what the error says
MISTAKES = [
    ({"x_spillway_rule": "premum"}, 'it has "premium", "default"'),
    ({"x_spillway_rule": ""}, 'it has "premium", "default"'),
    ({"x_spillway_pool": "huge"}, 'rule "default" has no such pool; it has "small", "next", "large"'),
    ({"x_spillway_pool": "team/large"}, 'it has "small", "next", "large"'),
    ({"x_spillway_rule": "premium", "x_spillway_pool": "next"}, 'rule "premium" has no such pool'),
    ({"x_spillway_no_fallback": "maybe"}, "is 1 or 0"),
]


@pytest.mark.parametrize(("headers", "words"), MISTAKES)
def test_what_is_not_there_is_told_with_what_is(headers: dict[str, str], words: str) -> None:
    made = decided(served(), **headers)
    assert isinstance(made.refused, InvalidOverride)
    assert made.refused.status == 400
    assert words in made.refused.message
    assert made.tiers == ()
    assert not any(value and value in made.refused.message for value in ("premum", "huge", "maybe", "team/large"))


HEADERS = {"Rule": "x_spillway_rule", "Pool": "x_spillway_pool", "NoFallback": "x_spillway_no_fallback"}
VALUES = {"Rule": "premium", "Pool": "large", "NoFallback": "1"}


@pytest.mark.parametrize("allowed", [None, *HEADERS])
@pytest.mark.parametrize("asked", list(HEADERS))
def test_each_has_to_be_allowed(allowed: Any, asked: str) -> None:
    made = decided(served(None if allowed is None else Overrides((allowed,))), **{HEADERS[asked]: VALUES[asked]})
    if allowed == asked:
        assert made.refused is None
        return
    assert isinstance(made.refused, OverrideNotAllowed)
    assert (made.refused.status, made.refused.param) == (403, HEADERS[asked].replace("_", "-"))
    assert made.tiers == ()


def test_what_is_not_there_is_told_to_nobody_who_may_not_ask() -> None:
    made = decided(served(Overrides(("Pool",))), x_spillway_rule="nonsense", x_spillway_pool="nonsense")
    assert isinstance(made.refused, OverrideNotAllowed)
    assert "premium" not in made.refused.message


# when, whether the request with x-team: platform may
WHENS = [
    ('headers["x-team"] == "platform"', True),
    ('headers["x-team"] == "sales"', False),
    ('headers["x-other"] == "platform"', False),  # no value
    ("no.such == 1", False),  # does not compile
]


@pytest.mark.parametrize(("when", "may"), WHENS)
def test_a_condition_without_a_value_allows_nothing(when: str, may: bool) -> None:
    made = decided(served(Overrides(("Rule",), when)), x_spillway_rule="premium", x_team="platform")
    assert isinstance(made.refused, OverrideNotAllowed) is not may
    assert decided(served(Overrides(("Rule",), when)), x_team="nobody").refused is None


EU = DataHandling(jurisdictions=("EU",))
GUARD = Guard("eu-only", Requirement(jurisdictions=("EU",)))


def test_no_override_lifts_a_guard() -> None:
    runtime = served(ALL, GUARD, large=EU, next=EU)
    for name, free in (("large", True), ("next", True), ("small", False)):
        made = decided(runtime, x_spillway_pool=name)
        assert isinstance(made.refused, NoCompliantTarget) is not free
        assert made.held is not None
    assert led_to(decided(runtime, x_spillway_rule="premium")) == [("large", ["default/large"])]
    strict = decided(runtime, x_spillway_rule="default", x_spillway_no_fallback="1")
    assert led_to(strict) == [("small", ["default/next"])]
    only_large = served(ALL, GUARD, large=EU)  # its first tier is out of bounds, and any other would be a fallback
    assert isinstance(decided(only_large, x_spillway_no_fallback="1").refused, NoCompliantTarget)


def test_nothing_that_a_caller_chose_is_remembered_for_others() -> None:
    runtime = served(ALL, GUARD, large=EU, next=EU)
    before = decided(runtime).tiers
    decided(runtime, x_spillway_pool="large")
    assert decided(runtime).tiers is before
