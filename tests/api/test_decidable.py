"""Policies that a sidecar would decide on otherwise than its gateway: it is not given them."""

from __future__ import annotations

import pytest

from spillway_api.sidecars import Asked, remote_name, view
from spillway_api.snapshot import Pool, Route, RouteRule, RouteTier, Snapshot, Target
from spillway_api.types import (
    Capacity,
    Dispatch,
    Guard,
    Health,
    Limits,
    Metrics,
    Model,
    Overrides,
    Requirement,
    Retry,
    Timeouts,
)

KEPT = (Dispatch(), Capacity(), Metrics(), Health())
NEAR = Pool("team/near", (Model("m"),), "vLLM", None, (), *KEPT)
FAR = Pool("team/far", (Model("m"),), "Auto", "OpenAI", (), *KEPT)


def tier(pool: str, limits: Limits | None = None) -> RouteTier:
    return RouteTier(pool, (Target(f"team/{pool}"),), "Weighted", (), limits=limits)


def given(*tiers: RouteTier, when: str | None = None, **more: object) -> Route | None:
    """What a sidecar is given of a route with these tiers, for which `when` decides."""
    rules = (RouteRule("some", tiers, when), RouteRule("all", tiers))
    route = Route("team/chat", ("chat", "chat-*"), rules, Timeouts(), Retry(), **more)  # type: ignore[arg-type]
    seen = view(Snapshot("edge", (FAR, NEAR), (route,)), Asked())
    rest = next(each for each in seen.routes if each.name == remote_name("edge"))
    assert "*" in rest.models
    return next((each for each in seen.routes if each.name == "team/chat"), None)


@pytest.mark.parametrize(
    "when",
    [
        None,
        'headers["x-tier"] == "premium"',
        'pools["near"].saturation < 0.5',
        '"near" in pools',
        "bucket < 10",
        "this does not compile",
    ],
)
def test_what_a_sidecar_can_decide_it_is_given(when: str | None) -> None:
    assert given(tier("near"), tier("far"), when=when) is not None
    assert given(tier("near"), when=when) is not None


@pytest.mark.parametrize("when", ['pools["far"].saturation < 0.5', "pools[model].ready > 0", "size(pools) > 1 && true"])
def test_one_that_reads_a_pool_which_it_has_not_is_the_gateways(when: str) -> None:
    assert given(tier("near"), tier("far"), when=when) is None
    assert given(tier("near"), tier("far"), guards=(Guard("g", Requirement(), when),)) is None
    assert given(tier("near"), tier("far"), overrides=Overrides(("Rule",), when=when)) is None


def test_a_pool_that_stands_in_a_limited_tier_alone_is_not_there() -> None:
    limited = tier("near", Limits(requests_per_minute=5))
    assert given(limited, when='pools["near"].ready > 0') is None
    assert given(limited, tier("near"), when='pools["near"].ready > 0') is not None


def test_a_part_of_sessions_is_one_by_the_key_of_the_first_pool() -> None:
    assert given(tier("far"), tier("near"), when="bucket < 10") is None
    assert given(tier("near"), tier("far"), when="bucket < 10") is not None
