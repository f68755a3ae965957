"""What requests cost: exact, additive, monotone, for every price that the API accepts."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api.types import Price
from spillway_balancer.core.prices import EXACT, cost, estimate

AMOUNTS = st.from_regex(r"[0-9]{1,9}(\.[0-9]{1,9})?", fullmatch=True)
MAYBE = st.none() | AMOUNTS
PRICES = st.builds(Price, input=MAYBE, cached_input=MAYBE, output=MAYBE)
TOKENS = st.integers(0, 10**9)


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
    assert cost(price, *tokens) == Decimal(expected)


def _fraction(amount: str | None) -> Fraction:
    return Fraction(amount or "0") / 1_000_000


@given(PRICES, TOKENS, TOKENS, TOKENS)
def test_exact_to_the_last_digit(price, whole, cached, output):
    cached = min(cached, whole)
    of_cached = price.cached_input if price.cached_input is not None else price.input
    expected = (
        _fraction(price.input) * (whole - cached) + _fraction(of_cached) * cached + _fraction(price.output) * output
    )
    assert Fraction(cost(price, whole, cached, output)) == expected


@given(PRICES, st.lists(st.tuples(TOKENS, TOKENS, TOKENS), max_size=30))
def test_the_parts_of_a_request_cost_what_the_whole_does(price, parts):
    parts = [(whole, min(cached, whole), output) for whole, cached, output in parts]
    total = Decimal(0)
    for part in parts:
        total = EXACT.add(total, cost(price, *part))
    assert total == cost(price, *(sum(column) for column in zip((0, 0, 0), *parts, strict=True)))


@given(PRICES, TOKENS, TOKENS, TOKENS, st.integers(0, 10**6))
def test_more_tokens_never_cost_less(price, whole, cached, output, more):
    cached = min(cached, whole)
    once = cost(price, whole, cached, output)
    assert cost(price, whole + more, cached, output) >= once
    assert cost(price, whole, cached, output + more) >= once
    assert once >= 0


@given(PRICES, st.floats(0, 1e6), st.floats(0, 1e6), TOKENS)
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
