"""One request before the limits of its tiers: what it asks for, and when they would let it in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from math import inf
from typing import Final, Protocol

from spillway_api.types import Model, Price

from . import prices, spill
from .learning import BYTES_PER_TOKEN
from .limits import Limit, Permit, Refusal, TierLimits
from .pool import Pool
from .routing import Tier
from .steps import Facts

MARGIN: Final = 1.25
"""Of a prompt's estimate, for money: a budget is passed by no more than estimates are too low."""
TEMPLATE_TOKENS: Final = 32
"""What a chat template adds to a prompt and its text does not show, beside that."""


LONG: Final = 4.0
"""An answer whose request names no limit may be so many times as long as the pool's answers are in the mean. Of lengths
that are spread as those of chats (log-normal, sigma 0.6) one in a hundred is longer than 3.4 times."""

MOST: Final = 131_072
"""Tokens of an answer: a limit beyond them is none."""


class Sizes(Protocol):
    """How long a request is, and its answer may be."""

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    def max_tokens(self) -> int: ...


def at_most(facts: Sizes, pool: Pool, price: Price) -> Decimal:
    """What a request may cost at a pool, as far as can be told before it is sent."""
    prompt = facts.prompt_tokens * BYTES_PER_TOKEN / pool.learned.bytes_per_token
    output = min(facts.max_tokens(), MOST)
    if not output:
        output = max(facts.output_tokens, int(LONG * pool.learned.output_tokens))
    return prices.at_most(price, prompt * MARGIN + TEMPLATE_TOKENS, output)


def share_of_fund(facts: Sizes, pool: Pool, model: Model) -> Decimal | None:
    """What a request may cost of the pool's own budget; None where there is none, or no price in its currency."""
    if pool.fund is None or model.price is None or model.price.currency != pool.fund.spec.currency:
        return None
    return at_most(facts, pool, model.price)


class Entering:
    """Asks limits on behalf of one request, over all of its attempts and however often it looks at its tiers anew."""

    __slots__ = ("_asked", "_came", "_epoch", "_facts", "_inside", "_key", "_others", "_refused", "until")

    def __init__(self, facts: Facts, key: Callable[[Pool], int | None], epoch: float, others: int = 0) -> None:
        """`others`: requests of the rule that have come with this one, and are served elsewhere."""
        self._facts = facts
        self._others = others
        self._key = key
        self._epoch = epoch
        self._came: set[str] = set()
        self._asked: set[str] = set()
        self._inside: dict[str, Permit] = {}  # by tier, the one that has taken its share
        self._refused: set[tuple[str, str]] = set()
        self.until = inf
        """Seconds until the first limit would let it in, as of when it was asked last; infinite where none would."""

    def look(self, tiers: Sequence[Tier], now: float) -> None:
        """The request looks at these tiers, for the first time or anew. The first is its home, and has no share of it:
        one that a policy has behind others may be the first when guards or the caller have taken those away."""
        self.until = inf
        for tier in tiers[1:]:
            limits = tier.limits
            if limits is not None and limits.share is not None and tier.spec.name not in self._came:
                self._came.add(tier.spec.name)
                limits.share.came(now, 1 + self._others)

    def enter(self, tiers: Sequence[Tier], at: int, pool: Pool, model: Model, now: float) -> Permit | Refusal:
        """A permit for an attempt at a model of a pool, in the tier number `at`."""
        tier = tiers[at]
        limits = tier.limits
        fund, unix = pool.fund, now + self._epoch
        cost = None if fund is None else share_of_fund(self._facts, pool, model)
        if fund is not None:
            wait = fund.until_free(unix, cost)
            if wait > 0:
                self.until = min(self.until, wait)
                fund.refused += self._first(pool.name, "budget")
                return Refusal("budget", wait, pool.name)
        found = Permit(model, self._epoch) if limits is None else self._limited(limits, tiers, at, pool, model, now)
        if isinstance(found, Permit) and fund is not None:
            found.draws(fund.money, fund.hold(unix, cost))
        return found

    def _limited(
        self, limits: TierLimits, tiers: Sequence[Tier], at: int, pool: Pool, model: Model, now: float
    ) -> Permit | Refusal:
        name = tiers[at].spec.name
        place: float | None = None
        taker = self._inside.get(name)
        inside = at == 0 or (taker is not None and not taker.cancelled)
        if limits.share is not None and not inside:
            place = self._place(tiers, at)
            if name not in self._asked:
                self._asked.add(name)
                limits.share.wants(now, place)
        facts = self._facts
        prompt = facts.prompt_tokens * BYTES_PER_TOKEN / pool.learned.bytes_per_token
        tokens = int(prompt) + facts.output_tokens
        money = None
        if limits.money is not None and model.price is not None and model.price.currency == limits.currency:
            money = at_most(facts, pool, model.price)
        found = limits.enter(now, self._epoch, model, tokens, money, place, inside)
        if isinstance(found, Permit):
            if not inside:
                self._inside[name] = found
            return found
        self.until = min(self.until, found.until)
        limits.refused[found.limit] += self._first(name, found.limit)
        return found

    def _first(self, name: str, limit: Limit) -> bool:
        """Whether a limit keeps this request out for the first time: each counts a request once."""
        first = (name, limit) not in self._refused
        self._refused.add((name, limit))
        return first

    def again(self, permit: Permit, tiers: Sequence[Tier], tier: str, pool: Pool, now: float) -> Permit | Refusal:
        """One more permit of the same kind, for the same endpoint."""
        at = next((at for at, each in enumerate(tiers) if each.spec.name == tier), None)
        return Permit(permit.model, self._epoch) if at is None else self.enter(tiers, at, pool, permit.model, now)

    def _place(self, tiers: Sequence[Tier], at: int) -> float | None:
        """Where the session stands in the order in which it leaves the tier before; None where requests do one by
        one."""
        before = tiers[at - 1] if at else None
        if before is None or (before.spec.spill is not None and before.spec.spill.by == "Request"):
            return None
        key = self._key(before.targets[0].pool)
        return None if key is None else spill.place(key, at - 1)
