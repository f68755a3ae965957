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
from spillway_balancer.core.quotas import KINDS, Said
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


def told(pool: Pool, now: float, *said: Said, want: Want = WANT) -> Visit:
    visit = send(pool, now, want)
    assert isinstance(visit, Visit)
    visit.answered(said, False, now)
    visit.end(now)
    return visit


def test_an_account_with_too_little_left_is_passed_over_until_its_reset() -> None:
    pool = Pool(spec({}, {}, weights=(1000, 1)))
    told(pool, NOW, Said("requests", 2, 30.0, 60))
    assert [served(pool, NOW + 1) for _ in range(4)] == ["a", "a", "b", "b"]
    assert pool.limited_for(NOW + 1) == 29.0
    assert served(pool, NOW + 29.9) == "b"
    assert served(pool, NOW + 30) == "a"


def test_what_is_under_way_is_taken_off_and_what_came_before_is_not() -> None:
    pool = Pool(spec({}, {}, weights=(1000, 1)))
    first, second, third = [send(pool, NOW) for _ in range(3)]
    assert isinstance(first, Visit)
    assert isinstance(second, Visit)
    assert isinstance(third, Visit)
    quota = pool.endpoints["a"].quota
    assert quota is not None
    second.answered((Said("requests", 10, 30.0, 60), Said("tokens", 1000, 30.0, 9000)), True, NOW + 1)
    assert dict(quota.remaining(NOW + 1)) == {"requests": 9, "tokens": 850}  # the third has been sent since
    first.answered((Said("requests", 11, 30.0, 60),), True, NOW + 2)  # an older word
    assert dict(quota.remaining(NOW + 2))["requests"] == 9
    third.answered((Said("requests", 5, 30.0, 60),), True, NOW + 3)
    assert dict(quota.remaining(NOW + 3))["requests"] == 5
    first.answered((Said("requests", 40, 30.0, 60),), True, NOW + 40)  # the newer one is over
    assert dict(quota.remaining(NOW + 40))["requests"] == 38
    for each in (first, second, third):
        each.end(NOW + 40)


@pytest.mark.parametrize(
    ("kind", "left", "carries"),
    [
        ("tokens", 149, 0),
        ("tokens", 150, 1),
        ("input-tokens", 99, 0),
        ("input-tokens", 100, 1),
        ("output-tokens", 9, 0),
    ],
)
def test_tokens_are_looked_at_by_what_the_request_may_use(kind: str, left: int, carries: int) -> None:
    pool = Pool(spec({}, {}, weights=(1000, 1)))
    told(pool, NOW, Said(kind, left, 30.0, 9000))  # type: ignore[arg-type]
    assert served(pool, NOW) == ("a" if carries else "b")


def test_the_last_way_is_never_closed_and_is_the_one_with_most_left() -> None:
    pool = Pool(spec({}, {}, weights=(1000, 1)))
    told(pool, NOW, Said("requests", 0, 30.0, 60), Said("tokens", 1000, 30.0, 9000))
    assert told(pool, NOW, Said("tokens", 100, 60.0, 9000)).endpoint.name == "b"
    assert served(pool, NOW) == "b"
    pool.endpoints["b"].keyed = False
    assert served(pool, NOW) == "a"
    assert pool.limited_for(NOW) is None


def test_one_at_a_time_is_tried_where_all_say_that_nothing_is_left() -> None:
    pool = Pool(spec({}, {}))
    for _ in range(2):
        told(pool, NOW, Said("requests", 0, 30.0, 60))
    trial = send(pool, NOW + 1)
    assert isinstance(trial, Visit)
    assert send(pool, NOW + 1) == "rate-limited"
    assert pool.limited_for(NOW + 1) == 29.0
    trial.answered((Said("requests", 0, 28.0, 60),), False, NOW + 2)
    another = send(pool, NOW + 2)
    assert isinstance(another, Visit)
    assert send(pool, NOW + 2) == "rate-limited"
    another.end(NOW + 3)  # the client has left: that says nothing
    trial.end(NOW + 3)
    last = send(pool, NOW + 3)
    assert isinstance(last, Visit)
    last.end(NOW + 3)


