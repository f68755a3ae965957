"""What a tier's load says: each signal from the pools that have something to say, and the share across reloads."""

from __future__ import annotations

import random
from typing import Any

import pytest

from spillway_api import snapshot
from spillway_api.types import DurationRamp, PercentRamp, Ramp, Retry, Spill, Timeouts
from spillway_balancer.core.load import Reported
from spillway_balancer.core.pool import Picked, Pool, Want
from spillway_balancer.core.reasons import Failure
from spillway_balancer.core.runtime import Runtime
from spillway_balancer.core.spill import Signals
from spillway_balancer.core.spilling import Spilling

NOW = 1000.0
EVERY = Spill(
    queued_per_endpoint=Ramp(1, 3),
    in_flight_per_endpoint=Ramp(4, 8),
    predicted_ttft=DurationRamp("1s", "3s"),
    kv_cache_percent=PercentRamp(50, 100),
    error_percent=PercentRamp(10, 50),
)
SERVER_ERROR = Failure("server-error", 500)


def made(pools: Any, spec: Spill = EVERY, endpoints: int = 2) -> tuple[Spilling, Pool, list[Any]]:
    pool = pools.pool(endpoints)
    return Spilling(spec, [(pool, 100)]), pool, list(pool.endpoints.values())


def scrape(endpoint: Any, waiting: float | None, kv_usage: float | None, at: float = NOW) -> None:
    endpoint.reported(Reported(at, waiting, 0.0, kv_usage, 0, None, None))


def sent(endpoint: Any, prompt: int, uncached: int) -> Any:
    """A request that has been sent there, and its lease."""
    endpoint.queued(None, float(uncached), True, NOW)
    return endpoint.load.lease(prompt, 1, uncached)


def test_an_untouched_pool_has_nothing_but_its_count(pools) -> None:
    spilling, _, _ = made(pools)
    assert spilling.signals(NOW) == Signals(in_flight=0.0)
    assert spilling.share(NOW) == 0.0


def test_what_the_policy_does_not_name_is_not_read(pools) -> None:
    spilling, _, endpoints = made(pools, Spill(kv_cache_percent=PercentRamp(50, 100)))
    scrape(endpoints[0], 9.0, 0.75)
    assert spilling.signals(NOW) == Signals(kv_percent=75.0)


def test_metrics_count_where_they_are_known_and_fresh(pools) -> None:
    spilling, _, (first, second) = made(pools)
    scrape(first, 4.0, 0.9)
    assert spilling.signals(NOW)[0] == 4.0  # the other is unknown, and not 0
    scrape(second, 2.0, None)
    signals = spilling.signals(NOW)
    assert (signals.queued, signals.kv_percent) == (3.0, 90.0)
    assert spilling.signals(NOW + 6.0)[0] is None  # both are stale


@pytest.mark.parametrize("waiting", [None, float("nan"), -1.0, 1e9])
def test_a_broken_gauge_is_unknown(pools, waiting: float | None) -> None:
    spilling, _, (first, _) = made(pools)
    scrape(first, waiting, 2.0)
    signals = spilling.signals(NOW)
    assert (signals.queued, signals.kv_percent) == (None, None)


def test_time_to_first_token_is_the_queue_and_what_is_not_cached_at_the_learned_rate(pools) -> None:
    spilling, pool, (first, second) = made(pools)
    for endpoint in (first, second):
        endpoint.learned.first_token(2.0, 8_000.0, NOW)  # 4,000 tokens a second
    pool.learned.miss_tokens = 400.0
    sent(first, 12_000, 8_000)
    assert spilling.signals(NOW).ttft == pytest.approx(((8_000 + 400) / 4_000 + 400 / 4_000) / 2)


def test_time_to_first_token_is_unknown_before_one_was_seen(pools) -> None:
    spilling, _, (first, _) = made(pools)
    first.load.lease(90_000, 1)
    assert spilling.signals(NOW).ttft is None


def test_what_a_tier_was_like_once_does_not_keep_it_empty(pools) -> None:
    """All has left: no first token comes any more that could teach better."""
    spilling, _, (first, _) = made(pools)
    for _ in range(50):
        first.learned.first_token(9.0, 10.0, NOW)
    assert (spilling.signals(NOW).ttft or 0) > 3.0
    assert spilling.signals(NOW + 11.0).ttft is None
    first.load.lease(10, 1)
    assert spilling.signals(NOW + 11.0).ttft is not None


def ended(pool: Pool, endpoint: Any, good: int, bad: int) -> None:
    for _ in range(bad):
        pool.failed(endpoint, SERVER_ERROR, NOW, NOW)
        if good:
            pool.succeeded(endpoint, NOW, NOW)
            good -= 1
    for _ in range(good):
        pool.succeeded(endpoint, NOW, NOW)


