"""Requests that wait for a tier to open: `core.waiting` with an event loop around it.

There is one line for each rule of each route. Whoever waits tries again itself, one after the other: `turn` ends when
this request may try, and is asked again when that was in vain. They try when a request has ended at one of their pools,
when another configuration is in force, and every quarter of a second, which is soon enough for all that comes by time
alone: a probe that passes, a limit that is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import ceil, inf
from time import monotonic
from typing import Final

from ..core.attempts import Stop
from ..core.conditions import Asked
from ..core.errors import BudgetSpent, Draining, QueueFull, QueueTimeout, RateLimited, SpillwayError
from ..core.planning import Plan
from ..core.queueing import QueueRules
from ..core.runtime import Runtime
from ..core.waiting import Ticket, Waiting
from .telemetry import Telemetry

POLL: Final = 0.25
"""Seconds between two looks of the first in line, where nothing tells it to look."""

TELL: Final = 5.0
"""Seconds between two comments that tell a client its position."""

EARLY: Final = 0.001
"""Seconds by which a timer may fire before its time."""

LEAVE_TIME: Final = 1.0
"""Seconds before the end of draining at which those who still wait are sent away with an answer."""


class Line:
    """Those who wait for one rule, and whose turn it is."""

    def __init__(self, rules: QueueRules) -> None:
        self.waiting = Waiting(rules.bounds)
        self.places: dict[Ticket, Place] = {}
        self.pools: set[str] = set()
        """Where something may open for them."""
        self.last: Stop | None = None
        """Why the one that was last turned away was."""
        self._turn: Ticket | None = None
        self._away: set[object] = set()
        self._anew = False  # something has opened while somebody tried
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def go(self) -> None:
        """Something may have opened: let them try, from the first on."""
        if self._turn is not None:
            self._anew = True
            return
        self._away.clear()
        self._pass_on()

    def turned_away(self, ticket: Ticket, why: Stop | None) -> None:
        """It has tried in vain, with its turn or just before it joined. So would all that need the same."""
        self.last = why or self.last
        if self._turn is None:
            self._rest()
        elif self._turn is ticket:
            self._away.add(ticket.needs)
            if self._anew:
                self._anew = False
                self._away.clear()
            self._pass_on()

    def gone(self, ticket: Ticket) -> None:
        """It waits no more. What is open may be for the next."""
        del self.places[ticket]
        if self._turn is ticket:
            self._turn = None
            self._anew = False
            # Not before the one that goes now has taken its room at its endpoint.
            self._loop.call_soon(self.go)
        elif not self.places:
            self._rest()

    def _pass_on(self) -> None:
        self._turn = ticket = self.waiting.next(self._away)
        if ticket is None:
            self._rest()
        else:
            self.places[ticket].wake()

    def _rest(self) -> None:
        if self.places:
            self._timer = self._timer or self._loop.call_later(POLL, self._look)
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        self.go()


class Queue:
    """All lines of a balancer. They outlive reloads, by the names of route and rule."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._lines: dict[tuple[str, str], Line] = {}
        self._leave_by = inf
        self.runtime: Runtime | None = None
        """What is in force: who has waited goes by it, since what opens may be what is new in it."""

    def crowded(self, route: str, rule: str) -> bool:
        """Whether somebody waits there already: a newcomer does not overtake."""
        line = self._lines.get((route, rule)) if self._lines else None
        return line is not None and len(line.waiting) > 0

    def has_room(self, made: Plan, size: int) -> bool:
        """For one more request of so many bytes."""
        line = self._lines.get((made.route.name, made.rule))
        waiting = Waiting(made.route.queue.bounds) if line is None else line.waiting
        return waiting.refuses(size) is None

    def place(
        self, made: Plan, asked: Asked, size: int, total: float, tell: Callable[[bytes], None] | None = None
    ) -> Place:
        """For a request of so many bytes, whose time is over at `total`. It takes no room before its first `turn`.
        `tell` is called with what its position is, at once and then every few seconds."""
        return Place(self, made, asked, size, total, tell)

    def freed(self, pool: str) -> None:
        """A request has ended at one of the pool's endpoints."""
        if not self._lines:
            return
        for line in tuple(self._lines.values()):
            if pool in line.pools:
                line.go()

    def follow(self, runtime: Runtime) -> None:
        """Another configuration: whoever is the first has new ways; who has lost the rule looks for another one."""
        self.runtime = runtime
        if not self._lines:
            return
        there = {(route.name, rule.name) for route in runtime.routes.all for rule in route.spec.rules}
        for name, line in tuple(self._lines.items()):
            if name in there:
                line.go()
            elif line.places:
                for place in tuple(line.places.values()):
                    place.wake()
            else:
                del self._lines[name]

    def drain(self, limit: float) -> None:
        """The balancer ends in so many seconds: nobody joins, and who waits is answered before."""
        self._leave_by = monotonic() + max(0.0, limit - LEAVE_TIME)
        for line in tuple(self._lines.values()):
            for place in tuple(line.places.values()):
                place.arm()

    @property
    def leave_by(self) -> float:
        """When nobody may wait any more; seconds, monotonic. Infinite while the balancer does not end."""
        return self._leave_by

    # -- what places ask

    def line(self, route: str, rule: str, rules: QueueRules) -> Line:
        line = self._lines.get((route, rule))
        if line is None:
            line = self._lines[route, rule] = Line(rules)
        line.waiting.bounds = rules.bounds
        return line

    def told(self, route: str, rule: str) -> None:
        """The line has changed."""
        line = self._lines[route, rule]
        self._telemetry.queue(route, rule, len(line.waiting), line.waiting.size)

    def refused(self, route: str, rule: str, reason: str) -> None:
        self._telemetry.queue_refused(route, rule, reason)

    def waited(self, route: str, rule: str, elapsed: float) -> None:
        self._telemetry.queue_waited(route, rule, elapsed)


