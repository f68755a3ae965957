"""Meters of what has been used: requests or tokens in a minute, money in a period of the calendar, requests at once.

What a request will use is taken as an estimate before it is sent and corrected when it has ended, exactly once. What
is under way counts in full, so a limit holds however many requests come at the same time. Meters outlive a reload:
the new route keeps the very object and sets its limit, so that whoever holds a reservation gives it back where it
was made. Times are arguments: `now` in seconds of the monotonic clock, `unix` in seconds since 1970. A clock that
steps back counts as one that stands still.
"""

from __future__ import annotations

from decimal import Decimal
from math import inf
from typing import Final

from spillway_api.periods import period_end
from spillway_api.types import Period

from .leases import Lease
from .prices import EXACT, NOTHING

WINDOW: Final = 60
"""Seconds of a rate. Counted in buckets of one second, the one that is under way beside them."""
SOON: Final = 1.0
"""Seconds until what is only reserved may be free: nobody knows when the requests under way end, or what they cost."""


class Taken:
    """An amount that was taken of a rate. It is good for one correction."""

    __slots__ = ("amount", "open", "second")

    def __init__(self, amount: int, second: int) -> None:
        self.amount = amount
        self.second = second
        self.open = True


class Rate:
    """At most `limit` in any 60 seconds, of requests or of tokens.

    A window that slides, not a bucket that fills: after a pause one minute's worth may go at once, and never more in
    any minute. To hold that with buckets of a second the window is up to a second longer than a minute.
    """

    __slots__ = ("_buckets", "_second", "_total", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """May be set at any time; what was counted stays."""
        self._buckets = [0] * (WINDOW + 1)
        self._total = 0
        self._second = 0

    def try_take(self, now: float, amount: int = 1) -> bool:
        """Whether `amount` is within the limit, which it then has used."""
        return self.reserve(now, amount) is not None

    def reserve(self, now: float, amount: int = 1) -> Taken | None:
        """The same of an amount that is an estimate: hand what comes back to `settle`. None where it is too much."""
        self._advance(now)
        return None if self._total + amount > self.limit else self.take(now, amount)

    def take(self, now: float, amount: int = 1) -> Taken:
        """Count `amount` whatever the limit is: it is used already."""
        self._advance(now)
        self._buckets[self._second % len(self._buckets)] += amount
        self._total += amount
        return Taken(amount, self._second)

    def settle(self, taken: Taken, now: float, real: int) -> None:
        """What it came to; 0 gives it back. It counts for when it was taken. A second call changes nothing."""
        if not taken.open:
            return
        taken.open = False
        self._advance(now)
        if taken.second > self._second - len(self._buckets):
            self._buckets[taken.second % len(self._buckets)] += real - taken.amount
            self._total += real - taken.amount

    def used(self, now: float) -> int:
        """What counts now: real figures, and estimates where there are none yet."""
        self._advance(now)
        return self._total

    def used_percent(self, now: float) -> float:
        return _percent(self.used(now), self.limit)

    def until_free(self, now: float, amount: int = 1) -> float:
        """Seconds until `amount` would be within the limit if nobody else came: 0 if it is now, infinite for one that
        never will."""
        self._advance(now)
        if amount > self.limit:
            return inf
        over = self._total + amount - self.limit
        if over <= 0:
            return 0.0
        size = len(self._buckets)
        for second in range(self._second - size + 1, self._second + 1):
            over -= self._buckets[second % size]
            if over <= 0:
                return max(0.0, second + size - now)
        return float(size)

    def until_empty(self, now: float) -> float:
        """Seconds until nothing counts any more if nobody else came."""
        self._advance(now)
        size = len(self._buckets)
        for second in range(self._second, self._second - size, -1) if self._total else ():
            if self._buckets[second % size]:
                return max(0.0, second + size - now)
        return 0.0

    def _advance(self, now: float) -> None:
        """Empty the buckets that have left the window."""
        second = int(now)
        last = self._second
        if second <= last:
            return
        size = len(self._buckets)
        if self._total or second - last < size:
            for passed in range(last + 1, min(second, last + size) + 1):
                at = passed % size
                self._total -= self._buckets[at]
                self._buckets[at] = 0
        self._second = second


class Reserved:
    """An amount of money that was set aside. It is good for one correction."""

    __slots__ = ("amount", "open", "turn")

    def __init__(self, amount: Decimal, turn: int) -> None:
        self.amount = amount
        self.turn = turn
        """Number of the period in which that was."""
        self.open = True


class Spend:
    """At most `limit` of one currency in each period of the calendar, in UTC; weeks begin on Monday.

    What has been set aside and not yet settled counts. A request is charged to the period in which it was let in, also
    where it ends in the next one: so what is under way when a period begins takes nothing of it, and no period's sum
    hangs on how long answers take. One that costs more than was set aside for it is charged in full, so a limit is
    passed by no more than the requests under way were underestimated by. Where several processes share a budget, each
    has a lease: the limit is then the ceiling of that, and nothing else differs.
    """

    __slots__ = ("_ends", "_lease", "_limit", "_most", "_period", "_turn", "reserved", "spent", "total")

    def __init__(self, limit: Decimal, period: Period) -> None:
        self._limit = self._most = limit
        self._lease: Lease | None = None
        self._period: Period = period
        self._ends = -inf
        self._turn = 0
        self.spent = NOTHING
        """In this period, as of the last call."""
        self.reserved = NOTHING
        self.total = NOTHING
        """In all periods."""

    @property
    def limit(self) -> Decimal:
        """Of all processes together. May be set at any time; what was counted stays."""
        return self._limit

    @limit.setter
    def limit(self, limit: Decimal) -> None:
        self._limit = limit
        self.bound()

    def follow(self, lease: Lease | None) -> None:
        """Spend no more than this lease has; None: the whole limit is ours."""
        self._lease = lease
        self.bound()

    def bound(self) -> None:
        """To be called when the lease has changed."""
        lease = self._lease
        self._most = self._limit if lease is None else min(self._limit, lease.at(self._ends).ceiling)

    @property
    def period(self) -> Period:
        return self._period

    @period.setter
    def period(self, period: Period) -> None:
        """Count by other periods from now on. What this one has spent counts for the new one's first."""
        if period != self._period and self._ends > -inf:
            # Any moment of the period that is under way will do; its end is the only one that is known.
            self._ends = min(self._ends, period_end(self._ends - 1.0, period))
            self.bound()
        self._period = period

    def reserve(self, unix: float, amount: Decimal) -> Reserved | None:
        """Set `amount` aside; None where that is more than is left."""
        self._roll(unix)
        held = EXACT.add(self.reserved, amount)
        if EXACT.add(self.spent, held) > self._most:
            return None
        self.reserved = held
        return Reserved(amount, self._turn)

    def settle(self, reserved: Reserved, unix: float, real: Decimal) -> None:
        """What it has cost; 0 gives it back. A second call changes nothing."""
        if not reserved.open:
            return
        reserved.open = False
        self._roll(unix)
        if self._lease is not None:
            self._lease.stirred = True
        self.total = EXACT.add(self.total, real)
        if reserved.turn == self._turn:
            self.reserved = EXACT.subtract(self.reserved, reserved.amount)
            self.spent = EXACT.add(self.spent, real)

    def ends(self, unix: float) -> float:
        """When the period of that time ends, in seconds since 1970."""
        self._roll(unix)
        return self._ends

    def restore(self, unix: float, ends: float, spent: Decimal) -> None:
        """A process before this one has spent so much in the period with that end: it counts, if that is under way."""
        if self.ends(unix) == ends:
            self.spent = EXACT.add(self.spent, spent)

    def used(self, unix: float) -> Decimal:
        """What is spent and set aside in this period."""
        self._roll(unix)
        return EXACT.add(self.spent, self.reserved)

    def spent_at(self, unix: float) -> Decimal:
        """What is spent in the period of that time."""
        self._roll(unix)
        return self.spent

    def used_percent(self, unix: float) -> float:
        return _percent(float(self.used(unix)), float(self._limit))

    def until_free(self, unix: float, amount: Decimal) -> float:
        """Seconds until `amount` may be within the limit: 0 if it is now, to the end of the period where the money is
        spent, SOON where it is only set aside or where the lease may become larger, infinite for what is more than the
        whole limit."""
        self._roll(unix)
        if amount > self._limit:
            return inf
        lease = self._lease
        if lease is not None:
            lease.asks(amount)
        after = EXACT.add(self.spent, amount)
        if after > self._most and (lease is None or after > self._limit or lease.at(self._ends).dry):
            return max(0.0, self._ends - unix)
        return SOON if EXACT.add(after, self.reserved) > self._most else 0.0

    def _roll(self, unix: float) -> None:
        if unix >= self._ends:
            self._ends = period_end(unix, self._period)
            self._turn += 1
            self.spent = self.reserved = NOTHING
            if self._lease is not None:
                self.bound()


class Concurrent:
    """At most `limit` requests at once."""

    __slots__ = ("count", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """May be set at any time; who is in stays in."""
        self.count = 0

    def try_take(self) -> bool:
        """Whether one more may come in, who must then `release`, once."""
        if self.count >= self.limit:
            return False
        self.count += 1
        return True

    def release(self) -> None:
        self.count -= 1

    def used_percent(self) -> float:
        return _percent(self.count, self.limit)

    def until_free(self) -> float:
        """Seconds: 0 where there is room, else SOON."""
        return 0.0 if self.count < self.limit else SOON


def _percent(used: float, limit: float) -> float:
    """Of a limit of nothing all is used."""
    return 100.0 * used / limit if limit > 0 else 100.0
