"""One endpoint and all that is known of it."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

from msgspec import UNSET

from spillway_api import snapshot
from spillway_api.types import ActiveHealth

from .circuit import Circuit
from .health import ProbeState
from .learning import EndpointLearned
from .load import LoadBook, Reported, RequestSize
from .past import Past
from .prefix import CacheMirror
from .progress import Progress
from .quotas import Quota

if TYPE_CHECKING:
    from .visits import Visit


class EndpointState:
    """One endpoint and all that is learned of it. Outlives a reload as long as its pool, name and URL stay."""

    __slots__ = (
        "_clock",
        "_computed",
        "_counted",
        "_sent",
        "cache",
        "circuit",
        "dialect",
        "keyed",
        "learned",
        "load",
        "name",
        "past",
        "pool",
        "probe",
        "progress",
        "quota",
        "refused",
        "since",
        "spec",
        "unkeyed",
        "unseen",
        "url",
    )

    def __init__(self, pool: str, spec: snapshot.Endpoint, size: RequestSize) -> None:
        self.pool = pool
        self.name = spec.name
        self.url = spec.url
        self.spec = spec
        self.quota: Quota | None = None
        """What may be sent to an account; None for what is none."""
        self.load = LoadBook(size)
        self.past: Past | None = None
        """What was in flight there a moment ago; None unless it is asked for."""
        self.circuit = Circuit()
        self.keyed = True
        """Whether the credential that it asks for, if any, is there. Said by whoever reads credentials."""
        self.unkeyed = ""
        """Why its credential is not there, where somebody knows; for people."""
        self.refused = False
        """Whether it has not taken its credential: until that changes it is a last resort."""
        self.dialect: str | None = None
        """The engine that it is by its metrics; None while nobody knows."""
        self.probe = ProbeState()
        self.since: float | None = None
        """When a request could first be sent there, or again after probes had failed; None until one can. For slow
        start; what the circuit knows of its own recovery is not here."""
        self.cache = CacheMirror()
        self.learned = EndpointLearned()
        self.progress = Progress()
        self._counted = 0.0
        self._sent = 0.0
        self._computed = 0.0
        self._clock = 0.0
        self.unseen: deque[tuple[float, Visit]] = deque()
        """Visits whose first token nobody will see, with their places."""

    def __repr__(self) -> str:
        return f"<endpoint {self.pool}/{self.name}>"

    def follow(self, spec: snapshot.Endpoint, account: bool) -> None:
        """What its owner says of it now; `account`: it is one of a provider."""
        if self.spec.credential != spec.credential or self.spec.identity != spec.identity:
            self.refused = False
            if self.quota is not None:
                self.quota.forget()
        self.spec = spec
        limits = None if spec.limits is UNSET else spec.limits
        if account or limits is not None:
            self.quota = self.quota or Quota()
        if self.quota is not None:
            self.quota.limit(limits)

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

    @property
    def shows(self) -> bool:
        """Whether requests there carry something that it may refuse."""
        return self.spec.credential is not None or self.spec.identity is not UNSET

    @property
    def limited_until(self) -> float:
        """When it takes requests again, by its own word and by its limits; infinite where never, for one so large."""
        shut = self.circuit.shut_until
        return shut if self.quota is None else max(shut, self.quota.until)

    @property
    def due_back(self) -> tuple[bool, float]:
        """Of those that are out, the smallest is the best to try."""
        return self.refused, self.circuit.until

    def probed(self, passed: bool, policy: ActiveHealth, ejected_until: float | None) -> None:
        """The end of a probe; `ejected_until` is what the circuit said when it was sent: one that was under way when
        the endpoint was ejected proves nothing by having passed."""
        if passed:
            was = self.probe.usable
            self.probe = self.probe.passed(policy)
            if self.probe.usable and not was:
                self.since = None
            if ejected_until == self.circuit.ejected_until:
                self.circuit = self.circuit.probe_passed()
        else:
            self.probe = self.probe.failed(policy)
            self.circuit = self.circuit.probe_failed()

    def unprobed(self) -> None:
        """Nobody probes any more: what probes have said no longer holds."""
        self.probe = ProbeState()
        self.circuit = self.circuit.probe_passed()

    def told(self, healthy: bool | None) -> None:
        """What others' probes say of it; None is nothing. They are many, and one of them will have been sent since
        whatever has happened here."""
        was = self.probe.usable
        self.probe = ProbeState(healthy)
        if self.probe.usable and not was:
            self.since = None
        self.circuit = self.circuit.probe_passed() if self.probe.usable else self.circuit.probe_failed()

    def restarted(self) -> None:
        """Another engine, or the same one with an empty memory, answers at this address."""
        self.cache.forget()
        self.learned = EndpointLearned()
        self.progress = Progress()
        self._counted = 0.0  # its counters start anew too, and say nothing more when they do

    def ttft(self, tokens: float, now: float) -> float:
        """Predicted seconds to the first token of who comes now, with `tokens` uncached prompt tokens to be computed
        until then, its own included."""
        return self.learned.fixed + tokens / self.progress.rate(self.learned.pace, now)

    # Where an answer is not streamed, nobody sees when its prompt is computed. A clock stands in that counts tokens:
    # prompts are taken to be computed in the order they came, at the learned rate, and a first token or the end of an
    # answer, which are seen, set it right. A visit's place is what has been sent up to its own prompt's end.

    def remaining(self, now: float) -> float:
        """Of all that was sent there, what is still to be computed by the clock."""
        return self._sent - self._by_clock(now)

    def queued(self, visit: Visit, work: float, streams: bool, now: float) -> float:
        """A visit has been sent there. Returns its place."""
        self._computed = self._by_clock(now)
        self._clock = now
        self._sent += work
        if not streams:
            self.unseen.append((self._sent, visit))
        return self._sent

    def seen(self, place: float, now: float, first_token: bool) -> None:
        """The prompt at this place has been computed: just now if this is its first token, else at some time before."""
        self._computed = place if first_token else max(place, self._by_clock(now))
        self._clock = now
        self.settle(now)

    def settle(self, now: float) -> None:
        """By the clock: what must have been computed by now."""
        unseen = self.unseen
        if unseen:
            computed = self._by_clock(now)
            while unseen and (unseen[0][0] <= computed or unseen[0][1].ended):
                unseen.popleft()[1].computed()

    def _by_clock(self, now: float) -> float:
        """Tokens that must have been computed by now, of all that were sent there."""
        return min(self._sent, self._computed + (now - self._clock) * self.learned.pace)
