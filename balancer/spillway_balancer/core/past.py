"""What this balancer had in flight at an endpoint a moment ago: what others have scraped there is that old.

Of requests that an engine has counted then, one's own are those of then. Taken off are neither those that have come
since, which would hide as many of others', nor are those kept that have ended since.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from .load import LoadBook

HORIZON: Final = 10.0
"""Seconds that are remembered; what is told of a time before that is older than is of use."""
GRAIN: Final = 0.05
"""Seconds that are one moment, so that a busy endpoint costs no more memory than that."""


class Moment(NamedTuple):
    at: float
    in_flight: int
    pending: int
    context: int


class Past:
    """Of one endpoint. `note` after every change; times are seconds, monotonic, and do not go back."""

    __slots__ = ("_moments",)

    def __init__(self, book: LoadBook) -> None:
        """What is in flight now has always been."""
        self._moments = deque([Moment(float("-inf"), book.in_flight, book.pending, book.context)])

    def note(self, now: float, book: LoadBook) -> None:
        """What is in flight from now on."""
        moments = self._moments
        begun = now
        if now - moments[-1].at < GRAIN:
            begun = moments.pop().at
        moments.append(Moment(begun, book.in_flight, book.pending, book.context))
        while len(moments) > 1 and moments[1].at <= now - HORIZON:
            moments.popleft()

    def at(self, when: float) -> Moment:
        """What was in flight then, to `GRAIN` seconds; of a time before all that is remembered, the oldest."""
        for moment in reversed(self._moments):
            if moment.at <= when:
                return moment
        return self._moments[0]
