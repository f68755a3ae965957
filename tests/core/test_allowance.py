"""What a consumer may use: never more, however requests come and go, and nothing is kept of who has left."""

from __future__ import annotations

from decimal import Decimal
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api.types import ConsumerBudget, ConsumerLimits, Price
from spillway_balancer.core.allowance import Allowance, Pass, Refusal
from spillway_balancer.core.prices import Used

NOON = 1_767_268_800.0
"""1 January 2026."""
EURO = Price(input="1000000", output="1000000", currency="EUR")
"""A euro a token."""


def limits(
    requests: int | None = None, tokens: int | None = None, at_once: int | None = None, euros: str | None = None
):
    budget = None if euros is None else ConsumerBudget(euros, "EUR", "Day")
    return ConsumerLimits(requests, tokens, at_once, budget)


def enter(allowance: Allowance, now: float = 0.0, tokens: int = 1, money: str = "0") -> Pass | Refusal:
    return allowance.enter(now, NOON + now, tokens, Decimal(money))


def let_in(allowance: Allowance, now: float = 0.0, tokens: int = 1, money: str = "0") -> Pass:
    entered = enter(allowance, now, tokens, money)
    assert isinstance(entered, Pass)
    return entered


@pytest.mark.parametrize(
    ("given_limits", "second", "until"),
    [
        (limits(requests=1), "requestsPerMinute", 61),
        (limits(tokens=1), "tokensPerMinute", 61),
        (limits(at_once=1), "maxInFlight", 1),
        (limits(euros="1"), "budget", 1),
    ],
)
def test_each_limit_refuses_by_its_name_and_says_until_when(given_limits, second, until):
    allowance = Allowance(given_limits)
    let_in(allowance, money="1")
    assert enter(allowance, money="1") == Refusal(second, until)


def test_what_alone_is_more_than_a_limit_is_refused_for_ever():
    assert enter(Allowance(limits(tokens=10)), tokens=11) == Refusal("tokensPerMinute", inf)
    assert enter(Allowance(limits(euros="1")), money="1.01") == Refusal("budget", inf)


def test_who_has_no_money_left_is_served_what_is_free():
    allowance = Allowance(limits(euros="1"))
    one = let_in(allowance, money="1")
    one.charge(EURO, Used(1, 0, 0))
    one.leave(0.0, NOON)
    assert isinstance(let_in(allowance, money="0"), Pass)
    assert enter(allowance, money="0.5") == Refusal("budget", 86400 - NOON % 86400)


def test_a_refused_request_takes_nothing_of_any_limit():
    allowance = Allowance(limits(requests=5, tokens=10, at_once=5, euros="5"))
    let_in(allowance, tokens=10, money="1")
    before = allowance.used_percent(0.0, NOON)
    assert enter(allowance, tokens=1, money="1") == Refusal("tokensPerMinute", 61)
    assert (
        allowance.used_percent(0.0, NOON)
        == before
        == {
            "maxInFlight": 20,
            "requestsPerMinute": 20,
            "tokensPerMinute": 100,
            "budget": 20,
        }
    )


def test_all_attempts_are_charged_and_a_request_leaves_once():
    allowance = Allowance(limits(tokens=100, at_once=2, euros="50"))
    one = let_in(allowance, tokens=40, money="40")
    one.charge(EURO, Used(5, 0, 5))
    one.charge(EURO, Used(5, 5, 6))
    assert one.leave(1.0, NOON + 1) == (21, Decimal(21))
    assert one.leave(2.0, NOON + 2) == (21, Decimal(21))
    assert allowance.used_percent(2.0, NOON + 2) == {"maxInFlight": 0, "tokensPerMinute": 21, "budget": 42}


def test_what_had_no_answer_costs_nothing():
    allowance = Allowance(limits(requests=10, tokens=100, at_once=2, euros="50"))
    let_in(allowance, tokens=40, money="40").leave(0.0, NOON)
    assert allowance.used_percent(0.0, NOON) == {
        "maxInFlight": 0,
        "requestsPerMinute": 10,
        "tokensPerMinute": 0,
        "budget": 0,
    }


