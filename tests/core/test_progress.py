"""How fast a queue is worked off: by what is computed while one stands there, and else by what was learned."""

from __future__ import annotations

from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.core.progress import DEEP_QUEUE, Progress

LEARNED = 8_000.0


def worked(rate: float, seconds: float, queue: float = 20_000.0, lump: float = 0.1) -> Progress:
    """A queue from which `rate` tokens a second are computed, in lumps of so many seconds' worth."""
    progress = Progress()
    progress.changed(queue, 0.0, 0.0)
    for step in range(1, round(seconds / lump) + 1):
        progress.changed(queue, rate * lump, step * lump)
    return progress


@pytest.mark.parametrize("rate", [500.0, 8_000.0, 60_000.0])
@pytest.mark.parametrize("lump", [0.05, 0.5])
def test_a_standing_queue_tells_the_rate(rate: float, lump: float) -> None:
    known = worked(rate, 20.0, lump=lump).rate(rate, 20.0)
    assert known == pytest.approx(rate, rel=0.2)


@pytest.mark.parametrize("rate", [2_000.0, 30_000.0])
def test_a_change_is_known_within_seconds(rate: float) -> None:
    """Three quarters of the way from what was learned to what is true."""
    known = worked(rate, 6.0).rate(LEARNED, 6.0)
    assert abs(known - rate) < 0.3 * abs(LEARNED - rate)


def test_without_a_deep_queue_what_was_learned_counts() -> None:
    shallow = worked(100.0, 20.0, queue=DEEP_QUEUE - 1)
    assert shallow.rate(LEARNED, 20.0) == LEARNED
    assert Progress().rate(LEARNED, 5.0) == LEARNED


def test_what_was_seen_fades_once_the_queue_is_gone() -> None:
    progress = worked(500.0, 20.0)
    progress.changed(0.0, 50.0, 20.1)
    assert progress.rate(LEARNED, 20.1) < 2_500.0
    assert progress.rate(LEARNED, 60.0) == pytest.approx(LEARNED, rel=0.01)


def test_an_engine_that_computes_nothing_gets_slower_by_the_second() -> None:
    progress = worked(LEARNED, 10.0)
    rates = [progress.rate(LEARNED, 10.0 + passed) for passed in (0.0, 1.0, 3.0, 10.0, 60.0)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < LEARNED / 3


events = st.lists(
    st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(-5, 100)),
    max_size=30,
)


@given(events, st.floats(10, 2e6), st.floats(0, 100))
def test_it_is_always_a_rate(seen: list[tuple[float, float, float]], learned: float, later: float) -> None:
    """Whatever comes, in whatever order, and with a clock that may step back."""
    progress, now = Progress(), 0.0
    for queue, computed, passed in seen:
        now += passed
        progress.changed(queue, computed, now)
        assert 0.0 < progress.rate(learned, now) < float("inf")
    assert isfinite(progress.rate(learned, now + later))
