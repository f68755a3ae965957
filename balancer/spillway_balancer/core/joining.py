"""Whether a request for which every way is closed may wait: whether one of them will open, and when."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf
from typing import Final

from .endpoint import EndpointState
from .reasons import Failure, Reason
from .steps import Stop
from .tiers import Tiers

LIMITS: Final[frozenset[Reason]] = frozenset({"rate-limited", "quota-exhausted", "budget"})
"""These end at a time that is known."""


def may_wait(
    stop: Stop,
    tiers: Tiers,
    failures: Sequence[Failure],
    failed: Collection[EndpointState],
    now: float,
    until: float = inf,
) -> Stop:
    """What the tiers say is of endpoints that have not `failed` the request; `until`: seconds until a limit of theirs
    lets one more in, infinite where none would.

    A request waits for room, and, if it has met nothing but limits, for their end and for what is woken from zero; not
    for endpoints that are down, which may stay so for ever.
    """
    passing = LIMITS.issuperset(failure.reason for failure in failures)
    cold = tiers.cold
    asleep = cold is not None and cold.found and passing
    if "saturated" in tiers.closed or asleep:
        return stop._replace(may_wait=True, cold=asleep, spills_in=None if cold is None else cold.spills_in)
    if LIMITS.isdisjoint(tiers.closed) or not passing:
        return stop
    pools = {target.pool.name: target.pool for tier in tiers.reachable for target in tier.targets}.values()
    waits = [wait for pool in pools if (wait := pool.limited_for(now, failed)) is not None]
    opens_in = min([*waits, until])
    return stop._replace(may_wait=True, opens_in=opens_in) if opens_in < inf else stop
