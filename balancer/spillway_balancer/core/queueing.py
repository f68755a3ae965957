"""What a route says of waiting: how many, for how long, who goes first and between whom turns are taken."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

from spillway_api.durations import seconds
from spillway_api.types import Priority, Queue

from .conditions import Asked
from .pool import Pool
from .waiting import Bounds

MAX_PRIORITY: Final = "spillway.dev/max-priority"
"""Label of a consumer: up to which priority its header may raise its requests."""

_WHOLE: Final = re.compile(r"-?[0-9]{1,6}", re.ASCII)
LOWEST: Final = -1000
HIGHEST: Final = 1000


class QueueRules(NamedTuple):
    """`queue` and `priority` of a route; times in seconds."""

    bounds: Bounds
    max_wait: float
    cold_wait: float
    fairness: str
    priority: Priority

    @classmethod
    def of(cls, queue: Queue, priority: Priority) -> Self:
        bounds = Bounds(queue.max_requests, queue.max_bytes)
        return cls(bounds, seconds(queue.max_wait), seconds(queue.cold_start_max_wait), queue.fairness, priority)

    def priority_of(self, asked: Asked) -> int:
        """Of a request. Its header may lower it as it likes, and raise it as far as its consumer may; what is no whole
        number is not read."""
        usual = self.priority.default
        if self.priority.header is None:
            return usual
        wanted = _whole(asked.header(self.priority.header))
        if wanted is None:
            return usual
        allowed = None if asked.consumer is None else _whole(asked.consumer.labels.get(MAX_PRIORITY))
        most = usual if allowed is None else max(usual, min(allowed, HIGHEST))
        return max(LOWEST, min(wanted, most))

    def caller_of(self, asked: Asked, home: Pool) -> str:
        """Who takes turns with others. Sessions are told by the key of the pool that is asked first."""
        if self.fairness == "None":
            return ""
        key = home.key(asked) if self.fairness == "Session" else None
        return asked.caller if key is None else f"session {key}"


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and _WHOLE.fullmatch(text) else None
