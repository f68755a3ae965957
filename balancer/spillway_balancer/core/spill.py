"""Spillover: which part of a tier's requests leaves for the next one, and which requests those are."""

from __future__ import annotations

import random

from xxhash import xxh3_64_intdigest

from spillway_api.types import SpillBy

_SEED = 0x5B111
"""Keeps the order of leaving apart from the ring: by the bare key, one endpoint's arc would leave first."""


def share(in_flight: float, ready: int, start: int, full: int) -> float:
    """Part of the requests that leaves, 0 to 1, with so many in flight on so many ready endpoints.

    None leaves up to `start` requests per endpoint, all do from `full` on. In between it rises evenly, so
    that load is shed as it comes instead of all at once. Without a ready endpoint all leave. `full` is not
    below `start`; where they are equal the ramp is a step.
    """
    if ready <= 0:
        return 1.0
    each = in_flight / ready
    if each >= full:
        return 1.0
    if each > start:
        return (each - start) / (full - start)
    return 0.0


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
        place = xxh3_64_intdigest(key.to_bytes(8, "little"), _SEED + salt)
        return place < share * 2.0**64
    return dice.random() < share
