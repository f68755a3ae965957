"""Laws of copies: as many as asked for, whole sessions, and nothing that takes an endpoint from those who wait."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.asked import Asked

from spillway_api import snapshot
from spillway_api.types import (
    Capacity,
    DataHandling,
    Dispatch,
    Guard,
    Health,
    KeySource,
    Metrics,
    Model,
    Requirement,
    Retry,
    Timeouts,
)
from spillway_balancer.core.attempts import Try
from spillway_balancer.core.conditions import Moment, bucket
from spillway_balancer.core.mirroring import aim, copied, place_of
from spillway_balancer.core.planning import plan
from spillway_balancer.core.runtime import Runtime

NOW = 1000.0


def pool(name: str, *models: str, endpoints: int = 2, bound: int = 0) -> snapshot.Pool:
    return snapshot.Pool(
        name=f"default/{name}",
        models=tuple(Model(each) for each in models or ("m",)),
        engine="Auto",
        provider=None,
        endpoints=tuple(snapshot.Endpoint(f"e{i}", f"http://{name}{i}:80") for i in range(endpoints)),
        dispatch=Dispatch(strategy="LeastLoad", key=[KeySource(type="Header", name="x-session-id")]),
        capacity=Capacity(max_in_flight_per_endpoint=bound),
        metrics=Metrics(),
        health=Health(),
    )


def runtime(percent: int = 100, when: str | None = None, **trial: Any) -> Runtime:
    tier = snapshot.RouteTier("only", (snapshot.Target("default/local"),), "Weighted", ())
    mirror = snapshot.Mirror(snapshot.Target("default/trial"), percent)
    rule = snapshot.RouteRule("r", (tier,), when)
    route = snapshot.Route("default/chat", ("chat",), (rule,), Timeouts(), Retry(), mirror=mirror)
    return Runtime(snapshot.Snapshot("default", (pool("local"), pool("trial", **trial)), (route,)))


def asked(session: str | None = None) -> Any:
    return Asked(session)


@pytest.mark.parametrize("percent", [1, 5, 20, 50, 99])
@pytest.mark.parametrize("keyed", [True, False])
def test_as_many_are_copied_as_asked_for(percent: int, keyed: bool) -> None:
    """10,000 requests, or sessions, within a point."""
    (route,) = runtime(percent).routes.all
    dice = random.Random(1)
    taken = sum(copied(route, asked(f"user-{number}" if keyed else None), dice) is not None for number in range(10_000))
    assert abs(taken / 100 - percent) <= 1.0


@given(session=st.text(min_size=1), fewer=st.integers(0, 100), more=st.integers(0, 100), seed=st.integers())
def test_a_session_is_copied_whole_and_still_when_more_are(session: str, fewer: int, more: int, seed: int) -> None:
    fewer, more = sorted((fewer, more))
    few, many = runtime(fewer).routes.all[0], runtime(more).routes.all[0]
    dice = random.Random(seed)
    first = copied(few, asked(session), dice) is not None
    assert all((copied(few, asked(session), dice) is not None) == first for _ in range(3))
    if first:
        assert copied(many, asked(session), dice) is not None


def test_none_and_all() -> None:
    dice = random.Random(1)
    none, every = runtime(0).routes.all[0], runtime(100).routes.all[0]
    for session in (None, *map(str, range(200))):
        assert copied(none, asked(session), dice) is None
        assert copied(every, asked(session), dice) is not None


def test_which_sessions_are_copied_has_nothing_to_do_with_their_bucket() -> None:
    keys = [random.Random(number).getrandbits(64) for number in range(10_000)]
    mirrored = [key for key in keys if place_of(key) < 0.2]
    both = sum(bucket(key) < 50 for key in mirrored)
    assert 0.45 < both / len(mirrored) < 0.55


def test_a_plan_holds_where_the_copy_goes_and_none_when_the_request_is_refused() -> None:
    moment = Moment(NOW, 0.0, random.Random(1))
    made = plan(runtime().routes, asked("a"), moment)
    assert made.mirror is not None
    assert made.mirror.pool.name == "default/trial"
    assert [target.pool.name for tier in made.tiers for target in tier.targets] == ["default/local"]
    refused = plan(runtime(when="false").routes, asked("a"), moment)
    assert refused.refused is not None
    assert refused.mirror is None


def target(made: Runtime) -> Any:
    found = made.routes.all[0].mirror
    assert found is not None
    return found


def test_a_copy_goes_to_one_endpoint_of_its_pool_by_its_own_model() -> None:
    step = aim(target(runtime()), asked("a"), NOW, 0.0, random.Random(1))
    assert isinstance(step, Try)
    assert (step.pool.name, step.upstream_model) == ("default/trial", "m")


def test_an_ejected_endpoint_and_one_that_is_coming_back_get_no_copy() -> None:
    made = runtime(endpoints=1)
    aimed = target(made)
    (endpoint,) = aimed.pool.endpoints.values()
    endpoint.circuit = endpoint.circuit._replace(ejected_until=NOW - 1.0)  # half-open: the next request is the trial
    before = endpoint.circuit
    assert aim(aimed, asked("a"), NOW, 0.0, random.Random(1)) == "no-ready-endpoint"
    assert endpoint.circuit == before
    endpoint.circuit = endpoint.circuit._replace(ejected_until=None)
    assert isinstance(aim(aimed, asked("a"), NOW, 0.0, random.Random(1)), Try)


def test_a_full_pool_gets_no_copy() -> None:
    made = runtime(endpoints=1, bound=1)
    aimed = target(made)
    step = aim(aimed, asked("a"), NOW, 0.0, random.Random(1))
    assert isinstance(step, Try)
    visit = step.pool.visit(step.picked, NOW)
    assert aim(aimed, asked("b"), NOW, 0.0, random.Random(1)) == "saturated"
    visit.end(NOW)
    assert isinstance(aim(aimed, asked("b"), NOW, 0.0, random.Random(1)), Try)


def test_a_pool_of_several_models_of_which_none_is_asked_for_gets_none() -> None:
    tier = snapshot.RouteTier("only", (snapshot.Target("default/local"),), "Weighted", ())
    mirror = snapshot.Mirror(snapshot.Target("default/trial"), 100)
    route = snapshot.Route(
        "default/all", ("*",), (snapshot.RouteRule("r", (tier,)),), Timeouts(), Retry(), mirror=mirror
    )
    made = Runtime(snapshot.Snapshot("default", (pool("local"), pool("trial", "a", "b")), (route,)))
    assert aim(target(made), Asked(None, model="c"), NOW, 0.0, random.Random(1)) == "model-not-found"
    assert isinstance(aim(target(made), Asked(None, model="b"), NOW, 0.0, random.Random(1)), Try)


@pytest.mark.parametrize(
    ("model", "told", "copies"),
    [
        (Model("m", capabilities=("Chat",)), {}, True),
        (Model("m", capabilities=("Chat",)), {"tools": lambda: True}, False),
        (Model("m", capabilities=("Chat", "Tools")), {"tools": lambda: True}, True),
        (Model("m", capabilities=("Embeddings",)), {}, False),
        (Model("m", context_window=1000), {"prompt_tokens": 500}, True),
        (Model("m", context_window=1000), {"prompt_tokens": 5000}, False),
    ],
)
def test_what_the_model_of_a_mirror_says_it_cannot_serve_is_not_copied(model: Model, told: Any, copies: bool) -> None:
    made = runtime()
    trial = made.pools["default/trial"]
    changed = msgspec.structs.replace(trial.spec, models=(model,))
    pools = tuple(changed if each.name == trial.name else each for each in made.spec.pools)
    after = Runtime(msgspec.structs.replace(made.spec, pools=pools))
    request = Asked("a", **told)
    found = plan(after.routes, request, Moment(NOW, 0.0, random.Random(1)))
    assert found.refused is None
    assert (found.mirror is not None) == copies


GUARD = Guard("eu-only", Requirement(jurisdictions=("EU",)))


@given(
    of_local=st.sampled_from([None, "EU", "US"]),
    of_trial=st.sampled_from([None, "EU", "US"]),
    when=st.sampled_from([None, "true", "false", 'headers["x-none"] == "a"']),
    percent=st.sampled_from([50, 100]),
    session=st.text(min_size=1),
)
def test_a_guard_that_holds_binds_copies_as_it_binds_requests(
    of_local: str | None, of_trial: str | None, when: str | None, percent: int, session: str
) -> None:
    made = runtime(percent)
    declared = {"default/local": of_local, "default/trial": of_trial}
    pools = tuple(
        msgspec.structs.replace(each, data_handling=DataHandling((where,)) if (where := declared[each.name]) else None)
        for each in made.spec.pools
    )
    guard = msgspec.structs.replace(GUARD, when=when)
    routes = tuple(msgspec.structs.replace(each, guards=(guard,)) for each in made.spec.routes)
    after = Runtime(msgspec.structs.replace(made.spec, pools=pools, routes=routes))
    found = plan(after.routes, asked(session), Moment(NOW, 0.0, random.Random(1)))
    holds = when != "false"
    assert (found.refused is not None) == (holds and of_local != "EU")
    if found.mirror is not None:
        assert found.refused is None
        assert not holds or of_trial == "EU"
    elif percent == 100:
        assert found.refused is not None or (holds and of_trial != "EU")
