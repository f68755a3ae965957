"""How fast an endpoint works off its queue just now.

The learned rate is a mean over many requests, each of which tells of the time in which it waited: where that changes,
since a burst fills the engine's memory or its batches, it comes too late by as much as requests wait. What is computed
while a queue stands there tells at once.
"""

from __future__ import annotations

from math import exp
from typing import Final

MEMORY: Final = 3.0
"""Seconds in which what was seen loses its weight."""
PRIOR: Final = 1.0
"""Seconds' worth of the learned rate that every reading holds: prompts end in lumps, and one alone says little."""
DEEP_QUEUE: Final = 2_000.0
"""Tokens. From here on waiting is work, and tells the rate; below, what is not work shows."""


class Progress:
    """Tokens computed, and seconds, in which there was a deep queue; both fade."""

    __slots__ = ("_at", "_deep", "_idle", "_seconds", "_tokens")

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0
        self._deep = False
        self._idle = True
        """Whether there is no deep queue, and nothing is left of one."""
        self._at = 0.0

    def changed(self, queue: float, computed: float, now: float) -> None:
        """`computed` tokens of prompts are done since the last call, and now `queue` tokens wait."""
        if self._idle:  # as nearly always: there is nothing that could fade
            self._at = max(now, self._at)
            self._deep = queue >= DEEP_QUEUE
            self._idle = not self._deep
            return
        passed = max(0.0, now - self._at)
        self._at = max(now, self._at)
        keep = exp(-passed / MEMORY)
        self._tokens *= keep
        self._seconds *= keep
        if self._deep:
            self._tokens += computed
            self._seconds += MEMORY * (1.0 - keep)  # what a steady inflow of seconds comes to, faded as it came
        self._deep = queue >= DEEP_QUEUE
        self._idle = not (self._deep or self._tokens or self._seconds)

    def rate(self, learned: float, now: float) -> float:
        """Tokens a second; `learned` where no queue has told otherwise of late."""
        if self._idle:
            return learned
        keep = exp(min(0.0, self._at - now) / MEMORY)
        seconds = self._seconds * keep
        if self._deep:
            seconds += MEMORY * (1.0 - keep)  # nothing has been done since, and that says something too
        return (self._tokens * keep + learned * PRIOR) / (seconds + PRIOR)
