"""What one request may cost, over all of its attempts: `retry.maxCost`."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from spillway_api.types import Money, Price

from .entering import at_most
from .pool import Pool
from .prices import EXACT, NOTHING
from .reasons import Failure
from .steps import Facts, Try

_COMPUTED: Final = ("first-byte-timeout", "stall", "interrupted", "deadline")


class Purse:
    """Money of one request. What an attempt may cost is taken out before it is sent, and put back if the endpoint has
    refused it: who charges does so for what is computed, and one that is silent may be computing."""

    __slots__ = ("_facts", "_limit", "_taken", "left", "refused")

    def __init__(self, limit: Money, facts: Facts) -> None:
        self._limit = limit
        self._facts = facts
        self._taken: list[tuple[Try, Decimal]] = []
        self.left = Decimal(limit.amount)
        self.refused: set[str] = set()
        """Pools that could have cost more than is left."""

    def __str__(self) -> str:
        return f"{self._limit.amount} {self._limit.currency}"

    def affords(self, pool: Pool, price: Price | None) -> bool:
        """Whether one more attempt may be sent to a pool, at this price."""
        cost = self._cost(pool, price)
        if cost is not None and cost <= self.left:
            return True
        self.refused.add(pool.name)
        return False

    def take(self, step: Try) -> Try:
        """The step is being sent."""
        cost = self._cost(step.pool, step.price) or NOTHING
        self._taken.append((step, cost))
        self.left = EXACT.subtract(self.left, cost)
        return step

    def failed(self, step: Try, failure: Failure) -> None:
        """The step has failed. What it may have cost is put back if nothing can have been computed."""
        if failure.reason in _COMPUTED or failure.retry_on == "Reset":
            return
        for at, (taken, cost) in enumerate(self._taken):
            if taken is step:
                self.left = EXACT.add(self.left, cost)
                del self._taken[at]
                return

    def _cost(self, pool: Pool, price: Price | None) -> Decimal | None:
        """None where it cannot be told in this currency."""
        if price is None:
            return NOTHING
        if price.currency != self._limit.currency:
            return None
        return at_most(self._facts, pool, price)
