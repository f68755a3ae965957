"""What a balancer tells of its pools and tiers: a pure function of the runtime and of what the poller knows."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest
from tests.net.operators import pool, route, state

from spillway_api.snapshot import RouteTier, Target
from spillway_api.stream import PoolReport, Report, TierReport
from spillway_api.types import Budget, Capacity, Limits, Metrics, Model, Price, Ramp, Spill
from spillway_balancer.core.health import UNHEALTHY
from spillway_balancer.core.limits import Permit
from spillway_balancer.core.load import Reported
from spillway_balancer.core.pool import Picked, Want
from spillway_balancer.core.prices import Used
from spillway_balancer.core.reasons import Failure
from spillway_balancer.core.runtime import Runtime
from spillway_balancer.net.polling import Scrape
from spillway_balancer.net.reporting import report

URLS = ("http://a:1", "http://b:1", "http://c:1")
NOW = 100.0
UNIX = 1_735_689_600.0


def told(runtime: Runtime, dialects: Any = None, scrapes: Any = None, now: float = NOW) -> Report:
    """Endpoints by their names, of the pool `local`."""
    endpoints = runtime.pools["default/local"].endpoints
    return report(
        runtime,
        {endpoints[name]: value for name, value in (dialects or {}).items()},
        {endpoints[name]: value for name, value in (scrapes or {}).items()},
        now,
        UNIX,
    )


def running(*urls: str, tiers: Any = None, **spec: Any) -> Runtime:
    return Runtime(state(pool("local", *urls, **spec), pool("cloud", "http://d:1"), route("local", tiers=tiers)))


def of_pool(told: Report) -> PoolReport:
    (only,) = told.pools
    assert only.pool == "default/local"
    return only


def test_where_all_is_well_and_nothing_found_there_is_nothing_to_tell() -> None:
    assert told(running(*URLS)) == Report()


def test_endpoints_that_take_no_traffic_are_named_by_why() -> None:
    runtime = running(*URLS)
    local = runtime.pools["default/local"]
    local.endpoints["e1"].probe = UNHEALTHY
    for number in range(3):
        local.failed(local.endpoints["e2"], Failure("server-error", 500), NOW + number, NOW + number)
    local.endpoints["e3"].refused = True
    assert of_pool(told(runtime, now=NOW + 3)) == PoolReport(
        "default/local", unhealthy=("e1",), ejected=("e2",), refused=("e3",)
    )
    assert of_pool(told(runtime, now=NOW + 3600)).ejected == ()
    local.endpoints["e3"].refused = False
    local.endpoints["e1"].keyed = False
    assert of_pool(told(runtime, now=NOW + 3)).refused == ("e1",)


def test_an_endpoint_that_asks_for_a_pause_is_not_ejected() -> None:
    runtime = running(*URLS)
    local = runtime.pools["default/local"]
    local.failed(local.endpoints["e1"], Failure("rate-limited", 429, retry_after=60.0), NOW, NOW)
    assert told(runtime, now=NOW + 1) == Report()


def test_the_engine_is_the_one_that_most_endpoints_show() -> None:
    runtime = running(*URLS)
    assert of_pool(told(runtime, {"e1": "vLLM", "e2": "SGLang", "e3": "vLLM"})).engine == "vLLM"
    assert of_pool(told(runtime, {"e1": "vLLM", "e2": "SGLang"})).engine == "SGLang"  # by name, so that it stays


OK = Scrape("ok", 200)


@pytest.mark.parametrize(
    ("scrape", "state", "says"),
    [
        (OK, "Ok", ""),
        (Scrape("status", 401), "AuthRequired", "e1: the metrics page answers 401 (1 of 2)"),
        (Scrape("status", 403), "AuthRequired", "e1: the metrics page answers 403 (1 of 2)"),
        (Scrape("status", 404), "NotExposed", "e1: the metrics page answers 404 (1 of 2)"),
        (Scrape("connect", refused=True), "NotExposed", "e1: nobody listens on the port of the metrics (1 of 2)"),
        (
            Scrape("ok", 200, missing=("vllm:num_requests_waiting", "other")),
            "UnknownNames",
            "e1: the metrics page lacks vllm:num_requests_waiting, other (1 of 2)",
        ),
        (Scrape("unreadable", 200), "UnknownNames", "e1: the metrics page is of no engine that is known (1 of 2)"),
        (Scrape("status", 500), "Stale", "e1: the metrics page answers 500 (1 of 2)"),
        (Scrape("timeout"), "Stale", "e1: the metrics page does not answer in time (1 of 2)"),
        (Scrape("connect"), "Stale", "e1: the connection to the metrics page breaks (1 of 2)"),
        (Scrape("too-large", 200), "Stale", "e1: the metrics page is too large (1 of 2)"),
    ],
)
def test_what_the_last_scrape_says_of_a_pools_metrics(scrape: Scrape, state: str, says: str) -> None:
    runtime = running(*URLS, metrics=Metrics(mode="Prometheus"))
    found = of_pool(told(runtime, scrapes={"e1": scrape, "e2": OK}))
    assert (found.metrics, found.metrics_message) == (state, says)


def test_a_scrape_that_fails_is_no_news_while_the_last_page_is_young() -> None:
    runtime = running(*URLS, metrics=Metrics(mode="Prometheus", stale_after="5s"))
    endpoint = runtime.pools["default/local"].endpoints["e1"]
    endpoint.reported(Reported(NOW, 1.0, 1.0, 0.1, 0, None, None))
    for later, expected in ((4.0, "Ok"), (6.0, "Stale")):
        assert of_pool(told(runtime, scrapes={"e1": Scrape("timeout")}, now=NOW + later)).metrics == expected


def test_the_worst_is_told_and_how_many_are_like_it() -> None:
    scrapes = {"e1": Scrape("timeout"), "e2": Scrape("status", 404), "e3": Scrape("connect", refused=True)}
    found = of_pool(told(running(*URLS), scrapes=scrapes))
    assert found.metrics == "NotExposed"
    assert found.metrics_message == "e2: the metrics page answers 404, and 1 more like it (2 of 3)"


def test_the_metrics_of_an_endpoint_that_is_down_are_no_news_unless_all_are() -> None:
    runtime = running(*URLS[:2])
    endpoints = runtime.pools["default/local"].endpoints
    endpoints["e1"].probe = UNHEALTHY
    gone = {"e1": Scrape("connect", refused=True), "e2": OK}
    assert of_pool(told(runtime, scrapes=gone)).metrics == "Ok"
    endpoints["e2"].probe = UNHEALTHY
    assert of_pool(told(runtime, scrapes={**gone, "e2": Scrape("connect", refused=True)})).metrics == "NotExposed"


def tiers(select: str = "Weighted", weight: int = 100, **spill: Any) -> tuple[RouteTier, ...]:
    first = RouteTier("own", (Target("default/local", None, weight),), select, (), Spill(**spill) if spill else None)
    return first, RouteTier("cloud", (Target("default/cloud"),), "Weighted", ("Capacity",))


def load(runtime: Runtime, requests: int) -> None:
    local = runtime.pools["default/local"]
    for _ in range(requests):
        picked = local.pick(Want(None, 1, 1), (), NOW, random.Random(1))
        assert isinstance(picked, Picked)
        local.visit(picked, NOW)


@pytest.mark.parametrize(
    ("requests", "state"),
    [(0, None), (8, None), (9, 12), (12, 50), (15, 87), (16, 100), (40, 100)],
)
def test_a_tier_spills_by_its_ramp(requests: int, state: int | None) -> None:
    runtime = running(*URLS[:2], tiers=tiers(in_flight_per_endpoint=Ramp(start=4, full=8)))
    load(runtime, requests)
    expected = () if state is None else (TierReport("default/chat", "all", "own", "Spilling", 2, state),)
    assert told(runtime).tiers == expected


def test_a_tier_that_spills_never_says_zero_percent() -> None:
    runtime = running(*URLS[:2], tiers=tiers(in_flight_per_endpoint=Ramp(start=4, full=1000)))
    load(runtime, 9)
    assert told(runtime).tiers[0].share_percent == 1


@pytest.mark.parametrize(("requests", "state"), [(0, None), (3, None), (4, "Saturated")])
def test_a_tier_whose_endpoints_hold_all_that_they_may_is_saturated(requests: int, state: str | None) -> None:
    runtime = running(*URLS[:2], tiers=tiers(), capacity=Capacity(max_in_flight_per_endpoint=2))
    load(runtime, requests)
    expected = () if state is None else (TierReport("default/chat", "all", "own", state, 2, 0),)  # type: ignore[arg-type]
    assert told(runtime).tiers == expected


def test_a_tier_without_a_ready_endpoint_is_unavailable_ramp_or_not() -> None:
    for settings in ({}, {"in_flight_per_endpoint": Ramp(start=4, full=8)}):
        runtime = running(*URLS[:1], tiers=tiers(**settings))
        runtime.pools["default/local"].endpoints["e1"].probe = UNHEALTHY
        assert told(runtime).tiers == (TierReport("default/chat", "all", "own", "Unavailable"),)


def test_a_tier_with_a_budget_tells_what_is_spent_and_whether_it_is_closed() -> None:
    budget = Limits(budget=Budget("5", period="Hour"))
    cloud = RouteTier("cloud", (Target("default/cloud"),), "Weighted", ("Capacity",), limits=budget)
    runtime = running(*URLS[:1], tiers=(tiers()[0], cloud))
    limits = runtime.routes.all[0].limits["all", "cloud"]
    model = Model("m", price=Price("1", output="1"))
    assert told(runtime).tiers == (TierReport("default/chat", "all", "cloud", "Open", 1, 0, "0"),)
    permit = limits.enter(NOW, UNIX - NOW, model, 1, Decimal("4.9"), None)
    assert isinstance(permit, Permit)
    permit.settle(NOW, Used(4_900_000, 0, 1))
    assert told(runtime).tiers[0].spent == "4.900001"
    for wanted, expected in ((Decimal("0.01"), "Open"), (Decimal("0.1"), "Closed")):
        found = limits.enter(NOW, UNIX - NOW, model, 1, wanted, None)
        if isinstance(found, Permit):
            found.cancel(NOW)
        assert told(runtime).tiers[0].state == expected
    limits.apply()  # a reload may have brought more money
    assert told(runtime).tiers[0].state == "Open"


def test_a_pool_of_weight_0_serves_nobody_unless_the_order_alone_decides() -> None:
    assert told(running(*URLS, tiers=tiers(weight=0))).tiers == (
        TierReport("default/chat", "all", "own", "Unavailable"),
    )
    assert told(running(*URLS, tiers=tiers(weight=0, select="InOrder"))).tiers == ()


def test_a_pool_without_endpoints_makes_its_tiers_unavailable() -> None:
    runtime = Runtime(state(pool("local", endpoints=()), route("local")))
    assert told(runtime) == Report((), (TierReport("default/chat", "all", "only", "Unavailable"),))
