"""Tiers whose workload is scaled to zero: whether a request is held for one, and for how long."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from spillway_api.durations import seconds

if TYPE_CHECKING:
    from .pool import Pool
    from .routing import Tier

WANTED: Final = 15.0
"""Seconds for which a pool is wanted after it was asked for an endpoint; longer than between two reports."""


def is_cold(tier: Tier) -> bool:
    """Whether nothing of it is there, and something of it can be woken. Those of weight 0 wake nobody."""
    pools = [target.pool for target in tier.targets]
    return any(pool.asleep for pool in pools) and not any(pool.endpoints for pool in pools)


def is_wanted(pool: Pool, now: float) -> bool:
    """Whether a pool that sleeps is to be woken."""
    return pool.asleep and now - pool.last_asked < WANTED


class ColdStart:
    """What one request has found asleep. `whenCold` decides whether it goes on to the next tier meanwhile."""

    __slots__ = ("_since", "found", "spills_in")

    def __init__(self) -> None:
        self._since: float | None = None
        self.found = False
        """Some tier that was asked is asleep: it will open."""
        self.spills_in: float | None = None
        """Seconds until the request is held no longer; None where that is not a matter of time."""

    def reopen(self) -> None:
        """The request looks anew. How long it has been held stays."""
        self.found = False
        self.spills_in = None

    def give_up(self) -> None:
        """There is no room to hold the request in: as if its time were over."""
        self._since = -inf

    def holds(self, tier: Tier, now: float) -> bool:
        """Whether the request stays at this tier, which had no endpoint for it."""
        if not is_cold(tier):
            return False
        self.found = True
        spill = tier.spec.spill
        if spill is None or spill.when_cold == "Spill":
            return False
        if spill.when_cold == "Hold":
            return True
        if self._since is None:
            self._since = now
        left = self._since + seconds(spill.hold_for) - now
        if left <= 0.0:
            return False
        self.spills_in = left
        return True
