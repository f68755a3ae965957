"""What tokens cost: exact decimals from a price per million, so that sums of many requests hold to the last digit.

Tokens are counted as OpenAI does, whoever has counted them: a prompt includes what of it was read from a cache or
written to one, an answer includes its reasoning. Readers of other providers' answers (wire/usage.py) bring theirs into
this form, so that there is one way to price a request.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact
from functools import lru_cache
from typing import Final, NamedTuple

from spillway_api.types import LongContext, Price

from .learning import Usage

EXACT = Context(prec=80, traps=[Inexact])
"""Adds and multiplies without rounding. Amounts have at most 9 digits before and 15 behind the point, so 80 digits
hold the sum of more requests than there are; should they not, it raises rather than lose a digit."""

NOTHING = Decimal(0)


class Used(NamedTuple):
    """What an attempt has used, in tokens."""

    prompt: int = 0
    """All of it: `cached` and `written` are parts of it."""
    cached: int = 0
    """Read from the endpoint's cache."""
    output: int = 0
    """All of it: `reasoning` is a part of it."""
    written: int = 0
    """Written to its cache."""
    reasoning: int = 0
    kept_long: int = 0
    """Of those written, to be kept for an hour or longer."""


NOTHING_USED: Final = Used()


def used(usage: Usage, prompt_tokens: float) -> Used:
    """What an answer has told, with an estimate for a prompt that it does not speak of."""
    prompt = round(prompt_tokens) if usage.prompt_tokens is None else usage.prompt_tokens
    return Used(
        prompt,
        usage.cached_tokens or 0,
        usage.output_tokens or 0,
        usage.written_tokens or 0,
        usage.reasoning_tokens or 0,
        usage.kept_long_tokens or 0,
    )


class Rates(NamedTuple):
    """A price for one token of each sort."""

    input: Decimal
    cached: Decimal
    output: Decimal
    written: Decimal
    reasoning: Decimal
    kept_long: Decimal


def rates(price: Price, prompt_tokens: float = 0) -> Rates:
    """The rates of a price for a request with a prompt of so many tokens."""
    steps = _steps(price)
    found = steps[0][1]
    for above, each in steps[1:]:
        if prompt_tokens > above:
            found = each
    return found


@lru_cache(maxsize=4096)
def _steps(price: Price) -> tuple[tuple[int, Rates], ...]:
    """The rates by the length that a prompt has to pass for them, ascending."""
    longer = sorted(price.long_context, key=lambda step: step.above)
    return ((0, _rates(price, None)), *((step.above, _rates(price, step)) for step in longer))


def _rates(price: Price, step: LongContext | None) -> Rates:
    """It is per million tokens. Tokens of a sort that has no price of its own cost as others do."""

    def one(name: str, otherwise: Decimal = NOTHING) -> Decimal:
        amount = None if step is None else getattr(step, name)
        amount = getattr(price, name) if amount is None else amount
        return otherwise if amount is None else EXACT.scaleb(Decimal(amount), -6)

    fresh, output = one("input"), one("output")
    written = one("cache_write", fresh)
    return Rates(
        fresh,
        one("cached_input", fresh),
        output,
        written,
        one("reasoning", output),
        one("cache_write_long", written),
    )


def cost(price: Price, used: Used) -> Decimal:
    """What a request costs, exactly, in the price's currency.

    A part that is more than its whole, or below zero, counts as the bound: an endpoint may report nonsense, and nobody
    is paid for asking.
    """
    prompt = max(used.prompt, 0)
    output = max(used.output, 0)
    cached = min(used.cached, prompt) if used.cached > 0 else 0
    written = min(used.written, prompt - cached) if used.written > 0 else 0
    reasoning = min(used.reasoning, output) if used.reasoning > 0 else 0
    by = rates(price, prompt)
    total = EXACT.multiply(by.input, Decimal(prompt - cached - written))
    total = EXACT.add(total, EXACT.multiply(by.output, Decimal(output - reasoning)))
    if cached:
        total = EXACT.add(total, EXACT.multiply(by.cached, Decimal(cached)))
    if written:
        kept = min(max(used.kept_long, 0), written)
        total = EXACT.add(total, EXACT.multiply(by.written, Decimal(written - kept)))
        total = EXACT.add(total, EXACT.multiply(by.kept_long, Decimal(kept)))
    if reasoning:
        total = EXACT.add(total, EXACT.multiply(by.reasoning, Decimal(reasoning)))
    return total


def estimate(price: Price, prompt_tokens: float, cached_tokens: float, output_limit: int) -> Decimal:
    """What a request may cost that has not been sent: its prompt as estimated, `cached_tokens` of it believed to be in
    the endpoint's cache, and an answer as long as it may be. Fractions of tokens count as whole ones, and as few of
    them as cached as may be."""
    return cost(price, Used(-int(-prompt_tokens // 1), int(cached_tokens), output_limit))


def at_most(price: Price, prompt_tokens: float, output_limit: int) -> Decimal:
    """The most that a request can cost with no more tokens than these: each of them, and the steps below the one that
    it is in, at its dearest."""
    prompt, output = max(-int(-prompt_tokens // 1), 0), max(output_limit, 0)
    steps = _dearest(price)
    _, each, answer = steps[0]
    for above, *dearer in steps[1:]:
        if prompt > above:
            each, answer = dearer
    return EXACT.add(EXACT.multiply(each, Decimal(prompt)), EXACT.multiply(answer, Decimal(output)))


@lru_cache(maxsize=4096)
def _dearest(price: Price) -> tuple[tuple[int, Decimal, Decimal], ...]:
    """The dearest token of a prompt and of an answer in each step and those below it; asked for with every request
    that money is set aside for."""
    each = answer = NOTHING
    found = []
    for above, by in _steps(price):
        each = max(each, by.input, by.cached, by.written, by.kept_long)
        answer = max(answer, by.output, by.reasoning)
        found.append((above, each, answer))
    return tuple(found)
