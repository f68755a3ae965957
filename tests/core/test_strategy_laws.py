"""Laws that every strategy keeps; they run over the table, so a new entry is tested by being there."""

from __future__ import annotations

import random
import re
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.types import Chwbl, Dispatch, StrategyName
from spillway_balancer.core.strategies import STRATEGIES, Ask, Candidate, Choice

every_strategy = pytest.mark.parametrize("name", STRATEGIES)

loads = st.one_of(st.integers(0, 50).map(float), st.floats(0, 1e9, allow_subnormal=False), st.just(0.0), st.just(1e300))
asks = st.builds(Ask, key=st.none() | st.integers(0, 2**64 - 1), cost=st.just(1.0) | st.floats(1, 200_000))
tokens = st.one_of(st.integers(0, 200_000).map(float), st.floats(0, 1e9, allow_subnormal=False), st.just(1e300))
latencies = st.none() | st.floats(1e-9, 1e4) | st.just(1e300)
candidates_in_use = st.builds(
    Candidate,
    name=st.just(""),
    load=loads,
    requests=st.integers(0, 50),
    miss=tokens,
    cached=tokens,
    queue=tokens,
    pending=st.integers(0, 50).map(float),
    context=tokens,
    speed=st.sampled_from([1.0, 1.0, 0.01, 100.0]),
    trusted=st.booleans(),
    latency=latencies,
)
dispatches = st.builds(
    Dispatch,
    chwbl=st.builds(
        Chwbl,
        load_factor_percent=st.integers(100, 300),
        vnodes=st.just(16),
        min_in_flight=st.integers(0, 4),
        overflow=st.sampled_from(["NextOnRing", "LeastLoaded"]),
    ),
)


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[str, int], list[tuple[Ask, list[Candidate]]]]:
    """Members, and requests one after the other, each with the candidates of its moment."""
    members = draw(st.dictionaries(st.text("abc-", min_size=1, max_size=4), st.integers(1, 1000), max_size=8))
    states = draw(st.lists(candidates_in_use, min_size=1, max_size=4))  # few, so that some are equal
    requests = []
    for _ in range(draw(st.integers(1, 12))):
        there = draw(st.lists(st.booleans(), min_size=len(members), max_size=len(members)))
        candidates = [
            draw(st.sampled_from(states))._replace(name=name, weight=weight)
            for (name, weight), present in zip(members.items(), there, strict=True)
            if present
        ]
        requests.append((draw(asks), candidates))
    return members, requests


def test_every_strategy_of_the_api_has_its_entry() -> None:
    assert set(STRATEGIES) == set(get_args(StrategyName))


@every_strategy
@given(histories(), dispatches, st.integers())
@settings(deadline=None, max_examples=35)
def test_chosen_is_a_candidate_and_none_only_without_any(
    name: str,
    history: tuple[dict[str, int], list[tuple[Ask, list[Candidate]]]],
    dispatch: Dispatch,
    seed: int,
) -> None:
    members, requests = history
    strategy, dice = STRATEGIES[name](members, dispatch), random.Random(seed)
    for ask, candidates in requests:
        choice = strategy.choose(ask, candidates, dice)
        if candidates:
            assert choice is not None
            assert choice.name in {candidate.name for candidate in candidates}
        else:
            assert choice is None


@every_strategy
@given(histories(), dispatches, st.integers())
@settings(deadline=None, max_examples=35)
def test_same_dice_same_choice(
    name: str,
    history: tuple[dict[str, int], list[tuple[Ask, list[Candidate]]]],
    dispatch: Dispatch,
    seed: int,
) -> None:
    members, requests = history

    def run() -> list[Choice | None]:
        strategy, dice = STRATEGIES[name](members, dispatch), random.Random(seed)
        return [strategy.choose(ask, candidates, dice) for ask, candidates in requests]

    assert run() == run()


@every_strategy
def test_every_endpoint_gets_something(name: str) -> None:
    """However blind a strategy is: with many sessions and even load nobody is left out."""
    members = {f"endpoint-{number}": 100 for number in range(6)}
    strategy, dice = STRATEGIES[name](members, Dispatch()), random.Random(5)
    candidates = [Candidate(each) for each in members]
    choices = [strategy.choose(Ask(dice.getrandbits(64), 1.0), candidates, dice) for _ in range(600)]
    assert {choice.name for choice in choices if choice} == set(members)


@every_strategy
def test_reasons_are_few_and_fit_for_a_metric_label(name: str) -> None:
    members = {f"endpoint-{number}": 100 for number in range(4)}
    strategy, dice = STRATEGIES[name](members, Dispatch()), random.Random(7)
    reasons = set()
    for number in range(400):
        load = dice.randrange(20)
        candidates = [Candidate(each, 100, load * number, load) for number, each in enumerate(members)]
        choice = strategy.choose(Ask(dice.choice([None, number]), 1.0), candidates, dice)
        assert choice is not None
        reasons.add(choice.reason)
    assert len(reasons) <= 3
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", reason) for reason in reasons)


@every_strategy
def test_many_balancers_do_not_begin_with_the_same_endpoint(name: str) -> None:
    """A thousand sidecars start together, each sends one request: none may bury the first endpoint."""
    members = {f"endpoint-{number}": 100 for number in range(4)}
    candidates = [Candidate(each) for each in members]
    firsts = []
    for number in range(400):
        dice = random.Random(number)
        choice = STRATEGIES[name](members, Dispatch()).choose(Ask(None, 1.0), candidates, dice)
        assert choice is not None
        firsts.append(choice.name)
    assert all(70 < firsts.count(each) < 130 for each in members)
