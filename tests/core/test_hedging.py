"""Second attempts beside slow ones: how often at most, where, and what the one that lost has cost."""

from __future__ import annotations

import random
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from tests.core.asked import Asked

from spillway_api import snapshot
from spillway_api.types import Capacity, Dispatch, Health, Hedge, Metrics, Model, Price, Retry, Timeouts
from spillway_balancer.core.attempts import Attempts, Try
from spillway_balancer.core.hedging import HedgeBudget, Hedging, waste
from spillway_balancer.core.reasons import Failure
from spillway_balancer.core.runtime import Runtime

NOW = 1000.0


@given(st.integers(1, 100), st.lists(st.booleans(), max_size=400))
def test_never_more_than_the_percentage_of_the_requests_at_any_time(percent: int, asks: list[bool]) -> None:
    budget = HedgeBudget(percent)
    requests = hedges = 0
    for is_request in asks:
        if is_request:
            budget.note_request()
            requests += 1
        else:
            hedges += budget.try_take()
        assert hedges * 100 <= percent * requests


def test_what_a_calm_time_saves_is_bounded_and_what_was_not_sent_is_given_back() -> None:
    budget = HedgeBudget(50)
    for _ in range(1000):
        budget.note_request()
    assert sum(budget.try_take() for _ in range(100)) == 10
    budget.give_back()
    assert (budget.try_take(), budget.try_take()) == (True, False)


def served(endpoints: int, previous: Runtime | None = None, percent: int = 100, priced: bool = True) -> Runtime:
    """A tier that hedges, and another one behind it."""
    price = Price(input="2.00", output="8.00") if priced else None
    pools = tuple(
        snapshot.Pool(
            name=f"default/{name}",
            models=(Model(name="m", upstream_name="up", price=price),),
            engine="Auto",
            provider=None,
            endpoints=tuple(snapshot.Endpoint(f"e{i}", f"http://{name}{i}:80") for i in range(count)),
            dispatch=Dispatch(),
            capacity=Capacity(),
            metrics=Metrics(),
            health=Health(),
        )
        for name, count in (("home", endpoints), ("away", 3))
    )
    hedge = Hedge(after="800ms", max_percent=percent)
    tiers = (
        snapshot.RouteTier("home", (snapshot.Target("default/home"),), "Weighted", (), hedge=hedge),
        snapshot.RouteTier("away", (snapshot.Target("default/away"),), "Weighted", ("Transient",)),
    )
    route = snapshot.Route("default/chat", ("chat",), (snapshot.RouteRule("all", tiers),), Timeouts(), Retry())
    return Runtime(snapshot.Snapshot("default", pools, (route,)), previous)


def request(runtime: Runtime) -> tuple[Attempts, Try]:
    found = runtime.routes.resolve("chat")
    assert found is not None
    route = found[0]
    way = Attempts(
        route.rules[0], route.spec.retry, route.retry_budget, Asked(prompt_tokens=1000), random.Random(1), NOW + 60
    )
    step = way.next(NOW)
    assert isinstance(step, Try)
    return way, step


def asked(way: Attempts, step: Try) -> Hedging:
    hedging = way.hedging(step)
    assert hedging is not None
    assert hedging.after == 0.8
    return hedging


def test_the_second_endpoint_is_another_one_of_the_same_tier() -> None:
    way, step = request(served(2))
    second = way.hedge(step, asked(way, step), NOW)
    assert second is not None
    assert (second.tier, second.endpoint is step.endpoint) == ("home", False)
    assert way.log == [f"home default/home/{step.endpoint.name}: slow, hedged at default/home/{second.endpoint.name}"]


def test_without_another_endpoint_in_the_tier_nothing_is_sent_and_nothing_is_spent() -> None:
    way, step = request(served(1))
    hedging = asked(way, step)
    assert way.hedge(step, hedging, NOW) is None
    assert hedging.budget.try_take()


def test_an_endpoint_that_has_failed_the_request_is_no_second_one() -> None:
    way, step = request(served(2))
    way.failed(step, Failure("connect", retry_on="ConnectError"))
    again = way.next(NOW)
    assert isinstance(again, Try)
    for _ in range(3):
        way.tiers.of(again).hedging.budget.note_request()  # type: ignore[union-attr]
    assert way.hedge(again, asked(way, again), NOW) is None


def test_a_tier_that_does_not_ask_for_it_and_a_request_with_one_attempt_left_do_not_hedge() -> None:
    way, step = request(served(4))
    assert way.hedging(step._replace(tier="away")) is None
    for _ in range(2):
        way.failed(step, Failure("connect", retry_on="ConnectError"))
    assert way.hedging(step) is None


def test_the_budget_outlives_a_reload() -> None:
    first = served(2, percent=100)
    way, step = request(first)
    way.hedging(step)
    again = served(2, first, percent=1)
    way, step = request(again)
    hedging = asked(way, step)
    assert (hedging.budget.try_take(), hedging.budget.percent) == (True, 1)


def test_what_was_outrun_has_cost_its_prompt() -> None:
    _, step = request(served(1))
    assert waste(step) == (1000, Decimal("0.002"), "USD")
    _, step = request(served(1, priced=False))
    assert waste(step) == (1000, Decimal(0), "")
