"""Pauses between attempts: how long, what they cost, and which endpoint is asked after them."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.test_attempts import NOW, attempts, pool, runtime, take, tier

from spillway_api.types import Retry
from spillway_balancer.core.attempts import Stop, Wait
from spillway_balancer.core.backoff import Backoff
from spillway_balancer.core.circuit import Circuit
from spillway_balancer.core.reasons import Failure
from spillway_balancer.core.runtime import Runtime


@given(
    data=st.data(),
    jitter=st.sampled_from(["Full", "Equal", "None"]),
    base=st.integers(0, 500),
    most=st.integers(0, 5000),
    before=st.integers(0, 200),
)
def test_a_pause_is_drawn_from_what_the_jitter_leaves_of_it(
    data: st.DataObject, jitter: str, base: int, most: int, before: int
) -> None:
    retry = Retry(backoff_base=f"{base}ms", backoff_max=f"{most}ms", jitter=jitter)  # type: ignore[arg-type]
    whole = min(most / 1000, base / 1000 * 2 ** min(before, 60))
    wait = Backoff.of(retry).wait(before, random.Random(data.draw(st.integers(0, 9))))
    least = {"Full": 0.0, "Equal": whole / 2, "None": whole}[jitter]
    assert least * 0.999999 <= wait <= whole * 1.000001


def one_endpoint(**retry: Any) -> Runtime:
    return runtime(pool("local", 1), tiers=(tier("local", "local"),), retry=Retry(**retry))


def test_a_pause_never_reaches_past_the_deadline() -> None:
    fixed = {"backoff_base": "1s", "jitter": "None"}
    for left, waits in ((1.0, False), (1.001, True)):
        way = attempts(one_endpoint(**fixed), deadline=NOW + left)
        way.failed(take(way), Failure("overloaded", 503))
        assert isinstance(way.next(NOW), Wait) is waits


def test_a_pause_takes_one_of_the_retry_budget_and_none_of_the_attempts() -> None:
    served = one_endpoint(attempts=2)
    budget = served.routes.resolve("chat")[0].retry_budget  # type: ignore[index]
    way = attempts(served)
    way.failed(take(way), Failure("overloaded", 503))
    step = way.next(NOW)
    assert isinstance(step, Wait)
    take(way, NOW + step.seconds)
    assert budget._total_retries == 1
    for _ in range(29):
        assert budget.try_take(NOW)
    way = attempts(served)
    way.failed(take(way), Failure("overloaded", 503))
    assert isinstance(way.next(NOW), Stop), "the budget of retries is spent"


def test_after_a_pause_another_endpoint_that_is_free_by_then_comes_first() -> None:
    served = runtime(pool("local", 2, bound=1), tiers=(tier("local", "local"),))
    way = attempts(served)
    first = take(way)
    (other,) = (each for each in served.pools["default/local"].endpoints.values() if each is not first.endpoint)
    lease = other.load.lease(1, 1)
    way.failed(first, Failure("overloaded", 503))
    step = way.next(NOW)
    assert isinstance(step, Wait)
    lease.release()
    assert take(way, NOW + step.seconds).endpoint is other


def test_an_endpoint_that_has_been_ejected_or_is_full_is_not_asked_again() -> None:
    for change in ("ejected", "full"):
        served = runtime(pool("local", 1, bound=1), tiers=(tier("local", "local"),))
        way = attempts(served)
        step = take(way)
        way.failed(step, Failure("overloaded", 503))
        wait = way.next(NOW)
        assert isinstance(wait, Wait)
        if change == "ejected":
            step.endpoint.circuit = Circuit(ejected_until=NOW + 30)
        else:
            step.endpoint.load.lease(1, 1)
        assert isinstance(way.next(NOW + wait.seconds), Stop)


def test_of_several_the_one_that_may_be_asked_first_is_waited_for() -> None:
    served = runtime(pool("cloud", 2), tiers=(tier("cloud", "cloud"),))
    way = attempts(served)
    for wait in (0.9, 0.3):
        step = take(way)
        failure = Failure("rate-limited", 429, retry_after=wait)
        step.pool.failed(step.endpoint, failure, NOW, NOW)
        way.failed(step, failure)
    waits = way.next(NOW)
    assert isinstance(waits, Wait)
    assert 0.3 <= waits.seconds <= 0.4
    assert take(way, NOW + waits.seconds).endpoint is step.endpoint


@pytest.mark.parametrize(("wait", "seconds"), [(None, 0.0), (0.5, 0.5), (1.0, 1.0), (1.1, None)])
def test_one_that_is_overloaded_is_not_asked_again_before_its_retry_after(
    wait: float | None, seconds: float | None
) -> None:
    way = attempts(one_endpoint())
    way.failed(take(way), Failure("overloaded", 503, retry_after=wait))
    step = way.next(NOW)
    if seconds is None:
        assert isinstance(step, Stop)
    else:
        assert isinstance(step, Wait)
        assert seconds <= step.seconds <= seconds + 0.05
