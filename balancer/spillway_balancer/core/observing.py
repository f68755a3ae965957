"""What an observer of one request's way is told, so that decisions can be explained by the code that makes them.

Hardly any request has one. Whoever decides asks `is not None`, and collects nothing for anybody else.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from .endpoint import EndpointState
from .reasons import Reason

if TYPE_CHECKING:
    from .pool import Picked, Want
    from .routing import Target, Tier


class Observer(Protocol):
    """Is told of each step when it is taken; what it is handed is not to be changed."""

    def spilling(self, tier: Tier, share: float, leaves: bool) -> None:
        """Load was sending this `share` (0 to 1) of the requests away from a tier, this one among them or not."""
        ...

    def looking(
        self, tier: Tier, target: Target, want: Want | None, tried: Collection[EndpointState], now: float
    ) -> None:
        """An endpoint of this pool is about to be looked for; `want` is None where the pool has no such model."""
        ...

    def found(self, tier: Tier, target: Target, found: Picked | Reason) -> None:
        """What came of it: an endpoint, or why there is none."""
        ...

    def left(self, tier: Tier, reason: Reason, onward: bool) -> None:
        """The tier is left for this reason, or would be if there were a next one that it may be left for."""
        ...
