"""Objects to Snapshot: what one gateway serves, and all that does not fit together. Pure.

The operator and the file mode both call it. Equal objects give equal bytes, in whatever order they come, so a
digest tells whether anything has changed. Problems are found, not raised: what can be served is served.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from spillway_api.expressions import InvalidExpression, condition
from spillway_api.problem import did_you_mean
from spillway_api.snapshot import Credential, Endpoint, Pool, Route, RouteRule, RouteTier, Snapshot, Target
from spillway_api.types import Model, ModelPool, PoolRef, RoutePolicy, SecretRef, matches

HasSecret = Callable[[str, str], bool]
"""Whether the Secret "namespace/name" exists and has this key."""

_OPENAI = "https://api.openai.com/v1"
_YOUNGEST = "~"
"""Sorts behind every RFC 3339 time: an object without creationTimestamp counts as the youngest."""


class Problem(NamedTuple):
    """Something in an object that does not fit the others; `reason` is a condition reason of the API.

    `fatal` means that the object cannot do what it says: whoever reads whole files refuses them. The snapshot
    beside it still holds all that can be served: the last good version of a policy, where there is one; else a
    target that leads nowhere is left out, and with it a tier or route of which nothing is left; so is a rule whose
    condition does not compile, while one of which no tier is left holds and serves nothing; a route that claims
    another's name is left out entirely.
    """

    object: str
    """Kind/namespace/name."""
    path: str
    reason: str
    message: str
    fatal: bool


class Discovered(NamedTuple):
    """What was found where a pool's source points to: endpoints in the order of their names, and what is amiss."""

    endpoints: tuple[Endpoint, ...] = ()
    problems: tuple[tuple[str, str, str], ...] = ()
    """Path, reason and message of each; none is fatal, for what is not there may come."""


def _nowhere(item: ModelPool) -> Discovered:
    source = item.spec.source
    for name in ("pods", "service", "inference_pool"):
        if getattr(source, name) is not None:
            field = msgspec.structs.fields(source)[source.__struct_fields__.index(name)].encode_name
            message = "its endpoints are known in a cluster only; from files the pool has none"
            return Discovered((), ((f"spec.source.{field}", "NoEndpoints", message),))
    return Discovered()


class Cluster(NamedTuple):
    """What is known beside the objects themselves. By default nothing is: so it is where they come from files."""

    discovered: Callable[[ModelPool], Discovered] = _nowhere
    """Endpoints of a pool whose source is pods, service or inferencePool."""
    exists: Callable[[str], bool] = lambda _secret: False
    """Whether there is a Secret "namespace/name", whatever its keys."""
    labels: Callable[[str], Mapping[str, str]] = lambda _namespace: {}
    """Labels of a namespace."""
    last_good: Snapshot | None = None
    """The memory of the compilation before. A policy that has become bad goes on with its route of it."""
    unreadable: Collection[str] = ()
    """Kind/namespace/name of objects that exist and cannot be read: they too go on as they were."""


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


Pools = dict[tuple[str, str], Pool]
"""Compiled pools by namespace and name."""


class Known(NamedTuple):
    """What a policy may refer to."""

    pools: Pools
    specs: Mapping[tuple[str, str], ModelPool]
    cluster: Cluster

    def allows(self, pool: tuple[str, str], namespace: str) -> bool:
        """Whether policies of a namespace may use the pool. One that cannot be read allows its own only."""
        if pool[0] == namespace:
            return True
        spec = self.specs.get(pool)
        allowed = spec.spec.allowed_routes if spec is not None else None
        if allowed is None or allowed.from_ == "Same":
            return False
        if allowed.from_ == "All" or allowed.selector is None:
            return allowed.from_ == "All"
        return matches(allowed.selector, self.cluster.labels(namespace))

    def still_serves(self, target: Target, route: str, models: Iterable[str]) -> set[str]:
        """Which of a last good route's public names its target can serve today.

        A pool that cannot be read allows whom it allowed; one that can be read may have taken its word back.
        """
        namespace, name = target.pool.split("/")
        key = (namespace, name)
        pool = self.pools.get(key)
        if pool is None or (key in self.specs and not self.allows(key, route.split("/")[0])):
            return set()
        return _served([model.name for model in pool.models], target.model, models)


