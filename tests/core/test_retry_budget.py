"""The retry budget: a share of the requests of the last ten seconds, with a floor of three a second."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_balancer.core.retry_budget import RetryBudget


def taken(budget: RetryBudget, now: float, tries: int) -> int:
    return sum(budget.try_take(now) for _ in range(tries))


def test_share_of_the_requests() -> None:
    budget = RetryBudget(20)
    for number in range(1000):
        budget.note_request(100.0 + number / 200)
    assert taken(budget, 105.0, 1000) == 200


@pytest.mark.parametrize("percent", [0, 20])
def test_floor_where_there_is_little_traffic(percent: int) -> None:
    budget = RetryBudget(percent)
    assert taken(budget, 100.0, 1000) == 30
    assert taken(budget, 109.0, 1000) == 0
    assert taken(budget, 110.0, 1000) == 30


def test_an_endpoint_that_dies_takes_many_requests_at_once() -> None:
    """200 requests/s, 20 %: the 50 that were on the dead one are all tried again within one second."""
    budget = RetryBudget(20)
    for number in range(2000):
        budget.note_request(100.0 + number / 200)
    assert taken(budget, 110.0, 50) == 50


def test_storm_is_bounded_for_as_long_as_it_lasts() -> None:
    """Every attempt fails for a minute; the pool gets a fifth more requests and not three times as many."""
    budget, retries = RetryBudget(20), 0
    for number in range(6000):
        now = 100.0 + number / 100
        budget.note_request(now)
        retries += taken(budget, now, 2)
    assert retries <= 6000 * 0.2 + 30


def test_requests_are_forgotten_after_ten_seconds() -> None:
    budget = RetryBudget(100)
    for _ in range(500):
        budget.note_request(100.0)
    assert taken(budget, 110.5, 1000) == 30


def test_percent_may_change_under_way() -> None:
    budget = RetryBudget(10)
    for _ in range(1000):
        budget.note_request(100.0)
    assert taken(budget, 100.0, 1000) == 100
    budget.percent = 20
    assert taken(budget, 100.0, 1000) == 100


def test_clock_that_steps_back_gives_nothing_away() -> None:
    budget = RetryBudget(20)
    assert taken(budget, 100.0, 100) == 30
    assert taken(budget, 90.0, 100) == 0


@given(
    st.integers(0, 100),
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.3, 1.0, 4.0, 9.9, 10.0, 25.0, 1e6]), st.integers(0, 90), st.integers(0, 90)),
        max_size=40,
    ),
)
@settings(deadline=None)
def test_law_against_a_log_of_everything(percent: int, steps: list[tuple[float, int, int]]) -> None:
    """In the ten whole seconds up to now: retries <= max(30, percent of requests), and none is refused without need."""
    budget, now = RetryBudget(percent), 50.0
    requests: deque[int] = deque()
    retries: deque[int] = deque()
    for pause, asked, wanted in steps:
        now += pause
        for log in (requests, retries):
            while log and log[0] <= int(now) - 10:
                log.popleft()
        for _ in range(asked):
            budget.note_request(now)
            requests.append(int(now))
        allowed = max(30, len(requests) * percent // 100)
        got = taken(budget, now, wanted)
        assert got == max(0, min(wanted, allowed - len(retries)))
        retries.extend([int(now)] * got)
