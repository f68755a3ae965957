"""What one request has cost, and what it would have cost elsewhere."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api.types import Model, Price
from spillway_balancer.core.billing import Bill, elsewhere

AMOUNTS = st.decimals(0, 10**6, places=15)


@given(st.lists(st.tuples(st.sampled_from(["USD", "EUR", "JPY"]), AMOUNTS), max_size=20))
def test_a_bill_is_the_sum_of_its_attempts_in_each_currency(attempts):
    bill = Bill()
    for currency, amount in attempts:
        bill.add(currency, amount)
    for currency in ("USD", "EUR", "JPY"):
        assert bill.of(currency) == sum((amount for each, amount in attempts if each == currency), Decimal(0))
    assert bill.amounts.keys() == {currency for currency, _ in attempts}


def tier(name, *prices, weight=100):
    """With a pool for each price."""
    pools = [SimpleNamespace(model=lambda *_, price=price: Model("m", price=price)) for price in prices]
    targets = tuple(SimpleNamespace(pool=pool, model=None, weight=weight) for pool in pools)
    return SimpleNamespace(spec=SimpleNamespace(name=name), targets=targets)


CHEAP, DEAR = Price(input="1"), Price(input="9")


@pytest.mark.parametrize(
    ("tiers", "expected"),
    [
        ([tier("home", None), tier("cloud", DEAR)], DEAR),
        ([tier("home", CHEAP), tier("cloud", DEAR)], DEAR),
        ([tier("home", None), tier("other", None), tier("cloud", None, CHEAP, DEAR)], CHEAP),
        ([tier("home", None), tier("off", CHEAP, weight=0), tier("cloud", DEAR)], DEAR),
        ([tier("home", None)], None),
        ([tier("cloud", DEAR), tier("home", None)], None),
        ([tier("gone", CHEAP)], None),
        ([], None),
    ],
)
def test_elsewhere_is_the_next_tier_that_has_a_price(tiers, expected):
    assert elsewhere(tiers, "home", "m") == expected