def compile_snapshot(
    objects: Iterable[ModelPool | RoutePolicy], gateway: str, secrets: HasSecret, cluster: Cluster | None = None
) -> Compiled:
    """What the gateway of this name serves. The snapshot has its routes and the pools that they lead to.

    Problems are reported of every pool, and of the routes of this gateway. Validated objects are expected;
    the order of `objects` never matters.
    """
    cluster = cluster or Cluster()
    by_name = {_named(item): item for item in sorted(objects, key=msgspec.json.encode)}
    ordered = sorted(by_name.values(), key=_key)
    problems: list[Problem] = []
    specs = {_key(item): item for item in ordered if isinstance(item, ModelPool)}
    pools = {key: _pool(item, secrets, cluster, problems) for key, item in specs.items()}
    last_pools = {pool.name: pool for pool in cluster.last_good.pools} if cluster.last_good else {}
    for name in cluster.unreadable:
        kind, namespace, own = name.split("/")
        if kind == "ModelPool" and (last := last_pools.get(f"{namespace}/{own}")) is not None:
            pools[namespace, own] = last
    policies = [item for item in ordered if isinstance(item, RoutePolicy) and gateway in item.spec.gateways]
    served = {_key(item) for item in _without_conflicts(policies, problems)}
    known = Known(pools, specs, cluster)
    routes: dict[str, Route] = {}
    bad: set[str] = {name.removeprefix("RoutePolicy/") for name in cluster.unreadable}
    for item in policies:
        route = _route(item, known, problems) if _key(item) in served else None
        if route is not None:
            routes[route.name] = route
    bad |= {problem.object.removeprefix("RoutePolicy/") for problem in problems if problem.fatal}
    kept = _last_good(bad, routes, known)
    routes |= kept
    used = {target.pool for route in routes.values() for target in _targets(route)}
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
        taken = {model for name, route in routes.items() if name not in wanted for model in route.models}
        kept = {name: left for name, route in wanted.items() if (left := _trimmed(route, taken, known)) is not None}
        if len(kept) == len(wanted):
            return kept
        wanted = {name: wanted[name] for name in kept}


def _trimmed(route: Route, taken: Collection[str], known: Known) -> Route | None:
    """A route without the names that are taken and the targets that lead nowhere any more; None if nothing is left."""
    models = tuple(model for model in route.models if model not in taken)
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
        rules.append(_rule(rule.name, tiers, rule.when))
    if not any(rule.tiers for rule in rules):
        return None
    return msgspec.structs.replace(
        route, models=tuple(model for model in models if model in served), rules=tuple(rules)
    )


def _rule(name: str, tiers: Sequence[RouteTier], when: str | None) -> RouteRule:
    """With the tiers behind it gone, a tier has nowhere to spill to.

    A rule of which no tier is left stays: what it is for must not go where the next rule leads.
    """
    last = [msgspec.structs.replace(tier, spill=None) for tier in tiers[-1:]]
    return RouteRule(name, (*tiers[:-1], *last), when)


def _targets(route: Route) -> Iterable[Target]:
    return (target for rule in route.rules for tier in rule.tiers for target in tier.targets)


def _key(item: ModelPool | RoutePolicy) -> tuple[str, str]:
    return item.metadata.namespace, item.metadata.name


def _named(item: ModelPool | RoutePolicy) -> str:
    return "/".join((type(item).__name__, *_key(item)))


def _pool(item: ModelPool, secrets: HasSecret, cluster: Cluster, problems: list[Problem]) -> Pool:
    """The pool of an object, with the endpoints that can be dialled and have their credential."""
    spec = item.spec
    provider = spec.source.provider
    return Pool(
        name="/".join(_key(item)),
        models=tuple(Model(model.name, model.upstream_name or model.name) for model in spec.models),
        engine=spec.engine,
        provider=None if provider is None else provider.type,
        endpoints=tuple(_accounts(item, secrets, cluster, problems) + _addresses(item, secrets, cluster, problems)),
        dispatch=spec.dispatch,
        capacity=spec.capacity,
        metrics=spec.metrics,
        health=spec.health,
    )


def _accounts(item: ModelPool, secrets: HasSecret, cluster: Cluster, problems: list[Problem]) -> list[Endpoint]:
    provider = item.spec.source.provider
    if provider is None:
        return []
    path = "spec.source.provider"
    url = (provider.base_url or _OPENAI).rstrip("/")
    if not _dialled(item, url, f"{path}.baseURL", problems):
        return []
    endpoints = []
    for index, account in enumerate(provider.accounts):
        ref, credential = account.secret_ref, None
        if ref is not None:
            credential = _credential(item, ref, "Authorization", "Bearer ")
            left_out = f'account "{account.name}" is left out'
            if not _found(item, ref, f"{path}.accounts[{index}].secretRef", left_out, secrets, cluster, problems):
                continue
        endpoints.append(Endpoint(account.name, url, account.weight, credential))
    return endpoints


