"""Limits of tiers: what a limit keeps out goes on or back home, and no limit is ever passed, whatever comes."""

from __future__ import annotations

import itertools
import random
from decimal import Decimal
from math import ceil, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.asked import Asked

from spillway_api import snapshot
from spillway_api.types import (
    Budget,
    Capacity,
    Dispatch,
    Health,
    KeySource,
    Limits,
    Metrics,
    Model,
    Price,
    Ramp,
    Retry,
    Spill,
    Timeouts,
)
from spillway_balancer.core.attempts import Attempts, Stop, Try
from spillway_balancer.core.errors import BudgetSpent, NoReadyEndpoint, RateLimited
from spillway_balancer.core.limits import Permit, Refusal, TierLimits
from spillway_balancer.core.prices import Used
from spillway_balancer.core.reasons import Failure
from spillway_balancer.core.runtime import Runtime
from spillway_balancer.core.shares import Share

NOW = 1000.0
PRICE = Price(input="1000", output="1000")  # of a million tokens: a thousandth for each
MODEL = Model("gpt", price=PRICE)


def pool(name: str, endpoints: int = 4, price: Price | None = None, bound: int = 0) -> snapshot.Pool:
    return snapshot.Pool(
        name=f"default/{name}",
        models=(Model(f"{name}-model", price=price),),
        engine="Auto",
        provider=None,
        endpoints=tuple(snapshot.Endpoint(f"e{i}", f"http://{name}{i}:80") for i in range(endpoints)),
        dispatch=Dispatch(key=[KeySource(type="Header", name="x-session-id")]),
        capacity=Capacity(max_in_flight_per_endpoint=bound),
        metrics=Metrics(),
        health=Health(),
    )


AWAY = Spill(in_flight_per_endpoint=Ramp(0, 1), smoothing="0s", min_dwell="0s")
"""Everything leaves as soon as one request is at each endpoint."""
ALL_AWAY = Spill(in_flight_per_endpoint=Ramp(0, 1), smoothing="0s", min_dwell="0s", by="Request")


def tier(name: str, limits: Limits | None = None, enter_on=("Capacity", "Transient"), spill: Spill | None = None):
    return snapshot.RouteTier(name, (snapshot.Target(f"default/{name}"),), "Weighted", enter_on, spill, limits=limits)


def served(*tiers: snapshot.RouteTier, previous: Runtime | None = None, **pools: snapshot.Pool) -> Runtime:
    made = [pools.get(each.name) or pool(each.name, price=PRICE) for each in tiers]
    route = snapshot.Route("default/chat", ("chat",), (snapshot.RouteRule("all", tiers),), Timeouts(), Retry())
    return Runtime(snapshot.Snapshot("default", tuple(made), (route,)), previous)


def asks(prompt: int = 100, output: int = 100) -> Asked:
    return Asked(prompt_tokens=prompt, output_tokens=output, limit=output)


def request(runtime: Runtime, asked: Asked | None = None) -> Attempts:
    (route,) = runtime.routes.all
    return Attempts(
        route.rules[0], route.spec.retry, route.retry_budget, asked or asks(), random.Random(1), inf, epoch=5000.0
    )


def entered(runtime: Runtime, asked: Asked | None = None, now: float = NOW) -> Try:
    step = request(runtime, asked).next(now)
    assert isinstance(step, Try), step
    return step


def full(runtime: Runtime) -> None:
    """All of what comes leaves the first tier: one request is at each of its endpoints."""
    first = next(iter(runtime.routes.all)).rules[0][0].targets[0].pool
    for endpoint in first.endpoints.values():
        endpoint.load.lease(100, 100, 100)


def test_requests_in_a_minute() -> None:
    runtime = served(tier("cloud", Limits(requests_per_minute=2)), tier("spare"))
    steps = [entered(runtime) for _ in range(3)]
    assert [step.tier for step in steps] == ["cloud", "cloud", "spare"]
    assert entered(runtime, now=NOW + 61).tier == "cloud"


