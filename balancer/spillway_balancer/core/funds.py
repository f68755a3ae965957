"""A pool's own budget: money that all routes together may spend there."""

from __future__ import annotations

from decimal import Decimal
from math import inf

from spillway_api.types import Budget

from .meters import SOON, Reserved, Spend


class Fund:
    """`spec.budget` of a ModelPool at work. What it has counted outlives a reload; another currency begins anew."""

    __slots__ = ("money", "refused", "spec", "spent_until")

    def __init__(self, spec: Budget, previous: Fund | None = None) -> None:
        self.spec = spec
        kept = previous if previous is not None and previous.spec.currency == spec.currency else None
        self.money: Spend = kept.money if kept is not None else Spend(Decimal(spec.amount), spec.period)
        self.refused: int = 0 if previous is None else previous.refused
        """Requests that it has kept out."""
        self.spent_until = -inf
        """Unix time before which it has kept a request out, and nothing has changed since."""
        self.apply()

    @classmethod
    def of(cls, spec: Budget | None, previous: Fund | None) -> Fund | None:
        """None where the pool may cost what it likes."""
        return None if spec is None else cls(spec, previous)

    def apply(self) -> None:
        """Put these settings in force, where others may have been on the same money."""
        self.spent_until = -inf
        self.money.limit = Decimal(self.spec.amount)
        self.money.period = self.spec.period

    def until_free(self, unix: float, money: Decimal | None) -> float:
        """Seconds until so much may be spent: 0 if it may now; infinite for what has no price in its currency."""
        wait = inf if money is None else self.money.until_free(unix, money)
        if SOON < wait < inf:
            self.spent_until = unix + wait
        return wait

    def hold(self, unix: float, money: Decimal | None) -> Reserved | None:
        """Set so much aside; None where that may not be."""
        return None if money is None else self.money.reserve(unix, money)

    def closed(self, unix: float) -> bool:
        """Whether it is spent."""
        return unix < self.spent_until
