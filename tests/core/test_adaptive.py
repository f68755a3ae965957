"""Adaptive: least work while idle, more affinity as queues grow, by weight and speed, and bounded where it is blind."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.types import Chwbl, Dispatch
from spillway_balancer.core.learning import compare
from spillway_balancer.core.strategies import Ask, Candidate
from spillway_balancer.core.strategies.adaptive import ALPHA, BEHIND, BETA, DELTA, Adaptive

NOW = 1000.0
tokens = st.integers(0, 200_000).map(float)


@st.composite
def pools_in_use(draw: st.DrawFn) -> list[Candidate]:
    prompt = draw(st.integers(1, 100_000))
    out = []
    for place in range(draw(st.integers(1, 8))):
        cached = draw(st.integers(0, prompt - 1)) if draw(st.booleans()) else 0
        out.append(
            Candidate(
                f"e{place}",
                draw(st.sampled_from([100, 100, 50, 1000, 1])),
                requests=draw(st.integers(0, 60)),
                miss=float(prompt - cached),
                cached=float(cached),
                queue=draw(tokens),
                pending=float(draw(st.integers(0, 30))),
                context=draw(tokens),
                speed=draw(st.sampled_from([1.0, 1.0, 0.5, 2.0])),
            )
        )
    return out


def chosen(candidates: list[Candidate], seed: int = 1, **chwbl: Any) -> str:
    strategy = Adaptive({each.name: each.weight for each in candidates}, Dispatch(chwbl=Chwbl(**chwbl)))
    choice = strategy.choose(Ask(None, 1.0), candidates, random.Random(seed))
    assert choice is not None
    assert choice.reason == (
        "prefix" if next(each for each in candidates if each.name == choice.name).cached else "least-work"
    )
    return choice.name


@given(pools_in_use())
@settings(deadline=None)
def test_it_is_the_formula_of_the_docs(candidates: list[Candidate]) -> None:
    waiting = sum(each.pending for each in candidates) / len(candidates)
    mean = sum(each.weight * each.speed for each in candidates) / len(candidates)

    def cost(at: Candidate) -> float:
        share = at.weight * at.speed / mean
        behind = min(waiting * share, BEHIND * at.pending + 1)
        return (at.queue + at.miss * (1 + BETA * behind + ALPHA * at.requests) + DELTA * at.context) / share

    name = chosen(candidates)
    mine = next(cost(each) for each in candidates if each.name == name)
    assert mine == pytest.approx(min(map(cost, candidates)))


@pytest.mark.parametrize(
    ("queues", "costs"),
    [
        ([(0, 0), (500, 1), (900, 1)], [2160, 4950, 4590]),
        ([(4000, 3), (500, 1), (900, 1)], [6760, 7350, 6390]),
        ([(3600, 3), (3000, 2), (4000, 3)], [6960, 12250, 11290]),
    ],
)
def test_worked_example_of_the_docs(queues: list[tuple[int, int]], costs: list[int]) -> None:
    """One that is not the best is, if its queue is shorter by a token more than it is behind, and not by one less."""
    known = [(6, 14_000.0, 1800.0), (2, 3000.0, 0.0), (3, 6000.0, 600.0)]
    pool = [
        Candidate(f"gpu-{place}", 100, 0.0, requests, 2400 - cached, cached, float(queue), float(pending), context)
        for place, ((requests, context, cached), (queue, pending)) in enumerate(zip(known, queues, strict=True), 1)
    ]
    least = min(costs)
    assert chosen(pool) == f"gpu-{costs.index(least) + 1}"
    for place, cost in enumerate(costs):
        if cost > least:
            at = pool[place]
            for more, wins in ((-1.0, True), (1.0, False)):
                moved = [*pool[:place], at._replace(queue=at.queue - (cost - least) + more), *pool[place + 1 :]]
                assert (chosen(moved) == at.name) == wins


@given(pools_in_use())
@settings(deadline=None)
def test_idle_pool_sends_by_least_work(candidates: list[Candidate]) -> None:
    idle = [
        each._replace(weight=100, requests=0, queue=0.0, pending=0.0, context=0.0, speed=1.0) for each in candidates
    ]
    name = chosen(idle)
    assert next(each.miss for each in idle if each.name == name) == min(each.miss for each in idle)


@given(pools_in_use(), st.integers(0, 100), st.integers(1, 100))
@settings(deadline=None)
def test_affinity_grows_with_the_queues(candidates: list[Candidate], before: int, more: int) -> None:
    """Deeper queues everywhere, the same differences between them: nobody is chosen who has less of the prompt."""
    even = [each._replace(weight=100, speed=1.0, requests=0) for each in candidates]
    short = chosen([each._replace(pending=float(before)) for each in even])
    long = chosen([each._replace(pending=float(before + more)) for each in even])
    missing = {each.name: each.miss for each in even}
    assert missing[long] <= missing[short]


def test_warm_endpoint_is_worth_a_queue_and_worth_more_where_all_queue() -> None:
    warm = Candidate("warm", miss=100.0, cached=1400.0, queue=2000.0)
    cold = Candidate("cold", miss=1500.0)
    busy = Candidate("busy", miss=1500.0, queue=1e6)
    assert chosen([warm._replace(queue=1300.0), cold]) == "warm"
    assert chosen([warm, cold, busy]) == "cold"
    assert chosen([warm, cold, busy._replace(pending=6.0)]) == "warm"


def test_prefill_keeps_away_from_crowded_decoding_and_memory_evens_out() -> None:
    crowded, quiet = Candidate("crowded", miss=1000.0, requests=40), Candidate("quiet", miss=1000.0, queue=500.0)
    assert chosen([crowded, quiet]) == "quiet"
    assert chosen([crowded._replace(requests=5), quiet]) == "crowded"
    full, empty = Candidate("full", miss=1000.0, context=90_000.0), Candidate("empty", miss=1000.0)
    assert chosen([full, empty]) == "empty"


def test_ties_fall_by_dice() -> None:
    candidates = [Candidate(name, miss=500.0) for name in "abc"] + [Candidate("worse", miss=501.0)]
    shares = Counter(chosen(candidates, seed) for seed in range(600))
    assert set(shares) == set("abc")
    assert all(150 < share < 250 for share in shares.values())


# ---- with the pool around it


def held(pool: Any, pools: Any, dice: random.Random, count: int) -> Counter[str]:
    """Where so many requests go that have nothing in common and have no first token yet."""
    visits = [pools.send(pool, pools.prompt((number, 10)), NOW, dice) for number in range(count)]
    return Counter(each.endpoint.name for each in visits)


def test_twice_the_weight_takes_twice_the_load(pools, dice) -> None:
    shares = held(pools.pool([200, 100, 100]), pools, dice, 800)
    assert shares["e0"] == pytest.approx(400, rel=0.05)
    assert shares["e1"] == pytest.approx(200, rel=0.05)


def taught(pool: Any, *rates: float) -> None:
    """Each endpoint has had requests to itself, and computed them at its rate."""
    for number in range(30):
        for endpoint, rate in zip(pool.endpoints.values(), rates, strict=True):
            endpoint.learned.first_token(8000 / rate, 8000.0, NOW - 100 + number)
            endpoint.learned.computed_alone(1.0, 8000 / rate)
    compare(each.learned for each in pool.endpoints.values())


def test_endpoint_half_as_fast_takes_half_the_load(pools, dice) -> None:
    pool = pools.pool(4)
    taught(pool, 10_000, 10_000, 10_000, 5_000)
    shares = held(pool, pools, dice, 700)
    assert shares["e3"] == pytest.approx(100, rel=0.1)
    assert shares["e0"] == pytest.approx(200, rel=0.1)


def test_speeds_that_hardly_differ_change_nothing(pools, dice) -> None:
    pool = pools.pool(4)
    taught(pool, 10_000, 10_900, 9_300, 10_000)
    assert set(held(pool, pools, dice, 400).values()) == {100}


@pytest.mark.parametrize(
    ("weights", "rates"), [([100] * 4, [8000.0] * 4), ([200, 100, 100], [16_000.0, 8000.0, 8000.0])]
)
def test_load_that_flows_is_shared_by_what_each_can_take(pools, engines, dice, weights: Any, rates: Any) -> None:
    """New prompts at 80 % of the capacity: shares as the weights, and nobody waits long."""
    pool = pools.pool(weights)
    engine = engines(pool, rates, decode=1.0)
    sent: Counter[str] = Counter()
    for number in range(1500):
        visit = engine.send(pools.prompt((number, 25)), dice)
        sent[visit.endpoint.name] += 1
        engine.until(engine.now + dice.expovariate(0.8 * sum(rates) / (25.5 * pools.block_tokens)))
    for name, weight in zip(pool.endpoints, weights, strict=True):
        assert sent[name] == pytest.approx(1500 * weight / sum(weights), rel=0.1)
    engine.drain()
    assert sorted(engine.took)[int(0.99 * len(engine.took))] < 1.0


def test_sessions_return_to_their_cache_while_that_is_cheaper(pools, dice) -> None:
    pool = pools.pool(4)
    home = {}
    for session in range(12):
        visit = pools.send(pool, pools.prompt(("system", 10), (session, 20)), NOW, dice)
        home[session] = visit.endpoint.name
        visit.first_token(NOW + 0.2)
        visit.end(NOW + 1)
    for session in range(12):
        picked = pool.pick(pools.want(pools.prompt(("system", 10), (session, 24))), (), NOW + 2, dice)
        assert (picked.endpoint.name, picked.choice.reason) == (home[session], "prefix")
        assert picked.forecast.cached_tokens == 30 * 64
    # The home of one gets a queue that costs more than its prompt.
    long = pools.send(pool, pools.prompt(("long", 1000)), NOW + 3, dice, to=home[0])
    next_turn = pools.want(pools.prompt(("system", 10), (0, 24)))
    assert pool.pick(next_turn, (), NOW + 3, dice).endpoint.name != home[0]
    long.end(NOW + 9)
    assert pool.pick(next_turn, (), NOW + 9, dice).endpoint.name == home[0]


def test_hot_prefix_spreads_over_the_pool_and_is_computed_once_on_each(pools, engines, dice) -> None:
    """All share a system prompt of 12,800 tokens: one endpoint cannot serve them all, and four need it four times."""
    pool = pools.pool(4)
    engine = engines(pool, [8000.0] * 4, decode=2.0)
    sent: Counter[str] = Counter()
    computed = 0.0
    for number in range(400):
        before = {name: each.load.pending_tokens for name, each in pool.endpoints.items()}
        visit = engine.send(pools.prompt(("system", 200), (number, 10)), dice)
        name = visit.endpoint.name
        sent[name] += 1
        computed += visit.endpoint.load.pending_tokens - before[name]
        engine.until(engine.now + dice.expovariate(0.8 * 32_000 / 665))
    assert min(sent.values()) > 60
    assert computed == pytest.approx(400 * 665 + 4 * 12_800, rel=0.02)


def test_where_it_is_blind_nobody_gets_more_than_his_share(pools, dice) -> None:
    """The home of a hot prefix answers far later than everything known explains: the bound of CHWBL stands in."""
    pool = pools.pool(4, min_in_flight=2)
    system = pools.prompt(("system", 200))
    first = pools.send(pool, system, NOW, dice, to="e0")
    first.first_token(NOW + 1)
    first.end(NOW + 2)
    blind = pool.endpoints["e0"].learned
    taught(pool, 10_000, 10_000, 10_000, 10_000)

    def sent(count: int) -> Counter[str]:
        visits = [
            pools.send(pool, pools.prompt(("system", 200), (number, 1)), NOW + 3, dice) for number in range(count)
        ]
        shares = Counter(each.endpoint.name for each in visits)
        for each in visits:
            each.end(NOW + 3, ok=False)
        for each in pool.endpoints.values():
            each.cache.forget()
        return shares

    warm = pools.blocks(("system", 200))
    assert sent(40)["e0"] > 15
    for number in range(20):
        blind.first_token(100.0, 500.0, NOW + 3 + number)
    assert not blind.trusted
    pool.endpoints["e0"].cache.pin(warm).unpin()
    assert sent(40)["e0"] <= 1.25 * 41 / 4 + 1


def test_if_nobody_is_trusted_somebody_still_serves() -> None:
    candidates = [Candidate(name, requests=number, miss=500.0, trusted=False) for number, name in enumerate("abc", 5)]
    assert chosen(candidates) in "abc"
    assert chosen([Candidate("only", requests=99, miss=1.0, trusted=False)]) == "only"


@given(pools_in_use(), st.lists(st.booleans(), min_size=8, max_size=8), st.integers(100, 300), st.integers(0, 4))
@settings(deadline=None)
def test_untrusted_are_within_their_bound(
    candidates: list[Candidate], trusted: list[bool], factor: int, least: int
) -> None:
    candidates = [each._replace(trusted=trust) for each, trust in zip(candidates, trusted, strict=False)]
    name = chosen(candidates, load_factor_percent=factor, min_in_flight=least)
    total, weight = 1 + sum(each.requests for each in candidates), sum(each.weight for each in candidates)

    def may(at: Candidate) -> bool:
        return at.trusted or at.requests < least or at.requests < factor / 100 * total / weight * at.weight

    assert may(next(each for each in candidates if each.name == name)) or not any(map(may, candidates))
