"""What may enter a tier: the limits of one tier, and one request's permit to pass them."""

from __future__ import annotations

from decimal import Decimal
from math import inf
from typing import Final, Literal, NamedTuple

from spillway_api import types

from .metered import Metered
from .meters import SOON, Reserved, Spend, Taken
from .prices import NOTHING_USED, Used, cost
from .reasons import Reason
from .shares import Share

Limit = Literal["maxSharePercent", "requestsPerMinute", "tokensPerMinute", "budget"]
LIMITS: Final[tuple[Limit, ...]] = ("maxSharePercent", "requestsPerMinute", "tokensPerMinute", "budget")
"""As they are called in a policy."""

REASON: Final[dict[Limit, Reason]] = {
    "maxSharePercent": "saturated",
    "requestsPerMinute": "rate-limited",
    "tokensPerMinute": "rate-limited",
    "budget": "budget",
}


class Refusal(NamedTuple):
    """Why a request may not enter: of several limits the one that holds the longest."""

    limit: Limit
    until: float
    """Seconds until it may, if nobody else comes; infinite where it never will."""
    pool: str = ""
    """Whose own budget it is; empty for a limit of the tier."""

    @property
    def reason(self) -> Reason:
        return REASON[self.limit]

    def __str__(self) -> str:
        return f"{self.reason} ({f'budget of {self.pool}' if self.pool else f'limits.{self.limit}'})"


class Permit:
    """One attempt's way into a tier: what it has reserved there, and the price by which it is charged.

    `settle` it once the attempt has ended, on every path; `cancel` it where nothing was sent. The first of these
    calls counts. A permit without limits is there for its price.
    """

    __slots__ = (
        "_epoch",
        "_fund",
        "_held",
        "_limits",
        "_money",
        "_request",
        "_share",
        "_tokens",
        "cancelled",
        "model",
        "open",
        "price",
    )

    def __init__(self, model: types.Model, epoch: float, limits: TierLimits | None = None) -> None:
        """`epoch`: what makes Unix time of the clock's."""
        self.model = model
        """That the attempt is for."""
        self.price = model.price
        self.open = True
        self.cancelled = False
        self._epoch = epoch
        self._limits = limits
        self._share: int | None = None
        self._request: Taken | None = None
        self._tokens: Taken | None = None
        self._money: Reserved | None = None
        self._fund: Spend | None = None
        self._held: Reserved | None = None

    def draws(self, fund: Spend, held: Reserved | None) -> None:
        """So much is set aside of the pool's own budget as well."""
        self._fund, self._held = fund, held

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters how many tokens the attempt uses."""
        return self.price is not None or self._tokens is not None

    def settle(self, now: float, used: Used) -> Decimal:
        """The attempt has ended and has used that. Returns what it has cost, 0 where there is no price."""
        price = self.price
        paid = Decimal(0) if price is None else cost(price, used)
        if self.open:
            self.open = False
            if self._fund is not None and self._held is not None:
                self._fund.settle(self._held, now + self._epoch, paid)
            if self._limits is not None:
                if self._limits.tokens is not None and self._tokens is not None:
                    self._limits.tokens.settle(self._tokens, now, used.prompt + used.output)
                if self._limits.money is not None and self._money is not None:
                    self._limits.money.settle(self._money, now + self._epoch, paid)
        return paid

    def cancel(self, now: float) -> None:
        """Nothing was sent: as if it had not come."""
        self.cancelled = self.cancelled or self.open
        if self.open and self._limits is not None:
            if self._limits.share is not None and self._share is not None:
                self._limits.share.give_back(self._share, now)
            if self._limits.requests is not None and self._request is not None:
                self._limits.requests.settle(self._request, now, 0)
        self.settle(now, NOTHING_USED)


class TierLimits(Metered):
    """The limits of one tier at work."""

    __slots__ = ("refused", "share", "spec", "spent_until")

    def __init__(self, spec: types.Limits, previous: TierLimits | None = None) -> None:
        super().__init__(spec, previous)
        self.spec = spec
        self.spent_until = -inf
        """Unix time before which the budget has kept a request out, and nothing has changed since."""
        self.share: Share | None = None
        self.refused: dict[Limit, int] = previous.refused if previous else dict.fromkeys(LIMITS, 0)
        """Requests that each limit has kept out."""
        if spec.max_share_percent is not None:
            self.share = (previous and previous.share) or Share(spec.max_share_percent)
        self.apply()

    def apply(self) -> None:
        """Put these settings in force, where others may have been on the same meters."""
        self.spent_until = -inf
        self.limit_by(self.spec)
        if self.share is not None and self.spec.max_share_percent is not None:
            self.share.percent = self.spec.max_share_percent

    def used_percent(self, now: float, unix: float) -> dict[Limit, float]:
        """How much of each limit there is is used, what is under way included."""
        found: dict[Limit, float] = {}
        if self.share is not None:
            found["maxSharePercent"] = self.share.used_percent(now)
        found.update(self.metered_percent(now, unix))
        return found

    def enter(
        self,
        now: float,
        epoch: float,
        model: types.Model,
        tokens: int,
        money: Decimal | None,
        place: float | None,
        inside: bool = False,
    ) -> Permit | Refusal:
        """Let an attempt in, or say why not. All limits let it in, or it takes nothing of any.

        `tokens` and `money` are what it may come to, `money` is None where there is no price; `place` is that of its
        session. `inside`: an attempt of this request has come in before, so its share is taken.
        """
        unix = now + epoch
        refusal = self._refusal(now, unix, tokens, money, place, inside)
        if refusal is not None:
            return refusal
        permit = Permit(model, epoch, self)
        if self.share is not None and not inside:
            permit._share = self.share.take(now)
        if self.requests is not None:
            permit._request = self.requests.reserve(now)
        if self.tokens is not None:
            permit._tokens = self.tokens.reserve(now, tokens)
        if self.money is not None and money is not None:
            permit._money = self.money.reserve(unix, money)
        return permit

    def _refusal(
        self, now: float, unix: float, tokens: int, money: Decimal | None, place: float | None, inside: bool
    ) -> Refusal | None:
        found: Refusal | None = None
        if self.money is not None:
            wait = inf if money is None else self.money.until_free(unix, money)
            if SOON < wait < inf:
                self.spent_until = unix + wait
            if wait > 0:
                found = Refusal("budget", wait)
        if self.tokens is not None:
            wait = self.tokens.until_free(now, tokens)
            if wait > (found.until if found else 0):
                found = Refusal("tokensPerMinute", wait)
        if self.requests is not None:
            wait = self.requests.until_free(now)
            if wait > (found.until if found else 0):
                found = Refusal("requestsPerMinute", wait)
        if found is None and self.share is not None and not inside and not self.share.has_room(now, place):
            found = Refusal("maxSharePercent", SOON)
        return found
