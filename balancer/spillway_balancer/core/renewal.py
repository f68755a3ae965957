"""When a grant that ends is to be fetched again: well before its end, not in step with other balancers, and without
hammering whoever gives it while that fails. The old one serves on until its own end."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final

EARLIEST: Final = 0.7
LATEST: Final = 0.8
"""Of what is left of a grant's life when it comes, after how much the next one is fetched: drawn between them. AWS' and
Azure's SDKs begin 5 to 15 minutes before the end of an hour; GKE's metadata server gives the same token again until
5 minutes before its end, and is asked again at the same fractions of what is left."""

LEAST_PAUSE: Final = 5.0
"""Seconds. No exchange follows another, successful one sooner, whatever life a grant is said to have."""

FIRST_BACKOFF: Final = 1.0
LONGEST_BACKOFF: Final = 60.0
"""Seconds between tries while fetching fails: doubling, and drawn from the upper half of it."""

REFUSED_PAUSE: Final = 300.0
LONGEST_REFUSED_PAUSE: Final = 3600.0
"""Seconds until a grant that was refused although it was fresh is followed by another: what the identity may do is
being changed by people, if at all. Doubling."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What is known of one identity. Times are seconds of Unix time, as grants end by it."""

    due: float
    """When to fetch next."""
    expires: float | None = None
    """When what is held ends; None where nothing is."""
    failures: int = 0
    """In a row."""
    refusals: int = 0
    """How many grants in a row were not taken by the account."""
    rejected: bool = False
    """Whether the present one is such a grant."""

    def obtained(self, expires: float, now: float, dice: random.Random) -> Renewal:
        """A grant has come that ends then. One that has ended already counts as a failure."""
        life = expires - now
        if life <= 0.0:
            return self.failed(now, dice)
        refusals = self.refusals if self.rejected else 0
        pause = max(life * dice.uniform(EARLIEST, LATEST), LEAST_PAUSE)
        return Renewal(now + pause, expires, refusals=refusals)

    def failed(self, now: float, dice: random.Random) -> Renewal:
        """Nothing has come. What is held stays as long as it lives."""
        most = min(FIRST_BACKOFF * 2.0 ** min(self.failures, 30), LONGEST_BACKOFF)
        kept = self.expires if self.holds(now) else None
        return replace(self, due=now + dice.uniform(most / 2, most), expires=kept, failures=self.failures + 1)

    def refused(self, now: float) -> Renewal:
        """The account does not take what is held. The first such grant is followed by another at once, as it may have
        been revoked; one that came after a refusal and is refused as well is followed late."""
        if self.rejected:
            return self
        if self.refusals:
            late = min(REFUSED_PAUSE * 2.0 ** min(self.refusals - 1, 30), LONGEST_REFUSED_PAUSE)
            due = min(self.due, now + late)
        else:
            due = now
        return replace(self, due=due, refusals=self.refusals + 1, rejected=True)

    def holds(self, now: float) -> bool:
        """Whether what is held lives."""
        return self.expires is not None and now < self.expires

    def next(self) -> float:
        """When there is something to do: to fetch, or to let go."""
        return self.due if self.expires is None else min(self.due, self.expires)