class Place:
    """One request's place. `turn` as often as needed, then `served`; `leave` on every path."""

    def __init__(
        self,
        queue: Queue,
        made: Plan,
        asked: Asked,
        size: int,
        total: float,
        tell: Callable[[bytes], None] | None,
    ) -> None:
        self._queue = queue
        self._asked = asked
        self._size = size
        self._total = total
        self._tell = tell
        self._telling: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._future: asyncio.Future[None] | None = None
        self._ticket: Ticket | None = None
        self._line: Line | None = None
        self._try_at = inf  # when to try, whether it is its turn or not
        self._why: Stop | None = None
        self._waited = 0.0  # seconds, at places that it had before
        self._plan(made)

    def _plan(self, made: Plan) -> None:
        self._made = made
        self._rules = made.route.queue
        self._name = made.route.name, made.rule
        self.pools = frozenset(target.pool.name for tier in made.tiers[made.first :] for target in tier.targets)

    async def turn(self, why: Stop | None) -> None:
        """Wait until this request may try. `why`: it has, in vain. Raises what the client is told when there is no room
        or no time to wait any longer; returns when the request's whole time is over, which the attempts tell."""
        if self._rules.bounds.requests == 0 and why is not None and self._ticket is None:
            raise why.error
        if why is not None and why.opens_in is not None and why.opens_in > self._patience():
            self.leave()
            raise why.error  # it would wait in vain
        self._why = why or self._why
        self._try_at = monotonic() + why.spills_in if why is not None and why.spills_in is not None else inf
        self._future = self._loop.create_future()
        ticket = self._ticket
        if ticket is None:
            ticket = self._join(why)
        else:
            assert self._line is not None
            ticket.until = max(ticket.until, self._latest(ticket.joined, why))
            ticket.needs = _needs(self._made, why)
            self._line.turned_away(ticket, why)
        self.arm()
        try:
            await self._future
        finally:
            self._future = None
            self._disarm()
        now = monotonic()
        if now >= ticket.until and now < self._total:
            raise self._late(now)

    def replanned(self, made: Plan) -> bool:
        """By another configuration. Whether the request has lost its place, since it waits for another rule."""
        moved = (made.route.name, made.rule) != self._name
        if moved:
            self.leave()
        self._plan(made)
        return moved

    @property
    def taken(self) -> bool:
        """Whether the request stands in line."""
        return self._ticket is not None

    def served(self) -> None:
        """It has found an endpoint."""
        self._part(True)

    def leave(self) -> None:
        """It waits no more. Later calls change nothing."""
        self._part(False)

    def wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def arm(self) -> None:
        """Wake it when it has waited long enough."""
        self._disarm()
        if self._ticket is not None:
            until = self._ticket.until = min(self._ticket.until, self._queue.leave_by)
            wait = max(0.0, min(until, self._try_at) - monotonic()) + EARLY
            self._timer = self._loop.call_later(wait, self.wake)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _patience(self) -> float:
        """Seconds that it may still wait."""
        now = monotonic()
        return (self._latest(now, None) if self._ticket is None else self._ticket.until) - now

    def _latest(self, joined: float, why: Stop | None) -> float:
        """When one that joined then has waited long enough."""
        longest = self._rules.cold_wait if why is not None and why.cold else self._rules.max_wait
        return min(joined + longest - self._waited, self._total)

    def _join(self, why: Stop | None) -> Ticket:
        now = monotonic()
        route, rule = self._name
        queue, rules = self._queue, self._rules
        if queue.leave_by < inf:
            queue.refused(route, rule, "draining")
            raise Draining("this balancer is being shut down", retry_after=1.0)
        line = self._line = queue.line(route, rule, rules)
        ticket = Ticket(
            rules.caller_of(self._asked, self._made.tiers[0].targets[0].pool),
            rules.priority_of(self._asked),
            self._size,
            now,
            self._latest(now, why),
            _needs(self._made, why),
        )
        reason = line.waiting.refuses(self._size)
        if reason is not None:
            queue.refused(route, rule, reason)
            raise self._full(line, ticket.priority, now)
        line.waiting.join(ticket, now)
        line.places[ticket] = self
        line.pools |= self.pools
        self._ticket = ticket
        queue.told(route, rule)
        if why is None:
            line.go()
        else:
            line.turned_away(ticket, why)
        self._say()
        return ticket

    def _say(self) -> None:
        """Tell the client where it stands, and in how many seconds its turn is likely to come."""
        ticket, line = self._ticket, self._line
        if self._tell is None or ticket is None or line is None:
            return
        position, wait = line.waiting.position(ticket) + 1, line.waiting.expected_wait(ticket, monotonic())
        self._tell(b"spillway-queue position=%d expected_wait=%d" % (position, ceil(wait)))
        self._telling = self._loop.call_later(TELL, self._say)

    def _part(self, served: bool) -> None:
        ticket, line = self._ticket, self._line
        if ticket is None or line is None:
            return
        self._ticket = None
        self._disarm()
        if self._telling is not None:
            self._telling.cancel()
        now = monotonic()
        if served:
            line.waiting.served(ticket, now)
        else:
            line.waiting.leave(ticket, now)
        line.gone(ticket)
        self._waited += now - ticket.joined
        self._queue.waited(*self._name, now - ticket.joined)
        self._queue.told(*self._name)

    # -- what the client is told

    def _back_in(self, line: Line, priority: int, now: float, why: Stop | None) -> float:
        """Seconds until a request like this one would be served: by the rate at which the line moves, not before the
        limit that is waited for is over, and not after all have left that wait now."""
        longest = self._rules.cold_wait if why is not None and why.cold else self._rules.max_wait
        moves = min(line.waiting.until_free(priority, now), longest)
        opens = 0.0 if why is None or why.opens_in is None else why.opens_in
        return max(moves, opens, 1e-3)

    def _full(self, line: Line, priority: int, now: float) -> SpillwayError:
        why = self._why or line.last
        wait = self._back_in(line, priority, now, why)
        if why is not None and isinstance(why.error, RateLimited | BudgetSpent):
            return type(why.error)(why.error.message, retry_after=wait, attempts=self._log())
        return QueueFull("too many requests wait for this model", retry_after=wait, attempts=self._log())

    def _late(self, now: float) -> SpillwayError:
        assert self._line is not None
        assert self._ticket is not None
        if now >= self._queue.leave_by:
            self._queue.refused(*self._name, "draining")
            return Draining("this balancer is being shut down", retry_after=1.0, attempts=self._log())
        self._queue.refused(*self._name, "timeout")
        wait = self._back_in(self._line, self._ticket.priority, now, self._why or self._line.last)
        return QueueTimeout("no endpoint was free in time", retry_after=wait, attempts=self._log())

    def _log(self) -> tuple[str, ...]:
        """What this request has tried itself."""
        return () if self._why is None else self._why.error.attempts


def _needs(made: Plan, why: Stop | None) -> object:
    """What requests have in common that find the same ways open and closed."""
    held = why is not None and why.spills_in is not None
    tiers = made.tiers[made.first :]
    return held, tuple(tuple((target.pool.name, target.model) for target in tier.targets) for tier in tiers)
