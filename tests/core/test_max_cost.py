"""`retry.maxCost`: what one request may cost over all of its attempts, and where it goes when it may not cost more."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.asked import Asked

from spillway_api import snapshot
from spillway_api.types import Capacity, Dispatch, Health, Metrics, Model, Money, Price, Retry, Timeouts
from spillway_balancer.core.attempts import Attempts, Stop, Try
from spillway_balancer.core.entering import at_most
from spillway_balancer.core.errors import AttemptsFailed, CostTooHigh
from spillway_balancer.core.reasons import Failure
from spillway_balancer.core.runtime import Runtime

NOW = 1000.0
REFUSED = Failure("server-error", 500)
SILENT = Failure("first-byte-timeout", retry_on="FirstByteTimeout")


def pool(name: str, endpoints: int, price: Price | None) -> snapshot.Pool:
    return snapshot.Pool(
        name=f"default/{name}",
        models=(Model(name="m", upstream_name="up", price=price),),
        engine="Auto",
        provider=None,
        endpoints=tuple(snapshot.Endpoint(f"e{i}", f"http://{name}{i}:80") for i in range(endpoints)),
        dispatch=Dispatch(),
        capacity=Capacity(),
        metrics=Metrics(),
        health=Health(),
    )


DEAR = Price(input="10.00", output="40.00")
CHEAP = Price(input="1.00", output="4.00")


def served(amount: str, *tiers: tuple[str, int, Price | None], enter_on: tuple[str, ...] = ("Transient", "Budget")):
    """Each tier is a pool of so many endpoints at this price."""
    pools = tuple(pool(*each) for each in tiers)
    made = tuple(
        snapshot.RouteTier(name, (snapshot.Target(f"default/{name}"),), "Weighted", enter_on) for name, _, _ in tiers
    )
    retry = Retry(attempts=9, retry_on=("Reset", "FirstByteTimeout", "ConnectError"), max_cost=Money(amount=amount))
    route = snapshot.Route("default/chat", ("chat",), (snapshot.RouteRule("all", made),), Timeouts(), retry)
    return Runtime(snapshot.Snapshot("default", tuple(sorted(pools, key=lambda each: each.name)), (route,)))


def asked() -> Asked:
    return Asked(prompt_tokens=1000, output_tokens=500, limit=500)


def request(runtime: Runtime) -> Attempts:
    route = runtime.routes.resolve("chat")[0]  # type: ignore[index]
    return Attempts(route.rules[0], route.spec.retry, route.retry_budget, asked(), random.Random(1), NOW + 60)


def cost(runtime: Runtime, name: str, price: Price) -> Decimal:
    return at_most(asked(), runtime.pools[f"default/{name}"], price)


def test_attempts_that_may_have_been_computed_add_up_and_the_next_one_is_not_sent() -> None:
    runtime = served("0.08", ("dear", 9, DEAR))
    each = cost(runtime, "dear", DEAR)
    assert Decimal("0.03") < each < Decimal("0.04")
    way = request(runtime)
    for _ in range(2):
        step = way.next(NOW)
        assert isinstance(step, Try)
        way.failed(step, SILENT)
    stop = way.next(NOW)
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, AttemptsFailed)
    assert "0.08 USD" in stop.error.message
    assert stop.error.attempts[-1] == "dear default/dear: budget (retry.maxCost)"


def test_what_an_endpoint_has_refused_costs_nothing() -> None:
    way = request(served("0.04", ("dear", 9, DEAR)))
    for failure in (REFUSED, Failure("rate-limited", 429), Failure("connect", retry_on="ConnectError")):
        step = way.next(NOW)
        assert isinstance(step, Try)
        way.failed(step, failure)
    assert isinstance(way.next(NOW), Try)


def test_a_request_that_could_cost_too_much_anywhere_is_refused_at_once() -> None:
    stop = request(served("0.001", ("dear", 2, DEAR), ("cheap", 2, CHEAP))).next(NOW)
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, CostTooHigh)
    assert (stop.error.status, stop.error.param, stop.may_wait) == (400, "max_tokens", False)
    assert "0.001 USD" in stop.error.message


@pytest.mark.parametrize("free", [CHEAP, None])
def test_a_cheaper_tier_is_entered_if_it_names_the_class(free: Price | None) -> None:
    step = request(served("0.02", ("dear", 2, DEAR), ("other", 2, free))).next(NOW)
    assert isinstance(step, Try)
    assert (step.tier, step.left) == ("other", "budget")
    stop = request(served("0.02", ("dear", 2, DEAR), ("other", 2, free), enter_on=("Transient",))).next(NOW)
    assert isinstance(stop, Stop)


def test_a_price_in_another_currency_cannot_be_compared_and_is_not_used() -> None:
    euros = Price(input="0.01", output="0.01", currency="EUR")
    assert isinstance(request(served("100", ("euros", 2, euros))).next(NOW), Stop)


def test_neither_a_hedge_nor_the_rest_of_a_stream_may_cost_more() -> None:
    for amount, sent in (("0.05", False), ("0.08", True)):
        runtime = served(amount, ("dear", 3, DEAR))
        way = request(runtime)
        step = way.next(NOW)
        assert isinstance(step, Try)
        way.failed(step, Failure("interrupted", 200))
        assert (way.resume(step, NOW) is not None) is sent
        way = request(runtime)
        step = way.next(NOW)
        assert isinstance(step, Try)
        assert (way.tiers.beside(step, set(), NOW) is not None) is sent


@given(
    failures=st.lists(st.sampled_from([REFUSED, SILENT, Failure("stall", retry_on="FirstByteTimeout")]), max_size=8),
    cents=st.integers(0, 30),
)
def test_never_is_more_sent_than_may_be_spent(failures: list[Failure], cents: int) -> None:
    runtime = served(f"{cents / 100:.2f}", ("dear", 5, DEAR), ("cheap", 5, CHEAP))
    way = request(runtime)
    spent = Decimal(0)
    for failure in failures:
        step = way.next(NOW)
        if not isinstance(step, Try):
            break
        price = step.price
        assert price is not None
        amount = cost(runtime, step.tier, price)
        assert spent + amount <= Decimal(cents) / 100
        if failure is not REFUSED:
            spent += amount
        way.failed(step, failure)
