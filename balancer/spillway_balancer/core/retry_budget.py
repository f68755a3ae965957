"""A bound on retries, so that a pool in trouble is not given more work than one in health."""

from __future__ import annotations

WINDOW = 10
"""Buckets of one second."""
FLOOR = 3
"""Retries per second that are always allowed: a share of next to no traffic is nothing."""


class RetryBudget:
    """Retries of the last ten seconds stay within `percent` of the requests of that time, or the floor.

    The floor is three a second (30 in ten seconds); whichever is more holds. Counted in one-second buckets of
    the clock that is handed in, so both calls are O(1). The floor is one of ten seconds and not of each one,
    because failures come in bursts: an endpoint that dies takes all of its requests at once. A request is
    counted once, its retries are not requests. At 0 percent the floor remains; to have no retries at all is
    `attempts: 1`.
    """

    __slots__ = ("_requests", "_retries", "_second", "_total_requests", "_total_retries", "percent")

    def __init__(self, percent: int = 20) -> None:
        self.percent = percent
        """May be set at any time; what was counted stays."""
        self._requests = [0] * WINDOW
        self._retries = [0] * WINDOW
        self._total_requests = 0
        self._total_retries = 0
        self._second = 0

    def note_request(self, now: float) -> None:
        """A request has come; `now` in seconds, monotonic."""
        at = self._advance(now)
        self._requests[at] += 1
        self._total_requests += 1

    def try_take(self, now: float) -> bool:
        """True if one more attempt is within the budget, which it then has used."""
        at = self._advance(now)
        allowed = max(FLOOR * WINDOW, self._total_requests * self.percent // 100)
        if self._total_retries >= allowed:
            return False
        self._retries[at] += 1
        self._total_retries += 1
        return True

    def _advance(self, now: float) -> int:
        """The bucket of this second, after those that have left the window are emptied."""
        second = int(now)
        last = self._second
        if second <= last:
            return last % WINDOW  # a clock that steps back counts as one that stands still
        for passed in range(last + 1, min(second, last + WINDOW) + 1):
            at = passed % WINDOW
            self._total_requests -= self._requests[at]
            self._total_retries -= self._retries[at]
            self._requests[at] = self._retries[at] = 0
        self._second = second
        return second % WINDOW
