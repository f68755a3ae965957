"""Objects to Snapshot: what one gateway serves, and all that does not fit together. Pure.

The operator and the file mode both call it. Equal objects give equal bytes, in whatever order they come, so a
digest tells whether anything has changed. Problems are found, not raised: what can be served is served. That goes for
faults of the compilation itself too: an object over which it fails goes on as it was, as one that cannot be read does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import NamedTuple

import msgspec

from spillway_api.consumers import refreshed
from spillway_api.faults import guarded
from spillway_api.known import Cluster, Discovered, HasSecret, Known, Pools, Problem, key_of, named
from spillway_api.pools import compile_pool
from spillway_api.routes import compile_route, route_rule, without_conflicts
from spillway_api.snapshot import Route, Snapshot
from spillway_api.types import ModelPool, RoutePolicy

__all__ = ["Cluster", "Compiled", "Discovered", "HasSecret", "Problem", "compile_snapshot"]


class Compiled(NamedTuple):
    """A snapshot and the problems met on the way, in the order of the objects' names."""

    snapshot: Snapshot
    problems: tuple[Problem, ...]
    kept: frozenset[str]
    """namespace/name of the policies that go on with their last good version."""
    memory: Snapshot
    """`last_good` for the next compilation: the routes of good policies, and of bad ones what they were when they were
    good. What a policy that was never good serves is not remembered, or it would depend on which of its faults was
    mended first.
    """


def compile_snapshot(
    objects: Iterable[ModelPool | RoutePolicy], gateway: str, secrets: HasSecret, cluster: Cluster | None = None
) -> Compiled:
    """What the gateway of this name serves. The snapshot has its routes and the pools that they lead to.

    Problems are reported of every pool, and of the routes of this gateway. Validated objects are expected;
    the order of `objects` never matters.
    """
    cluster = cluster or Cluster()
    by_name = {named(item): item for item in sorted(objects, key=msgspec.json.encode)}
    ordered = sorted(by_name.values(), key=key_of)
    problems: list[Problem] = []
    specs = {key_of(item): item for item in ordered if isinstance(item, ModelPool)}
    last_pools = {pool.name: pool for pool in cluster.last_good.pools} if cluster.last_good else {}
    pools: Pools = {}
    unreadable = list(cluster.unreadable)
    for key, spec in specs.items():
        pool = guarded(named(spec), partial(compile_pool, spec, secrets, cluster, problems), problems)
        if pool is None:
            unreadable.append(named(spec))
        else:
            pools[key] = pool
    for name in unreadable:
        kind, namespace, own = name.split("/")
        if kind == "ModelPool" and (last := last_pools.get(f"{namespace}/{own}")) is not None:
            pools[namespace, own] = last
    policies = [item for item in ordered if isinstance(item, RoutePolicy) and gateway in item.spec.gateways]
    served = {key_of(item) for item in without_conflicts(policies, problems)}
    known = Known(pools, specs, cluster)
    routes: dict[str, Route] = {}
    bad: set[str] = {name.removeprefix("RoutePolicy/") for name in cluster.unreadable}
    for item in policies:
        if key_of(item) not in served:
            continue
        route = guarded(named(item), partial(compile_route, item, known, secrets, problems), problems)
        if route is not None:
            routes[route.name] = route
    bad |= {problem.object.removeprefix("RoutePolicy/") for problem in problems if problem.fatal}
    kept = {
        name: guarded(f"RoutePolicy/{name}", partial(refreshed, route, secrets, cluster), problems) or route
        for name, route in _last_good(bad, routes, known).items()
    }
    routes |= kept
    used = {target.pool for route in routes.values() for target in route.targets()}
    by_pool = {pool.name: pool for pool in pools.values() if pool.name in used}
    snapshot = Snapshot(
        gateway,
        tuple(by_pool[name] for name in sorted(by_pool)),
        tuple(routes[name] for name in sorted(routes)),
    )
    last_routes = {route.name: route for route in cluster.last_good.routes} if cluster.last_good else {}
    good = {name: route for name, route in routes.items() if name not in bad}
    good |= {name: last_routes[name] for name in bad if name in last_routes}
    memory = Snapshot(gateway, snapshot.pools, tuple(good[name] for name in sorted(good)))
    return Compiled(snapshot, tuple(sorted(problems)), frozenset(kept), memory)


def _last_good(bad: Collection[str], routes: Mapping[str, Route], known: Known) -> dict[str, Route]:
    """Routes that served before their policies became bad, as far as their pools and names are still to be had."""
    last = known.cluster.last_good
    wanted = {} if last is None else {route.name: route for route in last.routes if route.name in bad}
    while True:
        # A public name has one route. A policy of whose last good version nothing is left falls back on what its
        # present one can serve, and that holds names too: hence again, until none falls.
        others = (route for name, route in routes.items() if name not in wanted and route.mode == "Enforce")
        taken = {model for route in others for model in route.models}
        kept = {name: left for name, route in wanted.items() if (left := _trimmed(route, taken, known)) is not None}
        if len(kept) == len(wanted):
            return kept
        wanted = {name: wanted[name] for name in kept}


def _trimmed(route: Route, taken: Collection[str], known: Known) -> Route | None:
    """A route without the names that are taken and the targets that lead nowhere any more; None if nothing is left."""
    models = tuple(model for model in route.models if route.mode == "Shadow" or model not in taken)
    served: set[str] = set()
    rules = []
    for rule in route.rules:
        tiers = []
        for tier in rule.tiers:
            names = {target: known.still_serves(target, route.name, models) for target in tier.targets}
            targets = tuple(target for target in tier.targets if names[target])
            if any(target.weight for target in targets):
                tiers.append(msgspec.structs.replace(tier, targets=targets))
                served = served.union(*names.values())
        rules.append(route_rule(rule.name, tiers, rule.when, rule.set_))
    if not any(rule.tiers for rule in rules):
        return None
    mirror = route.mirror
    if mirror is not None and not known.still_serves(mirror.target, route.name, models):
        mirror = None
    return msgspec.structs.replace(
        route, models=tuple(model for model in models if model in served), rules=tuple(rules), mirror=mirror
    )