def test_who_says_that_nothing_is_left_and_serves_is_not_believed_for_a_while() -> None:
    pool = Pool(spec({}))
    told(pool, NOW, Said("requests", 0, 3000.0, 60))
    trial = send(pool, NOW)
    assert isinstance(trial, Visit)
    trial.answered((Said("requests", 0, 3000.0, 60),), True, NOW + 1)
    visits = [send(pool, NOW + 1) for _ in range(9)]
    for each in visits:
        assert isinstance(each, Visit)
        each.answered((Said("requests", 0, 3000.0, 60),), True, NOW + 2)
    told(pool, NOW + 11, Said("requests", 0, 3000.0, 60))
    again = send(pool, NOW + 11)
    assert isinstance(again, Visit)
    assert send(pool, NOW + 11) == "rate-limited"
    for each in (trial, again, *visits):
        assert isinstance(each, Visit)
        each.end(NOW + 12)


def test_another_credential_is_another_account() -> None:
    before = spec({}, {}, weights=(1000, 1))
    pool = Pool(before)
    told(pool, NOW, Said("requests", 0, 30.0, 60))
    first, second = before.endpoints
    key = snapshot.Credential("default/new", "api-key", "Authorization", "Bearer ")
    assert served(Pool(replace(before, dispatch=Dispatch(strategy="RoundRobin")), pool), NOW) == "b"
    assert served(Pool(replace(before, endpoints=(replace(first, credential=key), second)), pool), NOW) == "a"


SAID = st.builds(Said, st.sampled_from(KINDS), st.integers(0, 1000), st.floats(0.001, 86400), st.none() | st.just(1000))


@given(st.lists(st.tuples(st.floats(0, 100), st.lists(SAID, max_size=4)), max_size=60), st.integers(1, 4))
def test_whatever_headers_say_there_is_a_way(asked: list[tuple[float, list[Said]]], accounts: int) -> None:
    pool = Pool(spec(*[{}] * accounts))
    now = NOW
    for pause, said in asked:
        now += pause
        told(pool, now, *said)


class Window:
    """A provider's count of one account: `quota` requests in each minute, which begins when its clock says."""

    def __init__(self, quota: int, phase: float) -> None:
        self.quota = quota
        self.refused = 0
        self._start = NOW - 60 + phase
        self._used = 0

    def ask(self, now: float) -> Said:
        while now >= self._start + 60:
            self._start, self._used = self._start + 60, 0
        self.refused += self._used >= self.quota
        self._used = min(self.quota, self._used + 1)
        return Said("requests", self.quota - self._used, self._start + 60 - now, self.quota)


@pytest.mark.parametrize("weights", [(100, 100), (300, 100), (1000, 1)])
@pytest.mark.parametrize("phase", [0.0, 17.0, 40.0])
@pytest.mark.parametrize("limits", [({}, {}), ({"requests_per_minute": 60}, {})], ids=["headers", "mixed"])
def test_two_a_second_for_ten_minutes_meet_no_429(
    weights: tuple[int, int], limits: tuple[dict[str, int], ...], phase: float
) -> None:
    """In virtual time, each answered after 0.3 s: 1,200 requests by two accounts of 60 a minute."""
    pool = Pool(spec(*limits, weights=weights))
    # The minute of a limit is up to a second longer, and what it keeps back goes to the other account.
    windows = {"a": Window(60, 0.0), "b": Window(62 if limits[0] else 60, phase)}
    under_way: deque[tuple[float, Visit, Said]] = deque()
    for number in range(1200):
        now = NOW + number / 2 + 0.1
        while under_way and under_way[0][0] <= now:
            _, visit, said = under_way.popleft()
            if not limits[0] or visit.endpoint.name == "b":
                visit.answered((said._replace(reset=said.reset - 0.3),) if said.reset > 0.3 else (), True, now)
            visit.end(now)
        sent = send(pool, now)
        assert isinstance(sent, Visit)
        under_way.append((now + 0.3, sent, windows[sent.endpoint.name].ask(now)))
    for _, visit, _ in under_way:
        visit.end(NOW + 601)
    assert [each.refused for each in windows.values()] == [0, 0]