def test_another_currency_cannot_be_afforded_and_no_price_always():
    allowance = Allowance(limits(euros="50"))
    dollars = Price(input="1", currency="USD")
    assert not allowance.affords(dollars, Decimal(0), NOON)
    assert allowance.affords(EURO, Decimal(50), NOON)
    assert not allowance.affords(EURO, Decimal(51), NOON)
    assert allowance.affords(None, Decimal(0), NOON)
    assert Allowance(limits(tokens=1)).affords(dollars, Decimal(51), NOON)


def test_expressions_see_the_tighter_of_requests_a_minute_and_at_once():
    allowance = Allowance(limits(requests=10, at_once=4, tokens=100))
    assert (allowance.requests_used(0.0), allowance.tokens_used(0.0), allowance.budget_used(NOON)) == (0, 0, 0)
    one = let_in(allowance, tokens=76)
    assert (allowance.requests_used(0.0), allowance.tokens_used(0.0)) == (25, 76)
    one.leave(0.0, NOON)
    assert allowance.requests_used(0.0) == 10


def test_a_reload_keeps_what_was_counted_and_who_is_in():
    before = Allowance(limits(requests=10, tokens=100, at_once=4, euros="10"))
    one = let_in(before, tokens=50, money="5")
    after = Allowance(limits(requests=5, tokens=200, at_once=2, euros="20"), before)
    used = {"maxInFlight": 50, "requestsPerMinute": 20, "tokensPerMinute": 25, "budget": 25}
    assert after.used_percent(0.0, NOON) == used
    before.apply()  # the reload came to nothing
    assert after.used_percent(0.0, NOON)["requestsPerMinute"] == 10
    after.apply()
    one.charge(EURO, Used(1, 0, 1))
    one.leave(0.0, NOON)
    used = {"maxInFlight": 0, "requestsPerMinute": 20, "tokensPerMinute": 1, "budget": 10}
    assert after.used_percent(0.0, NOON) == used
    other = Allowance(ConsumerLimits(budget=ConsumerBudget("20", "USD")), after)
    assert other.budget_used(NOON) == 0, "dollars are not euros"


requests = st.lists(
    st.tuples(
        st.floats(0, 5),  # seconds since the one before
        st.integers(1, 30),  # tokens, estimated
        st.integers(0, 30),  # used of them, at most
        st.integers(0, 8),  # requests that leave first, from the longest in
    ),
    max_size=60,
)


@given(requests, st.integers(1, 12), st.integers(1, 60), st.integers(1, 4), st.integers(1, 99))
def test_no_limit_is_ever_passed_by_requests_that_use_no_more_than_they_reserve(asked, most, tokens, at_once, euros):
    allowance = Allowance(limits(most, tokens, at_once, str(euros)))
    now = 0.0
    inside: list[tuple[Pass, int]] = []
    came: list[float] = []
    paid = Decimal(0)
    for pause, estimate, used, leaving in asked:
        now += pause
        for one, real in inside[:leaving]:
            one.charge(EURO, Used(real, 0, 0))
            paid += one.leave(now, NOON + now)[1]
        inside = inside[leaving:]
        entered = allowance.enter(now, NOON + now, estimate, Decimal(estimate))
        if isinstance(entered, Pass):
            inside.append((entered, min(used, estimate)))
            came.append(now)
        else:
            assert entered.until > 0
        assert len(inside) <= at_once
        assert sum(now - at < 60 for at in came) <= most
        assert paid <= euros
        assert all(0 <= percent <= 100 for percent in allowance.used_percent(now, NOON + now).values())
    for one, real in inside:
        one.charge(EURO, Used(real, 0, 0))
        paid += one.leave(now, NOON + now)[1]
    assert allowance.in_flight is not None
    assert allowance.money is not None
    assert (allowance.in_flight.count, allowance.money.reserved) == (0, 0)
    assert allowance.money.total == paid


@given(requests)
def test_what_is_told_to_wait_is_let_in_when_it_comes_back_alone(asked):
    allowance = Allowance(limits(requests=3, tokens=40))
    now = 0.0
    for pause, estimate, _, _ in asked:
        now += pause
        entered = enter(allowance, now, estimate)
        if isinstance(entered, Refusal):
            again = allowance.enter(now + entered.until, NOON, estimate)
            assert isinstance(again, Pass)
            now += entered.until
