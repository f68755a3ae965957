"""Engines' metrics in the choice of an endpoint: what is broken, old or missing changes nothing, and what is true only
ever speaks for those that have less to do."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spillway_balancer.core.load import Reported
from spillway_balancer.core.pool import Picked, Pool
from spillway_balancer.core.strategies import STRATEGIES

NOW = 1000.0
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
SIZE = 3

absurd = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, -1e-9, 1e308, None])
gauges = st.integers(0, 40).map(float)
shares = st.floats(0, 1)
flights = st.lists(
    st.tuples(
        st.integers(0, SIZE - 1), st.integers(0, 3), st.integers(1, 40), st.sampled_from(["sent", "seen", "done"])
    ),
    max_size=10,
)
"""Requests that are there already: endpoint, what the prompt begins with, its blocks, how far it is."""
asked = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(0, 2**64 - 1)), min_size=1, max_size=5)


def in_traffic(pools: Any, strategy: str, load: str, bound: int, flying: Any) -> Pool:
    pool, dice = pools.pool(SIZE, strategy, load, bound=bound), random.Random(1)
    for place, stem, blocks, state in flying:
        picked = pool.pick(
            pools.want(pools.prompt(("system", 4), (stem, blocks))),
            [each for name, each in pool.endpoints.items() if name != f"e{place}"],
            NOW,
            dice,
        )
        if isinstance(picked, Picked):
            visit = pool.visit(picked, NOW)
            if state != "sent":
                visit.first_token(NOW + 0.1)
            if state == "done":
                visit.end(NOW + 0.2)
    return pool


def choices(pools: Any, pool: Pool, wanted: Any, seed: int, now: float = NOW + 1) -> list[Any]:
    """What becomes of these requests, each on its way when the next one comes."""
    dice, out = random.Random(seed), []
    for stem, blocks, key in wanted:
        picked = pool.pick(pools.want(pools.prompt(("system", 4), (stem, blocks)), key=key), (), now, dice)
        if isinstance(picked, Picked):
            pool.visit(picked, now)
            out.append((picked.choice, picked.forecast))
        else:
            out.append(picked)
    return out


@st.composite
def useless(draw: st.DrawFn) -> Reported:
    """A report that says nothing: absurd or missing throughout, half of a sum, from no time, or too old."""
    kind = draw(st.sampled_from(["absurd", "half", "timeless", "stale"]))
    at = NOW + 1
    waiting: Any = draw(absurd)
    running: Any = draw(absurd)
    if kind == "half":
        waiting, running = draw(st.permutations([draw(gauges), draw(absurd)]))
    elif kind != "absurd":
        waiting, running = draw(gauges), draw(gauges)
        at = draw(st.sampled_from([math.nan, math.inf, -math.inf]) if kind == "timeless" else st.floats(0, NOW - 4.5))
    used, queries, hits = draw(absurd | shares), draw(absurd), draw(absurd)
    own = draw(st.integers(-3, 3))
    return Reported(at, waiting, running, used, own, queries, hits, own, draw(st.floats(-10, 1e6)))


@every_strategy
@given(
    flying=flights,
    wanted=asked,
    reports=st.lists(st.tuples(st.integers(0, SIZE - 1), useless(), absurd), max_size=4),
    load=st.sampled_from(["Requests", "Tokens"]),
    bound=st.sampled_from([0, 0, 3]),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=30)
def test_metrics_that_say_nothing_change_nothing(
    pools, strategy: str, flying: Any, wanted: Any, reports: Any, load: str, bound: int, seed: int
) -> None:
    with_metrics, without = (in_traffic(pools, strategy, load, bound, flying) for _ in range(2))
    for place, report, room in reports:
        with_metrics.endpoints[f"e{place}"].reported(report, room)
    assert choices(pools, with_metrics, wanted, seed) == choices(pools, without, wanted, seed)


@every_strategy
@given(flying=flights, wanted=asked, seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_metrics_that_show_our_own_requests_change_nothing(
    pools, strategy: str, flying: Any, wanted: Any, seed: int
) -> None:
    with_metrics, without = (in_traffic(pools, strategy, "Tokens", 0, flying) for _ in range(2))
    for each in with_metrics.endpoints.values():
        book = each.load
        running = float(book.in_flight - book.pending)
        each.reported(
            Reported(NOW + 1, float(book.pending), running, 0.7, book.in_flight, 9.0, 9.0, book.pending, book.context)
        )
    assert choices(pools, with_metrics, wanted, seed) == choices(pools, without, wanted, seed)


@every_strategy
@given(
    flying=flights,
    waiting=gauges,
    running=gauges,
    used=shares | st.none(),
    place=st.integers(0, SIZE - 1),
    load=st.sampled_from(["Requests", "Tokens"]),
    bound=st.sampled_from([0, 0, 6]),
    key=st.integers(0, 2**64 - 1),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=30)
@example([], 0.0, 1.0, None, 0, "Tokens", 0, 0, 0)
@example([], 0.0, 1.0, None, 2, "Requests", 0, 0, 0)
def test_traffic_of_others_never_makes_an_endpoint_more_attractive(
    pools,
    strategy: str,
    flying: Any,
    waiting: float,
    running: float,
    used: float | None,
    place: int,
    load: str,
    bound: int,
    key: int,
    seed: int,
) -> None:
    """Who was not chosen for a new prompt is not chosen because others have been seen to send there, too.

    Where caches are read, they are seen to send to its neighbour else: that there are others at all tells that what has
    a home is cached there, and makes homes more attractive."""
    loaded, without = (in_traffic(pools, strategy, load, bound, flying) for _ in range(2))
    for pool, at in ((loaded, place), (without, (place + 1) % SIZE))[: 2 if without.wants_prompt else 1]:
        book = pool.endpoints[f"e{at}"].load
        pool.endpoints[f"e{at}"].reported(
            Reported(
                NOW + 1,
                waiting + book.pending,
                running + book.in_flight - book.pending,
                used,
                book.in_flight,
                None,
                None,
                book.pending,
                book.context,
            )
        )
    want = pools.want(pools.prompt(("new", 20)), key=key)
    before = without.pick(want, (), NOW + 1, random.Random(seed))
    after = loaded.pick(want, (), NOW + 1, random.Random(seed))
    if not isinstance(before, Picked):
        assert after == before
        return
    if before.endpoint.name != f"e{place}" and isinstance(after, Picked):
        assert after.endpoint.name != f"e{place}"


@pytest.mark.parametrize("strategy", ["Adaptive", "PrefixCache", "LeastLoad", "PowerOfTwo", "CHWBL"])
def test_traffic_of_others_is_avoided(pools, dice, strategy: str) -> None:
    """One of four is said to hold thirty requests that are not ours; ours go to the others."""
    pool = pools.pool(4, strategy)
    pool.endpoints["e1"].reported(Reported(NOW, 10.0, 20.0, 0.9, 0, None, None))
    sent = []
    for number in range(30):
        picked = pool.pick(pools.want(pools.prompt((number, 8)), key=dice.getrandbits(64)), (), NOW + 1, dice)
        sent.append(pool.visit(picked, NOW + 1).endpoint.name)
    assert sent.count("e1") == 0


def test_known_traffic_of_others_is_forgotten_when_it_is_stale(pools, dice) -> None:
    pool = pools.pool(2)
    pool.endpoints["e1"].reported(Reported(NOW, 10.0, 20.0, 0.9, 0, None, None))
    fresh, stale = (
        {pool.pick(pools.want(pools.prompt((n, 8))), (), NOW + after, dice).endpoint.name for n in range(20)}
        for after in (1.0, 6.0)
    )
    assert fresh == {"e0"}
    assert stale == {"e0", "e1"}


def test_others_take_their_share_of_the_mirror(pools, dice) -> None:
    """Where others fill the engine's cache, less of it is believed to be ours."""
    pool = pools.pool(1)
    endpoint = pool.endpoints["e0"]
    for number in range(40):
        pools.send(pool, pools.prompt((number, 200)), NOW, dice).end(NOW)
    alone = endpoint.cache.idle
    endpoint.reported(Reported(NOW, 0.0, 9.0, 0.5, 0, None, None))
    pools.send(pool, pools.prompt(("a", 10)), NOW, dice).end(NOW)
    assert endpoint.cache.idle <= alone / 2
