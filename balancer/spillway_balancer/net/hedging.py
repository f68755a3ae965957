"""Two attempts at one answer: the first that has content is let through to the client, the other is ended at once.

Both are ordinary attempts with leases and connections of their own. What keeps them apart is the gate between them and
the client's answer: an exchange asks it before its first byte, and whoever asks second never writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from ..core.reasons import REASONS, Failure
from ..core.steps import Try
from ..core.visits import Visit
from .relay import Exchange
from .sending import Job

Result = Exchange | Failure
Send = Callable[[Try, Job], Coroutine[Any, Any, Result]]


class Outcome(NamedTuple):
    """How a race has ended."""

    won: Try | None
    """Whose answer the client has; None when none was let through."""
    result: Result
    """Of that one, else of the one that failed last."""
    failed: tuple[tuple[Try, Failure], ...]
    """Attempts that ended before anything of them was let through, in their order."""
    lost: Try | None = None
    """The one that was outrun."""
    hedged: bool = False


class Side:
    """One attempt of a race, in the place of the client that it would have alone."""

    __slots__ = ("_race", "sent", "step", "task", "visit")

    task: asyncio.Task[Result]

    def __init__(self, race: Race, step: Try, visit: Visit) -> None:
        self._race = race
        self.step = step
        self.visit = visit
        self.sent = False

    def attach(self, exchange: Exchange | None) -> None:
        """The client's back-pressure is for who writes to it, and before content nobody does."""
        if self._race.winner is self:
            self._race.job.client.attach(exchange)

    def claim(self, exchange: Exchange) -> bool:
        """Whether the exchange may write to the client's answer."""
        return self._race.claim(self, exchange)

    @property
    def outrun(self) -> bool:
        """Whether the other one has made this one useless."""
        return self._race.decided not in (None, self)


class Race:
    """One attempt, and after a silence perhaps a second one beside it; never more than two."""

    def __init__(
        self,
        job: Job,
        send: Send,
        second: Callable[[], Try | None],
        through: Callable[[Try, bool], None],
        occupy: Callable[[Try], Visit],
        unsent: Callable[[Try, Visit], None],
    ) -> None:
        """`second` finds the second step when it is due. `through` is told just before the first bytes of an answer
        are written which step they are of, and whether there are two. `occupy` takes the place of an attempt at its
        endpoint: at once, since whoever chooses before the task has its turn has to see it. `unsent` is told of a step
        that was ended before it could be sent: it holds what was set aside for it, and that place."""
        self.job = job
        self.winner: Side | None = None
        self.decided: Side | None = None
        """The winner, or who has failed as the other one would."""
        self._send = send
        self._second = second
        self._through = through
        self._occupy = occupy
        self._unsent = unsent
        self._sides: list[Side] = []
        self._ended: list[Side] = []  # in this order

    @property
    def hedged(self) -> bool:
        return len(self._sides) > 1

    async def run(self, first: Try, after: float) -> Outcome:
        """Both have ended when this returns or raises, cancellation included."""
        try:
            await asyncio.wait([self._start(first)], timeout=after)
            if self.winner is None and not self._ended:
                second = self._second()
                if second is not None:
                    self._start(second)
            while pending := [side.task for side in self._sides if not side.task.done()]:
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                self._judge()
        except asyncio.CancelledError:
            await self._end()
            if self.winner is None or self.winner.task.cancelled():  # else it has come to its end all the same
                raise
        finally:
            await self._end()
            for side in self._sides:
                if not side.sent:  # a task that is cancelled before its first turn never has one
                    self._unsent(side.step, side.visit)
        return self._outcome()

    async def _end(self) -> None:
        for side in self._sides:
            side.task.cancel()
        await asyncio.gather(*(side.task for side in self._sides), return_exceptions=True)

    def claim(self, side: Side, exchange: Exchange) -> bool:
        if self.winner is None and self.decided is None:
            self.winner = side
            self._through(side.step, self.hedged)
            self.job.client.attach(exchange)
            self._decide(side)
        return self.winner is side

    def _start(self, step: Try) -> asyncio.Task[Result]:
        side = Side(self, step, self._occupy(step))

        async def send() -> Result:
            side.sent = True
            return await self._send(step, self.job._replace(client=side, gate=side, visit=side.visit))

        side.task = asyncio.get_running_loop().create_task(send())
        side.task.add_done_callback(lambda _: self._ended.append(side))
        self._sides.append(side)
        return side.task

    def _judge(self) -> None:
        """Whether one has failed as the other one would."""
        for side in self._ended:
            failure = _failure(side)
            if self.decided is None and failure is not None and not REASONS[failure.reason].elsewhere:
                self._decide(side)

    def _decide(self, by: Side) -> None:
        self.decided = by
        for side in self._sides:
            if side is not by:
                side.task.cancel()

    def _outcome(self) -> Outcome:
        failed = tuple((side.step, failure) for side in self._ended if (failure := _failure(side)) and not side.outrun)
        lost = next((side.step for side in self._sides if side.outrun and side.sent), None)
        last = self.winner or next(side for side in reversed(self._ended) if not side.outrun)
        won = None if self.winner is None else self.winner.step
        return Outcome(won, last.task.result(), failed, lost, self.hedged)


def _failure(side: Side) -> Failure | None:
    """Of an attempt that has ended before anything of it was let through."""
    if side.task.cancelled():
        return None
    result = side.task.result()
    return result if isinstance(result, Failure) else result.failure
