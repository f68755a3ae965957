"""Slow start: an endpoint that is new or back takes its share little by little, whatever the strategy."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api import snapshot
from spillway_api.types import ActiveHealth, Health
from spillway_balancer.core.circuit import SLOWEST, spares, warmth
from spillway_balancer.core.pool import Picked, Pool, Want
from spillway_balancer.core.reasons import Failure
from spillway_balancer.core.strategies import BLIND, STRATEGIES

RAMP = 100.0
NEW = "e3"


def spec(pools: Any, strategy: str, endpoints: int = 4, slow_start: str = "100s", **more: Any) -> snapshot.Pool:
    made = pools.spec(endpoints, strategy=strategy, load="Requests", **more)
    health = Health(passive=made.health.passive, slow_start=slow_start)
    return msgspec.structs.replace(made, health=health)  # type: ignore[no-any-return]


def grown(pools: Any, strategy: str, at: float = 0.0, **more: Any) -> Pool:
    """A pool of three endpoints that have long been there, and one that is first seen `at` then."""
    before = Pool(spec(pools, strategy, 3, **more))
    before.pick(Want(1, 100, 10), (), at - 10 * RAMP, random.Random(1))
    pool = Pool(spec(pools, strategy, **more), before)
    pool.pick(Want(1, 100, 10), (), at, random.Random(1))
    return pool


def share(pools: Any, pool: Pool, now: float, together: int, keys: bool, requests: int = 1500) -> float:
    """Part of the requests that the new endpoint gets while so many are in flight at a time; of time none goes by."""
    dice, got = random.Random(5), 0
    held: deque[Any] = deque()
    for number in range(requests):
        key = dice.getrandbits(64) if keys else None
        prompt = pools.prompt(((now, number), 4)) if pool.wants_prompt else None
        picked = pool.pick(pools.want(prompt, key=key), (), now, dice)
        assert isinstance(picked, Picked)
        got += picked.endpoint.name == NEW
        visit = pool.visit(picked, now)
        visit.first_token(now)
        held.append(visit)
        while len(held) > together:
            held.popleft().end(now)
    for visit in held:
        visit.end(now)
    return got / requests


@pytest.mark.parametrize("keys", [True, False], ids=["sessions", "no keys"])
@pytest.mark.parametrize("together", [0, 40])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_new_endpoints_share_rises_under_every_strategy(pools, strategy, together, keys) -> None:
    """Never above what it is due (a quarter, of so many hundredths), and in the end what the others have."""
    shares = [share(pools, grown(pools, strategy), at * RAMP, together, keys) for at in (0.0, 0.25, 0.5, 0.75, 1.0)]
    for warm, found in zip((SLOWEST, 0.25, 0.5, 0.75), shares[:-1], strict=True):
        assert found <= 0.25 * warm + 0.045, (warm, shares)
    assert shares[0] <= shares[2] + 0.01 <= shares[4] + 0.02
    assert shares[4] > 0.17


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_who_was_ejected_comes_back_slowly(pools, strategy) -> None:
    pool = Pool(spec(pools, strategy))
    dice = random.Random(1)
    pool.pick(Want(1, 100, 10), (), -10 * RAMP, dice)
    endpoint = pool.endpoints[NEW]
    for _ in range(3):
        pool.failed(endpoint, Failure("server-error", 500), 0.0, 0.0)
    assert not endpoint.circuit.admits(1.0)
    endpoint.circuit = endpoint.circuit.trial(6.0)
    pool.succeeded(endpoint, 6.0, 7.0)
    assert share(pools, pool, 8.0, 40, True) < 0.07
    assert share(pools, pool, 7.0 + RAMP, 40, True) > 0.17


def test_who_failed_its_probes_comes_back_slowly(pools) -> None:
    pool = Pool(spec(pools, "LeastLoad"))
    pool.pick(Want(1, 100, 10), (), -10 * RAMP, random.Random(1))
    endpoint, active = pool.endpoints[NEW], ActiveHealth(unhealthy_threshold=1)
    endpoint.probed(False, active, None)
    assert share(pools, pool, 0.0, 40, True) == 0.0
    endpoint.probed(True, active, None)
    assert 0.0 < share(pools, pool, 1.0, 40, True) < 0.07


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_where_all_are_new_nobody_waits(pools, strategy) -> None:
    """The start of a balancer, too: there is nobody to spare the newcomers."""
    pool = Pool(spec(pools, strategy))
    assert 0.15 < share(pools, pool, 1.0, 40, True) < 0.35


def test_without_the_field_nothing_is_spared(pools) -> None:
    assert 0.2 < share(pools, grown(pools, "LeastLoad", slow_start="0s"), 0.0, 40, True) < 0.3


def test_a_cold_endpoint_serves_when_no_warm_one_can(pools) -> None:
    pool = grown(pools, "RoundRobin")
    warm = [endpoint for name, endpoint in pool.endpoints.items() if name != NEW]
    for key in range(50):
        picked = pool.pick(Want(key, 100, 10), warm, 0.0, random.Random(key))
        assert isinstance(picked, Picked)
        assert picked.endpoint.name == NEW


def test_warmth_outlives_a_reload(pools) -> None:
    pool = grown(pools, "Random", at=0.0)
    again = Pool(spec(pools, "LeastLoad"), pool)
    assert again.endpoints[NEW].since == 0.0
    assert share(pools, again, 10.0, 40, True) < 0.07


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e4))
def test_warmth_rises_from_a_tenth_to_the_whole(since: float, waited: float, slow_start: float) -> None:
    found = warmth(since, since + waited, slow_start)
    assert SLOWEST <= found <= 1.0
    assert found <= warmth(since, since + waited + 1.0, slow_start)
    assert warmth(since, since + slow_start + 1.0, slow_start) == 1.0


@given(st.integers(0, 2**64 - 1), st.floats(0, 1), st.floats(0, 1))
def test_a_session_that_has_come_stays(key: int, one: float, other: float) -> None:
    dice = random.Random(1)
    less, more = sorted((one, other))
    assert spares(less, key, dice) or not spares(more, key, dice)
    assert not spares(1.0, key, dice)


def test_those_blind_to_load_are_known() -> None:
    assert set(STRATEGIES) > BLIND
