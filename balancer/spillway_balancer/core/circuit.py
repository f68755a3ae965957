"""The circuit of an endpoint: when failures take it out of traffic, for how long, and how it comes back.

A circuit is a value: what happened makes the next one, and nothing here reads a clock. Ejection and its
doubling follow Envoy's outlier detection; closed, open and half-open are Nygard's circuit breaker ("Release
It!", 2007).
"""

from __future__ import annotations

import random
from typing import Literal, NamedTuple, Self

from xxhash import xxh3_64_intdigest

from spillway_api.durations import seconds
from spillway_api.types import PassiveHealth

BUCKETS = 10
"""Parts of the sliding window; it is exact to one of them."""
NEVER = float("-inf")
QUOTA_OFF = 900.0
"""Seconds that an account is off whose quota is spent: until somebody has paid, or a new day begins."""
QUOTA_OFF_MOST = 4 * 3600.0

State = Literal["closed", "open", "half-open"]


class CircuitPolicy(NamedTuple):
    """`health.passive` of a ModelPool, with its durations in seconds."""

    consecutive_failures: int = 3
    """Failures in a row that eject; 0 turns this rule off."""
    error_rate_percent: int = 50
    min_requests: int = 20
    window: float = 30.0
    base_ejection: float = 5.0
    max_ejection: float = 300.0
    max_ejected_percent: int = 50

    @classmethod
    def of(cls, health: PassiveHealth) -> Self:
        """Raises ValueError on a duration that is none, which validated objects do not hold."""
        return cls(
            health.consecutive_failures,
            health.error_rate_percent,
            health.min_requests,
            seconds(health.window),
            seconds(health.base_ejection),
            seconds(health.max_ejection),
            health.max_ejected_percent,
        )

    def ejection(self, in_a_row: int) -> float:
        """Seconds that the n-th ejection in a row lasts (from 1): doubling, up to the maximum."""
        # 2 ** 60 times anything is past every maximum; bounded, since floats overflow.
        return min(self.base_ejection * 2.0 ** min(in_a_row - 1, 60), self.max_ejection)


class Bucket(NamedTuple):
    """Outcomes of a part of the window, from `start` on."""

    start: float
    good: int
    bad: int


