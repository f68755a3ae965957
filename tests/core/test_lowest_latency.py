"""LowestLatency: peak EWMA of first tokens, weighed with what is in flight; those not measured are tried soon."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.types import Dispatch
from spillway_balancer.core.strategies import Ask, Candidate, Choice
from spillway_balancer.core.strategies.lowest_latency import LowestLatency

NOW = 1000.0
candidates_of = st.lists(
    st.tuples(st.integers(1, 1000), st.integers(0, 50), st.none() | st.floats(1e-6, 1e4)), min_size=1, max_size=8
).map(lambda rows: [Candidate(f"e{i}", w, float(q), q, latency=took) for i, (w, q, took) in enumerate(rows)])


def choose(candidates: list[Candidate], seed: int = 1) -> Choice:
    strategy = LowestLatency({each.name: each.weight for each in candidates}, Dispatch())
    choice = strategy.choose(Ask(None, 1.0), candidates, random.Random(seed))
    assert choice is not None
    return choice


@given(candidates_of)
@settings(deadline=None)
def test_latency_times_requests_for_its_weight(candidates: list[Candidate]) -> None:
    choice = choose(candidates)
    known = [each.latency for each in candidates if each.latency is not None]
    if not known:
        assert choice.reason == "least-load"
        return
    costs = {
        each.name: (min(known) if each.latency is None else each.latency) * (each.requests + 1) / each.weight
        for each in candidates
    }
    assert costs[choice.name] == min(costs.values())
    assert choice.reason == "lowest-latency"


def test_quicker_one_takes_more_and_the_slow_one_something() -> None:
    """Requests that stay: in proportion to how quick each is."""
    held = {"quick": 0, "slow": 0}
    for seed in range(300):
        candidates = [
            Candidate("quick", 100, requests=held["quick"], latency=0.1),
            Candidate("slow", 100, requests=held["slow"], latency=0.5),
        ]
        held[choose(candidates, seed).name] += 1
    assert held["quick"] == pytest.approx(250, abs=3)


def test_unmeasured_one_is_tried_soon_but_not_by_all() -> None:
    quick, slow = Candidate("quick", latency=0.1), Candidate("slow", latency=2.0)
    assert choose([quick._replace(requests=1), slow, Candidate("new")]).name == "new"
    assert choose([quick, slow, Candidate("new", requests=1)]).name == "quick"
    assert {choose([quick, Candidate("new")], seed).name for seed in range(20)} == {"quick", "new"}


def test_ties_fall_by_dice() -> None:
    candidates = [Candidate(name, latency=0.3) for name in "abc"]
    shares = Counter(choose(candidates, seed).name for seed in range(600))
    assert all(150 < shares[name] < 250 for name in "abc")


def answered(pool: Any, pools: Any, dice: random.Random, name: str, took: float, now: float) -> None:
    visit = pools.send(pool, None, now - took, dice, to=name)
    visit.first_token(now)
    visit.end(now)


def test_endpoint_that_turns_slow_is_left_at_once_and_tried_again_later(pools, dice) -> None:
    pool = pools.pool(2, "LowestLatency")
    answered(pool, pools, dice, "e0", 0.1, NOW)
    answered(pool, pools, dice, "e1", 0.2, NOW)
    assert pool.pick(pools.want(None), (), NOW, dice).choice == Choice("e0", "lowest-latency")
    answered(pool, pools, dice, "e0", 5.0, NOW + 1)
    now = NOW + 1
    while pool.pick(pools.want(None), (), now, dice).endpoint.name == "e1":
        answered(pool, pools, dice, "e1", 0.2, now + 1)
        now += 1
    assert 30 < now - NOW < 300


def test_it_asks_for_no_prompt_and_needs_none(pools, dice) -> None:
    pool = pools.pool(3, "LowestLatency")
    assert not pool.wants_prompt
    sent = Counter(pools.send(pool, None, NOW, dice).endpoint.name for _ in range(30))
    assert set(sent.values()) == {10}  # nothing is measured yet
