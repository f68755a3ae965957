"""A small work queue: keys are woken, each is worked on once for many wakes, never twice at a time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

log = logging.getLogger("spillway.reconcile")

K = TypeVar("K", bound=Hashable)

FIRST_RETRY = 0.25
LONGEST_RETRY = 30.0


def retry_after(failures: int, dice: random.Random) -> float:
    """Seconds until the next try after so many failures in a row: full jitter above a floor, doubling."""
    most: float = min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(failures, 16))
    return most / 2 + dice.random() * most / 2


class WorkQueue(Generic[K]):
    """Works on keys that are woken. A wake during the work means: again, once it is done.

    `work` may give seconds after which it wants to run again; what it raises is logged by type, and it is tried
    again with a growing pause. `rest` says how long a wake of a key waits for others to join it, in seconds.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        rest: Callable[[K], float],
        dice: random.Random,
    ) -> None:
        self._work = work
        self._rest = rest
        self._dice = dice
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._tasks: dict[K, asyncio.Task[None]] = {}
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._closed = False
        self.began: dict[K, float] = {}
        """When the work that runs now began, in seconds of the loop's clock: what runs for ever is stuck."""

    def wake(self, key: K) -> None:
        """Work on the key soon. Of any number of wakes before that, one is left."""
        if self._closed:
            return
        if key in self._tasks:
            self._again.add(key)
        else:
            self._schedule(key, self._rest(key))

    async def close(self) -> None:
        """End what runs."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _schedule(self, key: K, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._begin, key)

    def _begin(self, key: K) -> None:
        del self._timers[key]
        loop = asyncio.get_running_loop()
        self.began[key] = loop.time()
        self._tasks[key] = loop.create_task(self._run(key))

    async def _run(self, key: K) -> None:
        wants: float | None
        try:
            wants = await self._work(key)
            self._failures.pop(key, None)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            wants = retry_after(failures, self._dice)
            # The text of an error of ours is safe to print; another's may quote what it was given.
            log.warning("%s failed (%s), again in %.1f s: %s", key, type(error).__name__, wants, _said(error))
            log.debug("where", exc_info=error)
        finally:
            del self._tasks[key]
            del self.began[key]
        if self._closed:
            return
        if key in self._again:
            self._again.discard(key)
            rest = self._rest(key)
            self._schedule(key, rest if key not in self._failures else max(rest, wants or 0.0))
        elif wants is not None:
            self._schedule(key, wants)


def _said(error: Exception) -> str:
    from .cluster import ApiError

    return str(error) if isinstance(error, ApiError) else "see --log-level debug"
