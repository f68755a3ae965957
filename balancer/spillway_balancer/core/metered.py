"""What tiers and consumers limit alike: requests and tokens in a minute, and money in a period."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Literal

from spillway_api.types import ConsumerLimits, Limits

from .meters import Rate, Spend


class Metered:
    """Meters by what a policy says. What they have counted outlives a reload.

    The meters are the same objects before and after: whoever is under way settles where it has reserved. Money in
    another currency begins anew.
    """

    __slots__ = ("currency", "money", "requests", "tokens")

    def __init__(self, spec: Limits | ConsumerLimits, previous: Metered | None) -> None:
        """A meter is None where there is no such limit. The limits are those of before until `limit_by` sets them."""
        self.requests: Rate | None = None
        self.tokens: Rate | None = None
        self.money: Spend | None = None
        budget = spec.budget
        self.currency = "" if budget is None else budget.currency
        if spec.requests_per_minute is not None:
            self.requests = (previous and previous.requests) or Rate(spec.requests_per_minute)
        if spec.tokens_per_minute is not None:
            self.tokens = (previous and previous.tokens) or Rate(spec.tokens_per_minute)
        if budget is not None:
            kept = previous.money if previous is not None and previous.currency == self.currency else None
            self.money = kept or Spend(Decimal(budget.amount), budget.period)

    def limit_by(self, spec: Limits | ConsumerLimits) -> None:
        """Put these settings in force, where others may have been on the same meters."""
        if self.requests is not None and spec.requests_per_minute is not None:
            self.requests.limit = spec.requests_per_minute
        if self.tokens is not None and spec.tokens_per_minute is not None:
            self.tokens.limit = spec.tokens_per_minute
        if self.money is not None and spec.budget is not None:
            self.money.limit = Decimal(spec.budget.amount)
            self.money.period = spec.budget.period

    def metered_percent(
        self, now: float, unix: float
    ) -> Iterator[tuple[Literal["requestsPerMinute", "tokensPerMinute", "budget"], float]]:
        """How much of each limit there is is used, what is under way included."""
        if self.requests is not None:
            yield "requestsPerMinute", self.requests.used_percent(now)
        if self.tokens is not None:
            yield "tokensPerMinute", self.tokens.used_percent(now)
        if self.money is not None:
            yield "budget", self.money.used_percent(unix)