def _addresses(item: ModelPool, secrets: HasSecret, cluster: Cluster, problems: list[Problem]) -> list[Endpoint]:
    """Self-hosted endpoints: those written down, or those found."""
    static, auth = item.spec.source.static, item.spec.auth
    if item.spec.source.provider is not None:
        return []
    if static is not None:
        endpoints = [
            Endpoint(endpoint.name, endpoint.url.rstrip("/"), endpoint.weight)
            for index, endpoint in enumerate(static.endpoints)
            if _dialled(item, endpoint.url, f"spec.source.static.endpoints[{index}].url", problems)
        ]
    else:
        found = cluster.discovered(item)
        endpoints = list(found.endpoints)
        problems += [Problem(_named(item), *problem, fatal=False) for problem in found.problems]
    if auth is None:
        return endpoints
    credential = _credential(item, auth.secret_ref, auth.header, auth.prefix)
    left_out = "all endpoints of the pool are left out"
    if not _found(item, auth.secret_ref, "spec.auth.secretRef", left_out, secrets, cluster, problems):
        return []
    return [msgspec.structs.replace(endpoint, credential=credential) for endpoint in endpoints]


def _dialled(item: ModelPool, url: str, path: str, problems: list[Problem]) -> bool:
    """Whether a URL can be dialled. Its schema lets pass a port of 99999, a bare ? and spaces in the path."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and not set(url) & set(' ?\\<>"')
    except ValueError:
        usable = False
    if not usable:
        message = f'"{url}" cannot be dialled; write it like http://host:port'
        problems.append(Problem(_named(item), path, "Invalid", message, fatal=True))
    return usable


def _found(
    item: ModelPool,
    ref: SecretRef,
    path: str,
    left_out: str,
    secrets: HasSecret,
    cluster: Cluster,
    problems: list[Problem],
) -> bool:
    namespace = item.metadata.namespace
    name = f"{namespace}/{ref.name}"
    if secrets(name, ref.key):
        return True
    if cluster.exists(name):
        reason, missing = "SecretKeyNotFound", f'Secret "{ref.name}" has no key "{ref.key}", or nothing in it'
    else:
        reason, missing = "SecretNotFound", f'no Secret "{ref.name}" with a key "{ref.key}" in namespace {namespace}'
    problems.append(Problem(_named(item), path, reason, f"{missing}; {left_out}", fatal=False))
    return False


def _credential(item: ModelPool, ref: SecretRef, header: str, prefix: str) -> Credential:
    return Credential(f"{item.metadata.namespace}/{ref.name}", ref.key, header, prefix)


def _without_conflicts(policies: Sequence[RoutePolicy], problems: list[Problem]) -> list[RoutePolicy]:
    """The policies whose public names are their own, in the order given.

    A name belongs to the oldest policy that claims it. Who claims another's name serves nothing and holds no
    name either, so that the answer depends on age alone and never on the order of arrival.
    """
    owners: dict[str, RoutePolicy] = {}
    for item in sorted(policies, key=lambda item: (item.metadata.creation_timestamp or _YOUNGEST, _key(item))):
        taken = [(index, model) for index, model in enumerate(item.spec.models) if model in owners]
        for index, model in taken:
            message = f'model "{model}" belongs to {_named(owners[model])}, which is older or first by name'
            _refuse(item, f"spec.models[{index}]", "ModelNameConflict", message, problems)
        if not taken:
            owners.update(dict.fromkeys(item.spec.models, item))
    kept = {_key(item) for item in owners.values()}
    return [item for item in policies if _key(item) in kept]


def _route(item: RoutePolicy, known: Known, problems: list[Problem]) -> Route | None:
    """The route of a policy with the targets that exist; None where none does."""
    spec = item.spec
    before = len(problems)
    served: set[str] = set()
    rules = []
    for at_rule, rule in enumerate(spec.rules):
        tiers = []
        for at_tier, tier in enumerate(rule.tiers):
            targets, of_tier = [], set[str]()
            for at_pool, ref in enumerate(tier.pools):
                path = f"spec.rules[{at_rule}].tiers[{at_tier}].pools[{at_pool}]"
                target, names = _target(item, ref, path, known, problems)
                of_tier |= names
                targets += [] if target is None else [target]
            if any(target.weight for target in targets):
                tiers.append(RouteTier(tier.name, tuple(targets), tier.select, tier.enter_on, tier.spill))
                served |= of_tier
        sound = rule.when is None or _compiles(item, rule.when, f"spec.rules[{at_rule}].when", problems)
        rules += [_rule(rule.name, tiers, rule.when)] if sound else []
    if not any(rule.tiers for rule in rules):
        return None
    if len(problems) == before:  # else what is missing might have served them, and is reported already
        for index, model in enumerate(spec.models):
            if model not in served:
                message = f'no pool of this policy has a model "{model}"; set model at one, or add one'
                _refuse(item, f"spec.models[{index}]", "ModelNotInPool", message, problems)
    models = tuple(model for model in spec.models if model in served)
    return Route("/".join(_key(item)), models, tuple(rules), spec.timeouts, spec.retry)


def _compiles(item: RoutePolicy, when: str, path: str, problems: list[Problem]) -> bool:
    """Whether the expression of a rule is one. A rule whose expression is none is left out, as if it never held."""
    own = item.metadata.namespace
    try:
        pools = condition(when).pools or ()
    except InvalidExpression as error:
        _refuse(item, path, "InvalidExpression", str(error), problems)
        return False
    known = {
        ref.name if ref.namespace in (None, own) else f"{ref.namespace}/{ref.name}"
        for rule in item.spec.rules
        for tier in rule.tiers
        for ref in tier.pools
    }
    for name in sorted(pools):
        if name not in known:
            message = f'pools["{name}"]: this policy leads to no such pool; it leads to {_listed(sorted(known))}'
            _refuse(item, path, "InvalidExpression", message, problems)
    return known.issuperset(pools)


def _target(
    item: RoutePolicy, ref: PoolRef, path: str, known: Known, problems: list[Problem]
) -> tuple[Target | None, set[str]]:
    """What a reference leads to, and the public names that it serves there."""
    own = item.metadata.namespace
    namespace = ref.namespace or own
    pool = known.pools.get((namespace, ref.name))
    if pool is not None and not known.allows((namespace, ref.name), own):
        message = (
            f'ModelPool "{namespace}/{ref.name}" does not allow routes of namespace {own}; '
            "its owner may set spec.allowedRoutes"
        )
        _refuse(item, path, "NotAllowedByPool", message, problems)
        return None, set()
    if pool is None:
        # What another namespace holds is told to nobody who may not use it.
        near = did_you_mean(ref.name, [key[1] for key in known.pools if key[0] == namespace and known.allows(key, own)])
        message = f'no ModelPool "{ref.name}" in namespace {namespace}' + (f"; {near}" if near else "")
        _refuse(item, f"{path}.name", "PoolNotFound", message, problems)
        return None, set()
    names = [model.name for model in pool.models]
    if ref.model is not None and ref.model not in names:
        message = f'ModelPool "{ref.name}" has no model "{ref.model}"; it has {_listed(names)}'
        _refuse(item, f"{path}.model", "ModelNotInPool", message, problems)
        return None, set()
    serves = _served(names, ref.model, item.spec.models)
    if not serves:
        asked = _listed(item.spec.models, " or ")
        message = f'ModelPool "{ref.name}" has no model {asked}; set model to one of {_listed(names)}'
        _refuse(item, path, "ModelNotInPool", message, problems)
        return None, set()
    return Target(pool.name, ref.model, ref.weight), serves


def _served(names: Sequence[str], model: str | None, publics: Iterable[str]) -> set[str]:
    """The public names that a pool with the models `names` serves, asked for `model` or for whichever fits."""
    if model is not None:
        return set(publics) if model in names else set()
    return {public for public in publics if _serves(names, public)}


def _serves(names: Sequence[str], public: str) -> bool:
    """Whether a pool with these models has one for a public name: its only one, or one that is so called."""
    if len(names) == 1:
        return True
    if public.endswith("*"):
        return any(name.startswith(public[:-1]) for name in names)
    return public in names


def _refuse(item: RoutePolicy, path: str, reason: str, message: str, problems: list[Problem]) -> None:
    problems.append(Problem(_named(item), path, reason, message, fatal=True))


def _listed(names: Iterable[str], joint: str = ", ") -> str:
    return joint.join(f'"{name}"' for name in names)
