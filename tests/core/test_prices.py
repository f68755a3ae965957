"""What requests cost: exact, additive, monotone, for every price that the API accepts."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spillway_api.types import LongContext, Price
from spillway_balancer.core.learning import Usage
from spillway_balancer.core.prices import EXACT, Used, at_most, cost, estimate
from spillway_balancer.core.prices import used as used_by

AMOUNTS = st.from_regex(r"[0-9]{1,9}(\.[0-9]{1,9})?", fullmatch=True)
MAYBE = st.none() | AMOUNTS
SORTS = dict.fromkeys(("input", "cached_input", "output", "cache_write", "cache_write_long", "reasoning"), MAYBE)
PLAIN = st.builds(Price, **SORTS)
STEPS = st.lists(st.builds(LongContext, st.integers(1, 10**9), **SORTS), max_size=4, unique_by=lambda step: step.above)
PRICES = st.builds(Price, **SORTS, long_context=STEPS.map(tuple))
TOKENS = st.integers(0, 10**9)


@st.composite
def uses(draw: st.DrawFn) -> Used:
    """What an attempt may use: parts are within their whole."""
    written, cached, output = draw(TOKENS), draw(TOKENS), draw(TOKENS)
    prompt = written + cached + draw(TOKENS)
    return Used(prompt, cached, output, written, draw(st.integers(0, output)), draw(st.integers(0, written)))


@pytest.mark.parametrize(
    ("price", "tokens", "expected"),
    [
        (Price(input="0.25", output="2.00"), (1_000_000, 0, 1_000_000), "2.25"),
        (Price(input="0.25", output="2.00"), (1, 0, 0), "0.00000025"),
        (Price(input="3", output="15"), (1000, 1000, 0), "0.003"),  # cached tokens cost as others do
        (Price(input="3", cached_input="0.30", output="15"), (1000, 400, 20), "0.00222"),
        (Price(input="3", cached_input="0.30", output="15"), (1000, 4000, 0), "0.0003"),  # never more than there are
        (Price(input="3", cached_input="0", output="15"), (1000, 1000, 0), "0"),
        (Price(input="3", output="15"), (-5, -7, -9), "0"),
        (Price(input="0.02"), (500, 0, 30), "0.00001"),  # an embedding: what is left out costs nothing
        (Price(), (500, 0, 30), "0"),
    ],
)
def test_what_a_request_costs(price, tokens, expected):
    assert cost(price, Used(*tokens)) == Decimal(expected)


GEMINI = Price(
    input="1.25",
    cached_input="0.125",
    output="10",
    long_context=(LongContext(200_000, input="2.50", cached_input="0.25", output="15"),),
)
CLAUDE = Price(input="3", cached_input="0.30", cache_write="3.75", cache_write_long="6", output="15")


@pytest.mark.parametrize(
    ("price", "used", "expected"),
    [
        (CLAUDE, Used(10_000, 6_000, 100, written=3_000), "0.01755"),  # 1,000 fresh, 6,000 read, 3,000 written
        (CLAUDE, Used(3_000, 0, 0, written=3_000, kept_long=1_000), "0.0135"),
        (CLAUDE, Used(1_000, 800, 0, written=900), "0.00099"),  # no more written than there is left
        (Price(input="3", cache_write="3.75", output="15"), Used(8, 0, 0, written=8, kept_long=8), "0.00003"),
        (Price(input="3", output="15"), Used(8, 0, 0, written=8), "0.000024"),  # as other tokens of a prompt
        (Price(output="8", reasoning="3"), Used(0, 0, 1_000, reasoning=900), "0.0035"),
        (Price(output="8"), Used(0, 0, 1_000, reasoning=900), "0.008"),
        (Price(output="8", reasoning="3"), Used(0, 0, 10, reasoning=90), "0.00003"),
        (GEMINI, Used(200_000, 0, 1_000), "0.26"),
        (GEMINI, Used(200_001, 0, 1_000), "0.5150025"),  # the whole of it, the answer too
        (GEMINI, Used(300_000, 200_000, 0), "0.3"),
        (Price(input="1", output="2", long_context=(LongContext(10, input="3"),)), Used(11, 0, 5), "0.000043"),
        (  # of several steps the highest, in whatever order they stand
            Price(input="1", long_context=(LongContext(30, input="9"), LongContext(20, input="5"))),
            Used(31),
            "0.000279",
        ),
        (Price(input="1", long_context=(LongContext(30, input="9"), LongContext(20, input="5"))), Used(30), "0.00015"),
        (  # cached ones cost as others of the same step
            Price(input="1", long_context=(LongContext(20, input="5"),)),
            Used(30, 30),
            "0.00015",
        ),
    ],
)
def test_sorts_of_tokens_and_long_prompts(price, used, expected):
    assert cost(price, used) == Decimal(expected)


def _fraction(amount: str | None) -> Fraction:
    return Fraction(amount or "0") / 1_000_000


def _expected(price: Price, used: Used) -> Fraction:
    """The same, written down another way."""
    amounts = {name: getattr(price, name) for name in SORTS}
    for step in sorted(price.long_context, key=lambda each: each.above):
        if used.prompt > step.above:
            own = {name: getattr(step, name) for name in SORTS}
            amounts = {name: own[name] if own[name] is not None else getattr(price, name) for name in SORTS}
    for name, otherwise in (
        ("cached_input", "input"),
        ("cache_write", "input"),
        ("cache_write_long", "cache_write"),
        ("reasoning", "output"),
    ):
        amounts[name] = amounts[otherwise] if amounts[name] is None else amounts[name]
    return (
        _fraction(amounts["input"]) * (used.prompt - used.cached - used.written)
        + _fraction(amounts["cached_input"]) * used.cached
        + _fraction(amounts["cache_write"]) * (used.written - used.kept_long)
        + _fraction(amounts["cache_write_long"]) * used.kept_long
        + _fraction(amounts["output"]) * (used.output - used.reasoning)
        + _fraction(amounts["reasoning"]) * used.reasoning
    )


@given(PRICES, uses())
def test_exact_to_the_last_digit(price, used):
    assert Fraction(cost(price, used)) == _expected(price, used)


@given(PLAIN, st.lists(uses(), max_size=30))
def test_the_parts_of_a_request_cost_what_the_whole_does(price, parts):
    """Where no step for long prompts is between them."""
    total = Decimal(0)
    for part in parts:
        total = EXACT.add(total, cost(price, part))
    assert total == cost(price, Used(*map(sum, zip(Used(), *parts, strict=True))))


@given(PLAIN, uses(), st.integers(0, 10**6))
def test_more_tokens_never_cost_less(price, used, more):
    once = cost(price, used)
    assert cost(price, used._replace(prompt=used.prompt + more)) >= once
    assert cost(price, used._replace(output=used.output + more)) >= once
    assert once >= 0


@given(PRICES, uses())
def test_what_is_cached_is_never_dearer_unless_it_is_priced_so(price, used):
    for each in (price, *price.long_context):
        assume(each.cached_input is None or Decimal(each.cached_input) <= Decimal(each.input or price.input or "0"))
    if price.cached_input is not None:  # what a step leaves out is as the price says
        for step in price.long_context:
            assume(Decimal(price.cached_input) <= Decimal(step.input or price.input or "0"))
    read = used._replace(written=0, kept_long=0)
    assert cost(price, read) <= cost(price, read._replace(cached=0))


@given(PRICES, st.tuples(*[st.integers(-10, 10**9)] * 6))
def test_nonsense_costs_no_more_than_it_can(price, numbers):
    """Parts beyond their whole, and less than nothing."""
    used = Used(*numbers)
    assert 0 <= cost(price, used) <= at_most(price, used.prompt, used.output)


@given(PLAIN, st.floats(0, 1e6), st.floats(0, 1e6), TOKENS)
def test_an_estimate_is_never_below_what_is_estimated(price, prompt, cached, limit):
    """Where what is cached costs no more than what is not, as it is with every provider."""
    cached = min(cached, prompt)
    if price.cached_input is not None and Decimal(price.cached_input) > Decimal(price.input or 0):
        price = Price(input=price.input, output=price.output)
    of_cached = price.cached_input if price.cached_input is not None else price.input
    exact = (
        _fraction(price.input) * (Fraction(prompt) - Fraction(cached))
        + _fraction(of_cached) * Fraction(cached)
        + _fraction(price.output) * limit
    )
    assert Fraction(estimate(price, prompt, cached, limit)) >= exact


@given(PRICES, uses(), st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_request_costs_more_than_was_set_aside_for_one_that_is_as_long(price, used, more, longer):
    assert cost(price, used) <= at_most(price, used.prompt + more, used.output + longer)


def test_what_an_answer_has_told_is_charged_and_what_it_has_not_is_estimated():
    assert used_by(Usage(10, 3, 5, 2, 4, 1), 99.0) == Used(10, 3, 5, 2, 4, 1)
    assert used_by(Usage(), 99.5) == Used(100)
