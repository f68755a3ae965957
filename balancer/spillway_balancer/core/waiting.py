"""Requests that no tier is open to: who may wait, in which order they are served, and how long it is likely to take.

Higher priorities go first. Within one priority callers take turns, one request each, and a caller's own requests keep
their order. A turn each is deficit round robin (Shreedhar and Varghese, 1995) with a quantum of one request: of two
callers that both wait neither is ever served more than one request above the other, and a caller that comes anew waits
for one round at most, however many requests the others have lined up. Start-time fair queueing would let each new
caller in before the second request of an old one, so that whoever makes up callers could keep others waiting for ever.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator
from itertools import islice
from math import exp, inf
from typing import Final, Literal, NamedTuple

REACH: Final = 64
"""Requests at the head that are looked at for one whose way is open."""

MEMORY_SECONDS: Final = 30.0
MEMORY_TURNS: Final = 16.0
"""The rate at which the line moves is averaged over so long, and over so many turns at least: requests that began
together end together, and of a burst of turns alone it would seem that the next one comes at once."""

Refusal = Literal["requests", "bytes"]


class Bounds(NamedTuple):
    """What may wait at a time."""

    requests: int
    size: int
    """Bytes of their bodies."""


class Ticket:
    """A place in the line."""

    __slots__ = ("caller", "joined", "needs", "priority", "size", "until")

    def __init__(
        self, caller: str, priority: int, size: int, joined: float, until: float, needs: Hashable = None
    ) -> None:
        self.caller = caller
        """Who takes turns with others; the same for all where there is no fairness to keep."""
        self.priority = priority
        self.size = size
        """Bytes that it keeps in memory."""
        self.joined = joined
        self.until = until
        """When it will wait no more."""
        self.needs = needs
        """What it can be served by: where one was turned away, others with the same needs would be, too."""


class _Level:
    """Those of one priority."""

    __slots__ = ("callers", "count")

    def __init__(self) -> None:
        self.callers: OrderedDict[str, OrderedDict[Ticket, None]] = OrderedDict()
        """In the order of their turns; each with its tickets in the order they came."""
        self.count = 0

    def in_order(self) -> Iterator[Ticket]:
        """As they would be served if nobody came and nobody left."""
        later = []
        for tickets in self.callers.values():  # one after the other: who wants but the first looks at no more callers
            turns = iter(tickets)
            yield next(turns)
            later.append(turns)
        while later:
            still = []
            for turns in later:
                ticket = next(turns, None)
                if ticket is not None:
                    yield ticket
                    still.append(turns)
            later = still

    def before(self, ticket: Ticket) -> int:
        """How many are served before this one: of each caller at most as many as this caller has before it, and one
        more of those whose turn comes first."""
        own = 0
        for each in self.callers[ticket.caller]:
            if each is ticket:
                break
            own += 1
        found = own
        first = 1
        for caller, tickets in self.callers.items():
            if caller == ticket.caller:
                first = 0
            else:
                found += min(len(tickets), own + first)
        return found


class Waiting:
    """A line. Joining, leaving and being served take the same time however long it is."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        """May change while some wait: who is there stays."""
        self.size = 0
        """Bytes of those that wait."""
        self._count = 0
        self._levels: dict[int, _Level] = {}
        self._priorities: list[int] = []  # negative, so that the highest is the first
        self._clock = 0.0
        self._silence = 0.0  # for how long some have waited since the last turn
        self._turns = 0.0  # how many have been served, the older ones counting less
        self._took = 0.0  # for how long there were some to serve meanwhile, likewise

    def __len__(self) -> int:
        return self._count

    def refuses(self, size: int) -> Refusal | None:
        """Which bound one more request with so many bytes would exceed."""
        if self._count >= self.bounds.requests:
            return "requests"
        return "bytes" if self.size + size > self.bounds.size else None

    def join(self, ticket: Ticket, now: float) -> bool:
        """Take a place. False where there is none."""
        if self.refuses(ticket.size) is not None:
            return False
        self._tick(now)
        level = self._levels.get(ticket.priority)
        if level is None:
            level = self._levels[ticket.priority] = _Level()
            insort(self._priorities, -ticket.priority)
        level.callers.setdefault(ticket.caller, OrderedDict())[ticket] = None
        level.count += 1
        self._count += 1
        self.size += ticket.size
        return True

    def served(self, ticket: Ticket, now: float) -> None:
        """Its turn is over: the line has moved, and the caller's next turn comes after that of the others."""
        self._tick(now)
        level = self._levels[ticket.priority]
        self._remove(level, ticket)
        if ticket.caller in level.callers:
            level.callers.move_to_end(ticket.caller)
        kept = max(exp(-self._silence / MEMORY_SECONDS), 1.0 - 1.0 / MEMORY_TURNS)
        self._turns = self._turns * kept + 1.0
        self._took = self._took * kept + self._silence
        self._silence = 0.0

    def leave(self, ticket: Ticket, now: float) -> None:
        """It waits no more, unserved. Whoever has left or was served already may leave again."""
        level = self._levels.get(ticket.priority)
        if level is not None and ticket in level.callers.get(ticket.caller, ()):
            self._tick(now)
            self._remove(level, ticket)

    def next(self, turned_away: Collection[Hashable] = ()) -> Ticket | None:
        """Whose turn it is, those aside whose needs cannot be met now. They keep their place."""
        head = islice(self.in_order(), REACH)
        return next((ticket for ticket in head if ticket.needs not in turned_away), None)

    def in_order(self) -> Iterator[Ticket]:
        """As they would be served if nobody came and nobody left."""
        for negative in self._priorities:
            yield from self._levels[-negative].in_order()

    def position(self, ticket: Ticket) -> int:
        """How many are served before this one. Takes time with the number of callers."""
        return self._above(ticket.priority) + self._levels[ticket.priority].before(ticket)

    def expected_wait(self, ticket: Ticket, now: float) -> float:
        """Seconds until its turn, at the rate at which the line moves; at most until it will wait no more."""
        return min(self._until_served(self.position(ticket), now), max(0.0, ticket.until - now))

    def until_free(self, priority: int, now: float) -> float:
        """Seconds until a request of this priority that came now would be served, as the line moves; infinite where
        nothing is known. An answer for those who are turned away."""
        level = self._levels.get(priority)
        return self._until_served(self._above(priority) + (level.count if level else 0), now)

    def _until_served(self, ahead: int, now: float) -> float:
        self._tick(now)
        took = self._took + self._silence
        if not took:
            return 0.0 if self._turns else inf
        # Nobody served yet: at best it happens now.
        return (ahead + 1) * took / max(self._turns, 1.0)

    def _above(self, priority: int) -> int:
        found = 0
        for negative in self._priorities:
            if -negative <= priority:
                break
            found += self._levels[-negative].count
        return found

    def _remove(self, level: _Level, ticket: Ticket) -> None:
        tickets = level.callers[ticket.caller]
        del tickets[ticket]
        if not tickets:
            del level.callers[ticket.caller]
        level.count -= 1
        self._count -= 1
        self.size -= ticket.size
        if not level.count:
            del self._levels[ticket.priority]
            self._priorities.remove(-ticket.priority)

    def _tick(self, now: float) -> None:
        """Time counts while somebody waits: an empty line moves at no rate."""
        if self._count:
            self._silence += max(0.0, now - self._clock)
        self._clock = now
