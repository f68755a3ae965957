"""Laws of a request's way, whatever fails on it: bounded in tries and time, and no endpoint twice while one is left."""

from __future__ import annotations

import random
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.asked import Asked

from spillway_api import snapshot
from spillway_api.types import Capacity, Dispatch, Health, Hedge, Metrics, Model, PassiveHealth, Retry, Timeouts
from spillway_balancer.core.attempts import Attempts, Stop, Try, Wait
from spillway_balancer.core.reasons import REASONS, Class, Failure
from spillway_balancer.core.runtime import Runtime

NOW = 1000.0
CLASSES = get_args(Class)


FAILURES = st.one_of(
    st.builds(Failure, st.just("rate-limited"), st.just(429), st.sampled_from([None, 0.0, 0.4, 1.0, 30.0])),
    st.builds(Failure, st.just("overloaded"), st.sampled_from([503, 529]), st.sampled_from([None, 0.5, 30.0])),
    st.sampled_from(
        [
            Failure("server-error", 500),
            Failure("server-error", 408),
            Failure("quota-exhausted", 402),
            Failure("connect", retry_on="ConnectError"),
            Failure("connect", retry_on="Reset"),
            Failure("first-byte-timeout", retry_on="FirstByteTimeout"),
            Failure("stall", retry_on="FirstByteTimeout"),
            Failure("auth", 401),
            Failure("model-not-found", 404),
            Failure("context-length", 400),
            Failure("bad-request", 422),
        ]
    ),
)
TIERS = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.sampled_from(CLASSES), min_size=1, max_size=7, unique=True)),
    min_size=1,
    max_size=3,
)


def served(tiers: list[tuple[int, list[str]]], retry: Retry, failures: int) -> Runtime:
    pools, made = [], []
    for number, (endpoints, enter_on) in enumerate(tiers):
        pools.append(
            snapshot.Pool(
                name=f"default/p{number}",
                models=(Model(name="m"),),
                engine="Auto",
                provider=None,
                endpoints=tuple(snapshot.Endpoint(f"e{at}", f"http://p{number}-{at}:80") for at in range(endpoints)),
                dispatch=Dispatch(),
                capacity=Capacity(),
                metrics=Metrics(),
                health=Health(passive=PassiveHealth(consecutive_failures=failures, max_ejected_percent=100)),
            )
        )
        target = (snapshot.Target(f"default/p{number}"),)
        hedge = Hedge(after="1s", max_percent=100)
        made.append(snapshot.RouteTier(f"t{number}", target, "Weighted", tuple(enter_on), hedge=hedge))
    rule = snapshot.RouteRule("all", tuple(made))
    route = snapshot.Route("default/chat", ("chat",), (rule,), Timeouts(), retry)
    return Runtime(snapshot.Snapshot("default", tuple(pools), (route,)))


@settings(deadline=None)
@given(
    tiers=TIERS,
    attempts=st.integers(1, 8),
    ejects=st.integers(0, 2),
    total=st.floats(0.01, 5.0),
    fails=st.lists(st.tuples(FAILURES, st.booleans(), st.floats(0.0, 0.3)), min_size=8, max_size=8),
    seed=st.integers(0, 99),
)
def test_a_way_is_bounded_and_never_comes_back_while_there_is_another(
    tiers: list[tuple[int, list[str]]],
    attempts: int,
    ejects: int,
    total: float,
    fails: list[tuple[Failure, bool, float]],
    seed: int,
) -> None:
    runtime = served(tiers, Retry(attempts=attempts, retry_on=("ConnectError", "Reset", "FirstByteTimeout")), ejects)
    route = runtime.routes.resolve("chat")[0]  # type: ignore[index]
    asked, deadline = Asked(limit=50), NOW + total
    way = Attempts(route.rules[0], route.spec.retry, route.retry_budget, asked, random.Random(seed), deadline)
    now, tried, waits, waited = NOW, [], 0, False

    def end(step: Try, failure: Failure) -> None:
        tried.append((step.endpoint, failure))
        step.pool.failed(step.endpoint, failure, now, now)
        way.failed(step, failure)

    for failure, hedges, takes in fails:
        step = way.next(now)
        if isinstance(step, Wait):
            waits += 1
            waited = True
            assert 0.0 <= step.seconds <= 3.0
            assert now + step.seconds < deadline, "no pause reaches past the deadline"
            now += step.seconds
            step = way.next(now)
        assert not isinstance(step, Wait)
        if isinstance(step, Stop):
            assert step.error.status in (400, 404, 422, 429, 503, 504)
            break
        assert now < deadline
        before = [ended for endpoint, ended in tried if endpoint is step.endpoint]
        if before:
            assert waited, "nothing is tried twice without a pause"
            free = [
                each
                for each in step.pool.endpoints.values()
                if each not in {endpoint for endpoint, _ in tried} and step.pool.usable(each, now)
            ]
            assert not free, "nothing is tried twice while another one is left"
            assert REASONS[before[-1].reason].again != "never"
            if REASONS[before[-1].reason].again == "once":
                assert len(before) == 1
        waited = False
        beside = None
        hedging = way.hedging(step)
        if hedges and hedging is not None:
            beside = way.hedge(step, hedging, now)
            if beside is not None:
                assert beside.tier == step.tier
                assert beside.endpoint is not step.endpoint
                assert beside.endpoint not in {endpoint for endpoint, _ in tried}
        now += takes
        end(step, failure)
        if beside is not None:
            end(beside, failure)
        assert len(tried) <= attempts
    assert waits <= attempts
