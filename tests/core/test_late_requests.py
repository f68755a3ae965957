"""A request that would itself wait as long as nobody is to wait leaves, however it is with a typical one."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from tests.core.asked import Asked

from spillway_api import snapshot
from spillway_api.types import DurationRamp, Ramp, Retry, Spill, Timeouts
from spillway_balancer.core.attempts import Attempts, Try
from spillway_balancer.core.prefix import Prompt
from spillway_balancer.core.runtime import Runtime

NOW = 1000.0
FULL = Spill(predicted_ttft=DurationRamp("1s", "4s"))


def served(pools: Any, spill: Spill, enter_on: tuple[str, ...] = ("Capacity",)) -> Runtime:
    home, cloud = pools.spec(2), msgspec.structs.replace(pools.spec(1), name="default/cloud")
    tiers = (
        snapshot.RouteTier("home", (snapshot.Target(home.name),), "Weighted", (), spill),
        snapshot.RouteTier("cloud", (snapshot.Target(cloud.name),), "Weighted", enter_on),
    )
    route = snapshot.Route("default/chat", ("chat",), (snapshot.RouteRule("all", tiers),), Timeouts(), Retry())
    runtime = Runtime(snapshot.Snapshot("default", (cloud, home), (route,)))
    for endpoint in runtime.pools["default/pool"].endpoints.values():
        endpoint.learned.first_token(1.0, 4_000.0, NOW)  # 4,000 tokens a second
    return runtime


def sent(runtime: Runtime, prompt: Prompt) -> tuple[Try, list[str]]:
    route = runtime.routes.all[0]
    asked = Asked(text=prompt, prompt_tokens=prompt.size // 4, output_tokens=10)
    way = Attempts(route.rules[0], route.spec.retry, route.retry_budget, asked, random.Random(1), NOW + 60)
    step = way.next(NOW)
    assert isinstance(step, Try)
    return step, way.log


def test_a_long_prompt_leaves_an_idle_pool_and_a_short_one_stays(pools) -> None:
    runtime = served(pools, FULL)
    step, log = sent(runtime, pools.prompt(("book", 400)))  # 25,600 tokens: 6.4 s
    assert (step.tier, step.spilled, log) == ("cloud", True, ["home: wait-predicted (6.4 s for itself)"])
    assert sent(runtime, pools.prompt(("note", 20)))[0].tier == "home"


def test_what_is_cached_need_not_be_waited_for(pools) -> None:
    runtime = served(pools, FULL)
    pool, book = runtime.pools["default/pool"], pools.prompt(("book", 400))
    visit = pools.send(pool, book, NOW, random.Random(1), to="e1")
    visit.first_token(NOW)
    visit.end(NOW)
    assert sent(runtime, book)[0].tier == "home"


@pytest.mark.parametrize("spill", [Spill(), Spill(in_flight_per_endpoint=Ramp(8, 16))])
def test_a_policy_that_does_not_name_the_wait_lets_it_wait(pools, spill: Spill) -> None:
    assert sent(served(pools, spill), pools.prompt(("book", 400)))[0].tier == "home"


def test_it_stays_where_the_next_tier_takes_nobody_for_capacity(pools) -> None:
    assert sent(served(pools, FULL, ("Transient",)), pools.prompt(("book", 400)))[0].tier == "home"


def test_it_waits_at_home_when_the_next_tier_has_nobody(pools) -> None:
    runtime = served(pools, FULL)
    cloud = runtime.pools["default/cloud"]
    cloud.endpoints["e0"].keyed = False
    step, log = sent(runtime, pools.prompt(("book", 400)))
    assert step.tier == "home"
    assert "home: wait-predicted (6.4 s for itself)" in log


def test_an_endpoint_that_was_looked_at_and_left_keeps_its_trial(pools) -> None:
    """Half-open circuits let one request through: it must not be one that never goes there."""
    runtime = served(pools, FULL)
    pool = runtime.pools["default/pool"]
    for endpoint in pool.endpoints.values():
        endpoint.circuit = endpoint.circuit.shut(NOW - 10, NOW - 5)
    sent(runtime, pools.prompt(("book", 400)))
    assert sent(runtime, pools.prompt(("note", 20)))[0].tier == "home"
