"""What of a gateway's snapshot is for sidecars: the routes that they may have, and what they can send themselves.

A sidecar has no keys, keeps no books, and is one of many. So a tier that needs a key, or in which something is counted
for all, is the gateway's: its targets become one, a pool that is `remote`. What a sidecar has no route for is the
gateway's as well.

Left out are routes with `consumers`, for a sidecar has no keys to know callers by, those that only record, and those
whose expressions read what a sidecar does not know. Where a name of such a route would fall to a wildcard of a route
that is given, the name goes to the gateway: a request means the same from wherever it is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from spillway_api.decidable import decides
from spillway_api.snapshot import (
    Endpoint,
    Mirror,
    Pool,
    Route,
    RouteRule,
    RouteTier,
    Snapshot,
    Target,
    digest_of,
    sealed,
)
from spillway_api.types import Capacity, Dispatch, Health, Metrics, Model, Retry, Timeouts

GATEWAY: Final = "gateway"
"""Name of the one endpoint of the remote pool."""
_NOWHERE: Final = "@gateway"
"""In the place of a namespace; no namespace has an @ in its name."""
_PATIENCE: Final = Timeouts(first_byte="24h", stream_idle="1h", total="24h")
"""With what the gateway has a route for: that route's own times hold there."""
_TRIES: Final = Retry(attempts=10)
"""As many as any route may have, for the same reason."""


def remote_name(gateway: str) -> str:
    """Of the pool that stands for a gateway, and of the route of everything that has no other."""
    return f"{_NOWHERE}/{gateway}"


def remote_pool(gateway: str) -> Pool:
    """The gateway as a pool. Its one endpoint is added by the sidecar."""
    return Pool(
        name=remote_name(gateway),
        models=(Model(name="*", upstream_name="*"),),
        engine="Generic",
        provider=None,
        endpoints=(),
        dispatch=Dispatch(strategy="Random"),
        capacity=Capacity(),
        metrics=Metrics(mode="None"),
        health=Health(),
        remote=True,
    )


def everything_else(gateway: str, names: tuple[str, ...] = ("*",)) -> Route:
    """The route of what has no other, or of the names that are given: all goes to the gateway."""
    tier = RouteTier(GATEWAY, (Target(remote_name(gateway)),), select="Weighted", enter_on=())
    return Route(remote_name(gateway), names, (RouteRule(GATEWAY, (tier,)),), _PATIENCE, _TRIES)


def unknown_world(gateway: str) -> Snapshot:
    """What a sidecar serves from that has nothing: all goes to the gateway."""
    return Snapshot(gateway, (remote_pool(gateway),), (everything_else(gateway),))


def reached(snapshot: Snapshot, url: str) -> Snapshot:
    """A sidecar's snapshot with the gateway's URL, which the sidecar alone knows. Digests are of that without."""
    endpoint = (Endpoint(GATEWAY, url),)
    pools = (replace(each, endpoints=endpoint) if each.remote else each for each in snapshot.pools)
    return Snapshot(snapshot.gateway, tuple(pools), snapshot.routes)


def direct(pool: Pool) -> bool:
    """Whether a sidecar can send to it: without a credential, and where nothing is counted for all."""
    bare = (each.credential is None and each.identity is UNSET and each.limits is UNSET for each in pool.endpoints)
    keyed = pool.proxy is not None and pool.proxy.credential is not None
    return pool.provider is None and pool.budget is None and not keyed and all(bare)


class Asked(NamedTuple):
    """What a sidecar may have, and what of it it wants."""

    namespace: str | None = None
    """That routes must be of; None is any."""
    routes: frozenset[str] = frozenset()
    """namespace/name; none means all."""


def view(snapshot: Snapshot, asked: Asked) -> Snapshot:
    """What a sidecar is given of a gateway's snapshot."""
    return Offer(snapshot).view(asked)