def test_an_attempt_that_was_not_sent_after_all_takes_nothing() -> None:
    runtime = served(tier("cloud", Limits(requests_per_minute=1, tokens_per_minute=200, budget=Budget("0.5"))))
    (limits,) = runtime.routes.all[0].limits.values()
    permit = entered(runtime).permit
    assert permit is not None
    permit.cancel(NOW)
    assert limits.used_percent(NOW, 6000.0) == {"requestsPerMinute": 0, "tokensPerMinute": 0, "budget": 0}
    assert entered(runtime).tier == "cloud"


def test_without_an_endpoint_nothing_is_taken() -> None:
    runtime = served(
        tier("cloud", Limits(requests_per_minute=1, tokens_per_minute=900, budget=Budget("9"))),
        cloud=pool("cloud", endpoints=0, price=PRICE),
    )
    assert isinstance(request(runtime).next(NOW), Stop)
    (limits,) = runtime.routes.all[0].limits.values()
    assert set(limits.used_percent(NOW, 6000.0).values()) == {0}


def test_tokens_count_as_estimated_until_they_are_known() -> None:
    runtime = served(tier("cloud", Limits(tokens_per_minute=400)), tier("spare"))
    step = entered(runtime)  # 100 of the prompt, 100 of the answer
    entered(runtime)
    assert entered(runtime).tier == "spare"
    assert step.permit is not None
    assert step.permit.settle(NOW, Used(10, 0, 5)) == Decimal("0.015")
    assert entered(runtime, asks(prompt=85)).tier == "cloud"
    assert entered(runtime).tier == "spare"


def test_one_that_is_larger_than_the_limit_never_enters_and_is_told_no_time() -> None:
    runtime = served(tier("cloud", Limits(tokens_per_minute=150)))
    stop = request(runtime).next(NOW)
    assert isinstance(stop, Stop)
    assert stop.error.retry_after is None or isinstance(stop.error, NoReadyEndpoint)
    assert stop.error.attempts == ("cloud: rate-limited (limits.tokensPerMinute)",)


def test_a_spent_budget_leads_on_where_the_next_tier_takes_that() -> None:
    limits = Limits(budget=Budget("0.50", period="Hour"))
    runtime = served(tier("cloud", limits), tier("spare", enter_on=("Budget",)))
    step = entered(runtime)
    assert step.tier == "cloud"
    assert entered(runtime).tier == "spare"  # what is under way counts in full
    assert step.permit is not None
    step.permit.settle(NOW, Used(20, 0, 10))
    assert entered(runtime).tier == "cloud"


def test_a_spent_budget_says_when_the_next_period_begins() -> None:
    runtime = served(tier("cloud", Limits(budget=Budget("0.50", period="Hour"))))
    step = entered(runtime)
    assert step.permit is not None
    step.permit.settle(NOW, Used(400, 0, 99))
    stop = request(runtime).next(NOW)  # 6000 s of Unix time: 1200 s before the hour
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, BudgetSpent)
    assert (stop.error.status, stop.error.retry_after) == (429, 1200.0)
    assert stop.error.attempts == ("cloud: budget (limits.budget)",)
    assert stop.error.message == "what is left to be spent on this model is less than this request may cost"
    assert entered(runtime, now=NOW + 1200).tier == "cloud"


def test_limits_of_all_tiers_tell_the_shortest_wait() -> None:
    runtime = served(tier("a", Limits(requests_per_minute=1)), tier("b", Limits(requests_per_minute=1)))
    assert (entered(runtime, now=NOW).tier, entered(runtime, now=NOW + 20).tier) == ("a", "b")
    stop = request(runtime).next(NOW + 30)
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, RateLimited)
    assert stop.error.retry_after == 31.0
    assert stop.error.message == "all that serves this model is at its limit", "no endpoint is"


def test_what_a_limit_keeps_out_of_a_spill_goes_home() -> None:
    runtime = served(tier("local", spill=ALL_AWAY), tier("cloud", Limits(requests_per_minute=1)))
    full(runtime)
    way = request(runtime)
    assert entered(runtime).tier == "cloud"
    step = way.next(NOW)
    assert isinstance(step, Try)
    assert (step.tier, step.spilled, step.permit and step.permit.open) == ("local", False, True)
    assert way.log == ["local: saturated", "cloud: rate-limited (limits.requestsPerMinute)"]


