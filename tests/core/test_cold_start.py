"""Tiers scaled to zero: who is held, who goes on, and what is to be woken."""

from __future__ import annotations

import random
from typing import Any

import pytest
from msgspec.structs import replace

from spillway_api import snapshot
from spillway_api.types import Retry, Spill, Timeouts
from spillway_balancer.core.attempts import Attempts, Stop, Try
from spillway_balancer.core.cold import WANTED, is_wanted
from spillway_balancer.core.runtime import Runtime
from spillway_balancer.net.reporting import report

NOW = 1000.0


class Facts:
    """A request for `chat` that says nothing else."""

    model = "chat"
    path = "/v1/chat/completions"
    client_ip = None
    prompt_tokens = 10
    output_tokens = 10
    streams = False

    def header(self, name: str) -> None: ...
    def body(self, name: str) -> None: ...
    def prefix(self, chars: int | None) -> None: ...
    def prompt(self, model: str) -> None: ...


def runtime(pools: Any, when: Any, *, home: int = 0, away: int | None = 1, wakes: bool = True, bound: int = 0) -> Any:
    """A tier `home` that may be woken, and a tier `away` behind it; each with so many endpoints."""
    spec = replace(pools.spec(home, bound=bound), name="default/home", wakes=wakes)
    there = [spec]
    tiers = [("home", "default/home", None if away is None else when)]
    if away is not None:
        there.append(replace(pools.spec(away, bound=bound), name="default/away"))
        tiers.append(("away", "default/away", None))
    made = tuple(
        snapshot.RouteTier(name, (snapshot.Target(pool),), "Weighted", ("Capacity",), spill)
        for name, pool, spill in tiers
    )
    route = snapshot.Route("default/chat", ("chat",), (snapshot.RouteRule("all", made),), Timeouts(), Retry())
    return Runtime(snapshot.Snapshot("default", tuple(there), (route,)))


def begin(served: Any) -> Attempts:
    route = served.routes.all[0]
    return Attempts(route.rules[0], Retry(), route.retry_budget, Facts(), random.Random(1), NOW + 1000.0)  # type: ignore[arg-type]


def asks(way: Attempts, now: float) -> str | tuple[bool, float | None]:
    """The tier it goes to, or whether it may wait for a cold one, and until when it is held."""
    step = way.next(now)
    if isinstance(step, Try):
        return step.tier
    assert isinstance(step, Stop)
    assert step.may_wait == step.cold
    return step.cold, step.spills_in


def test_spill_goes_on_at_once(pools: Any) -> None:
    assert asks(begin(runtime(pools, Spill(when_cold="Spill"))), NOW) == "away"


def test_spill_goes_on_even_where_a_tier_that_is_down_is_not_left(pools: Any) -> None:
    assert asks(begin(runtime(pools, Spill(when_cold="Spill", when_unavailable=False))), NOW) == "away"


def test_hold_stays(pools: Any) -> None:
    way = begin(runtime(pools, Spill(when_cold="Hold")))
    for later in (0.0, 5.0, 500.0):
        assert asks(way, NOW + later) == (True, None)
        way.reopen(way.tiers.all)


def test_hold_then_spill_stays_for_so_long(pools: Any) -> None:
    way = begin(runtime(pools, Spill(when_cold="HoldThenSpill", hold_for="5s")))
    assert asks(way, NOW) == (True, 5.0)
    way.reopen(way.tiers.all)
    assert asks(way, NOW + 4.0) == (True, 1.0)
    way.reopen(way.tiers.all)
    assert asks(way, NOW + 5.0) == "away"


@pytest.mark.parametrize("when", ["Hold", "HoldThenSpill", "Spill"])
def test_a_tier_that_has_been_woken_is_used(pools: Any, when: Any) -> None:
    way = begin(runtime(pools, Spill(when_cold="Hold")))
    assert asks(way, NOW) == (True, None)
    way.reopen(runtime(pools, Spill(when_cold=when), home=1).routes.all[0].rules[0])
    assert asks(way, NOW + 30.0) == "home"


def test_what_has_nowhere_to_go_waits_for_what_is_woken(pools: Any) -> None:
    assert asks(begin(runtime(pools, None, away=None)), NOW) == (True, None)
    assert asks(begin(runtime(pools, Spill(when_cold="Spill"), away=0)), NOW) == (True, None)


def test_without_scaling_it_is_only_unavailable(pools: Any) -> None:
    for when in ("Hold", "HoldThenSpill"):
        assert asks(begin(runtime(pools, Spill(when_cold=when), wakes=False)), NOW) == "away"
    assert asks(begin(runtime(pools, None, away=None, wakes=False)), NOW) == (False, None)


def test_a_tier_with_endpoints_is_not_cold_though_they_are_down(pools: Any) -> None:
    served = runtime(pools, Spill(when_cold="Hold"), home=1)
    (endpoint,) = served.pools["default/home"].endpoints.values()
    endpoint.keyed = False
    assert asks(begin(served), NOW) == "away"


def test_one_pool_of_a_tier_that_is_awake_is_enough(pools: Any) -> None:
    asleep = replace(pools.spec(0), name="default/asleep", wakes=True)
    awake = replace(pools.spec(1), name="default/awake")
    targets = (snapshot.Target("default/asleep"), snapshot.Target("default/awake"))
    tier = snapshot.RouteTier("both", targets, "InOrder", ("Capacity",))
    route = snapshot.Route("default/chat", ("chat",), (snapshot.RouteRule("all", (tier,)),), Timeouts(), Retry())
    served = Runtime(snapshot.Snapshot("default", (asleep, awake), (route,)))
    assert asks(begin(served), NOW) == "both"
    assert report(served, {}, {}, NOW, 0.0).wanted == ("default/asleep",), "the request would have had it"


def test_what_was_asked_for_lately_is_wanted_and_told(pools: Any) -> None:
    served = runtime(pools, Spill(when_cold="Spill"))
    pool = served.pools["default/home"]
    told = report(served, {}, {}, NOW, 0.0)
    assert told.wanted == ()
    assert [(each.tier, each.state) for each in told.tiers] == [("home", "Cold")]
    begin(served).next(NOW)
    assert report(served, {}, {}, NOW + 1, 0.0).wanted == ("default/home",)
    assert not is_wanted(pool, NOW + WANTED)
    awake = Runtime(
        replace(served.spec, pools=(replace(pools.spec(1), name="default/home"), served.spec.pools[1])), served
    )
    assert report(awake, {}, {}, NOW + 1, 0.0).wanted == ()