class Offer:
    """What of one snapshot there is for sidecars, whoever asks. What has not changed since the offer before is the
    same object, however the snapshot was made, so that thousands of questions cost little more than one."""

    def __init__(self, snapshot: Snapshot, before: Offer | None = None) -> None:
        self._gateway = gateway = snapshot.gateway
        self._remote: Pool = before._remote if before else remote_pool(gateway)
        had = before._pools if before else {}
        self._pools: dict[str, Pool] = {each.name: _same(had.get(each.name), each) for each in snapshot.pools}
        far = frozenset(each.name for each in snapshot.pools if not direct(each))
        made = before._made if before else {}
        self._made: dict[str, _Made] = {}
        self._claimed: list[tuple[str, str]] = []
        """Declared names and the routes that they are of."""
        for route in snapshot.routes:
            if route.mode == "Shadow":
                continue
            self._claimed.extend((name, route.name) for name in route.models)
            if route.consumers is None:
                known = _made(route, far, gateway, made.get(route.name))
                if decides(route, known.route, self._remote):
                    self._made[route.name] = known
        parts: Iterable[Pool | Route] = (*self._pools.values(), *(each.route for each in self._made.values()))
        seals = before._seals if before else {}
        # An id is that of no other object as long as the entry holds the part.
        self._seals: dict[int, tuple[Pool | Route, bytes]] = {
            id(part): seals[id(part)] for part in (self._remote, *parts) if id(part) in seals
        }

    def view(self, asked: Asked) -> Snapshot:
        """What is given to one who may have and wants this: equal for equal questions."""
        given = {
            name: each.route
            for name, each in self._made.items()
            if (asked.namespace is None or name.partition("/")[0] == asked.namespace)
            and (not asked.routes or name in asked.routes)
        }
        names = {target.pool for route in given.values() for target in route.targets()}
        pools = {name: self._pools[name] for name in names if name in self._pools}
        pools[self._remote.name] = self._remote
        if elsewhere := self._elsewhere(given):
            rest = everything_else(self._gateway, elsewhere)
            given[rest.name] = rest
        return Snapshot(self._gateway, _sorted(pools), _sorted(given))

    def _elsewhere(self, given: Mapping[str, Route]) -> tuple[str, ...]:
        """The names that go to the gateway whole."""
        wild = tuple(name[:-1] for route in given.values() for name in route.models if name.endswith("*"))
        if not wild:
            return ("*",)
        lost = {name for name, route in self._claimed if route not in given and name.startswith(wild)}
        return tuple(sorted(lost if "" in wild else {*lost, "*"}))

    def digest(self, snapshot: Snapshot) -> str:
        """Of a view of this offer: the same as of any snapshot, without encoding anew what it shares with others."""
        return digest_of(snapshot.gateway, map(self._sealed, snapshot.pools), map(self._sealed, snapshot.routes))

    def _sealed(self, part: Pool | Route) -> bytes:
        known = self._seals.get(id(part))
        if known is None:
            known = part, sealed(part)
            if self._shared(part):
                self._seals[id(part)] = known
        return known[1]

    def _shared(self, part: Pool | Route) -> bool:
        """Whether it is there as long as this offer is; a route of what is elsewhere is one view's own."""
        if isinstance(part, Pool):
            return part is self._remote or self._pools.get(part.name) is part
        made = self._made.get(part.name)
        return made is not None and made.route is part


class _Made(NamedTuple):
    source: Route
    far: frozenset[str]
    """Those of its pools that a sidecar cannot send to."""
    route: Route


Part = TypeVar("Part", Pool, Route)


def _same(known: Part | None, part: Part) -> Part:
    return known if known is not None and known == part else part


def _sorted(parts: Mapping[str, Part]) -> tuple[Part, ...]:
    return tuple(parts[name] for name in sorted(parts))


def _made(route: Route, far: frozenset[str], gateway: str, before: _Made | None) -> _Made:
    own = far.intersection(target.pool for target in route.targets())
    if before is not None and before.far == own and before.source == route:
        return before
    rules = tuple(replace(rule, tiers=tuple(_tier(each, own, gateway) for each in rule.tiers)) for rule in route.rules)
    made = replace(route, rules=rules, mirror=_mirror(route.mirror, own))
    return _Made(route, own, _same(route, made))


def _tier(tier: RouteTier, far: frozenset[str], gateway: str) -> RouteTier:
    if tier.limits is None and far.isdisjoint(target.pool for target in tier.targets):
        return tier
    whole = (Target(remote_name(gateway)),)
    return RouteTier(tier.name, whole, select="Weighted", enter_on=tier.enter_on, spill=tier.spill)


def _mirror(mirror: Mirror | None, far: frozenset[str]) -> Mirror | None:
    """Copies for a pool that a sidecar cannot send to are the gateway's, of what comes to it."""
    return None if mirror is None or mirror.target.pool in far else mirror
