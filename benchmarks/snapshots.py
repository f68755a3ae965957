"""What a change of one endpoint costs the loop of a balancer that serves thousands, beside building everything anew.

2,000 RoutePolicies and 5,000 endpoints. All rows are taken in one run, so that their ratios compare.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from time import perf_counter

from spillway_api import snapshot, stream
from spillway_api.snapshot import Endpoint, Route, RouteRule, RouteTier, Snapshot, Target
from spillway_api.types import Capacity, Dispatch, Health, Metrics, Model, Retry, Timeouts
from spillway_balancer.core.pool import Pool
from spillway_balancer.core.routing import Route as ReadyRoute
from spillway_balancer.core.routing import Routes
from spillway_balancer.core.runtime import Runtime
from spillway_balancer.net import received
from spillway_balancer.net.reporting import report

Table = tuple[str, list[str], list[list[str]]]

ROUTES, ENDPOINTS = 2000, 5000
POOLS = 500
ROUNDS = 15


def _pool(number: int, endpoints: int) -> snapshot.Pool:
    return snapshot.Pool(
        name=f"team-{number % 50}/pool-{number}",
        models=(Model(name="demo"),),
        engine="Auto",
        provider=None,
        endpoints=tuple(
            Endpoint(f"pod-{i}", f"http://10.{number % 200}.{i % 250}.{i // 250}:8000") for i in range(endpoints)
        ),
        dispatch=Dispatch(),
        capacity=Capacity(),
        metrics=Metrics(),
        health=Health(),
    )


def big(pools: int = POOLS) -> Snapshot:
    """The snapshot of a large gateway."""
    made = sorted((_pool(number, ENDPOINTS // pools) for number in range(pools)), key=lambda pool: pool.name)
    routes = []
    for number in range(ROUTES):
        first, second = made[number % pools].name, made[(number * 7 + 1) % pools].name
        tiers = (
            RouteTier("local", (Target(first),), "Weighted", ()),
            RouteTier("spill", (Target(second),), "Weighted", ("Capacity", "Transient")),
        )
        routes.append(Route(f"team/{number:05}", (f"model-{number}",), (RouteRule("all", tiers),), Timeouts(), Retry()))
    return Snapshot("default", tuple(made), tuple(routes))


def changes(state: Snapshot) -> Iterator[stream.Delta]:
    """Deltas that each give one endpoint another address, each on top of the one before."""
    digests = snapshot.Digester()
    digest = digests(state)
    for number in itertools.count():
        pool = state.pools[number % len(state.pools)]
        moved = Endpoint(pool.endpoints[0].name, f"http://10.250.{number // 250}.{number % 250}:8000")
        fields = {name: getattr(pool, name) for name in pool.__struct_fields__}
        changed = snapshot.Pool(**{**fields, "endpoints": (moved, *pool.endpoints[1:])})
        pools = tuple(changed if each is pool else each for each in state.pools)
        after = Snapshot(state.gateway, pools, state.routes)
        base, digest = digest, digests(after)
        yield stream.difference(state, after, base, digest, float(number))
        state = after


class _Whole:
    """As every change was taken in force before: everything is made anew, and what lives carried over."""

    def __init__(self, spec: Snapshot, previous: _Whole | None) -> None:
        old_pools = previous.pools if previous else {}
        old_routes = {route.name: route for route in previous.routes.all} if previous else {}
        self.digest = snapshot.digest(spec)
        self.pools = {pool.name: Pool(pool, old_pools.get(pool.name)) for pool in spec.pools}
        self.routes = Routes(ReadyRoute(route, self.pools, old_routes.get(route.name)) for route in spec.routes)


def _best(call: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        begun = perf_counter()
        call()
        best = min(best, perf_counter() - begun)
    return best


def _row(pools: int) -> list[str]:
    state = big(pools)
    full = stream.encode(stream.Full(snapshot.digest(state), 0.0, state))
    messages = [stream.encode(delta) for delta, _ in zip(changes(state), range(2 * ROUNDS), strict=False)]
    whole = _Whole(state, None)
    spec, told = state, iter([stream.from_operator(each) for each in messages])

    def before() -> None:
        nonlocal whole, spec
        delta = next(told)
        assert isinstance(delta, stream.Delta)
        spec = stream.applied(spec, delta)
        whole = _Whole(spec, whole)

    held, wire = received.after(None, full), iter(messages)
    assert held is not None
    runtime = Runtime(held.snapshot)

    def after() -> None:
        nonlocal runtime, held
        held = received.after(held, next(wire))
        assert held is not None
        runtime = Runtime(held.snapshot, runtime)

    def again() -> None:
        nonlocal runtime
        same = received.after(held, full)
        assert same is not None
        runtime = Runtime(same.snapshot, runtime)

    slow, fast, silent = _best(before), _best(after), _best(again)
    telling = _best(lambda: report(runtime, {}, {}, 0.0, 0.0))
    return [
        f"{pools} pools of {ENDPOINTS // pools}",
        f"{slow * 1e3:.1f} ms",
        f"{fast * 1e3:.2f} ms",
        f"{slow / fast:.0f}",
        f"{silent * 1e3:.1f} ms",
        f"{telling * 1e3:.2f} ms",
    ]


def snapshots() -> Table:
    """One endpoint of 5,000 changes."""
    head = ["shape", "all anew", "what changed", "ratio", "a whole snapshot again", "a report"]
    title = f"Taking a change of one endpoint in force: {ROUTES:,} routes, {ENDPOINTS:,} endpoints"
    return title, head, [_row(pools) for pools in (1000, 500, 50)]
