"""Efforts and thinking budgets: one scale, both ways."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.wire.translation import efforts
from spillway_balancer.wire.translation.conversation import Effort, Reasoning


def test_every_effort_has_a_budget_and_more_effort_never_a_smaller_one() -> None:
    assert tuple(efforts.TOKENS) == get_args(Effort)
    assert list(efforts.TOKENS.values()) == sorted(efforts.TOKENS.values())


def test_efforts_that_all_know_come_back_from_their_budgets() -> None:
    for word in ("none", "low", "medium", "high"):
        assert efforts.effort(Reasoning(tokens=efforts.TOKENS[word])) == word


def test_what_was_said_is_not_translated() -> None:
    assert efforts.tokens(Reasoning(effort="high", tokens=2_000)) == 2_000
    assert efforts.effort(Reasoning(effort="low", tokens=64_000)) == "low"
    assert efforts.tokens(Reasoning(effort="none", tokens=2_000)) == 0, "no thinking is no thinking"


def test_a_model_that_decides_itself_is_told_nothing() -> None:
    assert efforts.tokens(Reasoning(adaptive=True)) is None
    assert efforts.effort(Reasoning(adaptive=True)) is None


@given(st.integers(0, 200_000), st.integers(0, 200_000))
def test_a_larger_budget_is_never_less_effort(one: int, other: int) -> None:
    order = get_args(Effort)
    small, large = sorted((one, other))
    words = [efforts.effort(Reasoning(tokens=each)) for each in (small, large)]
    assert order.index(words[0]) <= order.index(words[1])