def test_what_a_limit_keeps_out_goes_on_before_it_goes_home() -> None:
    tiers = tier("local", spill=ALL_AWAY), tier("cloud", Limits(requests_per_minute=1)), tier("spare")
    runtime = served(*tiers)
    full(runtime)
    assert [entered(runtime).tier for _ in range(2)] == ["cloud", "spare"]


def test_a_price_that_is_gone_lets_nobody_in_where_there_is_a_budget() -> None:
    runtime = served(tier("cloud", Limits(budget=Budget("5"))), cloud=pool("cloud"))
    stop = request(runtime).next(NOW)
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, BudgetSpent)
    assert stop.error.retry_after is None


def test_an_account_that_failed_is_paid_by_the_one_that_answers() -> None:
    """Each attempt has a permit of its own; the share is taken once a request."""
    runtime = served(tier("local"), tier("cloud", Limits(max_share_percent=100, requests_per_minute=9)))
    way = request(runtime)
    failed = way.next(NOW)
    assert isinstance(failed, Try)
    for endpoint in failed.pool.endpoints.values():
        endpoint.keyed = False
    way = request(runtime)
    for _ in range(2):
        step = way.next(NOW)
        assert isinstance(step, Try)
        assert step.permit is not None
        way.failed(step, Failure("overloaded", 503))
        assert step.permit.settle(NOW, Used()) == 0
    limits = runtime.routes.all[0].limits["all", "cloud"]
    assert limits.requests is not None
    assert limits.share is not None
    assert limits.requests.used(NOW) == 2
    assert limits.share.used_percent(NOW) == 50  # one of two that came


def test_the_share_is_taken_by_the_attempt_that_is_sent() -> None:
    runtime = served(tier("local"), tier("cloud", Limits(max_share_percent=100)))
    local, cloud = (each.targets[0].pool for each in runtime.routes.all[0].rules[0])
    for endpoint in (*local.endpoints.values(), *cloud.endpoints.values()):
        endpoint.keyed = False
    way = request(runtime)
    assert isinstance(way.next(NOW), Stop)
    for endpoint in cloud.endpoints.values():
        endpoint.keyed = True
    way.reopen(runtime.routes.all[0].rules[0])
    assert isinstance(way.next(NOW), Try)
    share = runtime.routes.all[0].limits["all", "cloud"].share
    assert share is not None
    assert share.used_percent(NOW) == 100


def test_what_was_counted_outlives_a_reload_and_is_settled_where_it_was_reserved() -> None:
    before = served(tier("cloud", Limits(budget=Budget("0.50"), requests_per_minute=2)))
    step = entered(before)
    after = served(tier("cloud", Limits(budget=Budget("0.90"), requests_per_minute=9)), previous=before)
    assert step.permit is not None
    step.permit.settle(NOW, Used(100, 0, 100))
    money = after.routes.all[0].limits["all", "cloud"].money
    assert money is not None
    assert (money.spent, money.reserved, money.limit) == (Decimal("0.2"), Decimal(0), Decimal("0.90"))


def test_a_configuration_that_comes_to_nothing_leaves_limits_as_they_were() -> None:
    before = served(tier("cloud", Limits(requests_per_minute=2)))
    with pytest.raises(KeyError):
        served(tier("cloud", Limits(requests_per_minute=9)), tier("gone"), previous=before, gone=pool("other"))
    rate = before.routes.all[0].limits["all", "cloud"].requests
    assert rate is not None
    assert rate.limit == 2


@pytest.mark.parametrize("currency", ["EUR", "USD"])
def test_another_currency_is_another_purse(currency: str) -> None:
    first = TierLimits(Limits(budget=Budget("1")))
    permit = first.enter(NOW, 0.0, MODEL, 10, Decimal("0.9"), None)
    assert isinstance(permit, Permit)
    second = TierLimits(Limits(budget=Budget("1", currency)), first)
    refused = second.enter(NOW, 0.0, MODEL, 10, Decimal("0.9"), None)
    assert isinstance(refused, Refusal) == (currency == "USD")


