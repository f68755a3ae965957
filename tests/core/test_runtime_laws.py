"""Runtimes one after the other: what did not change stays the same object, and nobody can tell how one came about."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api import snapshot, stream
from spillway_api.snapshot import Endpoint, Pool, Route, RouteRule, RouteTier, Snapshot, Target
from spillway_api.types import Capacity, Dispatch, Health, Metrics, Model, Retry, Timeouts
from spillway_balancer.core.pool import Picked, Want
from spillway_balancer.core.runtime import Runtime

POOLS = ("a/one", "a/two", "b/three")


def pool(name: str, *endpoints: Endpoint, strategy: Any = "LeastLoad", model: str = "demo", bound: int = 0) -> Pool:
    return Pool(
        name=name,
        models=(Model(name=model),),
        engine="Auto",
        provider=None,
        endpoints=endpoints,
        dispatch=Dispatch(strategy=strategy),
        capacity=Capacity(max_in_flight_per_endpoint=bound),
        metrics=Metrics(),
        health=Health(),
    )


def route(name: str, *targets: Target, model: str = "chat", budget: int = 20) -> Route:
    rules = (RouteRule("all", (RouteTier("only", targets, "Weighted", ()),)),)
    return Route(name, (model,), rules, Timeouts(), Retry(budget_percent=budget))


endpoints = st.lists(
    st.builds(
        Endpoint,
        name=st.sampled_from(("e1", "e2", "e3")),
        url=st.sampled_from(("http://x:1", "http://y:1")),
        weight=st.sampled_from((100, 50)),
    ),
    unique_by=lambda each: each.name,
    max_size=3,
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    pools = [
        pool(name, *draw(endpoints), strategy=draw(st.sampled_from(("LeastLoad", "RoundRobin", "CHWBL"))))
        for name in POOLS
        if draw(st.booleans())
    ]
    routes = []
    for number in range(3):
        targets = [Target(each.name, None, draw(st.sampled_from((1, 3)))) for each in pools if draw(st.booleans())]
        if targets:
            routes.append(route(f"r/{number}", *targets, model=f"m{number}", budget=draw(st.sampled_from((10, 20)))))
    return Snapshot("default", tuple(pools), tuple(routes))


def shape(runtime: Runtime) -> Any:
    """All that a request could see of it, lives aside."""
    pools = {
        name: (
            each.spec,
            {e.name: (e.url, e.spec) for e in each.endpoints.values()},
            each.members,
            each.models,
            each.circuits,
            each.stale_after,
            type(each.strategy),
            each.wants_prompt,
        )
        for name, each in runtime.pools.items()
    }
    routes = [(each.spec, each.deadlines, each.retry_budget.percent, each.rules_of_names) for each in _named(runtime)]
    resolved = {name: (found[0].name, found[1]) if (found := runtime.routes.resolve(name)) else None for name in NAMES}
    return runtime.digest, pools, routes, resolved, runtime.routes.names(runtime.routes.all)


NAMES = ("m0", "m1", "m2", "demo")


class _Named:
    def __init__(self, found: Any, runtime: Runtime) -> None:
        self.spec, self.deadlines, self.retry_budget = found.spec, found.deadlines, found.retry_budget
        targets = [target for tiers in found.rules for tier in tiers for target in tier.targets]
        assert all(target.pool is runtime.pools[target.pool.name] for target in targets), "a pool of another runtime"
        self.rules_of_names = [(target.pool.name, target.model, target.weight) for target in targets]


def _named(runtime: Runtime) -> list[_Named]:
    return [_Named(each, runtime) for each in runtime.routes.all]


@given(st.lists(snapshots(), min_size=1, max_size=6))
def test_however_a_runtime_came_about_it_serves_as_one_built_whole(states: list[Snapshot]) -> None:
    runtime = Runtime(states[0])
    for after in states[1:]:
        before = runtime
        delta = stream.difference(before.spec, after, before.digest, snapshot.digest(after), 0.0)
        again = stream.from_operator(stream.encode(delta))  # as it comes off the wire: new objects, all of them
        assert isinstance(again, stream.Delta)
        runtime = Runtime(stream.applied(before.spec, again), before)
        assert shape(runtime) == shape(Runtime(after))
        for name, each in runtime.pools.items():
            old = before.pools.get(name)
            if old is None:
                continue
            assert (each is old) == (each.spec == old.spec)
            for endpoint in each.endpoints.values():
                known = old.endpoints.get(endpoint.name)
                assert (endpoint is known) == (known is not None and known.url == endpoint.url)
        olds = {each.name: each for each in before.routes.all}
        for found in runtime.routes.all:
            old_route = olds.get(found.name)
            if old_route is not None:
                assert found.retry_budget is old_route.retry_budget
                same = all(runtime.pools[name] is before.pools.get(name) for name in found.pools)
                assert (found is old_route) == (found.spec == old_route.spec and same)


@given(snapshots(), snapshots())
def test_a_snapshot_that_cannot_be_built_leaves_no_trace(good: Snapshot, other: Snapshot) -> None:
    runtime = Runtime(good)
    before = shape(runtime)
    broken = pool("z/broken", Endpoint("e1", "http://x:1"), strategy="Unheard")
    with pytest.raises(KeyError):
        Runtime(msgspec.structs.replace(other, pools=(*other.pools, broken)), runtime)
    assert shape(runtime) == before
    assert shape(Runtime(good, runtime)) == before


def test_a_route_to_a_pool_that_is_gone_is_refused_and_not_taken_over() -> None:
    one = pool("a/one", Endpoint("e1", "http://x:1"))
    runtime = Runtime(Snapshot("default", (one,), (route("r/1", Target("a/one")),)))
    with pytest.raises(KeyError):
        Runtime(Snapshot("default", (), runtime.spec.routes), runtime)


def test_a_request_under_way_holds_its_lease_through_a_swap_and_gives_it_back_in_the_new_runtime() -> None:
    """Both where the pool is shared by the runtimes and where it was made anew around the same endpoint."""
    one, two = pool("a/one", Endpoint("e1", "http://x:1")), pool("a/two", Endpoint("e1", "http://x:1"))
    first = Runtime(Snapshot("default", (one, two), ()))
    dice = random.Random(1)
    visits = []
    for name in ("a/one", "a/two"):
        picked = first.pools[name].pick(Want(None, 10, 10), (), 0.0, dice)
        assert isinstance(picked, Picked)
        visits.append(first.pools[name].visit(picked, 0.0))
    wider = pool("a/two", Endpoint("e1", "http://x:1"), Endpoint("e2", "http://y:1"))
    second = Runtime(Snapshot("default", (one, wider), ()), first)
    assert second.pools["a/one"] is first.pools["a/one"]
    assert second.pools["a/two"] is not first.pools["a/two"]
    loads = [second.pools[name].endpoints["e1"].load for name in ("a/one", "a/two")]
    assert [load.in_flight for load in loads] == [1, 1]
    for visit in visits:
        visit.end(1.0)
    assert [load.in_flight for load in loads] == [0, 0]


def test_nothing_that_did_not_change_is_digested_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = pool("a/one", Endpoint("e1", "http://x:1")), pool("a/two", Endpoint("e1", "http://x:1"))
    runtime = Runtime(Snapshot("default", (one, two), ()))
    encoded: list[str] = []

    class Watched:
        def encode(self, part: Any) -> bytes:
            encoded.append(part.name)
            return msgspec.json.encode(part, order="deterministic")

    monkeypatch.setattr(snapshot, "_encoder", Watched())
    wider = pool("a/two", Endpoint("e1", "http://x:1"), Endpoint("e2", "http://y:1"))
    after = Runtime(Snapshot("default", (one, wider), ()), runtime)
    assert encoded == ["a/two"]
    assert after.digest == snapshot.digest(after.spec)
