"""How busy an endpoint is: what this balancer has there, and what its engine says others have there.

Own counts come first, because an engine's gauges lag by seconds; a scrape corrects for the traffic that does
not pass through this balancer: `load = own + max(0, (waiting + running) - own at the scrape)`. What is not
known adds nothing.
"""

from __future__ import annotations

from math import isfinite
from types import TracebackType
from typing import Literal, NamedTuple, Self

ABSURD_REQUESTS = 1e6
"""No engine holds so many requests; a gauge above it is broken, and unknown."""
ABSURD_COUNT = 1e18
"""No counter of tokens gets so far."""
FIRST_GUESS = 512.0
"""Tokens of a request, before any has been seen."""
LEARNING_RATE = 1 / 32


class Reported(NamedTuple):
    """What one scrape of an engine's metrics said. None is *unknown*, which is not 0."""

    at: float
    """When it was read: seconds, monotonic."""
    waiting: float | None
    """Requests queued in the engine."""
    running: float | None
    """Requests that the engine computes."""
    kv_usage: float | None
    """Used part of the KV cache, 0 to 1."""
    own: int
    """This balancer's requests in flight there at the scrape."""
    prefix_queries: float | None
    """Counter: tokens looked up in the prefix cache."""
    prefix_hits: float | None
    """Counter: tokens found there."""
    own_pending: int = 0
    """Of its own, those without a first token at the scrape."""
    own_context: float = 0.0
    """Prompt tokens of its own in flight at the scrape."""


class RequestSize:
    """Mean tokens of the requests of a pool, learned; what a request of somebody else's is taken to cost.

    Share one among the books of a pool, or an endpoint that is new to a busy pool looks cheaper than its
    sisters.
    """

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = FIRST_GUESS


