"""RoundRobin and WeightedRoundRobin: exact shares, even spacing, and nobody starved by others who come and go."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from math import gcd

from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.types import Dispatch
from spillway_balancer.core.strategies import Ask, Candidate, Strategy
from spillway_balancer.core.strategies.round_robin import RoundRobin
from spillway_balancer.core.strategies.weighted_round_robin import WeightedRoundRobin

ASK = Ask(None, 1.0)


def turns(strategy: Strategy, candidates: Sequence[Candidate], count: int, seed: int = 0) -> str:
    dice = random.Random(seed)
    choices = [strategy.choose(ASK, candidates, dice) for _ in range(count)]
    return "".join(choice.name for choice in choices if choice)


def weighted(weights: dict[str, int]) -> tuple[WeightedRoundRobin, list[Candidate]]:
    return WeightedRoundRobin(weights, Dispatch()), [Candidate(n, w) for n, w in weights.items()]


def test_round_robin_takes_each_in_turn_whatever_its_load() -> None:
    candidates = [Candidate("a", 100, 9.0, 9), Candidate("b", 900), Candidate("c")]
    order = turns(RoundRobin({"a": 100, "b": 900, "c": 100}, Dispatch()), candidates, 9)
    assert order in "abcabcabcabc"


@given(st.lists(st.sets(st.sampled_from("bcdef")), min_size=1, max_size=60), st.integers(0, 99))
@settings(deadline=None)
def test_round_robin_starves_nobody_while_others_come_and_go(crowds: list[set[str]], seed: int) -> None:
    """Who is always there is chosen at least once in every round of all members."""
    members = dict.fromkeys("abcdef", 100)
    strategy, dice = RoundRobin(members, Dispatch()), random.Random(seed)
    waited = 0
    for crowd in crowds:
        here = [Candidate(name) for name in members if name == "a" or name in crowd]
        choice = strategy.choose(ASK, here, dice)
        assert choice is not None
        waited = 0 if choice.name == "a" else waited + 1
        assert waited < len(members)


def test_smooth_as_nginx_interleaves() -> None:
    strategy, candidates = weighted({"a": 5, "b": 1, "c": 1})
    assert turns(strategy, candidates, 7) in "aabacaa" * 2


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 2**32))
@settings(deadline=None)
def test_weights_are_exact_over_a_cycle_wherever_it_begins(weights: list[int], seed: int) -> None:
    members = dict(zip("abcdef", weights, strict=False))
    strategy, candidates = weighted(members)
    cycle = sum(weights) // gcd(*weights)
    skipped = random.Random(seed).randrange(cycle)
    turns(strategy, candidates, skipped, seed)
    shares = Counter(turns(strategy, candidates, cycle, seed))
    assert shares == {name: weight // gcd(*weights) for name, weight in members.items()}


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=8), st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_shares_are_right_at_every_moment_not_only_at_the_end(weights: list[int], seed: int) -> None:
    """Interleaved: after any number of turns nobody is further than n turns from its exact share."""
    members = dict(zip("abcdefgh", weights, strict=False))
    strategy, candidates = weighted(members)
    shares: Counter[str] = Counter()
    for number, name in enumerate(turns(strategy, candidates, 300, seed), 1):
        shares[name] += 1
        for each, weight in members.items():
            assert abs(shares[each] - number * weight / sum(weights)) < len(members)


def test_weighted_round_robin_gives_no_burst_to_one_that_comes_back() -> None:
    strategy, candidates = weighted({"a": 100, "b": 100, "c": 100})
    turns(strategy, candidates, 10)
    turns(strategy, candidates[:2], 1000)
    assert 9 <= turns(strategy, candidates, 30).count("c") <= 11


@given(st.lists(st.sets(st.sampled_from("bcd")), min_size=1, max_size=80), st.integers(0, 99))
@settings(deadline=None)
def test_weighted_round_robin_starves_nobody_while_others_come_and_go(crowds: list[set[str]], seed: int) -> None:
    members = {"a": 100, "b": 300, "c": 100, "d": 50}
    strategy, dice = WeightedRoundRobin(members, Dispatch()), random.Random(seed)
    waited = 0
    for crowd in crowds:
        here = [Candidate(name, weight) for name, weight in members.items() if name == "a" or name in crowd]
        choice = strategy.choose(ASK, here, dice)
        assert choice is not None
        waited = 0 if choice.name == "a" else waited + 1
        assert waited <= 3 * sum(members.values()) // members["a"]


def test_extreme_weights_start_in_bounded_time() -> None:
    """A cycle of 64 odd weights has tens of thousands of turns; the start may not play them all."""
    members = {f"endpoint-{number}": 1000 - number for number in range(64)}
    strategy = WeightedRoundRobin(members, Dispatch())
    candidates = [Candidate(name, weight) for name, weight in members.items()]

    class Counting(random.Random):
        bounds: list[int] = []  # noqa: RUF012

        def randrange(self, start: int, *more: int) -> int:  # type: ignore[override]
            self.bounds.append(start)
            return start - 1

    dice = Counting()
    assert strategy.choose(ASK, candidates, dice) is not None
    assert dice.bounds == [64]
