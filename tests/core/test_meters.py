"""Meters: no limit is ever passed by what is under way, and what is settled is the sum of what was real."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api.periods import period_end
from spillway_balancer.core.meters import SOON, Concurrent, Rate, Spend

PERIODS = ("Hour", "Day", "Week", "Month")
AMOUNTS = st.decimals(0, 50, places=15, allow_nan=False)


def test_a_minutes_worth_may_go_at_once_and_no_more_until_the_minute_has_passed():
    rate = Rate(3)
    assert [rate.try_take(100.5) for _ in range(4)] == [True, True, True, False]
    assert rate.used_percent(100.5) == 100
    assert not rate.try_take(160.4)
    assert rate.until_free(160.4) == pytest.approx(0.6)
    assert rate.try_take(161.0)


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 9)), max_size=20), st.floats(0, 80))
def test_it_is_said_when_nothing_counts_any_more(taken, after):
    rate = Rate(100)
    now = 1000.0
    for pause, amount in taken:
        now += pause
        rate.try_take(now, amount)
    now += after
    left = rate.until_empty(now)
    assert (left > 0) == (rate.used(now) > 0)
    assert left == 0 or rate.used(now + left - 0.001) > 0
    assert rate.used(now + left) == 0


def test_tokens_are_corrected_for_when_they_were_taken_and_only_once():
    rate = Rate(1000)
    taken = rate.reserve(10.0, 800)
    assert taken is not None
    assert rate.reserve(10.0, 300) is None
    rate.settle(taken, 20.0, 100)
    rate.settle(taken, 20.0, 5000)
    assert rate.used(20.0) == 100
    assert rate.reserve(20.0, 900) is not None
    assert rate.until_free(20.0, 100) == pytest.approx(51.0)  # the 100 leave 61 s after the 10th second
    assert rate.used(71.0) == 900


def test_what_is_settled_after_its_minute_counts_no_more():
    rate = Rate(10)
    taken = rate.reserve(10.0, 10)
    rate.settle(taken, 80.0, 3)
    assert rate.used(80.0) == 0


def test_an_amount_above_the_whole_limit_never_fits():
    assert Rate(10).until_free(5.0, 11) == inf
    assert Spend(Decimal(1), "Day").until_free(0.0, Decimal("1.01")) == inf


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 20), st.integers(0, 20), st.booleans()), max_size=60),
)
def test_no_minute_ever_has_more_than_the_limit(limit, steps):
    """Whatever was taken in any 60 seconds, each at the larger of estimate and real figure while it is under way."""
    rate, now, log = Rate(limit), 0.0, []
    for gap, amount, real, settles in steps:
        now += gap
        taken = rate.reserve(now, amount)
        if taken is None:
            assert rate.until_free(now, amount) > 0
            continue
        real = min(real, amount)
        log.append((now, real if settles else amount))
        if settles:
            rate.settle(taken, now, real)
        for start, _ in log:
            assert sum(used for at, used in log if start <= at < start + 60) <= limit


@given(st.integers(1, 30), st.lists(st.tuples(st.floats(0, 20), st.integers(1, 30)), max_size=40))
def test_until_free_is_when_it_is_free(limit, steps):
    rate, now = Rate(limit), 0.0
    for gap, amount in steps:
        now += gap
        wait = rate.until_free(now, amount)
        if amount > limit:
            assert wait == inf
            continue
        assert wait <= 61
        if wait > 0.01:
            assert not rate.try_take(now + wait - 0.01, amount)
        now += wait
        assert rate.try_take(now + 1e-6, amount)


@given(st.integers(1, 20), st.lists(st.floats(-100, 100), max_size=50))
def test_a_clock_that_steps_back_frees_nothing(limit, gaps):
    rate, now, latest, taken = Rate(limit), 1000.0, 0.0, []
    for gap in gaps:
        now = max(0.0, now + gap)
        latest = max(latest, now)
        if rate.try_take(now):
            taken.append(latest)
        assert sum(1 for at in taken if at > latest - 60) <= limit


@pytest.mark.parametrize(
    ("period", "at", "ends"),
    [
        ("Hour", "2026-03-31T23:59:59", "2026-04-01T00:00:00"),
        ("Hour", "2026-03-31T23:00:00", "2026-04-01T00:00:00"),
        ("Day", "2024-02-28T12:00:00", "2024-02-29T00:00:00"),
        ("Week", "2026-11-22T23:59:59", "2026-11-23T00:00:00"),  # a Sunday
        ("Week", "2026-11-23T00:00:00", "2026-11-30T00:00:00"),
        ("Month", "2026-12-31T23:59:59", "2027-01-01T00:00:00"),
        ("Month", "2024-02-29T00:00:00", "2024-03-01T00:00:00"),
    ],
)
def test_periods_are_those_of_the_calendar_in_utc(period, at, ends):
    assert period_end(datetime.fromisoformat(at + "+00:00").timestamp(), period) == (
        datetime.fromisoformat(ends + "+00:00").timestamp()
    )


@given(st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)), st.sampled_from(PERIODS))
def test_a_period_ends_later_and_within_its_length(at, period):
    unix = at.replace(tzinfo=UTC).timestamp()
    ends = period_end(unix, period)
    longest = {"Hour": timedelta(hours=1), "Day": timedelta(days=1), "Week": timedelta(7), "Month": timedelta(31)}
    assert 0 < ends - unix <= longest[period].total_seconds()
    assert period_end(ends - 0.5, period) == ends


def test_money_comes_back_with_the_next_period():
    spend = Spend(Decimal("0.50"), "Hour")
    held = spend.reserve(3000.0, Decimal("0.50"))
    assert spend.reserve(3000.0, Decimal("0.01")) is None
    assert spend.until_free(3000.0, Decimal("0.01")) == SOON  # it may turn out cheaper
    spend.settle(held, 3100.0, Decimal("0.499"))
    assert spend.until_free(3100.0, Decimal("0.01")) == 500
    assert spend.used_percent(3100.0) == pytest.approx(99.8)
    assert spend.reserve(3600.0, Decimal("0.50")) is not None
    assert (spend.spent, spend.total) == (Decimal(0), Decimal("0.499"))


def test_what_is_under_way_is_charged_to_the_period_in_which_it_was_let_in():
    spend = Spend(Decimal(1), "Hour")
    held = spend.reserve(3599.0, Decimal("0.75"))
    new = spend.reserve(3601.0, Decimal(1))
    assert new is not None
    spend.settle(held, 3602.0, Decimal("0.25"))
    assert (spend.spent, spend.reserved, spend.total) == (0, Decimal(1), Decimal("0.25"))
    spend.settle(new, 3603.0, Decimal("0.50"))
    assert (spend.spent, spend.reserved, spend.total) == (Decimal("0.50"), 0, Decimal("0.75"))


def test_what_a_process_before_has_spent_counts_in_its_period_only():
    spend = Spend(Decimal(1), "Hour")
    spend.restore(3000.0, 7200.0, Decimal(1))  # of another one
    assert spend.used(3000.0) == 0
    spend.restore(3000.0, 3600.0, Decimal("0.75"))
    assert spend.reserve(3001.0, Decimal("0.50")) is None
    assert spend.reserve(3600.0, Decimal(1)) is not None


@pytest.mark.parametrize(("before", "after"), [("Day", "Month"), ("Month", "Hour"), ("Day", "Day")])
def test_another_period_begins_with_what_is_spent(before, after):
    unix = datetime(2026, 5, 7, 12, tzinfo=UTC).timestamp()
    spend = Spend(Decimal(1), before)
    spend.settle(spend.reserve(unix, Decimal(1)), unix, Decimal(1))
    spend.period = after
    assert spend.reserve(unix + 1, Decimal("0.01")) is None
    assert spend.reserve(unix + 32 * 86400, Decimal("0.01")) is not None


@given(
    st.decimals(0, 100, places=2),
    st.lists(
        st.tuples(st.sampled_from(["reserve", "settle", "cancel", "again"]), AMOUNTS, st.integers(0, 9)), max_size=60
    ),
)
def test_a_budget_holds_whatever_comes_when_estimates_do(limit, steps):
    """And what is spent is, to the last digit, the sum of the real costs; each is charged once."""
    spend, open_, done, real_sum = Spend(limit, "Month"), [], [], Fraction(0)
    for what, amount, at in steps:
        if what == "reserve":
            held = spend.reserve(5.0, amount)
            open_ += [] if held is None else [held]
        elif what == "again" and done:
            spend.settle(done[at % len(done)], 5.0, amount)
        elif open_ and what != "again":
            held = open_.pop(at % len(open_))
            real = min(amount, held.amount) if what == "settle" else Decimal(0)
            spend.settle(held, 5.0, real)
            done.append(held)
            real_sum += Fraction(real)
        assert spend.used(5.0) <= limit
        assert Fraction(spend.spent) == Fraction(spend.total) == real_sum
        assert Fraction(spend.reserved) == sum((Fraction(held.amount) for held in open_), Fraction(0))


def test_a_clock_that_steps_back_gives_no_new_period():
    spend = Spend(Decimal(1), "Hour")
    spend.settle(spend.reserve(7200.0, Decimal(1)), 7200.0, Decimal(1))
    assert spend.reserve(100.0, Decimal("0.01")) is None
    assert spend.reserve(10799.0, Decimal("0.01")) is None
    assert spend.reserve(10800.0, Decimal("0.01")) is not None


def test_requests_at_once():
    inside = Concurrent(2)
    assert [inside.try_take() for _ in range(3)] == [True, True, False]
    assert (inside.until_free(), inside.used_percent()) == (SOON, 100)
    inside.release()
    assert inside.until_free() == 0
    assert inside.try_take()


def test_of_a_limit_of_nothing_all_is_used():
    assert Spend(Decimal(0), "Day").used_percent(0.0) == 100
    assert Rate(0).used_percent(0.0) == 100
