"""The arithmetic of figures: percentiles, intervals, warm-up, and giving up early without changing the verdict."""

from __future__ import annotations

from array import array

import pytest

from spillway_balancer.simulate.measure import Recorder, estimate, percentile
from spillway_balancer.simulate.request import Request


def recorded(waits: list[float], objective: float = 1.0) -> Recorder:
    """One request a second that waits so long, and ends one second later."""
    recorder = Recorder(objective, len(waits))
    for at, wait in enumerate(waits):
        request = Request(at, float(at), 100, 2, array("Q"), 64)
        recorder.arrived(request.at)
        request.first_token_at = at + wait
        request.cached_tokens = 25
        recorder.finished(request, at + wait + 1.0)
    return recorder


def test_percentiles_are_nearest_ranks() -> None:
    assert [percentile([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], part) for part in (0.0, 0.5, 0.9, 0.91, 1.0)] == [
        1,
        5,
        9,
        10,
        10,
    ]
    assert percentile([], 0.5) == 0


def test_the_first_tenth_is_warm_up() -> None:
    figures = recorded([100.0] * 2 + [0.5] * 9 + [2.0] * 9).figures()
    assert figures.requests == 18
    assert figures.ttft_mean == pytest.approx(1.25)
    assert (figures.ttft_p50, figures.ttft_p99) == (pytest.approx(0.5), pytest.approx(2.0))
    assert figures.e2e_mean == pytest.approx(2.25)
    assert figures.within_objective == pytest.approx(0.5)
    assert figures.hit_share == pytest.approx(0.25)


def test_shed_requests_are_not_in_time() -> None:
    recorder = recorded([0.5] * 10)
    recorder.turned_away(Request(99, 9.0, 10, 1, array("Q"), 64))
    figures = recorder.figures()
    assert (figures.shed, figures.within_objective) == (1, pytest.approx(9 / 10))


def test_imbalance_is_the_busiest_by_the_mean() -> None:
    recorder = Recorder(1.0, 0)
    for loads in ([0, 0], [3, 1], [2, 2]):
        recorder.sampled(loads)
    assert recorder.figures().imbalance == pytest.approx((3 + 2) / (2 + 2))


@pytest.mark.parametrize("late", [9, 10, 11, 12, 40])
def test_giving_up_never_contradicts_the_figures(late: int) -> None:
    recorder = recorded([0.5] * (112 - late) + [1.5] * late)
    if recorder.hopeless:
        assert recorder.figures().ttft_p90 > recorder.objective
    assert recorder.hopeless or late < 40


def test_confidence_intervals_use_students_t() -> None:
    assert estimate([1.0, 2.0, 3.0]) == (pytest.approx(2.0), pytest.approx(4.303 / 3**0.5))
    assert estimate([5.0]) == (5.0, None)
    assert estimate([5.0, 5.0]).margin == 0.0
