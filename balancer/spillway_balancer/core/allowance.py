"""What one consumer may use: requests and tokens in a minute, requests at once, money in a period.

Counted by one balancer for itself. What a request will use is taken when it is let in and put right when it has
ended, so the limits hold however many come at once; who is let in keeps its place while it waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final, Literal, NamedTuple

from spillway_api.types import ConsumerLimits, Price

from .metered import Metered
from .meters import Concurrent, Reserved, Taken
from .prices import EXACT, NOTHING, Used, cost

Limit = Literal["maxInFlight", "requestsPerMinute", "tokensPerMinute", "budget"]
LIMITS: Final[tuple[Limit, ...]] = ("maxInFlight", "requestsPerMinute", "tokensPerMinute", "budget")
"""As they are called in a policy."""


class Refusal(NamedTuple):
    """Why a request is not let in: of several limits the one that holds the longest."""

    limit: Limit
    until: float
    """Seconds until it may be, if nobody else comes; infinite where it never will."""


class Quota(NamedTuple):
    """How much of a rate is left, for who asks."""

    limit: int
    remaining: int
    reset: float
    """Seconds until all of it is."""


class Allowance(Metered):
    """The limits of one consumer at work."""

    __slots__ = ("in_flight", "spec")

    def __init__(self, spec: ConsumerLimits, previous: Allowance | None = None) -> None:
        super().__init__(spec, previous)
        self.spec = spec
        self.in_flight: Concurrent | None = None
        if spec.max_in_flight is not None:
            self.in_flight = (previous and previous.in_flight) or Concurrent(spec.max_in_flight)
        self.apply()

    def apply(self) -> None:
        """Put these settings in force, where others may have been on the same meters."""
        self.limit_by(self.spec)
        if self.in_flight is not None and self.spec.max_in_flight is not None:
            self.in_flight.limit = self.spec.max_in_flight

    def tokens_used(self, now: float) -> float:
        """Percent; 0 without such a limit, as all of these."""
        return 0.0 if self.tokens is None else self.tokens.used_percent(now)

    def requests_used(self, now: float) -> float:
        """Of requests a minute or requests at once, whichever is tighter."""
        rate = 0.0 if self.requests is None else self.requests.used_percent(now)
        return rate if self.in_flight is None else max(rate, self.in_flight.used_percent())

    def budget_used(self, unix: float) -> float:
        return 0.0 if self.money is None else self.money.used_percent(unix)

    def used_percent(self, now: float, unix: float) -> dict[Limit, float]:
        """How much of each limit there is is used, what is under way included."""
        found: dict[Limit, float] = {}
        if self.in_flight is not None:
            found["maxInFlight"] = self.in_flight.used_percent()
        found.update(self.metered_percent(now, unix))
        return found

    def affords(self, price: Price | None, money: Decimal, unix: float) -> bool:
        """Whether `money` at a model of this price may be spent now. One in another currency cannot be charged, and so
        is never used; what has no price costs nothing."""
        if self.money is None or price is None:
            return True
        return price.currency == self.currency and self.money.until_free(unix, money) == 0

    def enter(self, now: float, unix: float, tokens: int, money: Decimal = NOTHING) -> Pass | Refusal:
        """Let a request in that may come to so many tokens and so much money, or say why not. All limits let it in, or
        it takes nothing of any."""
        refusal = self.refusal(now, unix, tokens, money)
        if refusal is not None:
            return refusal
        if self.in_flight is not None:
            self.in_flight.try_take()
        if self.requests is not None:
            self.requests.reserve(now)
        taken = None if self.tokens is None else self.tokens.reserve(now, tokens)
        held = None if self.money is None else self.money.reserve(unix, money)
        return Pass(self, taken, held)

    def refusal(self, now: float, unix: float, tokens: int, money: Decimal) -> Refusal | None:
        """Why a request may not come in now; None where it may."""
        waits: list[tuple[float, Limit]] = []
        if self.in_flight is not None:
            waits.append((self.in_flight.until_free(), "maxInFlight"))
        if self.requests is not None:
            waits.append((self.requests.until_free(now), "requestsPerMinute"))
        if self.tokens is not None:
            waits.append((self.tokens.until_free(now, tokens), "tokensPerMinute"))
        if self.money is not None and money > 0:
            waits.append((self.money.until_free(unix, money), "budget"))
        until, limit = max(waits, default=(0.0, LIMITS[0]))
        return Refusal(limit, until) if until > 0 else None

    def quotas(self, now: float) -> Iterable[tuple[str, Quota]]:
        """What is left of the rates, by what they count."""
        for name, rate in (("requests", self.requests), ("tokens", self.tokens)):
            if rate is not None:
                yield name, Quota(rate.limit, max(0, rate.limit - rate.used(now)), rate.until_empty(now))


class Pass:
    """One request that was let in. `charge` it for every attempt that had an answer; `leave` ends it, once."""

    __slots__ = ("_allowance", "_money", "_open", "_paid", "_taken", "_tokens")

    def __init__(self, allowance: Allowance, taken: Taken | None, money: Reserved | None) -> None:
        self._allowance = allowance
        self._taken = taken
        self._money = money
        self._tokens = 0
        self._paid = NOTHING
        self._open = True

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters how many tokens the request uses."""
        return self._taken is not None or self._money is not None

    def covers(self, price: Price | None, money: Decimal) -> bool:
        """Whether what was set aside is enough for so much at a model of this price."""
        if self._money is None or price is None:
            return True
        return price.currency == self._allowance.currency and money <= self._money.amount

    def charge(self, price: Price | None, used: Used) -> None:
        """An attempt has used so many tokens, at a model of this price."""
        self._tokens += max(0, used.prompt) + max(0, used.output)
        if price is not None and price.currency == self._allowance.currency:
            self._paid = EXACT.add(self._paid, cost(price, used))

    def leave(self, now: float, unix: float) -> tuple[int, Decimal]:
        """The request has ended, and is gone from the limits but for what it has used: tokens and money, returned as
        well. A second call changes nothing."""
        if self._open:
            self._open = False
            allowance = self._allowance
            if allowance.in_flight is not None:
                allowance.in_flight.release()
            if allowance.tokens is not None and self._taken is not None:
                allowance.tokens.settle(self._taken, now, self._tokens)
            if allowance.money is not None and self._money is not None:
                allowance.money.settle(self._money, unix, self._paid)
        return self._tokens, self._paid