STEPS = st.lists(
    st.tuples(
        st.floats(0, 12),
        st.integers(0, 9),
        st.sampled_from(["come", "come", "come", "want"]),
        st.none() | st.floats(0, 0.999),
    ),
    max_size=120,
)


@given(percent=st.integers(0, 100), steps=STEPS)
def test_no_more_than_the_share_comes_in_whatever_the_order(percent, steps) -> None:
    """Of those that came in the last minute, at every moment at which one comes in; rounded up to a whole one."""
    share, now = Share(percent), NOW
    came: list[float] = []
    inside: list[float] = []
    for gap, repeat, what, place in steps:
        now += gap
        for _ in range(repeat):
            if what == "come":
                share.came(now)
                came.append(now)
            share.wants(now, place)
            if share.has_room(now, place):
                share.take(now)
                inside.append(now)
                # Counted as the meter counts: in whole seconds, the one under way and the 60 before it.
                begins = int(now) - 60
                recent = sum(int(at) >= begins for at in came)
                assert sum(int(at) >= begins for at in inside) <= ceil(percent * recent / 100)
                assert (share.used_percent(now) < 100) == share.has_room(now, None), "what is told is what holds"
        if percent == 0:
            assert not inside


@settings(max_examples=20)
@given(percent=st.integers(5, 60), seed=st.integers(0, 10))
def test_sessions_stay_whole_where_more_want_to_come_than_may(percent: int, seed: int) -> None:
    """50 sessions that all want to leave: those that are in stay in, but for the few at the edge."""
    dice = random.Random(seed)
    share, now = Share(percent), NOW
    places = [dice.random() for _ in range(50)]
    sides: list[list[bool]] = [[] for _ in places]
    for turn in range(40):
        for number in dice.sample(range(50), 50):
            now += 0.1
            share.came(now)
            share.wants(now, places[number])
            into = share.has_room(now, places[number])
            if into:
                share.take(now)
            if turn >= 15:
                sides[number].append(into)
    moved = sum(1 for each in sides if sum(a != b for a, b in itertools.pairwise(each)) > 1)
    inside = sum(map(sum, sides)) / sum(map(len, sides))
    assert moved <= 20  # in no order it is nearly all of them
    assert percent / 100 * 0.93 - 0.04 <= inside <= percent / 100 + 0.01


@given(
    amount=st.decimals(0, 5, places=2),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["enter", "settle", "cancel", "fail"]),
            st.integers(1, 400),
            st.integers(1, 400),
            st.integers(0, 9),
        ),
        max_size=60,
    ),
)
def test_spend_stays_within_the_budget_and_is_the_sum_of_what_attempts_cost(amount, steps) -> None:
    """Whatever is under way at once, however each ends, as long as an answer keeps the limit that its request names."""
    runtime = served(tier("cloud", Limits(budget=Budget(str(amount), period="Month"))))
    money = runtime.routes.all[0].limits["all", "cloud"].money
    assert money is not None
    runtime.routes.all[0].rules[0][0].targets[0].pool.learned.output_tokens = 1.0
    under_way: list[tuple[Permit, Asked]] = []
    books = Decimal(0)
    for what, prompt, output, at in steps:
        if what == "enter":
            asked = asks(prompt=prompt, output=output)
            step = request(runtime, asked).next(NOW)
            if isinstance(step, Try):
                assert step.permit is not None
                under_way.append((step.permit, asked))
        elif under_way:
            permit, asked = under_way.pop(at % len(under_way))
            if what == "settle":
                used = Used(min(prompt, asked.prompt_tokens), 0, min(output, asked.output_tokens))
                books += permit.settle(NOW, used)
            elif what == "fail":
                assert permit.settle(NOW, Used()) == 0
            else:
                permit.cancel(NOW)
            permit.settle(NOW, Used(999, 0, 999))  # once is once
        assert money.used(6000.0) <= amount
        assert money.spent == books
    for permit, _ in under_way:
        permit.cancel(NOW)
    assert (money.spent, money.reserved) == (books, 0)
