"""The timing class in real time: one timer an engine, whatever the number of streams.

At the end of each step every stream learns how many tokens it has by now, and writes them; nobody sleeps for
a token. When nobody streams, the timer waits for the end of the span instead. A timer that is late makes a
burst, never a drift, because the timing class keeps the time.
"""

from __future__ import annotations

import asyncio
from math import ceil
from typing import Protocol

from .metrics import Observed
from .profiles import Profile
from .timing import EngineTiming, Event, Kind, Sequence

# Timers of event loops count in milliseconds: a shorter wait would only spin.
_TICK = 1e-3


class Listener(Protocol):
    """Who waits for a sequence. Called from the timer, so it must neither block nor raise."""

    streams: bool  # wants to know of each token
    reason: str  # why the answer ends: stop or length

    def progress(self, produced: int) -> None: ...

    def finished(self) -> None: ...


class _Job:
    __slots__ = ("listener", "sequence", "since")

    def __init__(self, sequence: Sequence, listener: Listener, since: float) -> None:
        self.sequence = sequence
        self.listener = listener
        self.since = since


class Pacer:
    """One engine in real time. `speed` is how many seconds of the profile pass in a second; needs a running
    loop.
    """

    def __init__(self, profile: Profile, speed: float = 1.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._profile = profile
        self._speed = speed
        self._since = self._loop.time()  # of the clock, when the model's time was `_base`
        self._base = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._jobs: dict[int, _Job] = {}
        self._streaming: dict[int, _Job] = {}
        self.timing = EngineTiming(profile)
        self.observed = Observed()

    def now(self) -> float:
        """The engine's time in seconds."""
        return self._base + (self._loop.time() - self._since) * self._speed

    def submit(self, sequence: Sequence, listener: Listener) -> None:
        """Queue it. ValueError if it is longer than the engine has room for."""
        job = _Job(sequence, listener, self._loop.time())
        events = self.timing.submit(sequence, self.now())
        self._jobs[sequence.id] = job
        self._settle(events)

    def cancel(self, sequence: Sequence) -> None:
        """Nobody waits for it any more. Nothing if it has finished."""
        if self._jobs.pop(sequence.id, None) is None:
            return
        self._streaming.pop(sequence.id, None)
        self.observed.finished["abort"] += 1
        self._settle(self.timing.cancel(sequence.id, self.now()))

    def catch_up(self) -> None:
        """Bring the timing class up to now, so that what is read off it is of now."""
        self._settle(self.timing.advance(self.now()))

    def set_speed(self, speed: float) -> None:
        """From now on; what is under way goes on at the new speed."""
        events = self.timing.advance(self.now())
        self._base, self._since = self.now(), self._loop.time()
        self._speed = speed
        self._settle(events)

    def reset(self) -> None:
        """Empty caches and counters. RuntimeError while anything is under way."""
        if self._jobs:
            raise RuntimeError("the engine is busy")
        self.close()
        self.timing = EngineTiming(self._profile)
        self.observed = Observed()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._settle(self.timing.advance(self.now()))

    def _settle(self, events: list[Event]) -> None:
        """Tell everybody what has happened, and wait for what comes next."""
        for event in events:
            job = self._jobs.get(event.sequence.id)
            if job is None:
                continue
            if event.kind is Kind.FIRST_TOKEN:
                self.observed.first_token.observe(self._loop.time() - job.since)
                self.observed.prompt_tokens += event.sequence.prompt_tokens
                if job.listener.streams:
                    self._streaming[event.sequence.id] = job
            else:
                self._finish(job)
        produced = self.timing.produced
        for job in self._streaming.values():
            job.listener.progress(produced(job.sequence))
        self._arm()

    def _finish(self, job: _Job) -> None:
        sequence = job.sequence
        del self._jobs[sequence.id]
        self._streaming.pop(sequence.id, None)
        self.observed.latency.observe(self._loop.time() - job.since)
        self.observed.finished[job.listener.reason] += 1
        if sequence.first_token_at is None:  # prefill only
            self.observed.prompt_tokens += sequence.prompt_tokens
        job.listener.finished()

    def _arm(self) -> None:
        due = self.timing.next_step() if self._streaming else self.timing.next_change()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            wait = (due - self.now()) / self._speed
            self._timer = self._loop.call_later(max(1, ceil(wait / _TICK)) * _TICK, self._fire)
