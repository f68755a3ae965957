"""Copies of requests on their way: sent beside the callers' own, measured, their answers dropped as they come.

A copy has a task and a connection of its own. What a stalled engine can hold of the balancer is bounded: in copies of
each route, and in bytes of all their bodies together. What is over the bounds is not sent, and is counted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from time import monotonic, time
from typing import Final

from ..core.mirroring import aim
from ..core.routing import Route, Target
from .answer import Answer
from .copy_metrics import CopyMetrics
from .facts import Facts
from .relay import Exchange
from .sending import Job, Sender
from .telemetry import Decision

log = logging.getLogger("spillway.mirror")

MOST_COPIES: Final = 128
"""Of one route, under way at once: a mirror that stands still takes nothing from those of other routes."""

MOST_BYTES: Final = 64 << 20
"""Bodies of all copies together. A copy may outlive its caller, and keeps the body alive as long."""

MOST_ANSWER: Final = 8 << 20
"""Bytes of an answer; a copy whose answer is longer is cut there."""


class Dropped(Answer):
    """An answer that nobody gets. Ends `task` once it is longer than MOST_ANSWER."""

    __slots__ = ("_size", "over", "task")

    def __init__(self) -> None:
        super().__init__(None, keep_alive=False, old=True, head_only=True)
        self._size = 0
        self.over = False
        self.task: asyncio.Task[str] | None = None

    def whole(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: Sequence[bytes]) -> None:
        self.begun = self.ended = True
        self.status = status

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]], length: int | None, first: bytes) -> None:
        self.begun = True
        self.status = status
        self.more(first)

    def more(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MOST_ANSWER and not self.over and self.task is not None:
            self.over = True
            self.task.cancel()

    def end(self) -> None:
        self.ended = True

    def abort(self) -> None:
        """There is no connection to cut."""


class Nobody:
    """Who reads the answer: so it is never too fast for them."""

    def attach(self, exchange: Exchange | None) -> None:
        return None


class Copies:
    """Sends copies, within the bounds."""

    def __init__(self, sender: Sender, metrics: CopyMetrics, dice: random.Random) -> None:
        self._sender = sender
        self._metrics = metrics
        self._dice = dice
        self._tasks: set[asyncio.Task[str]] = set()
        self._of_route: Counter[str] = Counter()
        self._closed = False
        self.bytes = 0
        """Of the bodies that are held now."""

    @property
    def under_way(self) -> int:
        return len(self._tasks)

    def send(self, route: Route, target: Target, facts: Facts, job: Job) -> asyncio.Task[str] | None:
        """Send a copy of `job` to the pool of `target`, soon; None when none is sent. Cancel the task to end it."""
        size = job.peeked.size
        full = self._of_route[route.name] >= MOST_COPIES or self.bytes + size > MOST_BYTES
        if full or self._closed:
            self._metrics.ended(route.name, target.pool.name, "full" if full else "drained")
            return None
        self._of_route[route.name] += 1
        self.bytes += size
        answer = Dropped()
        task = asyncio.get_running_loop().create_task(self._send(route, target, facts, job, answer))
        answer.task = task
        self._tasks.add(task)

        def done(task: asyncio.Task[str]) -> None:
            self._tasks.discard(task)
            self.bytes -= size
            self._of_route[route.name] -= 1
            if not self._of_route[route.name]:
                del self._of_route[route.name]
            if not task.cancelled():
                result = task.result()
            else:
                result = "too-long" if answer.over else "drained" if self._closed else "client-gone"
            self._metrics.ended(route.name, target.pool.name, result)

        task.add_done_callback(done)
        return task

    async def _send(self, route: Route, target: Target, facts: Facts, job: Job, answer: Dropped) -> str:
        """Returns how it ended."""
        now = monotonic()
        try:
            step = aim(target, facts, now, time() - now, self._dice)
            if isinstance(step, str):
                return step
            decision = Decision(started=now, route=route.name)
            # Field by field: what else belongs to the request, such as what it has reserved, is not the copy's.
            copy = Job(
                job.path,
                job.peeked,
                job.facts,
                job.headers,
                Nobody(),
                answer,
                decision,
                job.deadlines,
                now + route.deadlines.total,
                listens=True,
                clamped=job.clamped,
                copy=True,
            )
            await self._sender.attempt(step, copy)
            if decision.status == "ok":
                first = decision.first_byte
                since = None if first is None else first - now
                took = monotonic() - now
                self._metrics.measured(route.name, target.pool.name, since, took, decision.usage)
            return decision.status
        except Exception as error:
            # Never the exception's text: it may quote the request.
            log.error("bug: %s in a mirrored request; --log-level debug shows where", type(error).__name__)
            log.debug("%s", "".join(traceback.format_tb(error.__traceback__)))
            return "error"

    def close(self) -> None:
        """End all copies: no caller waits for one, so no leave-taking does."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