def test_errors_count_over_the_window_once_there_are_enough(pools) -> None:
    spilling, pool, (first, second) = made(pools)
    ended(pool, first, 6, 3)
    assert spilling.signals(NOW).error_percent is None
    ended(pool, second, 11, 0)
    assert spilling.signals(NOW).error_percent == pytest.approx(15.0)
    assert spilling.signals(NOW + 31.0).error_percent is None


def test_the_highest_signal_decides(pools) -> None:
    spilling, _, (first, second) = made(pools)
    for _ in range(10):
        first.load.lease(1, 1)  # 5 each: a quarter
    scrape(second, 2.0, 0.6)  # a half by the queue, a fifth by the cache
    assert (spilling.share(NOW), spilling.reason) == (0.5, "saturated")


def test_the_reason_is_that_of_the_highest_signal_and_stays_while_the_share_falls(pools) -> None:
    spilling, pool, (first, second) = made(pools)
    for endpoint in (first, second):
        endpoint.learned.first_token(2.0, 8_000.0, NOW)
    lease = sent(first, 16_000, 16_000)
    assert (spilling.share(NOW) > 0.0, spilling.reason) == (True, "wait-predicted")
    lease.release()
    assert (spilling.share(NOW + 1.0) > 0.0, spilling.reason) == (True, "wait-predicted")
    assert not pool.endpoints["e1"].load.in_flight


def test_endpoints_that_take_nothing_say_nothing(pools) -> None:
    spilling, pool, (first, second) = made(pools)
    scrape(first, 90.0, 1.0)
    scrape(second, 0.0, 0.1)
    first.circuit = first.circuit.shut(NOW, NOW + 60)
    assert spilling.share(NOW) == 0.0
    second.circuit = second.circuit.shut(NOW, NOW + 60)
    assert pool.ready(NOW + 1) == 0
    assert spilling.share(NOW + 1) == 0.0  # unavailable, which is not load


def test_pools_of_weight_0_say_nothing(pools) -> None:
    pool = pools.pool(1)
    scrape(pool.endpoints["e0"], 90.0, 1.0)
    assert Spilling(EVERY, [(pool, 0)]).share(NOW) == 0.0


def test_it_is_read_so_often_as_the_smoothing_can_tell(pools) -> None:
    spilling, pool, (first, _) = made(pools)
    assert spilling.share(NOW) == 0.0
    for _ in range(100):
        first.load.lease(1, 1)
    asked: list[float] = []
    usable = pool.usable
    pool.usable = lambda endpoint, now: (asked.append(now), usable(endpoint, now))[1]  # type: ignore[method-assign]
    for millisecond in range(200):
        spilling.share(NOW + millisecond / 1000)
    assert len(set(asked)) <= 5
    assert 0.0 < spilling.share(NOW + 0.2) < 0.1
    assert spilling.share(NOW + 30.0) == pytest.approx(1.0)


def runtime(pools: Any, previous: Runtime | None = None, weights: int = 2, **spill: Any) -> Runtime:
    local, cloud = pools.spec(weights), pools.spec(1)
    cloud = snapshot.Pool(
        **{**{each: getattr(cloud, each) for each in cloud.__struct_fields__}, "name": "default/cloud"}
    )
    settings = Spill(in_flight_per_endpoint=Ramp(0, 2), **spill)
    tiers = (
        snapshot.RouteTier("own", (snapshot.Target("default/pool"),), "Weighted", (), settings),
        snapshot.RouteTier("cloud", (snapshot.Target("default/cloud"),), "Weighted", ("Capacity",)),
    )
    route = snapshot.Route("default/chat", ("chat",), (snapshot.RouteRule("all", tiers),), Timeouts(), Retry())
    return Runtime(snapshot.Snapshot("default", (cloud, local), (route,)), previous)


def test_a_share_outlives_a_reload_and_goes_on_by_the_new_settings(pools) -> None:
    before = runtime(pools)
    pool = before.pools["default/pool"]
    picked = [pool.pick(Want(None, 1, 1), (), NOW, random.Random(1)) for _ in range(2)]
    assert all(isinstance(each, Picked) for each in picked)
    leases = [endpoint.load.lease(1, 1) for endpoint in pool.endpoints.values()]
    key = ("all", "own")
    assert before.routes.all[0].spilling[key].share(NOW) == 0.5
    after = runtime(pools, before, weights=3, min_dwell="20s")  # a new pool, and a new spill
    for lease in leases:
        lease.release()
    assert after.routes.all[0].spilling[key] is not before.routes.all[0].spilling[key]
    assert after.routes.all[0].spilling[key].share(NOW + 10.0) == pytest.approx(0.25)


def test_tiers_without_a_signal_keep_no_share(pools) -> None:
    assert runtime(pools).routes.all[0].spilling.keys() == {("all", "own")}
    spec = runtime(pools).spec.routes[0]
    assert spec.rules[0].tiers[1].spill is None
