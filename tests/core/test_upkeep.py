"""What tokens of own engines cost: nothing that is kept is lost, no request pays for more than there was."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api.types import EndpointCost
from spillway_balancer.core.prices import Used
from spillway_balancer.core.upkeep import CACHED, OUTPUT, WINDOW, Upkeep, work

HOURLY = EndpointCost("3.60")
SECOND = 3.60 / 3600


def test_work_is_that_of_a_prompt_with_what_is_cached_and_said_by_its_weight():
    assert work(Used(1000, 400, 100)) == pytest.approx(600 + 400 * CACHED + 100 * OUTPUT)
    assert work(Used(-5, 7, -9)) == 0
    assert work(Used(10, 99, 0)) == pytest.approx(10 * CACHED)


def test_money_accrues_for_every_endpoint_and_second_busy_or_not():
    upkeep = Upkeep(HOURLY)
    upkeep.passed(0.0, 4, 0, 0)
    assert upkeep.total == 0
    upkeep.passed(900.0, 4, 0, 0)
    assert upkeep.total == pytest.approx(3.60)
    upkeep.passed(1800.0, 0, 0, 0)  # scaled to zero
    assert upkeep.total == pytest.approx(3.60)


def test_a_token_costs_what_was_kept_by_what_was_served():
    upkeep = Upkeep(HOURLY)
    upkeep.passed(0.0, 2, 0, 0)
    upkeep.passed(100.0, 2, 5, 5)
    assert upkeep.price(100.0) is None, "nothing is known before anything was served"
    assert float(upkeep.served(100.0, Used(8000, 0, 400))) == pytest.approx(200 * SECOND)
    assert upkeep.price(100.0) == pytest.approx(200 * SECOND / 10_000)
    assert float(upkeep.served(100.0, Used(10_000, 0, 0))) == pytest.approx(100 * SECOND), "one of two halves"


def test_who_else_uses_the_endpoints_pays_for_them_also_while_they_are_idle():
    upkeep = Upkeep(HOURLY)
    upkeep.passed(0.0, 1, 1, 4)
    upkeep.passed(100.0, 1, 1, 4)
    assert upkeep.total == pytest.approx(25 * SECOND)
    upkeep.passed(200.0, 1, 0, 0)
    assert upkeep.total == pytest.approx(50 * SECOND)
    upkeep.passed(300.0, 1, 7, 7)
    assert upkeep.total == pytest.approx(150 * SECOND)


def test_several_balancers_together_have_what_the_endpoints_cost():
    dice = random.Random(1)
    balancers = [Upkeep(HOURLY) for _ in range(3)]
    for now in range(0, 2000, 5):
        own = [dice.randint(0, 9) for _ in balancers]
        for upkeep, mine in zip(balancers, own, strict=True):
            upkeep.passed(float(now), 6, mine, sum(own))
    assert sum(upkeep.total for upkeep in balancers) == pytest.approx(1995 * 6 * SECOND, rel=1e-6)


@pytest.mark.parametrize("pace", [0.2, 3.0, 45.0])
def test_requests_under_a_steady_load_pay_together_what_is_kept(pace):
    """But for the time before the first and that in which the window fills."""
    upkeep, dice, paid, now = Upkeep(HOURLY), random.Random(2), 0.0, 0.0
    upkeep.passed(0.0, 3, 1, 1)
    kept = 0.0
    while now < 30 * WINDOW:
        now += dice.uniform(0.5, 1.5) * pace
        upkeep.passed(now, 3, 1, 1)
        cost = float(upkeep.served(now, Used(dice.randint(100, 900), 50, dice.randint(1, 300))))
        if now > WINDOW:
            paid += cost
            kept += 0 if kept else upkeep.total
    assert paid == pytest.approx(upkeep.total - kept, rel=0.1)


def test_a_reload_keeps_what_was_counted_unless_the_currency_is_another():
    before = Upkeep(HOURLY)
    before.passed(0.0, 1, 0, 0)
    before.passed(3600.0, 1, 0, 0)
    after = Upkeep.of(EndpointCost("7.20"), before)
    assert after is before
    after.passed(7200.0, 1, 0, 0)
    assert after.total == pytest.approx(3.60 + 7.20)
    other = Upkeep.of(EndpointCost("7.20", "EUR"), before)
    assert (other.total, other.currency) == (0, "EUR")
    assert Upkeep.of(None, before) is None
    assert Upkeep.of(HOURLY, None).total == 0


EVENTS = st.lists(
    st.tuples(
        st.floats(0, 2 * WINDOW),
        st.integers(0, 50),
        st.integers(0, 20),
        st.integers(0, 20),
        st.none() | st.builds(Used, *[st.integers(-5, 10**6)] * 3),
    ),
    max_size=40,
)


@given(EVENTS)
def test_no_request_pays_more_than_was_kept_in_the_window_and_none_less_than_nothing(events):
    upkeep, now, kept = Upkeep(HOURLY), 0.0, []
    for pause, endpoints, own, others, used in events:
        now += pause
        before = upkeep.total
        upkeep.passed(now, endpoints, own, own + others)
        assert upkeep.total >= before
        kept.append((now, upkeep.total - before))
        if used is not None:
            cost = float(upkeep.served(now, used))
            within = sum(amount for at, amount in kept if now - at <= WINDOW + 1e-6)
            assert -1e-12 <= cost <= within * (1 + 1e-9) + 1e-12
        price = upkeep.price(now)
        assert price is None or price >= 0
