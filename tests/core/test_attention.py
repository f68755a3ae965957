"""What a prompt's length adds to its work: learned from what prompts took, and never more than there can be."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.core.attention import MOST, Attention, pairs

TOKEN = 23e-6
"""Seconds, on an H100 with an 8B model; a pair takes 1.06e-9."""
PAIR = 1.06e-9

prompts = st.tuples(st.floats(1, 1e6), st.floats(0, 1e12), st.floats(1e-6, 1e6))


def taught(lengths: list[int], noise: float = 0.0, seed: int = 1) -> Attention:
    dice, found = random.Random(seed), Attention()
    for length in lengths:
        took = TOKEN * length + PAIR * pairs(length, 0)
        found.measured(length, pairs(length, 0), took * (1 + noise * dice.random()))
    return found


def test_the_weight_of_a_pair_is_found() -> None:
    dice = random.Random(7)
    lengths = [int(2000 * 40 ** dice.random()) for _ in range(400)]
    assert taught(lengths).weight == pytest.approx(PAIR / TOKEN, rel=0.01)
    assert taught(lengths, noise=0.3).weight == pytest.approx(PAIR / TOKEN, rel=0.2)


def test_one_that_waited_for_something_else_does_not_spoil_it() -> None:
    dice = random.Random(7)
    found = taught([int(2000 * 40 ** dice.random()) for _ in range(400)])
    found.measured(3000, pairs(3000, 0), 60.0)
    assert found.weight == pytest.approx(PAIR / TOKEN, rel=0.05)


def test_prompts_that_are_all_alike_teach_nothing() -> None:
    assert taught([4000] * 100).weight == 0.0


def test_nothing_is_believed_before_there_is_enough() -> None:
    assert taught([2000, 80_000] * 5).weight == 0.0


def test_what_is_cached_has_its_pairs_behind_it() -> None:
    assert pairs(1000, 0) == 500_000
    assert pairs(1000, 900) + pairs(900, 0) == pairs(1000, 0)


@given(st.lists(prompts, max_size=60))
def test_it_stays_within_bounds_whatever_is_measured(said: list[tuple[float, float, float]]) -> None:
    found: Any = Attention()
    for tokens, added, took in said:
        found.measured(tokens, added, took)
        assert 0.0 <= found.weight <= MOST
        assert found.work(tokens, added) >= tokens
