"""A planned request is let in by its consumer's limits, or refused; a spent budget leaves what is free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from math import inf
from typing import Final, NamedTuple

from spillway_api.types import Price

from .allowance import Allowance, Limit, Pass, Refusal
from .capabilities import LeftOut, takes
from .conditions import Asked, Moment
from .consumers import Consumer
from .entering import at_most
from .errors import ConsumerBudgetSpent, ConsumerLimited
from .planning import Plan
from .prices import NOTHING
from .routing import Target, Tier

_IN_WORDS: Final[dict[Limit, str]] = {
    "maxInFlight": "{} requests at once",
    "requestsPerMinute": "{} requests per minute",
    "tokensPerMinute": "{} tokens per minute",
}


def admit(made: Plan, who: Consumer, asked: Asked, moment: Moment) -> tuple[Plan, Pass | None]:
    """The plan as far as the consumer can pay for it, and the pass to leave with when the request has ended. None
    where nothing is counted, or where the plan now says why the request is refused."""
    allowance = who.allowance
    if allowance is None or made.refused is not None:
        return made, None
    money = NOTHING
    if allowance.money is not None:
        unix = moment.unix
        made, money, least = _narrowed(made, asked, lambda price, cost: allowance.affords(price, cost, unix))
        if made.refused is not None:
            cheapest = least.get(allowance.currency)
            until = inf if cheapest is None else allowance.money.until_free(unix, cheapest)
            return made._replace(refused=_limited(allowance, Refusal("budget", until))), None
    entered = allowance.enter(moment.now, moment.unix, asked.prompt_tokens + asked.output_tokens, money)
    if isinstance(entered, Pass):
        return made, entered
    return made._replace(refused=_limited(allowance, entered)), None


def within(made: Plan, passed: Pass, asked: Asked) -> Plan:
    """A plan that was made anew for a request that was let in before: what was set aside for it is all it may cost."""
    return _narrowed(made, asked, passed.covers).plan


class _Paid(NamedTuple):
    """What is left of a plan, and what it costs by estimate."""

    plan: Plan
    most: Decimal
    """At the dearest target that is left."""
    least: Mapping[str, Decimal]
    """At the cheapest that is not, by currency."""


def _narrowed(made: Plan, asked: Asked, may: Callable[[Price | None, Decimal], bool]) -> _Paid:
    """The plan with those targets only whose price may be paid."""
    tiers: list[Tier] = []
    out: list[LeftOut] = []
    most = NOTHING
    least: dict[str, Decimal] = {}
    for tier in made.tiers:
        left: list[Target] = []
        for target in tier.targets:
            model = target.pool.model(asked.model, target.model)
            price = None if model is None else model.price
            money = NOTHING if price is None else at_most(asked, target.pool, price)
            if may(price, money):
                left.append(target)
                most = max(most, money)
            else:
                out.append(LeftOut(tier.spec.name, target.pool.name, "the consumer's budget"))
                if price is not None:
                    least[price.currency] = min(money, least.get(price.currency, money))
        if takes(tier, left):
            tiers.append(tier if len(left) == len(tier.targets) else tier._replace(targets=tuple(left)))
    if not out:
        return _Paid(made, most, least)
    made = made._replace(tiers=tuple(tiers), left_out=made.left_out + tuple(out))
    if not tiers:
        made = made._replace(
            refused=ConsumerBudgetSpent("more than was set aside for this request of the consumer's budget")
        )
    return _Paid(made, most, least)


def _limited(allowance: Allowance, refusal: Refusal) -> ConsumerLimited:
    """What the client is told, with the limit by its name in the policy."""
    spec = allowance.spec
    wait = None if refusal.until == inf else refusal.until
    if refusal.limit == "budget":
        budget = spec.budget
        assert budget is not None
        said = f"this consumer's budget of {budget.amount} {budget.currency} each {budget.period.lower()} (budget)"
        if wait is None:
            return ConsumerBudgetSpent(f"{said} has no room for such a request", retry_after=None)
        return ConsumerBudgetSpent(f"{said} is spent", retry_after=wait)
    value = {
        "maxInFlight": spec.max_in_flight,
        "requestsPerMinute": spec.requests_per_minute,
        "tokensPerMinute": spec.tokens_per_minute,
    }[refusal.limit]
    said = f"this consumer's limit of {_IN_WORDS[refusal.limit].format(value)} ({refusal.limit})"
    if wait is None:
        return ConsumerLimited(f"{said} is less than this request alone may use")
    return ConsumerLimited(f"{said} is reached", retry_after=wait)
