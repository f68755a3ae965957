"""How much of a tier's traffic leaves it now: reads the signals of its pools, and keeps the share that is in force."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from spillway_api.durations import seconds
from spillway_api.types import Spill, SpillBy

from .endpoint import EndpointState
from .pool import Pool
from .reasons import Reason
from .spill import Ramps, Signals, Smoothed, aim, follow

READINGS: Final = 50.0
"""In the time constant of the smoothing. More would cost each request a look at every endpoint, and change nothing."""
LONGEST: Final = 0.1
"""Seconds between readings, however slow the smoothing."""


def by_load(spec: Spill) -> bool:
    """Whether a signal is named: else requests leave only for want of a ready endpoint."""
    return any(Ramps.of(spec))


class Spilling:
    """The spill settings of one tier at work. What they have come to outlives a reload."""

    __slots__ = ("_dwell", "_every", "_pools", "_smoothed", "_smoothing", "by", "longest", "ramps", "reason")

    def __init__(self, spec: Spill, targets: Iterable[tuple[Pool, int]], previous: Spilling | None = None) -> None:
        """`targets`: the pools of the tier with their weights. Those of weight 0 take nothing, and tell nothing."""
        self.by: SpillBy = spec.by
        self.ramps = Ramps.of(spec)
        self._pools = tuple({pool.name: pool for pool, weight in targets if weight > 0}.values())
        self._smoothing = seconds(spec.smoothing)
        self._dwell = seconds(spec.min_dwell)
        self._every = min(self._smoothing / READINGS, LONGEST)
        self._smoothed: Smoothed | None = previous._smoothed if previous else None
        self.longest: float = inf if self.ramps.ttft is None else self.ramps.ttft[1]
        """Predicted seconds to the first token from which a request leaves, whatever the share."""
        self.reason: Reason = previous.reason if previous else "saturated"
        """Why requests leave: by the signal that was the highest last."""

    def share(self, now: float) -> float:
        """Part of the requests that leaves now, 0 to 1. Without a ready endpoint none does: that is unavailability and
        not load, and `whenUnavailable` decides on it."""
        before = self._smoothed
        if before is not None and 0.0 <= now - before.at < self._every:
            return before.share
        ready = self._ready(now)
        if not ready:
            return 0.0
        asked, highest = aim(self._read(ready, now), self.ramps)
        if highest:  # else the share is on its way down, and has come from where it was
            self.reason = "wait-predicted" if highest == "ttft" else "saturated"
        self._smoothed = after = follow(before, asked, now, self._smoothing, self._dwell)
        return after.share

    def signals(self, now: float) -> Signals:
        """Those that the policy names, as they are now."""
        return self._read(self._ready(now), now)

    def _ready(self, now: float) -> list[tuple[Pool, EndpointState]]:
        return [
            (pool, endpoint)
            for pool in self._pools
            for endpoint in pool.endpoints.values()
            if pool.usable(endpoint, now)
        ]

    def _read(self, ready: list[tuple[Pool, EndpointState]], now: float) -> Signals:
        asked = self.ramps

        def each(known: Callable[[Pool, EndpointState, float], float | None]) -> float | None:
            return _mean([value for pool, endpoint in ready if (value := known(pool, endpoint, now)) is not None])

        return Signals(
            each(_waiting) if asked.queued else None,
            each(_requests) if asked.in_flight else None,
            each(_ttft) if asked.ttft else None,
            each(_kv_percent) if asked.kv_percent else None,
            self._error_percent(ready, now) if asked.error_percent else None,
        )

    def _error_percent(self, ready: list[tuple[Pool, EndpointState]], now: float) -> float | None:
        """Unknown while fewer attempts have ended than a circuit wants to see, `minRequests` of the pools together."""
        good = bad = 0
        for pool, endpoint in ready:
            of_endpoint = endpoint.circuit.outcomes(now, pool.circuits)
            good += of_endpoint[0]
            bad += of_endpoint[1]
        enough = max((pool.circuits.min_requests for pool in self._pools), default=1)
        return 100.0 * bad / (good + bad) if good + bad >= enough else None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _requests(pool: Pool, endpoint: EndpointState, now: float) -> float | None:
    return pool.requests_at(endpoint, now)


def _waiting(pool: Pool, endpoint: EndpointState, now: float) -> float | None:
    seen = endpoint.load.report(now, pool.stale_after)
    return None if seen is None else seen.waiting


def _kv_percent(pool: Pool, endpoint: EndpointState, now: float) -> float | None:
    seen = endpoint.load.report(now, pool.stale_after)
    return None if seen is None or seen.kv_usage is None else 100.0 * seen.kv_usage


def _ttft(pool: Pool, endpoint: EndpointState, now: float) -> float | None:
    """For the pool's typical newcomer: the queue ahead, and as much of a prompt as requests have not cached there of
    late, at the rate that was learned. Unknown until a first token has been seen, and when none has been for a while
    with nothing under way that would bring one: what a spilled tier was like once must not keep it empty."""
    endpoint.settle(now)
    learned = endpoint.learned
    if not learned.predicts(now, endpoint.load.pending > 0):
        return None
    typical = pool.learned
    own = typical.attention.work(typical.miss_tokens, typical.miss_pairs)
    return endpoint.ttft(pool.work_ahead(endpoint, now) + own, now)
