"""What tokens cost: exact decimals from a price per million, so that sums of many requests hold to the last digit."""

from __future__ import annotations

from decimal import Context, Decimal, Inexact
from functools import lru_cache
from typing import NamedTuple

from spillway_api.types import Price

EXACT = Context(prec=80, traps=[Inexact])
"""Adds and multiplies without rounding. Amounts have at most 9 digits before and 15 behind the point, so 80 digits
hold the sum of more requests than there are; should they not, it raises rather than lose a digit."""

NOTHING = Decimal(0)


class Rates(NamedTuple):
    """A price for one token of each sort."""

    input: Decimal
    cached: Decimal
    output: Decimal


@lru_cache(maxsize=4096)
def rates(price: Price) -> Rates:
    """The rates of a price: it is per million tokens, cached ones cost as others do unless it says otherwise."""

    def one(amount: str | None) -> Decimal:
        return NOTHING if amount is None else EXACT.scaleb(Decimal(amount), -6)

    fresh = one(price.input)
    return Rates(fresh, fresh if price.cached_input is None else one(price.cached_input), one(price.output))


def cost(price: Price, input_tokens: int, cached_tokens: int, output_tokens: int) -> Decimal:
    """What a request costs, exactly, in the price's currency.

    `input_tokens` includes `cached_tokens`, as OpenAI counts. What is more than that, or below zero, counts as the
    bound: an endpoint may report nonsense, and nobody is paid for asking.
    """
    by = rates(price)
    whole = max(input_tokens, 0)
    cached = min(max(cached_tokens, 0), whole)
    total = EXACT.multiply(by.output, Decimal(max(output_tokens, 0)))
    if cached:
        total = EXACT.add(total, EXACT.multiply(by.cached, Decimal(cached)))
    return EXACT.add(total, EXACT.multiply(by.input, Decimal(whole - cached)))


def estimate(price: Price, prompt_tokens: float, cached_tokens: float, output_limit: int) -> Decimal:
    """What a request may cost that has not been sent: its prompt as estimated, `cached_tokens` of it believed to be in
    the endpoint's cache, and an answer as long as it may be. Fractions of tokens count as whole ones, and as few of
    them as cached as may be."""
    return cost(price, -int(-prompt_tokens // 1), int(cached_tokens), output_limit)
