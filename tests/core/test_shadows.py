"""Laws of looks: they find what deciding finds, and leave everything as it was."""

from __future__ import annotations

import pickle
import random
from math import inf
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.core.asked import Asked
from tests.core.test_mirroring import NOW

from spillway_api import snapshot
from spillway_api.types import (
    Budget,
    Capacity,
    Dispatch,
    Health,
    KeySource,
    Limits,
    Metrics,
    Model,
    Ramp,
    Retry,
    Spill,
    Timeouts,
)
from spillway_api.types.dispatch import StrategyName
from spillway_balancer.core.attempts import Attempts, Try
from spillway_balancer.core.conditions import Moment
from spillway_balancer.core.consumers import unknown
from spillway_balancer.core.overrides import Wanted
from spillway_balancer.core.planning import plan, plan_by
from spillway_balancer.core.retry_budget import RetryBudget
from spillway_balancer.core.runtime import Runtime
from spillway_balancer.core.shadows import look, looks
from spillway_balancer.core.strategies import STRATEGIES

STRATEGY = st.sampled_from(sorted(STRATEGIES))


def pool(name: str, strategy: StrategyName = "LeastLoad", bound: int = 0) -> snapshot.Pool:
    return snapshot.Pool(
        name=f"default/{name}",
        models=(Model("m", f"org/{name}"),),
        engine="Auto",
        provider=None,
        endpoints=tuple(snapshot.Endpoint(f"e{i}", f"http://{name}{i}:80") for i in range(3)),
        dispatch=Dispatch(strategy=strategy, key=[KeySource(type="Header", name="x-session-id")]),
        capacity=Capacity(max_in_flight_per_endpoint=bound),
        metrics=Metrics(),
        health=Health(slow_start="10s"),
    )


SPILL = Spill(in_flight_per_endpoint=Ramp(1, 3), smoothing="0s", min_dwell="0s")


def route(name: str, *tiers: str, mode: str = "Enforce", models: tuple[str, ...] = ("chat",)) -> snapshot.Route:
    made = [
        snapshot.RouteTier(
            f"to-{each}", (snapshot.Target(f"default/{each}"),), "Weighted", ("Capacity", "Transient"),
            SPILL if at + 1 < len(tiers) else None,
        )
        for at, each in enumerate(tiers)
    ]  # fmt: skip
    rule = snapshot.RouteRule("r", tuple(made))
    return snapshot.Route(f"default/{name}", models, (rule,), Timeouts(), Retry(), mode=mode)


def runtime(*routes: snapshot.Route, **settings: Any) -> Runtime:
    pools = tuple(pool(name, **settings) for name in ("a", "b", "c"))
    return Runtime(snapshot.Snapshot("default", pools, routes))


def moment(seed: int = 1, now: float = NOW) -> Moment:
    return Moment(now, 0.0, random.Random(seed))


def state(made: Runtime) -> bytes:
    """All that a decision could leave in the pools."""
    found = []
    for each in made.pools.values():
        own = {name: value for name, value in vars(each).items() if name not in ("endpoints", "spec", "_sisters")}
        endpoints = [(name, at.circuit, at.load.in_flight, at.since) for name, at in each.endpoints.items()]
        found.append((own, endpoints))
    return pickle.dumps(found)


def asked(session: str | None = None, **told: Any) -> Any:
    return Asked(session, **told)


def seen_by(made: Runtime, session: str | None = None) -> Any:
    request = asked(session)
    return looks(made.routes, plan(made.routes, request, moment()), request, moment())


def test_shadows_serve_nothing_and_are_found_by_their_names() -> None:
    made = runtime(
        route("chat", "a"),
        route("trial", "b", mode="Shadow"),
        route("all", "c", mode="Shadow", models=("*", "ch*")),
        route("other", "c", mode="Shadow", models=("else",)),
    )
    found = made.routes.resolve("chat")
    assert found is not None
    assert found[0].name == "default/chat"
    assert made.routes.resolve("else") is None
    assert made.routes.names(made.routes.open_to(None)) == ["chat"]
    assert [(each.name, name) for each, name in made.routes.shadows_of("chat")] == [
        ("default/trial", "chat"),
        ("default/all", "ch*"),
    ]
    seen = seen_by(made)
    assert [(each.route, each.rule, each.tier, each.pool) for each in seen] == [
        ("default/trial", "r", "to-b", "default/b"),
        ("default/all", "r", "to-c", "default/c"),
    ]


