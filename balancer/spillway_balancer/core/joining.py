"""Whether a request for which every way is closed may wait: whether one of them will open, and when."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf
from typing import Final

from .endpoint import EndpointState
from .reasons import Failure, Reason
from .routing import Tier
from .steps import Stop

LIMITS: Final[frozenset[Reason]] = frozenset({"rate-limited", "quota-exhausted", "budget"})
"""These end at a time that is known."""


def may_wait(
    stop: Stop,
    closed: Collection[Reason],
    failures: Sequence[Failure],
    failed: Collection[EndpointState],
    tiers: Sequence[Tier],
    now: float,
    until: float = inf,
) -> Stop:
    """`closed`: why the pools that were asked had no endpoint, `failed` ones aside; `until`: seconds until a limit of
    the tiers lets one more in, infinite where none would. A request waits for room, and for
    the end of limits if it has met nothing else; not for endpoints that are down, which may stay so for ever."""
    if "saturated" in closed:
        return stop._replace(may_wait=True)
    if LIMITS.isdisjoint(closed) or not LIMITS.issuperset(failure.reason for failure in failures):
        return stop
    pools = {target.pool.name: target.pool for tier in tiers for target in tier.targets}.values()
    waits = [wait for pool in pools if (wait := pool.limited_for(now, failed)) is not None]
    opens_in = min([*waits, until])
    return stop._replace(may_wait=True, opens_in=opens_in) if opens_in < inf else stop
