"""When grants that end are fetched again: before they do, not in step, and patiently where that fails."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.core.renewal import (
    EARLIEST,
    LATEST,
    LEAST_PAUSE,
    LONGEST_BACKOFF,
    LONGEST_REFUSED_PAUSE,
    REFUSED_PAUSE,
    Renewal,
)

TIMES = st.floats(0, 4e9)
LIVES = st.floats(60, 1e6)
SEEDS = st.integers(0, 2**32)


@given(TIMES, LIVES, SEEDS)
def test_the_next_is_due_while_the_present_one_lives(now: float, life: float, seed: int) -> None:
    renewal = Renewal(now).obtained(now + life, now, random.Random(seed))
    assert renewal.holds(now)
    assert now + life * EARLIEST * 0.999 <= renewal.due <= now + life * LATEST * 1.001 < now + life
    assert renewal.next() == renewal.due


def test_a_fleet_does_not_come_in_step() -> None:
    due = {Renewal(0).obtained(3600, 0, random.Random(seed)).due for seed in range(50)}
    assert len(due) == 50
    assert max(due) - min(due) > 300


@given(TIMES, st.floats(0.001, 5), SEEDS)
def test_a_life_of_seconds_makes_no_loop(now: float, life: float, seed: int) -> None:
    assert Renewal(now).obtained(now + life, now, random.Random(seed)).due >= now + LEAST_PAUSE


@given(TIMES, st.floats(-1e6, 0), SEEDS)
def test_what_has_ended_when_it_comes_is_a_failure(now: float, life: float, seed: int) -> None:
    renewal = Renewal(now).obtained(now + life, now, random.Random(seed))
    assert (renewal.expires, renewal.failures) == (None, 1)


@given(LIVES, SEEDS, st.integers(1, 60))
def test_the_old_one_serves_on_until_its_own_end_however_often_the_next_fails(life, seed, times) -> None:
    dice = random.Random(seed)
    renewal = Renewal(0).obtained(life, 0, dice)
    now = renewal.due
    for _ in range(times):
        before, renewal = now, renewal.failed(now, dice)
        assert 0 < renewal.due - before <= LONGEST_BACKOFF
        assert renewal.expires == (life if before < life else None)
        assert renewal.holds(before) == (before < life)
        assert renewal.next() <= max(renewal.due, life)
        now = renewal.due
    assert renewal.failures == times
    assert renewal.obtained(now + 3600, now, dice).failures == 0


def test_a_refused_grant_is_followed_at_once_and_a_fresh_one_that_is_refused_late() -> None:
    dice = random.Random(1)
    first = Renewal(0).obtained(3600, 0, dice).refused(100)
    assert first.due == 100
    second = first.obtained(3700, 100, dice).refused(101)
    assert second.due == 101 + REFUSED_PAUSE
    third = second.obtained(4000, second.due, dice).refused(second.due + 1)
    assert third.due == second.due + 1 + 2 * REFUSED_PAUSE
    # One that was taken makes good: the next refusal is of a grant that may have been revoked.
    good = third.obtained(8000, third.due, dice).obtained(12000, 7000, dice)
    assert good.refused(7001).due == 7001


@given(SEEDS, st.integers(1, 40))
def test_who_is_always_refused_asks_ever_less_and_within_the_life_of_what_is_held(seed: int, times: int) -> None:
    dice, now = random.Random(seed), 0.0
    renewal = Renewal(0).obtained(36_000, 0, dice)
    for turn in range(times):
        renewal = renewal.refused(now)
        assert renewal.refused(now) == renewal  # many requests bring the same news
        assert renewal.due - now <= LONGEST_REFUSED_PAUSE
        if turn:
            assert renewal.due - now >= min(REFUSED_PAUSE, 36_000 * EARLIEST)
        now = renewal.due
        renewal = renewal.obtained(now + 36_000, now, dice)
