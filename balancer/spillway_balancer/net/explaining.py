"""What became of a request and why, in headers of its answer: ten at most, of declared names and numbers alone."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from spillway_api.types import Explain, Price

from ..core.attempts import Attempts, Try
from ..core.billing import Bill
from ..core.errors import InvalidKey
from ..core.learning import Usage
from ..core.planning import Plan
from ..core.prices import EXACT, cost, estimate, used
from ..core.telling import line, told
from .answer import Told
from .facts import Facts
from .telemetry import Decision

PREFIX: Final = "x-spillway-"
NAMES: Final = ("route", "rule", "tier", "pool", "endpoint", "attempts", "spilled", "ttft", "cost", "explain")
"""In their order; docs/explain.md says what each means. There are to be no more: proxies bound headers,
and what more there is to say, `explain` says."""

EXPLAIN: Final = PREFIX + "explain"
"""A request that carries this header is told, where the policy tells those who ask."""


def tells(spec: Explain | None, facts: Facts) -> bool:
    """Whether the policy lets this client be told."""
    if spec is None or spec.headers == "OnRequest":
        return facts.for_us and facts.header(EXPLAIN) is not None
    return spec.headers == "Always"


def explained(made: Plan, step: Try, attempts: Attempts, decision: Decision) -> Told:
    """The headers of a request that goes to an endpoint, with what its attempts before have cost. What has nothing to
    say is left out."""
    said = told(made, step, attempts.number, attempts.log, decision.shadows)
    return _headers(
        route=said["policy"],
        rule=said["rule"],
        tier=said["tier"],
        pool=said["pool"],
        endpoint=said["endpoint"],
        attempts=said["attempt"],
        spilled=step.left or "",
        ttft=said.get("ttft", ""),
        cost="" if decision.free else _cost(step, decision.bill),
        explain=line(said),
    )


def refused(made: Plan) -> Told:
    """Those of a request that goes nowhere. Who has no key learns nothing, not even the policy's name."""
    if isinstance(made.refused, InvalidKey):
        return ()
    return _headers(route=made.route.name, rule=made.rule, attempts="0")


def _headers(**said: str) -> Told:
    return tuple(
        ((PREFIX + name).encode(), value.encode("ascii", "replace")) for name in NAMES if (value := said.get(name))
    )


def paid(told: Told, step: Try, usage: Usage, bill: Bill | None = None) -> Told:
    """The same, once the answer has said how many tokens it has, and its head has not gone yet."""
    if step.price is None or usage.prompt_tokens is None or usage.output_tokens is None:
        return told
    amount = _with(bill, cost(step.price, used(usage, 0)), step.price)
    exact = _money(amount, step.price).encode()
    return tuple((name, exact if name == _COST else value) for name, value in told)


_COST: Final = f"{PREFIX}cost".encode()


def _money(amount: Decimal, price: Price) -> str:
    return f"{amount:.9f}".rstrip("0").rstrip(".") + f" {price.currency}"


def _with(bill: Bill | None, amount: Decimal, price: Price) -> Decimal:
    """With what was spent on it before, as far as that is in the same currency."""
    return amount if bill is None else EXACT.add(bill.of(price.currency), amount)


def _cost(step: Try, bill: Bill | None) -> str:
    """What it costs at most, by the price of its model: with an answer as long as it may be."""
    price = step.price
    if price is None:
        return ""
    forecast = step.picked.forecast
    amount = estimate(price, forecast.prompt_tokens, forecast.cached_tokens, forecast.output_tokens)
    return f"<={_money(_with(bill, amount, price), price)}"