class LoadBook:
    """What is in flight on one endpoint. It outlives reloads, for leases on it do.

    `in_flight` counts requests, `tokens` the prompt and output tokens that they still have to compute. Both
    are exact sums over the leases held, so neither drifts nor falls below 0.
    """

    __slots__ = (
        "_others",
        "_report",
        "_size",
        "context",
        "in_flight",
        "pending",
        "pending_pairs",
        "pending_tokens",
        "tokens",
    )

    def __init__(self, size: RequestSize | None = None) -> None:
        self.in_flight: int = 0
        self.tokens: int = 0
        self.pending: int = 0
        """Requests that have no first token yet."""
        self.pending_tokens: float = 0.0
        """Prompt tokens of those that are not cached there: the queue ahead of a newcomer."""
        self.pending_pairs: float = 0.0
        """Of these tokens, each with those before it in its prompt (`core.attention`)."""
        self.context: int = 0
        """Prompt tokens of all in flight: what they occupy of the KV memory, answers aside."""
        self._size = size if size is not None else RequestSize()
        self._report: Reported | None = None
        self._others = 0  # requests that are not ours, by the last report

    def lease(self, prompt_tokens: int, output_tokens: int, uncached: float | None = None, pairs: float = 0.0) -> Lease:
        """Holds a slot until the lease is released. Negative numbers of tokens count as 0.

        `uncached` of the prompt's tokens have to be computed there; unless it is known, all of them. `pairs` are what
        these add by the prompt's length.
        """
        prompt = max(0, prompt_tokens)
        output = max(0, output_tokens)
        self.in_flight += 1
        self.tokens += prompt + output
        self.pending += 1
        self.context += prompt
        missing = float(prompt if uncached is None else min(max(uncached, 0.0), prompt))
        self.pending_tokens += missing
        self.pending_pairs += pairs
        size = self._size
        size.tokens += (prompt + output - size.tokens) * LEARNING_RATE
        return Lease(self, prompt, output, missing, pairs)

    def reported(self, report: Reported | None) -> None:
        """Takes what a scrape said; each value that is NaN, negative or absurd counts as unknown.

        None is a scrape that failed: no news, so the last report stands until it is stale. One that is older
        than the last, or has no usable time, is ignored.
        """
        if report is None or not isfinite(report.at):
            return
        if self._report is not None and report.at < self._report.at:
            return
        self._report = report = Reported(
            report.at,
            _known(report.waiting, ABSURD_REQUESTS),
            _known(report.running, ABSURD_REQUESTS),
            _known(report.kv_usage, 1.0),
            max(0, report.own),
            _known(report.prefix_queries, ABSURD_COUNT),
            _known(report.prefix_hits, ABSURD_COUNT),
            max(0, report.own_pending),
            max(0.0, report.own_context),
        )
        if report.waiting is None or report.running is None:
            self._others = 0  # half a sum is unknown too: the missing half is not 0
        else:
            self._others = max(0, round(report.waiting + report.running) - report.own)

    def report(self, now: float, stale_after: float) -> Reported | None:
        """The last report without its absurd values; None once it is older than `stale_after` seconds."""
        report = self._report
        return report if report is not None and now - report.at <= stale_after else None

    def others(self, now: float, stale_after: float) -> int:
        """Requests there that this balancer did not send, by the last report; 0 when that is unknown."""
        if self._others and self.report(now, stale_after) is not None:
            return self._others
        return 0

    def others_waiting(self, now: float, stale_after: float) -> float:
        """Of those, how many wait in the engine's queue."""
        if not self._others:
            return 0.0
        report = self.report(now, stale_after)
        return max(0.0, (report.waiting or 0.0) - report.own_pending) if report is not None else 0.0

    def others_context(self, now: float, stale_after: float, capacity: float) -> float:
        """Tokens of the KV memory, of `capacity` tokens, that those occupy."""
        if not self._others:
            return 0.0
        report = self.report(now, stale_after)
        if report is None or report.kv_usage is None:
            return 0.0
        return max(0.0, report.kv_usage * capacity - report.own_context)

    def requests(self, now: float, stale_after: float) -> int:
        """Requests in flight on the endpoint."""
        return self.in_flight + self.others(now, stale_after)

    def load(self, unit: Literal["Requests", "Tokens"], now: float, stale_after: float) -> float:
        """In requests, or in tokens still to compute (a request of somebody else's counts as the mean)."""
        others = self.others(now, stale_after)
        if unit == "Requests":
            return float(self.in_flight + others)
        return self.tokens + others * self._size.tokens


class Lease:
    """A held slot. Release it on every path, cancellation included: `with book.lease(...) as lease:`."""

    __slots__ = ("_book", "_missing", "_output", "_pairs", "_pending", "_prompt")

    def __init__(self, book: LoadBook, prompt: int, output: int, missing: float, pairs: float) -> None:
        self._book: LoadBook | None = book
        self._prompt = prompt
        self._output = output
        self._missing = missing
        self._pairs = pairs
        self._pending = True

    @property
    def released(self) -> bool:
        return self._book is None

    def first_token(self) -> None:
        """The prompt is computed now: its tokens are no load any more. Later calls change nothing."""
        book = self._book
        if book is not None and self._pending:
            self._pending = False
            book.tokens -= self._prompt
            book.pending -= 1
            # Fractions of tokens do not add up exactly; an empty queue is empty.
            book.pending_tokens = max(0.0, book.pending_tokens - self._missing) if book.pending else 0.0
            book.pending_pairs = max(0.0, book.pending_pairs - self._pairs) if book.pending else 0.0

    def release(self) -> None:
        """Gives back the slot and whatever tokens are left. Later calls change nothing."""
        book = self._book
        if book is not None:
            self.first_token()
            self._book = None
            book.in_flight -= 1
            book.context -= self._prompt
            book.tokens -= self._output

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _known(value: float | None, most: float) -> float | None:
    # NaN fails the comparison as well.
    return value if value is not None and 0.0 <= value <= most else None
