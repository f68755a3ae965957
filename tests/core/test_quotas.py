"""What accounts may be sent: by limits that their owner sets, and by what their provider says is left."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from spillway_api import snapshot
from spillway_api.types import AccountLimits, Capacity, Dispatch, Health, Metrics, Model
from spillway_balancer.core.pool import Picked, Pool, Want
from spillway_balancer.core.visits import Visit

NOW = 1000.0
WANT = Want(None, 100, 50)


def spec(*limits: dict[str, int], weights: tuple[int, ...] = ()) -> snapshot.Pool:
    """Accounts a, b, … with these limits."""
    return snapshot.Pool(
        name="default/cloud",
        models=(Model(name="gpt"),),
        engine="Auto",
        provider="OpenAI",
        endpoints=tuple(
            snapshot.Endpoint(name, "http://cloud:80", weight, limits=AccountLimits(**each))
            for name, each, weight in zip("abcd", limits, weights or (100,) * len(limits), strict=False)
        ),
        dispatch=Dispatch(strategy="LeastLoad"),
        capacity=Capacity(),
        metrics=Metrics(),
        health=Health(),
    )


def send(pool: Pool, now: float, want: Want = WANT) -> Visit | str:
    picked = pool.pick(want, (), now, random.Random(1))
    return pool.visit(picked, now) if isinstance(picked, Picked) else picked


def served(pool: Pool, now: float, want: Want = WANT) -> str:
    """The account that has answered at once, or why there was none."""
    visit = send(pool, now, want)
    if isinstance(visit, Visit):
        visit.end(now)
        return visit.endpoint.name
    return visit


def test_two_accounts_of_sixty_a_minute_serve_two_times_sixty() -> None:
    pool = Pool(spec({"requests_per_minute": 60}, {"requests_per_minute": 60}))
    names = [served(pool, NOW) for _ in range(121)]
    assert (names.count("a"), names.count("b"), names[-1]) == (60, 60, "rate-limited")
    wait = pool.limited_for(NOW)
    assert wait == pytest.approx(61.0)
    assert served(pool, NOW + wait - 0.01) == "rate-limited"
    assert served(pool, NOW + wait) in ("a", "b")


def test_over_minutes_they_serve_what_they_may() -> None:
    """Twice a second and a little more: a window is up to a second longer than a minute."""
    pool = Pool(spec({"requests_per_minute": 60}, {"requests_per_minute": 60}))
    names = [served(pool, NOW + number / 2) for number in range(1200)]
    assert names.count("rate-limited") <= 1200 - 10 * 118


def test_tokens_count_as_estimated_and_then_as_they_were() -> None:
    pool = Pool(spec({"tokens_per_minute": 400}))
    first, second = send(pool, NOW), send(pool, NOW)
    assert isinstance(first, Visit)
    assert isinstance(second, Visit)
    assert send(pool, NOW) == "rate-limited"
    first.charge(100, NOW + 1)
    first.charge(0, NOW + 1)
    assert served(pool, NOW + 1) == "a"
    assert send(pool, NOW + 1) == "rate-limited"
    second.charge(0, NOW + 2)
    assert served(pool, NOW + 2) == "a"
    for each in (first, second):
        each.end(NOW + 3)


def test_a_request_that_is_larger_than_the_limit_is_told_no_time() -> None:
    pool = Pool(spec({"tokens_per_minute": 149}))
    assert send(pool, NOW) == "rate-limited"
    assert pool.limited_for(NOW) is None
    assert pool.soonest_back((), NOW) is None


def test_as_many_at_once_as_it_may_have_and_then_it_is_full() -> None:
    pool = Pool(spec({"max_in_flight": 2}, {"max_in_flight": 1}))
    visits = [send(pool, NOW) for _ in range(3)]
    names = sorted(each.endpoint.name for each in visits if isinstance(each, Visit))
    assert names == ["a", "a", "b"]
    assert send(pool, NOW) == "saturated"
    assert pool.limited_for(NOW) is None
    for each in visits:
        assert isinstance(each, Visit)
        each.end(NOW)
    assert served(pool, NOW) in ("a", "b")


def test_what_was_counted_outlives_a_reload_and_limits_that_change_hold_at_once() -> None:
    before = spec({"requests_per_minute": 3, "tokens_per_minute": 10_000})
    pool = Pool(before)
    visit = send(pool, NOW)
    assert isinstance(visit, Visit)
    assert [served(pool, NOW) for _ in range(3)] == ["a", "a", "rate-limited"]
    (account,) = before.endpoints
    more = replace(before, endpoints=(replace(account, limits=AccountLimits(requests_per_minute=4)),))
    pool = Pool(more, pool)
    assert [served(pool, NOW) for _ in range(2)] == ["a", "rate-limited"]
    free = Pool(replace(before, endpoints=(snapshot.Endpoint("a", account.url),)), pool)
    assert served(free, NOW) == "a"
    assert free.limited_for(NOW) is None
    visit.charge(7, NOW)
    visit.end(NOW)
    pool = Pool(before, free)
    assert pool.endpoints["a"].quota is not None
    assert pool.endpoints["a"].quota.used_percent(0, NOW)["tokensPerMinute"] == (7 + 4 * 150) / 100
    assert send(pool, NOW) == "rate-limited"


def test_another_balancers_requests_count_too() -> None:
    pool = Pool(spec({"requests_per_minute": 2, "tokens_per_minute": 1000}))
    forecast = pool.forecast(pool.endpoints["a"], WANT, NOW)
    pool.visit_of_sister(pool.endpoints["a"], forecast, NOW).end(NOW)
    assert [served(pool, NOW) for _ in range(2)] == ["a", "rate-limited"]


def test_an_account_that_takes_no_requests_anyway_is_not_what_keeps_them_out() -> None:
    pool = Pool(spec({"requests_per_minute": 1}, {}))
    assert served(pool, NOW) == "a"
    pool.endpoints["a"].keyed = False
    assert served(pool, NOW) == "b"
    pool.endpoints["b"].keyed = False
    assert send(pool, NOW) == "no-ready-endpoint"
    assert pool.limited_for(NOW) is None


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 400), st.integers(0, 800)), max_size=200))
def test_no_account_is_ever_sent_more_than_its_limits(asked: list[tuple[float, int, int]]) -> None:
    """Held against books of its own, as a provider would keep them: of any minute, by what was really used."""
    pool = Pool(spec({"requests_per_minute": 7, "tokens_per_minute": 2000}, {"requests_per_minute": 3}))
    books: dict[str, deque[tuple[float, int]]] = {"a": deque(), "b": deque()}
    now = NOW
    for pause, prompt, real in asked:
        now += pause
        visit = send(pool, now, Want(None, prompt, 100))
        if not isinstance(visit, Visit):
            continue
        used = min(real, prompt + 100)
        visit.charge(used, now)
        visit.end(now)
        book = books[visit.endpoint.name]
        book.append((now, used))
        while book[0][0] <= now - 60:
            book.popleft()
        assert len(book) <= (7 if visit.endpoint.name == "a" else 3)
        if visit.endpoint.name == "a":
            assert sum(tokens for _, tokens in book) <= 2000
