"""Spillover: which part of a tier's requests leaves for the next one, and which requests those are.

Signals of load go through ramps, the highest ramp is aimed at, and the share in force follows it: smoothed, and
downwards no faster than allowed. All of it is values; `spilling` reads the signals and keeps the state.
"""

from __future__ import annotations

import random
from math import exp
from typing import NamedTuple, Self

from xxhash import xxh3_64_intdigest

from spillway_api.durations import seconds
from spillway_api.types import PercentRamp, Ramp, Spill, SpillBy

_SEED = 0x5B111
"""Keeps the order of leaving apart from the ring: by the bare key, one endpoint's arc would leave first."""
_ARRIVED = 1.0 / 1024.0
"""A share this near to its aim is there: what falls by halves would never be 0."""

Ends = tuple[float, float]
"""Of a ramp: nothing leaves up to the first, everything from the second on, which is not below the first."""


class Ramps(NamedTuple):
    """The ramps of a tier, by signal; None where the policy does not name the signal."""

    queued: Ends | None = None
    in_flight: Ends | None = None
    ttft: Ends | None = None
    kv_percent: Ends | None = None
    error_percent: Ends | None = None

    @classmethod
    def of(cls, spec: Spill) -> Self:
        """Raises ValueError on a duration that is none, which validated objects do not hold."""
        ttft = spec.predicted_ttft
        return cls(
            _ends(spec.queued_per_endpoint),
            _ends(spec.in_flight_per_endpoint),
            None if ttft is None else (seconds(ttft.start), seconds(ttft.full)),
            _ends(spec.kv_cache_percent),
            _ends(spec.error_percent),
        )


def _ends(given: Ramp | PercentRamp | None) -> Ends | None:
    return None if given is None else (float(given.start), float(given.full))


class Signals(NamedTuple):
    """What the load of a tier is now; None is unknown, or not asked for."""

    queued: float | None = None
    """Requests waiting in an engine, the mean of the ready endpoints that tell."""
    in_flight: float | None = None
    """Requests for each ready endpoint."""
    ttft: float | None = None
    """Predicted seconds to the first token, the mean of the ready endpoints of which enough is known."""
    kv_percent: float | None = None
    """Used part of the KV cache, the mean of the ready endpoints that tell."""
    error_percent: float | None = None
    """Failed attempts among the tier's of late."""


def ramp(signal: float | None, ends: Ends) -> float:
    """Part of the requests that leaves by one signal, 0 to 1. An unknown signal sends nobody away.

    Between the ends it rises evenly, so that load is shed as it comes instead of all at once. Where they are equal
    the ramp is a step.
    """
    start, full = ends
    if signal is None or not signal >= start:  # the second also where it is not a number
        return 0.0
    return 1.0 if signal >= full else (signal - start) / (full - start)


def aim(signals: Signals, ramps: Ramps) -> tuple[float, str]:
    """The share that these signals ask for, that of the highest; and the name of that, empty when none asks."""
    share, highest = 0.0, ""
    for name, signal, ends in zip(Signals._fields, signals, ramps, strict=True):
        if ends is not None and (asked := ramp(signal, ends)) > share:
            share, highest = asked, name
    return share, highest


class Smoothed(NamedTuple):
    """The share in force, and what its next step depends on. A new tier begins with None and its first aim."""

    share: float
    aim: float
    """That was last asked for."""
    at: float
    """When: seconds, monotonic."""
    peak: float
    """Where the share last rose to."""


def follow(before: Smoothed | None, aim: float, now: float, smoothing: float, dwell: float) -> Smoothed:
    """The share after `aim` was asked for at `now`. `smoothing` and `dwell` in seconds.

    Towards the aim it goes exponentially, with `smoothing` for its time constant; but from where it last rose to it
    takes at least `dwell` to fall to 0. It begins to fall at once: a share that is held for a while and then falls
    makes the pool swing between idle and full, since what is held back comes with the next wave of load.

    Readings may be far apart. In between, the lower of the two aims counts: a rise is believed when it lasts, and
    what was asked for before a pause says nothing of its end.
    """
    if before is None:
        return Smoothed(aim, aim, now, aim)
    share, last, at, peak = before
    passed = max(0.0, now - at)
    if smoothing <= 0.0:
        wanted = aim
    else:
        towards = min(last, aim)
        wanted = towards + (share - towards) * exp(-passed / smoothing)
        if passed and abs(wanted - towards) < _ARRIVED:
            wanted = towards
    if wanted > share:
        return Smoothed(wanted, aim, max(at, now), wanted)
    lowest = share - peak * passed / dwell if dwell > 0.0 else 0.0
    return Smoothed(max(wanted, lowest), aim, max(at, now), peak)


def leaves(share: float, key: int | None, by: SpillBy, dice: random.Random, salt: int = 0) -> bool:
    """Whether this request is of the `share` (0 to 1) that leaves.

    By Key whole sessions leave, always the same ones first, and they return last: if a key leaves at some
    share it leaves at every larger one. That holds on all balancers alike, so both sides keep their prefix
    caches. Requests without a key, and all of them by Request, fall to the dice.

    `salt` numbers the tiers of a route: with one salt for all, the keys that have left a first tier would be
    exactly those that leave the second.
    """
    if share <= 0.0:
        return False
    if share >= 1.0:
        return True
    if by == "Key" and key is not None:
        return place(key, salt) < share
    return dice.random() < share


def place(key: int, salt: int = 0) -> float:
    """Where a key stands in the order in which sessions leave, from 0 to below 1."""
    return (xxh3_64_intdigest(key.to_bytes(8, "little"), _SEED + salt) >> 11) * 2.0**-53
