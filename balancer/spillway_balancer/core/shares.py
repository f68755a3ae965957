"""A bound on the part of a rule's requests that comes into a tier, and which of them those should be."""

from __future__ import annotations

from typing import Final

from .meters import WINDOW

PLACES: Final = 100
"""Sorts of sessions that are told apart. Those of the one at the edge are let in as long as there is room."""


FILLED: Final = 0.93
"""Of the share, as much is for sessions in their order. The rest takes up how unevenly requests come: with none, the
bound is met now and then, and each time it is another session that has one request on the other side. Of 50 that all
want to come into 30 %, 10 to 14 were thus divided; so it is 1 to 7."""


class Share:
    """Of the requests that a rule has had in the last minute, no more than `percent` of 100 have come in; rounded up to
    a whole request, so that the first of a quiet hour may.

    Counted in buckets of a second as `Rate` counts. That is the bound, and it holds whatever comes. Within it, where
    more want to come in than may, sessions do in the order of their places: so those that are in stay, and the others
    stay where they are, instead of each having some of its requests here and some there.
    """

    __slots__ = ("_came", "_came_faded", "_came_in_all", "_in", "_in_all", "_second", "_wanted", "percent")

    def __init__(self, percent: int) -> None:
        self.percent = percent
        """May be set at any time; what was counted stays."""
        size = WINDOW + 1
        self._came = [0] * size
        self._in = [0] * size
        self._came_in_all = 0
        self._in_all = 0
        self._second = 0
        self._came_faded = 0.0
        """Requests that came, those of a minute ago counting a third."""
        self._wanted = [0.0] * PLACES
        """Those that wanted to come in, by their places, fading likewise."""

    def came(self, now: float, count: int = 1) -> None:
        """The rule has had a request, or so many. Once for each, wherever it goes."""
        self._advance(now)
        self._came[self._second % len(self._came)] += count
        self._came_in_all += count
        self._came_faded += count

    def wants(self, now: float, place: float | None) -> None:
        """A request wants to come in, whatever becomes of that. Once for each. `place`: of its session, 0 to 1; None
        where it has none."""
        self._advance(now)
        if place is not None:
            self._wanted[int(place * PLACES)] += 1.0

    def has_room(self, now: float, place: float | None) -> bool:
        """Whether a request of this place may come in."""
        self._advance(now)
        if self._in_all * 100 >= self.percent * self._came_in_all:
            return False
        if place is None or self.percent >= 100:
            return True
        before = sum(self._wanted[: int(place * PLACES)])
        return before * 100 <= FILLED * self.percent * self._came_faded

    def used_percent(self, now: float) -> float:
        """Of those that may come in, how many have."""
        self._advance(now)
        most = -(-self.percent * self._came_in_all // 100)  # rounded up, as `has_room` does
        return 100.0 * self._in_all / most if most else 100.0 * (self._in_all > 0 or not self.percent)

    def take(self, now: float) -> int:
        """It comes in; returns what `give_back` takes where it did not after all."""
        self._advance(now)
        self._in[self._second % len(self._in)] += 1
        self._in_all += 1
        return self._second

    def give_back(self, taken: int, now: float) -> None:
        self._advance(now)
        if taken > self._second - len(self._in):
            self._in[taken % len(self._in)] -= 1
            self._in_all -= 1

    def _advance(self, now: float) -> None:
        second = int(now)
        last = self._second
        if second <= last:
            return  # a clock that steps back counts as one that stands still
        size = len(self._came)
        for passed in range(last + 1, min(second, last + size) + 1):
            at = passed % size
            self._came_in_all -= self._came[at]
            self._in_all -= self._in[at]
            self._came[at] = self._in[at] = 0
        fading = (1 - 1 / WINDOW) ** (second - last)
        self._came_faded *= fading
        self._wanted = [count * fading for count in self._wanted]
        self._second = second
