"""Whatever state the circuit of an endpoint or an account is in: a reload leaves it there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from spillway_api import snapshot
from spillway_api.types import Capacity, Dispatch, Health, Metrics, Model, PassiveHealth, Retry, Timeouts
from spillway_balancer.core.pool import Pool
from spillway_balancer.core.reasons import Failure
from spillway_balancer.core.runtime import Runtime

NOW = 1000.0
BROKEN = Failure("server-error", 500)


def served(failures: int = 3, attempts: int = 3) -> snapshot.Snapshot:
    pool = snapshot.Pool(
        name="default/local",
        models=(Model(name="m"),),
        engine="Auto",
        provider="OpenAI",
        endpoints=(
            snapshot.Endpoint("a", "http://a:80", credential=snapshot.Credential("default/a", "k", "H", "")),
            snapshot.Endpoint("b", "http://b:80", credential=snapshot.Credential("default/b", "k", "H", "")),
        ),
        dispatch=Dispatch(),
        capacity=Capacity(),
        metrics=Metrics(),
        health=Health(passive=PassiveHealth(consecutive_failures=failures)),
    )
    rule = snapshot.RouteRule("all", (snapshot.RouteTier("t", (snapshot.Target("default/local"),), "Weighted", ()),))
    route = snapshot.Route("default/chat", ("chat",), (rule,), Timeouts(), Retry(attempts=attempts))
    return snapshot.Snapshot("default", (pool,), (route,))


def fails(times: int, failure: Failure = BROKEN) -> Callable[[Pool, Any], None]:
    def happen(pool: Pool, endpoint: Any) -> None:
        for _ in range(times):
            pool.failed(endpoint, failure, NOW, NOW)

    return happen


def tried(pool: Pool, endpoint: Any) -> None:
    fails(3)(pool, endpoint)
    endpoint.circuit = endpoint.circuit.trial(endpoint.circuit.until)


STATES = {
    "two failures of three": fails(2),
    "ejected": fails(3),
    "on trial": tried,
    "off until its Retry-After": fails(1, Failure("rate-limited", 429, 60.0)),
    "off for a spent quota": fails(2, Failure("quota-exhausted", 402)),
    "off until its credential changes": fails(1, Failure("auth", 401)),
}


@pytest.mark.parametrize("state", STATES)
def test_a_reload_leaves_it_there(state: str) -> None:
    before = Runtime(served())
    pool = before.pools["default/local"]
    endpoint = pool.endpoints["a"]
    STATES[state](pool, endpoint)
    circuit, usable = endpoint.circuit, pool.usable(endpoint, NOW)
    after = Runtime(served(attempts=5), before).pools["default/local"]
    same = after.endpoints["a"]
    assert (same.circuit, same.refused) == (circuit, state == "off until its credential changes")
    for at in (NOW, NOW + 6, NOW + 61, NOW + 1e4):
        assert after.usable(same, at) == pool.usable(endpoint, at)
    assert usable == (state == "two failures of three")
    assert after.usable(after.endpoints["b"], NOW)


def test_settings_that_change_hold_from_the_next_failure_on() -> None:
    before = Runtime(served())
    pool = before.pools["default/local"]
    fails(2)(pool, pool.endpoints["a"])
    after = Runtime(served(failures=5), before).pools["default/local"]
    same = after.endpoints["a"]
    fails(2)(after, same)
    assert after.usable(same, NOW), "four in a row, of five"
    fails(1)(after, same)
    assert not after.usable(same, NOW)


def test_another_address_under_the_same_name_begins_anew() -> None:
    before = Runtime(served())
    pool = before.pools["default/local"]
    fails(3)(pool, pool.endpoints["a"])
    spec = served()
    moved = replace(spec.pools[0].endpoints[0], url="http://elsewhere:80")
    pools = (replace(spec.pools[0], endpoints=(moved, spec.pools[0].endpoints[1])),)
    after = Runtime(replace(spec, pools=pools), before).pools["default/local"]
    assert after.usable(after.endpoints["a"], NOW)