class Circuit(NamedTuple):
    """Closed: traffic flows. Open: none. Half-open, once an ejection is over: one trial at a time.

    All times are seconds of one monotonic clock. `CLOSED` is what an endpoint begins with. Two things open a
    circuit and they are kept apart: an *ejection*, earned by failures, ends in half-open; being *shut* (a
    provider's Retry-After, a spent quota, a refused credential) ends by itself at its time, and blames
    nobody.
    """

    ejected_until: float | None = None
    """End of the ejection; None when not ejected. Stays set in half-open."""
    ejections: int = 0
    """How many in a row, before what has been forgiven since `closed_at`."""
    closed_at: float = NEVER
    trial_at: float | None = None
    """When the trial that is under way began; None without one."""
    shut_until: float = NEVER
    streak: int = 0
    """Failures since the last success."""
    start: float = NEVER
    """Of the newest bucket of the window, whose counts stand here so that a success costs one small tuple."""
    good: int = 0
    bad: int = 0
    older: tuple[Bucket, ...] = ()
    awaits_probe: bool = False
    """Ejected, and no probe has passed since: no request may be the trial."""
    spent: int = 0
    """How often in a row its quota was found to be spent."""

    def state(self, now: float) -> State:
        if now < self.shut_until:
            return "open"
        if self.ejected_until is None:
            return "closed"
        return "open" if now < self.ejected_until or self.awaits_probe else "half-open"

    def admits(self, now: float) -> bool:
        """Whether a request may be sent. In half-open it has to be marked by `trial` in the same breath."""
        if now < self.shut_until:
            return False
        if self.ejected_until is None:
            return True
        return now >= self.ejected_until and self.trial_at is None and not self.awaits_probe

    @property
    def until(self) -> float:
        """When it is, or was, no longer open, probes aside: tells which of several is due back soonest."""
        return self.shut_until if self.ejected_until is None else max(self.shut_until, self.ejected_until)

    def outcomes(self, now: float, policy: CircuitPolicy) -> tuple[int, int]:
        """Requests that ended well and that failed, in the window. An ejection forgets them."""
        buckets = (*self.older, Bucket(self.start, self.good, self.bad))
        recent = [bucket for bucket in buckets if now - bucket.start < policy.window]
        return sum(bucket.good for bucket in recent), sum(bucket.bad for bucket in recent)

    def trial(self, now: float) -> Circuit:
        """Marks a trial as under way. On a closed circuit, and when there is one already, nothing changes.

        An ejected endpoint that is tried before its time, since all others are out as well, is on trial too.
        Every trial has to end in `succeeded`, `failed` or `untried`, or the circuit admits nothing ever
        after.
        """
        if self.ejected_until is None or self.trial_at is not None:
            return self
        return self._replace(trial_at=now)

    def untried(self, now: float, begun: float | None = None) -> Circuit:
        """After a request that said nothing of the endpoint (the client left): another trial may go."""
        return self._replace(trial_at=None) if self._is_trial(now, begun) else self

    def succeeded(self, now: float, policy: CircuitPolicy, begun: float | None = None) -> Circuit:
        """After a request that `begun` then has ended well. A trial closes the circuit.

        `begun` None is a request begun now; one that began before the trial is no trial, and says nothing
        new.
        """
        ejected, ejections, closed_at, _, shut, _, start, good, bad, older, _, _ = self
        if ejected is None:
            if now - start < policy.window / BUCKETS:
                return Circuit(None, ejections, closed_at, None, shut, 0, start, good + 1, bad, older)
            older = self._kept(now, policy)
            return Circuit(None, ejections, closed_at, None, shut, 0, now, 1, 0, older)
        if not self._is_trial(now, begun):
            return self
        # The old window goes: what was ejected for must not eject again with the next single failure.
        return Circuit(None, ejections, now, None, shut, 0, now, 1, 0)

    def failed(self, now: float, policy: CircuitPolicy, begun: float | None = None, may_open: bool = True) -> Circuit:
        """After a request that `begun` then has failed by the endpoint's fault. May eject.

        `may_open` False (see `may_eject`) counts the failure but leaves a closed circuit closed; the next
        failure asks again. A trial that fails in half-open ejects again, for longer. A circuit that is still
        open, or waits for a probe, stays as it is, whatever else fails there: neither requests that were on their
        way nor those that are sent because all is lost may add up to a long ejection.
        """
        if self.ejected_until is not None:
            if not self._is_trial(now, begun):
                return self
            if now < self.ejected_until or self.awaits_probe:
                return self._replace(trial_at=None)
            return self._eject(now, policy, self.ejections)
        if now - self.start < policy.window / BUCKETS:
            start, good, bad, older = self.start, self.good, self.bad + 1, self.older
        else:
            start, good, bad, older = now, 0, 1, self._kept(now, policy)
        streak = self.streak + 1
        if may_open:
            if 0 < policy.consecutive_failures <= streak:
                return self._eject(now, policy, self._unforgiven(now, policy))
            recent = [bucket for bucket in older if now - bucket.start < policy.window]
            failures = bad + sum(bucket.bad for bucket in recent)
            total = failures + good + sum(bucket.good for bucket in recent)
            if total >= policy.min_requests and failures * 100 >= policy.error_rate_percent * total:
                return self._eject(now, policy, self._unforgiven(now, policy))
        return Circuit(None, self.ejections, self.closed_at, None, self.shut_until, streak, start, good, bad, older)

    def shut(self, now: float, until: float) -> Circuit:
        """Off until then, by the endpoint's own word; a shorter word never shortens a longer one."""
        return self._replace(shut_until=until) if until > max(now, self.shut_until) else self

    def quota_spent(self, now: float) -> Circuit:
        """Off for QUOTA_OFF seconds, and twice as long each time that it is found to be spent still.

        Of many requests that were on their way the first decides.
        """
        if self.spent and now < self.shut_until:
            return self
        wait = min(QUOTA_OFF * 2.0 ** min(self.spent, 16), QUOTA_OFF_MOST)
        return self._replace(spent=self.spent + 1).shut(now, now + wait)

    def probe_passed(self) -> Circuit:
        """A probe that was sent since the ejection has passed: once that is over, a request may be the trial.

        It closes nothing: an engine whose health page answers may still fail every request.
        """
        return self._replace(awaits_probe=False) if self.awaits_probe else self

    def probe_failed(self) -> Circuit:
        """Probes are the trials as long as they fail, so that no client waits for an endpoint that is not there.

        Said too when an endpoint that is probed has just been ejected. A closed circuit stays as it is: to take
        an endpoint out for failed probes takes several (`core.health`).
        """
        return self if self.ejected_until is None or self.awaits_probe else self._replace(awaits_probe=True)

    def _is_trial(self, now: float, begun: float | None) -> bool:
        return self.trial_at is not None and self.trial_at <= (now if begun is None else begun)

    def _eject(self, now: float, policy: CircuitPolicy, before: int) -> Circuit:
        # Not counted past the longest ejection: it would last no longer, only take longer to be forgiven.
        in_a_row = before + 1 if policy.ejection(before) < policy.max_ejection else max(before, 1)
        return Circuit(now + policy.ejection(in_a_row), in_a_row, shut_until=self.shut_until)

    def _unforgiven(self, now: float, policy: CircuitPolicy) -> int:
        """Ejections that still count: each whole window spent closed forgives one."""
        if not self.ejections or policy.window <= 0.0:
            return 0
        return max(0, self.ejections - int((now - self.closed_at) / policy.window))

    def _kept(self, now: float, policy: CircuitPolicy) -> tuple[Bucket, ...]:
        """The buckets of the window as it is now, when a new one begins."""
        buckets = (*self.older, Bucket(self.start, self.good, self.bad))
        return tuple(bucket for bucket in buckets if now - bucket.start < policy.window)


CLOSED = Circuit()

_SEED = 0x3A93
"""Keeps the order in which sessions come to a cold endpoint apart from the ring, and from who leaves a tier."""

SLOWEST = 0.1
"""Share that an endpoint begins with; nothing is warmed up by nothing. Envoy's `min_weight_percent`."""


def warmth(since: float, now: float, slow_start: float) -> float:
    """Share of its load that an endpoint takes which has been back, or there at all, `since` then.

    Rises evenly from SLOWEST to 1.0 over `slow_start` seconds, as Envoy's slow start mode does with its default
    aggression.
    """
    if slow_start <= 0.0 or now - since >= slow_start:
        return 1.0
    return max(SLOWEST, (now - since) / slow_start)


def spares(warm: float, key: int | None, dice: random.Random) -> bool:
    """Whether a request is not to see an endpoint of such warmth; a key that sees it goes on to as it warms."""
    if warm >= 1.0:
        return False
    place = dice.random() if key is None else xxh3_64_intdigest(key.to_bytes(8, "little"), _SEED) / 2.0**64
    return place >= warm


def may_eject(ejected: int, total: int, max_ejected_percent: int) -> bool:
    """Whether one more of `total` endpoints may be ejected when `ejected` others are out already.

    A pool of one is never ejected below 100 percent: an endpoint that fails is better than none. An endpoint
    whose trial failed was out already, so it does not ask.
    """
    return (ejected + 1) * 100 <= max_ejected_percent * total