@given(
    strategy=STRATEGY,
    loads=st.lists(st.integers(0, 4), min_size=9, max_size=9),
    ejected=st.lists(st.sampled_from([None, NOW - 1.0, NOW + 60.0]), min_size=9, max_size=9),
    session=st.none() | st.text(min_size=1),
    bound=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_a_look_finds_what_deciding_finds_and_changes_nothing(
    strategy: StrategyName,
    loads: list[int],
    ejected: list[float | None],
    session: str | None,
    bound: int,
    seed: int,
) -> None:
    made = runtime(route("trial", "a", "b", "c", mode="Shadow"), strategy=strategy, bound=bound)
    endpoints = [each for one in made.pools.values() for each in one.endpoints.values()]
    for endpoint, load, until in zip(endpoints, loads, ejected, strict=True):
        endpoint.since = NOW - 100.0
        for _ in range(load):
            endpoint.load.lease(10, 10, 10.0)
        trial = None if until is None or load % 2 else NOW - 0.5
        endpoint.circuit = endpoint.circuit._replace(ejected_until=until, trial_at=trial)
    (shadow,) = made.routes.shadows
    before = state(made)
    plan_of = plan_by(shadow, "chat", asked(session), moment(seed))
    seen = look(plan_of, asked(session), moment(seed))
    again = look(plan_of, asked(session), moment(seed))
    assert state(made) == before
    assert seen == again
    # What it would have been, had it decided; that does change things.
    step = Attempts(plan_of.tiers, Retry(), RetryBudget(), asked(session), random.Random(seed), inf).next(NOW)
    if isinstance(step, Try):
        assert (seen.tier, seen.pool) == (step.tier, step.pool.name)
        assert seen.agrees(step)
    else:
        assert (seen.tier, seen.pool) == ("", "")
        assert seen.agrees(None)


def test_what_a_shadow_would_refuse() -> None:
    shadow = route("trial", "b", mode="Shadow")
    never = snapshot.RouteRule("never", shadow.rules[0].tiers, "false")
    made = runtime(
        route("chat", "a"), snapshot.Route("default/no", ("chat",), (never,), Timeouts(), Retry(), mode="Shadow")
    )
    (seen,) = seen_by(made)
    assert (seen.rule, seen.tier, seen.pool) == ("", "", "")
    assert seen.agrees(None)


def test_rules_of_a_shadow_that_err_are_told() -> None:
    shadow = route("trial", "b", mode="Shadow")
    rules = (snapshot.RouteRule("errs", shadow.rules[0].tiers, 'headers["x-a"] == "b"'), shadow.rules[0])
    made = runtime(
        route("chat", "a"), snapshot.Route("default/no", ("chat",), rules, Timeouts(), Retry(), mode="Shadow")
    )
    (seen,) = seen_by(made)
    assert seen.errors == (("errs", "missing"),)
    assert seen.rule == "r"


def test_agreement_is_of_pool_and_model() -> None:
    made = runtime(route("chat", "a"), route("same", "a", mode="Shadow"), route("other", "b", mode="Shadow"))
    same, other = seen_by(made)
    chosen = plan(made.routes, asked(), moment())
    step = Attempts(chosen.tiers, Retry(), RetryBudget(), asked(), random.Random(1), inf).next(NOW)
    assert isinstance(step, Try)
    assert same.agrees(step)
    assert not other.agrees(step)
    assert not same._replace(model="org/another").agrees(step)
    assert not same.agrees(None)


def test_the_share_that_would_leave_is_the_shadows_own() -> None:
    """Its smoothing goes on with the time, and that of the route which decides is not asked."""
    made = runtime(route("chat", "a", "b"), route("trial", "a", "b", mode="Shadow"))
    for endpoint in made.pools["default/a"].endpoints.values():
        for _ in range(3):
            endpoint.load.lease(10, 10, 10.0)
    deciding, shadow = made.routes.all
    (seen,) = seen_by(made, "s")
    assert seen.tier == "to-b"
    assert [spilling._smoothed for spilling in deciding.spilling.values()] == [None]
    assert [spilling.share(NOW) for spilling in shadow.spilling.values()] == [1.0]


def test_nothing_is_seen_where_no_policy_has_decided() -> None:
    made = runtime(route("chat", "a"), route("trial", "b", mode="Shadow"))
    chosen = plan(made.routes, asked(), moment())
    assert looks(made.routes, chosen, asked(), moment())
    for other in (
        chosen._replace(refused=unknown(None)),
        chosen._replace(wants=Wanted("r", None, None)),
    ):
        assert other.refused is not None or other.wants is not None
        assert looks(made.routes, other, asked(), moment()) == ()


def test_limits_of_a_shadow_count_nothing_and_keep_nobody_out() -> None:
    spec = route("trial", "b", mode="Shadow")
    limits = Limits(requests_per_minute=1, budget=Budget(amount="0.01"))
    tier = msgspec.structs.replace(spec.rules[0].tiers[0], limits=limits)
    spec = msgspec.structs.replace(spec, rules=(snapshot.RouteRule("r", (tier,)),))
    made = runtime(route("chat", "a"), spec)
    (counted,) = made.routes.shadows[0].limits.values()
    for _ in range(5):
        (seen,) = seen_by(made)
        assert seen.pool == "default/b"
    assert set(counted.refused.values()) == {0}
    assert counted.requests is not None
    assert counted.requests.used_percent(NOW) == 0
