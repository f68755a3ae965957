"""What is told of loads, and what is made of it: whoever has heard all of it is never far from what was scraped."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from spillway_api import stream
from spillway_api.stream import EndpointLoad, Loads, PoolLoad
from spillway_api.types import ActiveHealth
from spillway_balancer.core.health import ProbeState
from spillway_balancer.core.hearsay import Hearsay
from spillway_balancer.core.load import LoadBook, Reported
from spillway_balancer.core.past import GRAIN, HORIZON, Past
from spillway_balancer.core.pool import Picked, Pool
from spillway_balancer.core.reasons import Failure
from spillway_balancer.core.sharing import EXACT, KV_STEP, Sharing

SCRAPED_AGO = 0.2
requests = st.none() | st.integers(0, 12) | st.integers(0, 3000)
readings = st.tuples(requests, requests, st.none() | st.floats(0.0, 1.0))
endings = st.sampled_from([None, True, False])
worlds = st.dictionaries(st.integers(0, 4), st.tuples(readings, endings), max_size=5)
"""By the number of an endpoint that is there: what its engine and its probes say."""


def told(sharing: Sharing, pools: dict[str, Pool], now: float, due: bool = True) -> Loads | None:
    """Also what it is after the wire."""
    work = sharing.news(pools, now, due)
    try:
        while True:
            next(work)
    except StopIteration as done:
        if done.value is None:
            return None
        loads = stream.from_operator(stream.encode(done.value))
        assert isinstance(loads, Loads)
        return loads


class Gateway:
    """Endpoints of one pool as a gateway finds them, and what it tells."""

    def __init__(self, pools: Any) -> None:
        self.spec = pools.spec(5)
        self.pool = Pool(self.spec)
        self.sharing = Sharing()

    def finds(self, world: dict[int, Any], now: float) -> None:
        there = tuple(self.spec.endpoints[number] for number in sorted(world))
        self.pool = Pool(replace(self.spec, endpoints=there), self.pool)
        for number, ((waiting, running, used), healthy) in world.items():
            endpoint = self.pool.endpoints[f"e{number}"]
            endpoint.probe = ProbeState(healthy)
            endpoint.load.reported(Reported(now - SCRAPED_AGO, waiting, running, used, 0, None, None))

    def tells(self, now: float, due: bool = True) -> Loads | None:
        return told(self.sharing, {self.pool.name: self.pool}, now, due)


def near(told: float | None, real: float | None, step: float) -> bool:
    if told is None or real is None:
        return told is real
    return told == real or (bool(told and real) and abs(told - real) < max(step, told * step / EXACT))


@given(st.lists(st.tuples(worlds, st.booleans()), min_size=1, max_size=12))
@settings(deadline=None)
def test_who_hears_all_of_it_is_never_far_from_the_last_scrape(pools: Any, story: Any) -> None:
    gateway = Gateway(pools)
    known: dict[str, EndpointLoad] = {}
    for second, (world, due) in enumerate(story):
        gateway.finds(world, float(second))
        loads = gateway.tells(float(second), due)
        if due or not second:
            assert loads is not None
        if loads is None:
            loads = Loads()
        assert loads.whole is (not second)
        for pool in loads.pools:
            assert pool.pool == "default/pool"
            for each in pool.endpoints:
                assert known.get(each.endpoint) != each, "told twice"
                known[each.endpoint] = each
        for name, each in known.items():
            if int(name[1:]) not in world:
                assert each == EndpointLoad(name)  # at once, due or not
        for number, ((waiting, running, used), healthy) in world.items():
            last = known.get(f"e{number}", EndpointLoad(f"e{number}"))
            if healthy is False:
                assert last.healthy is False  # at once
            if due or not second:
                assert last.healthy is healthy
                assert near(last.waiting, waiting, 1.0)
                assert near(last.running, running, 1.0)
                assert near(last.kv_usage, used, KV_STEP)


def test_nothing_is_told_where_nothing_has_changed_enough(pools: Any) -> None:
    gateway = Gateway(pools)
    gateway.finds({0: ((0, 100, 0.5), True), 1: ((0, 0, 0.0), True)}, 1.0)
    assert len(gateway.tells(1.0).pools[0].endpoints) == 2
    gateway.finds({0: ((0, 111, 0.53), True), 1: ((0, 0, 0.0), True)}, 2.0)
    assert gateway.tells(2.0) == Loads()
    assert gateway.tells(2.1, due=False) is None
    gateway.finds({0: ((0, 113, 0.53), True), 1: ((0, 1, 0.0), True)}, 3.0)
    assert gateway.tells(3.0, due=False) is None
    assert [each.running for each in gateway.tells(3.0).pools[0].endpoints] == [113, 1]


def test_what_a_gateway_itself_does_not_know_any_more_is_told_as_unknown(pools: Any) -> None:
    gateway = Gateway(pools)
    gateway.finds({0: ((3, 4, 0.5), None)}, 1.0)
    assert gateway.tells(1.0).pools[0].endpoints[0].ago == SCRAPED_AGO
    assert gateway.tells(7.0) == Loads((PoolLoad("default/pool", (EndpointLoad("e0"),)),))  # staleAfter is 5 s
    assert gateway.tells(8.0) == Loads()


# ---- what is made of it


def said(*endpoints: EndpointLoad, whole: bool = False) -> Loads:
    return Loads((PoolLoad("default/pool", endpoints),), whole)


def hear(hearsay: Hearsay, loads: Loads, pools: dict[str, Pool], now: float) -> None:
    for _ in hearsay.heard(loads, pools, now):
        pass


def visit(pools: Any, pool: Pool, now: float) -> Any:
    picked = pool.pick(pools.want(None), (), now, random.Random(1))
    assert isinstance(picked, Picked)
    return pool.visit(picked, now)


def test_own_requests_at_the_time_of_the_scrape_are_taken_off(pools: Any) -> None:
    pool, hearsay = pools.pool(1), Hearsay()
    book, all_pools = pool.endpoints["e0"].load, {pool.name: pool}
    hear(hearsay, said(EndpointLoad("e0", 0.0, 0.0, 0.0), whole=True), all_pools, 100.0)
    first, second = visit(pools, pool, 101.0), visit(pools, pool, 102.0)
    third, fourth = visit(pools, pool, 103.0), visit(pools, pool, 103.0)
    hear(hearsay, said(EndpointLoad("e0", 1.5, 1.0, 5.0)), all_pools, 104.0)  # of 102.5: two of the six were own
    assert book.in_flight == 4
    assert book.others(104.0, 5.0) == 4
    for each in (first, second, third, fourth):
        each.end(105.0)
    assert book.requests(105.0, 5.0) == 4
    hear(hearsay, Loads(), all_pools, 107.0)  # it is as it was, at 105.5, where nothing is own
    assert book.requests(107.0, 5.0) == 6
    assert book.requests(111.0, 5.0) == 0  # stale


def test_health_is_that_of_others_until_it_is_stale(pools: Any) -> None:
    pool, hearsay = pools.pool(2), Hearsay()
    all_pools = {pool.name: pool}
    hear(hearsay, said(EndpointLoad("e0", healthy=False), EndpointLoad("e1", healthy=True), whole=True), all_pools, 1.0)
    assert pool.ready(1.0) == 1
    hear(hearsay, Loads(), all_pools, 6.5)
    hearsay.lapse(all_pools, 11.0)
    assert pool.ready(11.0) == 1
    hearsay.lapse(all_pools, 12.0)
    assert pool.ready(12.0) == 2
    assert {each.probe for each in pool.endpoints.values()} == {ProbeState()}
    hear(hearsay, Loads(), all_pools, 13.0)  # the same connection speaks on
    assert pool.ready(13.0) == 1
    hear(hearsay, Loads(whole=True), all_pools, 14.0)  # a new one, and nobody has probed yet
    assert pool.ready(14.0) == 2


def test_an_endpoint_that_has_come_back_is_started_slowly_again(pools: Any) -> None:
    pool, hearsay = pools.pool(1), Hearsay()
    pool.endpoints["e0"].since = 1.0
    hear(hearsay, said(EndpointLoad("e0", healthy=False)), {pool.name: pool}, 2.0)
    hear(hearsay, said(EndpointLoad("e0", healthy=True)), {pool.name: pool}, 3.0)
    assert pool.endpoints["e0"].since is None


def test_an_ejected_endpoint_waits_for_no_probe_that_is_never_sent(pools: Any) -> None:
    pool, hearsay = pools.pool(1), Hearsay()
    endpoint, all_pools = pool.endpoints["e0"], {pool.name: pool}
    hear(hearsay, said(EndpointLoad("e0", healthy=True)), all_pools, 1.0)
    for _ in range(3):
        pool.failed(endpoint, Failure("connect"), 2.0, 2.0)
    assert endpoint.circuit.ejected_until is not None
    hear(hearsay, Loads(), all_pools, 3.0)
    assert not endpoint.circuit.admits(3.0)
    assert endpoint.circuit.admits(60.0)


def test_what_is_told_of_a_pool_that_comes_later_is_kept_for_it(pools: Any) -> None:
    pool, hearsay = pools.pool(1), Hearsay()
    hear(hearsay, said(EndpointLoad("e0", 0.0, 0.0, 7.0, engine="vLLM", cache_tokens=50_000.0)), {}, 1.0)
    hear(hearsay, Loads(), {pool.name: pool}, 2.0)
    endpoint = pool.endpoints["e0"]
    assert endpoint.load.requests(2.0, 5.0) == 7
    assert endpoint.dialect == "vLLM"
    assert endpoint.learned.cache_tokens == 50_000.0


@given(st.lists(st.tuples(readings, endings), min_size=1, max_size=8))
@settings(deadline=None)
def test_a_sidecar_without_requests_knows_what_the_gateway_knows(pools: Any, story: Any) -> None:
    gateway, beside, hearsay = Gateway(pools), pools.pool(5), Hearsay()
    for second, (reading, healthy) in enumerate(story):
        now = float(second)
        gateway.finds({0: (reading, healthy)}, now)
        loads = gateway.tells(now)
        assert loads is not None
        hear(hearsay, loads, {beside.name: beside}, now)
        theirs, ours = gateway.pool.endpoints["e0"], beside.endpoints["e0"]
        assert theirs.probe.healthy is ours.probe.healthy
        known, real = ours.load.requests(now, 5.0), theirs.load.requests(now, 5.0)
        assert abs(known - real) <= 2 + real / 4


# ---- one's own past


@given(st.lists(st.tuples(st.floats(0.0, 2.0), st.booleans()), max_size=60), st.floats(0.0, HORIZON))
def test_the_past_is_remembered_to_a_moment(steps: Any, ago: float) -> None:
    book, past, now = LoadBook(), None, 50.0
    past = Past(book)
    real = [(float("-inf"), 0)]
    leases: list[Any] = []
    for pause, comes in steps:
        now += pause
        if comes or not leases:
            leases.append(book.lease(10, 10))
        else:
            leases.pop().release()
        past.note(now, book)
        real.append((now, book.in_flight))
    when = now - ago
    near = {number for at, number in real if when - GRAIN <= at <= when + GRAIN}
    near.add(max(each for each in enumerate(real) if each[1][0] <= when)[1][1])
    near.add(max((each for each in enumerate(real) if each[1][0] <= when - GRAIN), default=(0, (0.0, 0)))[1][1])
    assert past.at(when).in_flight in near


def test_a_busy_endpoint_costs_no_more_memory_than_the_horizon() -> None:
    book = LoadBook()
    past = Past(book)
    for step in range(100_000):
        book.lease(1, 1).release()
        past.note(step / 1000, book)
    assert len(past._moments) <= HORIZON / GRAIN + 2


@pytest.mark.parametrize("healthy", [True, False, None])
def test_probes_of_one_s_own_are_told_as_they_end(pools: Any, healthy: bool | None) -> None:
    gateway = Gateway(pools)
    gateway.finds({0: ((None, None, None), None)}, 1.0)
    assert gateway.tells(1.0) == Loads(whole=True)  # nothing is known of it
    endpoint = gateway.pool.endpoints["e0"]
    if healthy is not None:
        for _ in range(3):
            endpoint.probed(healthy, ActiveHealth(), None)
    loads = gateway.tells(2.0)
    assert loads is not None
    assert [each.healthy for pool in loads.pools for each in pool.endpoints] == ([] if healthy is None else [healthy])
