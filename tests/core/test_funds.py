"""A pool's own budget: what all routes together may spend there, however they get to it."""

from __future__ import annotations

import random
from decimal import Decimal
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.core.asked import Asked
from tests.core.test_tier_limits import MODEL, NOW, asks, pool

from spillway_api import snapshot
from spillway_api.types import Budget, Limits, Retry, Timeouts
from spillway_balancer.core.attempts import Attempts, Stop, Try
from spillway_balancer.core.errors import BudgetSpent
from spillway_balancer.core.funds import Fund
from spillway_balancer.core.mirroring import aim
from spillway_balancer.core.prices import Used
from spillway_balancer.core.routing import Target
from spillway_balancer.core.runtime import Runtime
from spillway_balancer.core.spends import counted, shared

HALF = Budget("0.50", period="Hour")
EPOCH = 5000.0


def funded(budget: Budget | None = HALF, name: str = "cloud") -> snapshot.Pool:
    return msgspec.structs.replace(pool(name, price=MODEL.price), budget=budget)


def served(
    cloud: snapshot.Pool, *routes: str, previous: Runtime | None = None, limits: Limits | None = None
) -> Runtime:
    """Each route leads to the cloud, and to a spare behind it."""
    tiers = (
        snapshot.RouteTier("cloud", (snapshot.Target(cloud.name),), "Weighted", ("Capacity",), limits=limits),
        snapshot.RouteTier("spare", (snapshot.Target("default/spare"),), "Weighted", ("Budget",)),
    )
    rules = (snapshot.RouteRule("all", tiers),)
    made = [snapshot.Route(f"default/{each}", (each,), rules, Timeouts(), Retry()) for each in routes or ("chat",)]
    return Runtime(snapshot.Snapshot("default", (cloud, pool("spare")), tuple(made)), previous)


def sent(runtime: Runtime, route: int = 0, asked: Asked | None = None, now: float = NOW) -> Try:
    spec = runtime.routes.all[route]
    one = Attempts(spec.rules[0], spec.spec.retry, spec.retry_budget, asked or asks(), random.Random(1), 1e9, EPOCH)
    step = one.next(now)
    assert isinstance(step, Try), step
    return step


def settled(step: Try, prompt: int, output: int) -> None:
    assert step.permit is not None
    step.permit.settle(NOW, Used(prompt, 0, output))


def test_two_routes_share_what_one_pool_may_cost() -> None:
    runtime = served(funded(), "chat", "agents")
    first = sent(runtime)
    assert (first.tier, sent(runtime, 1).tier) == ("cloud", "spare")  # what is under way counts, whoever sent it
    settled(first, 20, 10)
    assert sent(runtime, 1).tier == "cloud"


def test_it_holds_beside_the_tiers_own_and_each_is_charged() -> None:
    runtime = served(funded(Budget("9")), limits=Limits(budget=Budget("0.50")))
    step = sent(runtime)
    assert sent(runtime).tier == "spare"
    settled(step, 100, 50)
    assert {name: spend.spent for name, spend in shared(runtime).items()} == {
        "pool/default/cloud/USD/Day": Decimal("0.150"),
        "tier/default/chat/all/cloud/USD/Day": Decimal("0.150"),
    }


def test_an_attempt_that_is_not_sent_after_all_gives_it_back() -> None:
    runtime = served(funded())
    step = sent(runtime)
    assert step.permit is not None
    step.permit.cancel(NOW)
    assert sent(runtime).tier == "cloud"


def test_where_every_way_is_closed_the_pool_is_named_and_when_it_opens() -> None:
    runtime = served(funded())
    settled(sent(runtime), 400, 99)
    spec = runtime.routes.all[0]
    tiers = spec.rules[0][:1]
    stop = Attempts(tiers, spec.spec.retry, spec.retry_budget, asks(), random.Random(1), 1e9, EPOCH).next(NOW)
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, BudgetSpent)
    assert stop.error.attempts == ("cloud: budget (budget of default/cloud)",)
    assert stop.error.retry_after == 1200  # 6000 s of Unix time: as much before the hour
    fund = runtime.pools["default/cloud"].fund
    assert fund is not None
    assert (fund.refused, fund.closed(NOW + EPOCH), fund.closed(7200.0)) == (1, True, False)


def test_a_reload_keeps_what_is_spent_and_another_currency_begins_anew() -> None:
    before = served(funded())
    settled(sent(before), 400, 50)
    more = served(funded(Budget("0.90", period="Hour")), previous=before)
    fund = more.pools["default/cloud"].fund
    assert fund is not None
    assert (fund.money.spent, fund.money.limit) == (Decimal("0.450"), Decimal("0.90"))
    other = served(funded(Budget("9", "EUR")), previous=more)
    fund = other.pools["default/cloud"].fund
    assert fund is not None
    assert fund.money.spent == 0
    assert sent(other).tier == "spare"  # nothing is converted, and nothing goes uncounted


def test_a_runtime_that_comes_to_nothing_leaves_the_limit_as_it_was() -> None:
    before = served(funded())
    bad = served(funded(Budget("0.90"))).spec
    broken = msgspec.structs.replace(bad.routes[0], timeouts=Timeouts(total="never"))
    try:
        Runtime(msgspec.structs.replace(bad, routes=(broken,)), before)
    except ValueError:
        pass
    else:
        raise AssertionError("a duration that is none is refused")
    fund = before.pools["default/cloud"].fund
    assert fund is not None
    assert (fund.money.limit, fund.money.period) == (Decimal("0.50"), "Hour")


def test_copies_are_paid_for_as_well() -> None:
    runtime = served(funded())
    target = Target(runtime.pools["default/cloud"], None, 100)
    copy = aim(target, asks(), NOW, EPOCH, random.Random(1))
    assert isinstance(copy, Try)
    assert aim(target, asks(), NOW, EPOCH, random.Random(1)) == "budget"
    settled(copy, 20, 10)
    assert shared(runtime)["pool/default/cloud/USD/Hour"].spent == Decimal("0.030")


def test_a_pool_without_a_budget_has_no_fund() -> None:
    runtime = served(funded(None))
    assert runtime.pools["default/cloud"].fund is None
    assert counted(runtime) == {}


@given(
    st.lists(st.tuples(st.sampled_from(["send", "settle", "cancel", "reload"]), st.integers(1, 200)), max_size=60),
    st.integers(0, 9),
)
def test_no_more_is_spent_than_the_pool_may_cost(steps: list[tuple[str, int]], cents: int) -> None:
    """Whatever comes over its routes, as long as nothing costs more than was estimated."""
    budget = Budget(f"0.{cents}5", period="Month")
    runtime = served(funded(budget), "chat", "agents")
    open_: list[Try] = []
    for number, (what, size) in enumerate(steps):
        if what == "send":
            step = sent(runtime, number % 2, asks(size, size))
            open_ += [step] if step.tier == "cloud" else []
        elif what == "reload":
            runtime = served(funded(budget), "chat", "agents", previous=runtime)
        elif open_:
            step = open_.pop(size % len(open_))
            assert step.permit is not None
            if what == "settle":
                settled(step, size % 10, size % 10)
            else:
                step.permit.cancel(NOW)
        fund = runtime.pools["default/cloud"].fund
        assert isinstance(fund, Fund)
        assert fund.money.used(NOW + EPOCH) <= Decimal(budget.amount)
    for step, _ in pairwise([*open_, *open_[-1:]]):
        settled(step, 0, 0)
    assert shared(runtime)["pool/default/cloud/USD/Month"].reserved == 0
