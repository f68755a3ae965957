"""What one request has cost, over all of its attempts, and what it would have cost elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from spillway_api.types import Price

from .prices import EXACT, NOTHING, Used

if TYPE_CHECKING:
    from .routing import Tier


class Bill:
    """Of one request. Attempts that have lost a race, failed or been cut are on it with what they have cost."""

    __slots__ = ("amounts", "own")

    def __init__(self) -> None:
        self.amounts: dict[str, Decimal] = {}
        """By currency: nothing is converted."""
        self.own: Used | None = None
        """What its last attempt at own engines has used, where it is known what these cost."""

    def add(self, currency: str, amount: Decimal) -> None:
        self.amounts[currency] = EXACT.add(self.amounts.get(currency, NOTHING), amount)

    def of(self, currency: str) -> Decimal:
        return self.amounts.get(currency, NOTHING)


def elsewhere(tiers: Sequence[Tier], home: str, model: str) -> Price | None:
    """By what price the request would have been charged had it left: that of the first pool that has one, in the order
    of the tiers behind `home` and of their pools. `model` is the one that was asked for."""
    behind = False
    for tier in tiers:
        if behind:
            for target in tier.targets:
                found = target.pool.model(model, target.model)
                if target.weight > 0 and found is not None and found.price is not None:
                    return found.price
        behind = behind or tier.spec.name == home
    return None
