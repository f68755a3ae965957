"""Laws of what a gateway goes on with: never a tier that the sidecar has left, no more tries or time than are left."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.core.asked import Asked
from tests.core.test_attempt_laws import FAILURES, TIERS, served
from tests.core.test_shadows import SPILL, moment, pool

from spillway_api import snapshot
from spillway_api.types import DataHandling, Guard, Limits, Requirement, Retry, Timeouts
from spillway_balancer.core.attempts import Attempts, Stop, Try, Wait
from spillway_balancer.core.errors import NoCompliantTarget, NoReadyEndpoint
from spillway_balancer.core.forwarded import Forwarded, gone_on
from spillway_balancer.core.planning import Plan, plan
from spillway_balancer.core.reasons import Failure
from spillway_balancer.core.runtime import Runtime

NOW = 1000.0
Said = partial(Forwarded, 60.0, route="default/chat", rule="all")
"""As a sidecar says it."""


def planned(runtime: Runtime, said: Forwarded) -> Plan:
    return gone_on(plan(runtime.routes, Asked(), moment(now=NOW)), said)


@settings(deadline=None)
@given(
    tiers=TIERS,
    enters=st.integers(0, 3),
    own=st.integers(1, 8),
    left=st.one_of(st.none(), st.integers(0, 8)),
    total=st.floats(0.01, 5.0),
    fails=st.lists(st.tuples(FAILURES, st.booleans(), st.floats(0.0, 0.3), st.booleans()), min_size=10, max_size=10),
    seed=st.integers(0, 99),
)
def test_no_tier_that_was_left_no_try_and_no_time_beyond_what_is_left(
    tiers: list[tuple[int, list[str]]],
    enters: int,
    own: int,
    left: int | None,
    total: float,
    fails: list[tuple[Any, bool, float, bool]],
    seed: int,
) -> None:
    retry = Retry(attempts=own, retry_on=("ConnectError", "Reset", "FirstByteTimeout"))
    runtime = served(tiers, retry, failures=1)
    made = planned(runtime, Forwarded(total, left, "default/chat", "all", tier=f"t{enters}"))
    first = enters if enters < len(tiers) else 0  # no such tier: by what is in force here it has not begun
    assert made.first == first
    assert made.refused is None
    may = {f"t{number}" for number in range(first, len(tiers))}
    most = own if left is None else max(1, min(own, left))
    deadline = NOW + total
    way = Attempts.of(made, Asked(limit=50), random.Random(seed), deadline, 0.0)
    now, tried = NOW, 0
    for failure, hedges, takes, waits in fails:
        step = way.next(now)
        if isinstance(step, Wait):
            assert now + step.seconds < deadline
            now += step.seconds
            step = way.next(now)
        if isinstance(step, Stop):
            if step.may_wait and waits:  # as after its turn in the queue
                way.reopen(made.tiers, made.first)
                continue
            break
        assert isinstance(step, Try)
        assert now < deadline
        steps = [step]
        hedging = way.hedging(step)
        if hedges and hedging is not None and (beside := way.hedge(step, hedging, now)) is not None:
            steps.append(beside)
        now += takes
        for each in steps:
            assert each.tier in may
            tried += 1
            each.pool.failed(each.endpoint, failure, now, now)
            way.failed(each, failure)
        assert tried <= most
    assert isinstance(way.next(deadline), Stop)


def tier(name: str, target: str, **more: Any) -> snapshot.RouteTier:
    return snapshot.RouteTier(
        name, (snapshot.Target(f"default/{target}"),), "Weighted", ("Capacity", "Transient"), **more
    )


def runtime_of(*tiers: snapshot.RouteTier, pools: tuple[snapshot.Pool, ...] = (), **route: Any) -> Runtime:
    rule = snapshot.RouteRule("all", tiers)
    made = snapshot.Route("default/chat", ("chat",), (rule,), Timeouts(), Retry(), **route)
    return Runtime(snapshot.Snapshot("default", pools or tuple(map(pool, "abc")), (made,)))


THREE = (tier("near", "a", spill=SPILL), tier("far", "b"), tier("last", "c"))


def way(made: Plan) -> Attempts:
    return Attempts.of(made, Asked(), random.Random(1), NOW + 60, 0.0)


@pytest.mark.parametrize(
    ("said", "first"),
    [
        (Said(tier="near"), 0),
        (Said(tier="far"), 1),
        (Said(tier="last"), 2),
        (Said(), 0),
        (Said(tier="gone"), 0),
        (Said(rule="other", tier="far"), 0),
        (Said(route="default/other", tier="far"), 0),
        (Said(route="", rule="", tier=""), 0),
    ],
)
def test_it_begins_where_the_sidecar_says_if_both_mean_the_same_rule(said: Forwarded, first: int) -> None:
    made = planned(runtime_of(*THREE), said)
    assert made.first == first
    step = way(made).next(NOW)
    assert isinstance(step, Try)
    assert step.tier == ("near", "far", "last")[first]
    assert step.spilled == (first > 0)


def test_a_tier_that_this_request_has_not_is_passed_for_the_next_one() -> None:
    guard = Guard("eu", require=Requirement(jurisdictions=["EU"]))
    pools = tuple(
        replace(pool(name), data_handling=DataHandling(jurisdictions=("EU",) if eu else ("US",)))
        for name, eu in (("a", True), ("b", False), ("c", True))
    )
    runtime = runtime_of(*THREE, pools=pools, guards=(guard,))
    step = way(planned(runtime, Said(tier="far"))).next(NOW)
    assert isinstance(step, Try)
    assert step.tier == "last"


def test_where_nothing_is_left_of_the_rule_the_client_is_told_why() -> None:
    guard = Guard("eu", require=Requirement(jurisdictions=["EU"]))
    pools = tuple(
        replace(pool(name), data_handling=DataHandling(jurisdictions=("EU",) if eu else ("US",)))
        for name, eu in (("a", True), ("b", False), ("c", False))
    )
    made = planned(runtime_of(*THREE, pools=pools, guards=(guard,)), Said(tier="far"))
    assert isinstance(made.refused, NoCompliantTarget)
    assert made.refused.attempts


def test_a_full_tier_does_not_send_it_back_to_one_that_was_left() -> None:
    pools = (pool("a"), pool("b", bound=1))
    runtime = runtime_of(tier("near", "a", spill=SPILL), tier("far", "b"), pools=pools)
    for _ in range(3):
        step = way(planned(runtime, Said(tier="far"))).next(NOW)
        assert isinstance(step, Try)
        step.pool.visit(step.picked, NOW)
    stop = way(planned(runtime, Said(tier="far"))).next(NOW)
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, NoReadyEndpoint)
    assert stop.may_wait, "in the queue, for room there"


def test_it_goes_back_only_to_what_is_not_tried_here() -> None:
    runtime = runtime_of(*THREE)
    assert planned(runtime, Said(tier="far", home=True)).goes_back
    assert not planned(runtime, Said(tier="far")).goes_back
    assert not planned(runtime, Said(tier="near", home=True)).goes_back
    assert not planned(runtime, Said(tier="far", home=True, rule="other")).goes_back


def test_a_tier_s_limits_hold_for_what_comes_from_sidecars() -> None:
    limits = Limits(requests_per_minute=2)
    runtime = runtime_of(tier("near", "a"), tier("far", "b", limits=limits))
    steps = [way(planned(runtime, Said(tier="far"))).next(NOW) for _ in range(4)]
    assert [isinstance(step, Try) for step in steps] == [True, True, False, False]


def test_its_share_too() -> None:
    runtime = runtime_of(tier("near", "a"), tier("far", "b", limits=Limits(max_share_percent=50)))
    steps = [way(planned(runtime, Said(tier="far"))).next(NOW) for _ in range(10)]
    assert sum(isinstance(step, Try) for step in steps) == 5


def test_a_share_is_one_of_all_requests_those_that_stay_at_the_sidecar_too() -> None:
    runtime = runtime_of(tier("near", "a"), tier("far", "b", limits=Limits(max_share_percent=30)))
    steps = [way(planned(runtime, Said(tier="far", others=4))).next(NOW) for _ in range(10)]
    assert all(isinstance(step, Try) for step in steps), "one of five"
    steps = [way(planned(runtime, Said(tier="far"))).next(NOW) for _ in range(20)]
    assert sum(isinstance(step, Try) for step in steps) == 11, "30 % of 70 in all"


def test_a_copy_that_the_sidecar_sends_is_not_sent_again_and_another_one_is() -> None:
    def mirrored(**mirror: Any) -> Plan:
        copied = snapshot.Mirror(snapshot.Target("default/m"), 100)
        runtime = runtime_of(*THREE, pools=(*map(pool, "abc"), replace(pool("m"), **mirror)), mirror=copied)
        assert plan(runtime.routes, Asked(), moment()).mirror is not None
        assert planned(runtime, Said(route="", rule="")).mirror is not None, "the sidecar has no mirror for it"
        return planned(runtime, Said(tier="far"))

    assert mirrored().mirror is None
    assert mirrored(provider="OpenAI").mirror is not None, "a sidecar cannot send it there"


def test_what_is_kept_of_a_plain_route_is_not_what_was_made_for_a_sidecar() -> None:
    runtime = runtime_of(*THREE)
    planned(runtime, Said(tier="last", attempts=1))
    made = plan(runtime.routes, Asked(), moment())
    assert (made.first, made.most_attempts) == (0, None)


def test_what_a_gateway_gives_back_goes_home_and_was_no_attempt() -> None:
    """The other side of it: a sidecar whose first tier is too busy, with the gateway behind."""
    pools = (pool("a"), pool("b"))
    once = Retry(attempts=1)
    rule = snapshot.RouteRule("all", (tier("near", "a", spill=SPILL), tier("far", "b")))
    route = snapshot.Route("default/chat", ("chat",), (rule,), Timeouts(), once)
    runtime = Runtime(snapshot.Snapshot("default", pools, (route,)))
    made = plan(runtime.routes, Asked(), moment())
    for number in range(12):  # beyond what the ramp takes away
        near = runtime.pools["default/a"]
        endpoint = list(near.endpoints.values())[number % 3]
        endpoint.load.lease(1, 1)
    one = way(made)
    step = one.next(NOW)
    assert isinstance(step, Try)
    assert step.tier == "far"
    assert one.tiers.has_home
    for _ in range(3):  # the pool has three endpoints; a gateway is one
        one.failed(step, Failure("saturated", why="the gateway gives it back"))
        step = one.next(NOW)
        assert isinstance(step, Try)
    assert step.tier == "near"
    one.failed(step, Failure("server-error", 500))
    assert isinstance(one.next(NOW), Stop), "this one was its only attempt"
