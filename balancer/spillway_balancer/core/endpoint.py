"""One endpoint and all that is known of it."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

from spillway_api import snapshot

from .circuit import Circuit
from .health import ProbeState
from .learning import PREFILL_RATE, EndpointLearned
from .load import LoadBook, Reported, RequestSize
from .prefix import CacheMirror

if TYPE_CHECKING:
    from .visits import Visit


class EndpointState:
    """One endpoint and all that is learned of it. Outlives a reload as long as its pool, name and URL stay."""

    __slots__ = (
        "_clock",
        "_counted",
        "cache",
        "circuit",
        "learned",
        "load",
        "name",
        "pool",
        "probe",
        "spec",
        "unseen",
        "url",
    )

    def __init__(self, pool: str, spec: snapshot.Endpoint, size: RequestSize) -> None:
        self.pool = pool
        self.name = spec.name
        self.url = spec.url
        self.spec = spec
        self.load = LoadBook(size)
        self.circuit = Circuit()
        self.probe = ProbeState()
        self.cache = CacheMirror()
        self.learned = EndpointLearned()
        self._counted = 0.0
        self._clock = 0.0
        self.unseen: deque[tuple[float, Visit]] = deque()
        """Visits whose first token nobody will see, with when it is due by the clock."""

    def __repr__(self) -> str:
        return f"<endpoint {self.pool}/{self.name}>"

    def reported(self, report: Reported, cache_tokens: float | None = None) -> None:
        """A scrape of its metrics. A counter that has gone back tells of an engine that has been started anew."""
        self.load.reported(report)
        self.learned.capacity_reported(cache_tokens)
        # Read back from the book, which keeps neither what is absurd nor what is older than it has.
        taken = self.load.report(report.at, inf)
        if taken is not None and taken.at == report.at and taken.prefix_queries is not None:
            if taken.prefix_queries < self._counted:
                self.restarted()
            self._counted = taken.prefix_queries

    def restarted(self) -> None:
        """Another engine, or the same one with an empty memory, answers at this address."""
        self.cache.forget()
        self.learned = EndpointLearned()
        self._counted = 0.0  # its counters start anew too, and say nothing more when they do

    # Where an answer is not streamed, nobody sees when its prompt is computed. A clock stands in: prompts are taken to
    # be computed one after the other at the learned rate, and a first token that is seen tells of all before it.

    def queued(self, visit: Visit, uncached: float, streams: bool, now: float) -> None:
        """A visit has been sent there."""
        self._clock = max(now, self._clock) + uncached / (self.learned.rate or PREFILL_RATE)
        if not streams:
            self.unseen.append((self._clock, visit))

    def seen(self, order: int, now: float) -> None:
        """The first token of the visit numbered `order` has come: engines serve first what came first."""
        unseen = self.unseen
        while unseen and unseen[0][1].order < order:
            unseen.popleft()[1].computed()
        self._clock = now + self.load.pending_tokens / (self.learned.rate or PREFILL_RATE)

    def settle(self, now: float) -> None:
        """By the clock: what must have been computed by now."""
        unseen = self.unseen
        while unseen and (unseen[0][0] <= now or unseen[0][1].ended):
            unseen.popleft()[1].computed()
