"""Attempts: which endpoint comes next, which tier, and when to give up; over real pools, with time passed in."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.asked import Asked

from spillway_api import snapshot
from spillway_api.types import Capacity, Dispatch, Health, KeySource, Metrics, Model, Ramp, Retry, Spill, Timeouts
from spillway_balancer.core.attempts import Attempts, Stop, Try
from spillway_balancer.core.circuit import Circuit
from spillway_balancer.core.errors import AttemptsFailed, DeadlineExceeded, NoReadyEndpoint, RateLimited
from spillway_balancer.core.reasons import REASONS, Failure, Reason, of_status
from spillway_balancer.core.runtime import Runtime

NOW = 1000.0


def pool(name: str, endpoints: int, bound: int = 0) -> snapshot.Pool:
    return snapshot.Pool(
        name=f"default/{name}",
        models=(Model(name=f"{name}-model"),),
        engine="Auto",
        provider=None,
        endpoints=tuple(snapshot.Endpoint(f"e{i}", f"http://{name}{i}:80") for i in range(endpoints)),
        dispatch=Dispatch(key=[KeySource(type="Header", name="x-session-id")]),
        capacity=Capacity(max_in_flight_per_endpoint=bound),
        metrics=Metrics(),
        health=Health(),
    )


def tier(name: str, *pools: str, enter_on: tuple[str, ...] = ("Capacity", "Transient"), spill: Spill | None = None):
    targets = tuple(snapshot.Target(f"default/{each}") for each in pools)
    return snapshot.RouteTier(name, targets, "Weighted", enter_on, spill)


def runtime(*pools: snapshot.Pool, tiers: tuple[snapshot.RouteTier, ...], retry: Retry | None = None) -> Runtime:
    route = snapshot.Route(
        "default/chat", ("chat",), (snapshot.RouteRule("default", tiers),), Timeouts(), retry or Retry()
    )
    return Runtime(snapshot.Snapshot("default", pools, (route,)))


def attempts(served: Runtime, asked: Asked | None = None, deadline: float = NOW + 60, seed: int = 1) -> Attempts:
    resolved = served.routes.resolve("chat")
    assert resolved is not None
    route = resolved[0]
    return Attempts(
        route.rules[0], route.spec.retry, route.retry_budget, asked or Asked(), random.Random(seed), deadline
    )


def two_tiers(**more: object) -> Runtime:
    return runtime(pool("local", 4), pool("cloud", 1), tiers=(tier("local", "local"), tier("cloud", "cloud")), **more)


def take(way: Attempts, now: float = NOW) -> Try:
    step = way.next(now)
    assert isinstance(step, Try), step
    return step


CONNECT = Failure("connect", retry_on="ConnectError")


def test_the_first_tier_is_tried_first_with_the_pools_own_model_name() -> None:
    step = take(attempts(two_tiers()))
    assert (step.tier, step.upstream_model, step.spilled) == ("local", "local-model", False)


@given(reasons=st.lists(st.sampled_from(["connect", "overloaded", "server-error", "auth"]), min_size=1, max_size=9))
def test_a_request_never_tries_an_endpoint_that_has_failed_it_while_another_is_left(reasons: list[Reason]) -> None:
    way = attempts(two_tiers(retry=Retry(attempts=10)))
    seen = []
    for reason in reasons:
        step = way.next(NOW)
        if not isinstance(step, Try):
            assert len(seen) >= 4, "all of the tier have been tried before anything is waited for"
            break
        assert step.endpoint not in seen
        seen.append(step.endpoint)
        way.failed(step, Failure(reason, 503 if reason != "connect" else None))


def test_a_tier_that_has_failed_is_left_for_the_next() -> None:
    served = runtime(pool("local", 1), pool("cloud", 1), tiers=(tier("local", "local"), tier("cloud", "cloud")))
    way = attempts(served)
    way.failed(take(way), CONNECT)
    step = take(way)
    assert (step.tier, step.spilled) == ("cloud", True)


def test_the_next_tier_is_entered_only_for_reasons_that_it_names() -> None:
    served = runtime(
        pool("local", 1), pool("cloud", 1), tiers=(tier("local", "local"), tier("cloud", "cloud", enter_on=("Auth",)))
    )
    way = attempts(served)
    way.failed(take(way), CONNECT)
    assert isinstance(way.next(NOW), Stop)
    way = attempts(served)
    way.failed(take(way), Failure("auth", 401))
    assert take(way).tier == "cloud"


@pytest.mark.parametrize("reason", ["context-length", "content-policy", "model-not-found"])
def test_what_every_endpoint_of_the_tier_would_refuse_goes_to_the_next_tier_at_once(reason: Reason) -> None:
    enters = REASONS[reason].enters
    assert enters is not None
    served = runtime(
        pool("local", 3), pool("cloud", 1), tiers=(tier("local", "local"), tier("cloud", "cloud", enter_on=(enters,)))
    )
    way = attempts(served)
    way.failed(take(way), Failure(reason, 400))
    assert take(way).tier == "cloud"


def test_the_clients_own_mistake_is_never_tried_elsewhere_and_the_endpoints_answer_goes_out() -> None:
    way = attempts(two_tiers())
    way.failed(take(way), Failure("bad-request", 422))
    stop = way.next(NOW)
    assert isinstance(stop, Stop)
    assert stop.answer


def test_attempts_are_bounded_over_all_tiers() -> None:
    way = attempts(two_tiers(retry=Retry(attempts=3)))
    for _ in range(3):
        way.failed(take(way), CONNECT)
    stop = way.next(NOW)
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, AttemptsFailed)
    assert len(stop.error.attempts) == 3


def test_a_status_that_the_policy_does_not_retry_goes_to_the_client_as_it_is() -> None:
    way = attempts(two_tiers(retry=Retry(retry_status_codes=[503])))
    way.failed(take(way), Failure("server-error", 500))
    stop = way.next(NOW)
    assert isinstance(stop, Stop)
    assert stop.answer
    way = attempts(two_tiers(retry=Retry(retry_status_codes=[503])))
    way.failed(take(way), Failure("overloaded", 503))
    take(way)


@pytest.mark.parametrize(
    ("status", "codes", "retried"),
    [
        (498, None, True),
        (408, None, True),
        (409, None, True),
        (424, None, True),
        (498, [503], True),
        (498, [504], False),
        (408, [504], True),
        (408, [408], True),
        (408, [503], False),
        (424, [], False),
    ],
)
def test_a_providers_own_status_is_retried_as_the_one_that_it_stands_for(
    status: int, codes: list[int] | None, retried: bool
) -> None:
    way = attempts(two_tiers(retry=Retry() if codes is None else Retry(retry_status_codes=codes)))
    way.failed(take(way), Failure(of_status(status), status))
    step = way.next(NOW)
    assert isinstance(step, Try) is retried
    assert retried or (isinstance(step, Stop) and step.answer)


@pytest.mark.parametrize(
    ("failure", "retried"),
    [
        (CONNECT, True),
        (Failure("connect", retry_on="Reset"), True),
        (Failure("first-byte-timeout", retry_on="FirstByteTimeout"), False),
    ],
)
def test_retry_on_decides_for_failures_without_a_status(failure: Failure, retried: bool) -> None:
    way = attempts(two_tiers())
    way.failed(take(way), failure)
    assert isinstance(way.next(NOW), Try) is retried


def test_when_all_were_limited_the_client_learns_the_shortest_wait() -> None:
    served = runtime(pool("cloud", 2), tiers=(tier("cloud", "cloud"),))
    way = attempts(served)
    way.failed(take(way), Failure("rate-limited", 429, retry_after=30.0))
    way.failed(take(way), Failure("rate-limited", 429, retry_after=7.0))
    stop = way.next(NOW)
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, RateLimited)
    assert stop.error.retry_after == 7.0


def test_the_total_deadline_ends_it() -> None:
    way = attempts(two_tiers(), deadline=NOW + 5)
    way.failed(take(way), CONNECT)
    stop = way.next(NOW + 5)
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, DeadlineExceeded)


def test_without_any_endpoint_the_error_says_so() -> None:
    served = runtime(pool("local", 0), tiers=(tier("local", "local"),))
    stop = attempts(served).next(NOW)
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, NoReadyEndpoint)


def test_a_tier_at_its_bound_overflows_to_the_next() -> None:
    served = runtime(
        pool("local", 2, bound=1), pool("cloud", 1), tiers=(tier("local", "local"), tier("cloud", "cloud"))
    )
    leases = []
    used = []
    for _ in range(3):
        step = take(attempts(served))
        leases.append(step.endpoint.load.lease(1, 1))
        used.append(step.tier)
    assert used == ["local", "local", "cloud"]


def spilling(start: int, full: int, by: str = "Key") -> Runtime:
    spill = Spill(in_flight_per_endpoint=Ramp(start=start, full=full), by=by)  # type: ignore[arg-type]
    return runtime(
        pool("local", 2), pool("cloud", 1), tiers=(tier("local", "local", spill=spill), tier("cloud", "cloud"))
    )


def test_spill_leaves_before_sending_and_in_proportion_to_the_ramp() -> None:
    served = spilling(2, 10, by="Request")
    for endpoint in served.pools["default/local"].endpoints.values():
        for _ in range(6):  # halfway between 2 and 10
            endpoint.load.lease(1, 1)
    tiers = [take(attempts(served, seed=seed)).tier for seed in range(400)]
    assert 0.42 < tiers.count("cloud") / 400 < 0.58


def test_spill_by_key_moves_the_same_sessions_every_time() -> None:
    served = spilling(2, 10)
    for endpoint in served.pools["default/local"].endpoints.values():
        for _ in range(6):
            endpoint.load.lease(1, 1)
    first = [take(attempts(served, Asked(f"s{i}"), seed=i)).tier for i in range(200)]
    again = [take(attempts(served, Asked(f"s{i}"), seed=i + 1000)).tier for i in range(200)]
    assert first == again
    assert 60 < first.count("cloud") < 140


def test_a_step_knows_what_was_leaving_each_tier_that_was_asked_and_why_the_request_left() -> None:
    served = spilling(2, 10)
    assert take(attempts(served)).shares == (("local", 0.0),)
    served = spilling(2, 3)
    for endpoint in served.pools["default/local"].endpoints.values():
        for _ in range(6):
            endpoint.load.lease(1, 1)
    way = attempts(served)
    step = take(way)
    assert (step.tier, step.shares, way.log) == ("cloud", (("local", 1.0),), ["local: saturated"])
    assert take(attempts(two_tiers())).shares == ()


def test_what_spills_comes_home_when_the_other_side_has_no_room() -> None:
    served = spilling(0, 1)
    for endpoint in served.pools["default/local"].endpoints.values():
        endpoint.load.lease(1, 1)
    cloud = next(iter(served.pools["default/cloud"].endpoints.values()))
    way = attempts(served)
    step = take(way)
    assert step.endpoint is cloud
    way.failed(step, CONNECT)
    assert take(way).tier == "local"


def test_without_when_unavailable_a_tier_without_endpoints_is_not_left() -> None:
    spill = Spill(in_flight_per_endpoint=Ramp(start=100, full=200), when_unavailable=False)
    served = runtime(
        pool("local", 0), pool("cloud", 1), tiers=(tier("local", "local", spill=spill), tier("cloud", "cloud"))
    )
    assert isinstance(attempts(served).next(NOW), Stop)


def eject(served: Runtime, name: str, times: int = 3) -> None:
    local = served.pools[name]
    for endpoint in local.endpoints.values():
        for _ in range(times):
            local.failed(endpoint, CONNECT, NOW, NOW)


def test_never_more_than_the_percentage_is_ejected() -> None:
    served = two_tiers()
    eject(served, "default/local", times=10)
    assert served.pools["default/local"].ready(NOW) == 2


def test_when_all_else_is_ejected_the_one_due_back_soonest_is_tried() -> None:
    served = runtime(pool("local", 2), tiers=(tier("local", "local"),))
    local = served.pools["default/local"]
    first, second = local.endpoints.values()
    first.circuit = Circuit(ejected_until=NOW + 30)
    second.circuit = Circuit(ejected_until=NOW + 10)
    step = take(attempts(served))
    assert step.endpoint is second
    assert step.picked.choice.reason == "panic"


def test_a_limit_that_an_account_announces_is_believed() -> None:
    served = runtime(pool("cloud", 2), tiers=(tier("cloud", "cloud"),))
    cloud = served.pools["default/cloud"]
    way = attempts(served)
    step = take(way)
    failure = Failure("rate-limited", 429, retry_after=20.0)
    cloud.failed(step.endpoint, failure, NOW, NOW)
    assert cloud.ready(NOW + 19) == 1
    assert cloud.ready(NOW + 21) == 2


def test_retries_stay_within_the_budget_when_everything_fails() -> None:
    served = two_tiers(retry=Retry(attempts=4, budget_percent=10))
    tries = 0
    for _ in range(1000):
        way = attempts(served)
        while isinstance(step := way.next(NOW), Try):
            tries += 1
            way.failed(step, CONNECT)
    assert tries <= 1000 + 100


def test_a_reload_carries_over_what_lives() -> None:
    served = two_tiers()
    eject(served, "default/local")
    lease = served.pools["default/local"].endpoints["e0"].load.lease(1, 1)
    again = Runtime(served.spec, served)
    assert again.pools["default/local"].ready(NOW) == 2
    assert again.pools["default/local"].endpoints["e0"].load.in_flight == 1
    assert again.pools["default/local"].strategy is served.pools["default/local"].strategy
    lease.release()
    assert again.pools["default/local"].endpoints["e0"].load.in_flight == 0


def test_a_stranger_under_a_known_name_inherits_nothing() -> None:
    served = runtime(pool("local", 1), tiers=(tier("local", "local"),))
    served.pools["default/local"].endpoints["e0"].load.lease(1, 1)
    moved = snapshot.decode(snapshot.encode(served.spec).replace(b"http://local0:80", b"http://stranger:80"))
    assert Runtime(moved, served).pools["default/local"].endpoints["e0"].load.in_flight == 0


def test_the_one_due_back_soonest_is_looked_for_in_every_pool_of_the_last_tier() -> None:
    served = runtime(pool("one", 2), pool("two", 2), tiers=(tier("only", "one", "two"),))
    dues = {("one", "e0"): 30, ("one", "e1"): 25, ("two", "e0"): 20, ("two", "e1"): 40}
    for (name, endpoint), due in dues.items():
        served.pools[f"default/{name}"].endpoints[endpoint].circuit = Circuit(ejected_until=NOW + due)
    for seed in range(10):
        step = take(attempts(served, Asked(f"session {seed}"), seed=seed))
        assert (step.pool.name, step.endpoint.name, step.picked.choice.reason) == ("default/two", "e0", "panic")


def test_the_last_resort_that_answers_is_back_and_one_that_fails_waits_no_longer_for_it() -> None:
    served = runtime(pool("local", 1), tiers=(tier("local", "local"),))
    local = served.pools["default/local"]
    (endpoint,) = local.endpoints.values()
    endpoint.circuit = Circuit(ejected_until=NOW + 30, ejections=1)
    way = attempts(served)
    step = take(way)
    local.failed(step.endpoint, CONNECT, NOW, NOW + 1)
    assert endpoint.circuit.until == NOW + 30
    take(attempts(served))
    local.succeeded(endpoint, NOW + 2, NOW + 3)
    assert endpoint.circuit.state(NOW + 3) == "closed"


def test_an_endpoint_that_is_off_by_its_own_word_is_no_last_resort_and_its_wait_is_told() -> None:
    served = runtime(pool("cloud", 2), tiers=(tier("cloud", "cloud"),))
    for endpoint, wait in zip(served.pools["default/cloud"].endpoints.values(), (30, 12), strict=True):
        endpoint.circuit = endpoint.circuit.shut(NOW, NOW + wait)
    stop = attempts(served).next(NOW + 2)
    assert isinstance(stop, Stop)
    assert isinstance(stop.error, RateLimited)
    assert stop.error.retry_after == 10.0


def test_a_tier_whose_accounts_are_off_is_left_for_capacity() -> None:
    served = runtime(
        pool("cloud", 1),
        pool("other", 1),
        tiers=(tier("cloud", "cloud"), tier("other", "other", enter_on=("Capacity",))),
    )
    (endpoint,) = served.pools["default/cloud"].endpoints.values()
    endpoint.circuit = endpoint.circuit.shut(NOW, NOW + 30)
    assert take(attempts(served)).tier == "other"
