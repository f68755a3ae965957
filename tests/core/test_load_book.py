"""The load book: exact while leases come and go, and no worse for what a broken metrics page says."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from spillway_balancer.core.load import FIRST_GUESS, Lease, LoadBook, Reported, RequestSize

STALE = 5.0
absurd = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, -0.001, 1e308, 1.1e6, None])
counts = st.integers(0, 100_000)


def report(at: float = 100.0, waiting: float | None = 0.0, running: float | None = 0.0, own: int = 0) -> Reported:
    return Reported(at, waiting, running, None, own, None, None)


class Books(RuleBasedStateMachine):
    """Leases in any order, released twice or not at all, against a plain sum."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.book = LoadBook()
        self.held: dict[Lease, tuple[int, int]] = {}

    @rule(target=leases, prompt=counts, output=counts)
    def lease(self, prompt: int, output: int) -> Lease:
        lease = self.book.lease(prompt, output)
        self.held[lease] = (prompt, output)
        return lease

    @rule(lease=leases)
    def first_token(self, lease: Lease) -> None:
        lease.first_token()
        if lease in self.held:
            self.held[lease] = (0, self.held[lease][1])

    @rule(lease=leases)
    def release(self, lease: Lease) -> None:
        lease.release()
        self.held.pop(lease, None)

    @invariant()
    def book_is_the_sum_of_the_leases_held(self) -> None:
        assert self.book.in_flight == len(self.held)
        assert self.book.tokens == sum(map(sum, self.held.values()))
        assert self.book.requests(0.0, STALE) == self.book.load("Requests", 0.0, STALE) == len(self.held)
        assert self.book.load("Tokens", 0.0, STALE) == self.book.tokens


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_lease_is_released_when_the_attempt_raises() -> None:
    book = LoadBook()
    lease = book.lease(10, 20)

    def attempt() -> None:
        with lease:
            assert (book.in_flight, book.tokens) == (1, 30)
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        attempt()
    assert (book.in_flight, book.tokens) == (0, 0)


def test_lease_is_released_when_the_request_is_cancelled() -> None:
    book = LoadBook()

    async def attempt() -> None:
        with book.lease(10, 20) as lease:
            lease.first_token()
            await asyncio.Event().wait()

    async def client_leaves() -> None:
        task = asyncio.create_task(attempt())
        await asyncio.sleep(0)
        assert (book.in_flight, book.tokens) == (1, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(client_leaves())
    assert (book.in_flight, book.tokens) == (0, 0)


def test_negative_sizes_are_no_credit() -> None:
    book = LoadBook()
    lease = book.lease(-5, -7)
    assert book.tokens == 0
    lease.first_token()
    lease.release()
    assert (book.in_flight, book.tokens) == (0, 0)


@given(
    waiting=st.integers(0, 5000),
    running=st.integers(0, 5000),
    own=st.integers(0, 50),
    at_scrape=st.integers(0, 5000),
)
@settings(deadline=None)
def test_scrape_adds_the_traffic_of_others(waiting: int, running: int, own: int, at_scrape: int) -> None:
    book = LoadBook()
    for _ in range(own):
        book.lease(1, 1)
    book.reported(report(100.0, float(waiting), float(running), at_scrape))
    others = max(0, waiting + running - at_scrape)
    assert book.others(101.0, STALE) == others
    assert book.requests(101.0, STALE) == own + others
    assert book.load("Requests", 101.0, STALE) == own + others


@given(waiting=absurd, running=absurd | st.floats(0, 100), swap=st.booleans(), own=st.integers(0, 9))
@settings(deadline=None)
def test_absurd_gauges_change_nothing(waiting: float | None, running: float | None, swap: bool, own: int) -> None:
    if swap:
        waiting, running = running, waiting
    book = LoadBook()
    book.lease(100, 100)
    book.reported(report(100.0, waiting, running, own))
    assert book.requests(100.0, STALE) == 1
    assert book.load("Requests", 100.0, STALE) == 1
    assert book.load("Tokens", 100.0, STALE) == 200


def test_stale_report_counts_as_unknown() -> None:
    book = LoadBook()
    book.reported(report(100.0, 3.0, 4.0))
    assert book.requests(105.0, STALE) == 7
    assert book.requests(105.1, STALE) == 0
    assert book.report(105.1, STALE) is None


def test_failed_scrape_is_no_news() -> None:
    book = LoadBook()
    book.reported(report(100.0, 3.0, 4.0))
    book.reported(None)
    assert book.requests(101.0, STALE) == 7


@pytest.mark.parametrize("at", [99.0, math.nan, math.inf])
def test_report_from_the_past_or_from_no_time_is_ignored(at: float) -> None:
    book = LoadBook()
    book.reported(report(100.0, 3.0, 4.0))
    book.reported(report(at, 50.0, 50.0))
    assert book.requests(101.0, STALE) == 7


def test_page_that_lost_its_gauges_is_believed_not_to_know() -> None:
    book = LoadBook()
    book.reported(report(100.0, 3.0, 4.0))
    book.reported(report(101.0, None, None))
    assert book.requests(101.0, STALE) == 0


def test_unknown_is_not_zero() -> None:
    book = LoadBook()
    assert book.report(100.0, STALE) is None
    book.reported(Reported(100.0, None, 0.0, 0.0, 0, None, 0.0))
    known = book.report(100.0, STALE)
    assert known is not None
    assert (known.waiting, known.running, known.kv_usage) == (None, 0.0, 0.0)
    assert (known.prefix_queries, known.prefix_hits) == (None, 0.0)


@given(st.one_of(absurd, st.just(1.5)), st.sampled_from([math.nan, -1.0, 1e308]))
@settings(deadline=None)
def test_absurd_cache_figures_are_unknown(usage: float | None, counter: float) -> None:
    book = LoadBook()
    book.reported(Reported(100.0, 1.0, 1.0, usage, -3, counter, counter))
    assert book.report(100.0, STALE) == Reported(100.0, 1.0, 1.0, None, 0, None, None)


def test_requests_of_others_cost_the_mean_of_the_pool() -> None:
    size = RequestSize()
    busy, new = LoadBook(size), LoadBook(size)
    new.reported(report(100.0, 1.0, 1.0))
    assert new.load("Tokens", 100.0, STALE) == 2 * FIRST_GUESS
    for _ in range(300):
        busy.lease(3000, 1000).release()
    assert new.load("Tokens", 100.0, STALE) == pytest.approx(2 * 4000, rel=0.01)
