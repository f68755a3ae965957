"""Random, PowerOfTwo and LeastLoad: what each does with load, weights and dice."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.types import Dispatch
from spillway_balancer.core.strategies import STRATEGIES, Ask, Candidate
from spillway_balancer.core.strategies.least_load import LeastLoad
from spillway_balancer.core.strategies.power_of_two import PowerOfTwo
from spillway_balancer.core.strategies.random import Random

ASK = Ask(None, 1.0)
pools = st.lists(
    st.tuples(st.integers(1, 1000), st.floats(0, 1000, allow_subnormal=False)), min_size=1, max_size=8
).map(lambda rows: [Candidate(f"e{place}", weight, load, int(load)) for place, (weight, load) in enumerate(rows)])


def weights(candidates: list[Candidate]) -> dict[str, int]:
    return {each.name: each.weight for each in candidates}


class Noted(random.Random):
    """Dice that remember what they showed."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.shown: list[int] = []

    def randrange(self, start: int, *more: int) -> int:  # type: ignore[override]
        self.shown.append(super().randrange(start))
        return self.shown[-1]


@pytest.mark.parametrize("strategy", [Random, PowerOfTwo])
def test_idle_endpoints_share_by_weight(strategy: type[Random | PowerOfTwo]) -> None:
    """PowerOfTwo favours the heavy one of two idle ones; Random keeps to the weights."""
    members = {"a": 100, "b": 200, "c": 700}
    dice = random.Random(11)
    chosen = strategy(members, Dispatch())
    candidates = [Candidate(*member) for member in members.items()]
    shares = Counter(choice.name for _ in range(5000) if (choice := chosen.choose(ASK, candidates, dice)))
    assert shares["a"] < shares["b"] < shares["c"]
    if strategy is Random:
        for name, weight in members.items():
            assert shares[name] / 5000 == pytest.approx(weight / 1000, abs=0.025)


@pytest.mark.parametrize("name", ["PowerOfTwo", "LeastLoad"])
def test_held_load_settles_in_proportion_to_weight(name: str) -> None:
    """Requests that stay: the endpoint with ten times the weight ends up with ten times the load."""
    members = {"big": 1000, "small": 100, "other": 100}
    strategy, dice = STRATEGIES[name](members, Dispatch()), random.Random(5)
    held = dict.fromkeys(members, 0)
    for _ in range(1200):
        candidates = [Candidate(n, w, float(held[n]), held[n]) for n, w in members.items()]
        choice = strategy.choose(ASK, candidates, dice)
        assert choice is not None
        held[choice.name] += 1
    assert held["big"] == pytest.approx(1000, rel=0.05)
    assert held["small"] == pytest.approx(100, rel=0.3)


@given(pools, st.integers(0, 2**32))
@settings(deadline=None)
def test_power_of_two_takes_the_better_of_its_two(candidates: list[Candidate], seed: int) -> None:
    same = [each._replace(weight=100) for each in candidates]
    dice = Noted(seed)
    choice = PowerOfTwo(weights(same), Dispatch()).choose(ASK, same, dice)
    assert choice is not None
    if len(same) == 1:
        assert not dice.shown
        return
    first, second = dice.shown
    second += second >= first
    assert first != second
    assert choice.name in {same[first].name, same[second].name}
    chosen = next(each for each in same if each.name == choice.name)
    assert chosen.load + 1 == min(same[first].load, same[second].load) + 1


@given(pools, st.integers(0, 2**32))
@settings(deadline=None)
def test_power_of_two_never_takes_the_worst_of_all(candidates: list[Candidate], seed: int) -> None:
    """It always looks at two different ones, whatever the weights."""
    choice = PowerOfTwo(weights(candidates), Dispatch()).choose(ASK, candidates, random.Random(seed))
    assert choice is not None
    by_share = sorted((each.load + 1) / each.weight for each in candidates)
    chosen = next(each for each in candidates if each.name == choice.name)
    if len(candidates) > 1 and by_share[-1] > by_share[-2] * (1 + 1e-9):
        assert (chosen.load + 1) / chosen.weight < by_share[-1]


def test_power_of_two_is_far_more_even_than_random() -> None:
    """Mitzenmacher's result: the fullest of n bins has about log log n, not log n, above the mean."""
    members = {f"e{number}": 100 for number in range(50)}

    def fullest(name: str) -> int:
        strategy, dice = STRATEGIES[name](members, Dispatch()), random.Random(2)
        held = dict.fromkeys(members, 0)
        for _ in range(500):
            choice = strategy.choose(ASK, [Candidate(n, 100, float(q), q) for n, q in held.items()], dice)
            assert choice is not None
            held[choice.name] += 1
        return max(held.values())

    assert fullest("LeastLoad") == 10
    assert fullest("PowerOfTwo") <= 13
    assert fullest("Random") >= 16


@given(pools, st.floats(1, 1000), st.integers(0, 2**32))
@settings(deadline=None)
def test_least_load_takes_the_least(candidates: list[Candidate], cost: float, seed: int) -> None:
    strategy = LeastLoad(weights(candidates), Dispatch())
    choice = strategy.choose(Ask(None, cost), candidates, random.Random(seed))
    assert choice is not None
    shares = {each.name: (each.load + cost) / each.weight for each in candidates}
    assert shares[choice.name] == min(shares.values())


def test_least_load_throws_dice_among_equals() -> None:
    candidates = [Candidate("a", 100, 2.0), Candidate("b", 100, 2.0), Candidate("c", 100, 3.0)]
    strategy, dice = LeastLoad(weights(candidates), Dispatch()), random.Random(1)
    shares = Counter(choice.name for _ in range(400) if (choice := strategy.choose(ASK, candidates, dice)))
    assert set(shares) == {"a", "b"}
    assert 150 < shares["a"] < 250


def test_least_load_sends_to_the_strong_one_while_all_are_idle() -> None:
    candidates = [Candidate("weak", 1), Candidate("strong", 1000)]
    choice = LeastLoad(weights(candidates), Dispatch()).choose(ASK, candidates, random.Random(0))
    assert choice is not None
    assert choice.name == "strong"
