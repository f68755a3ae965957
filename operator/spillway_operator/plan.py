"""The plan: from what is (a view) to all that should be. Pure; two plans of one view are equal.

For a gateway that is its snapshot, the ConfigMap that a new balancer boots from, and the Secret with credentials;
for our own objects their statuses.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from spillway_api import stream
from spillway_api.budgets import of_pool as of_pool_budget
from spillway_api.budgets import of_tier
from spillway_api.compile import Cluster, Compiled, HasSecret, Problem, compile_snapshot
from spillway_api.credentials import file_of
from spillway_api.faults import internal
from spillway_api.guards import passes
from spillway_api.labelled import Labelled, selector
from spillway_api.priced import unpriced
from spillway_api.prices import Prices
from spillway_api.snapshot import Pool, Route, Snapshot
from spillway_api.types import Budget, ModelPool, RoutePolicy

from .arbiter import Total
from .conditions import PoolSight, Reach, RouteSight, TierSight
from .facts import GATEWAY_LABEL, GatewayFacts, Watched
from .opinions import Opinions
from .owned import Object, owned, reference
from .polled import Selection
from .progress import Progress, Subscriber, refusal
from .sources import Found
from .statuses import PoolNumbers, Status, of_fault, of_pool, of_route
from .waking import Scale

BOOT_KEY = "snapshot.json.gz"
BOOT_BYTES = 900_000
"""A ConfigMap may hold 1 MiB, its base64 and metadata included in what etcd takes."""
CREDENTIAL_BYTES = 900_000
"""So may a Secret."""


class ConfigView(NamedTuple):
    """All that the snapshot of a gateway depends on."""

    gateway: str
    pools: Sequence[Watched[ModelPool]]
    policies: Sequence[Watched[RoutePolicy]]
    found: Callable[[ModelPool], Found]
    labels: Callable[[str], Mapping[str, str]]
    has_secret: HasSecret
    secret_exists: Callable[[str], bool]
    last_good: Snapshot | None
    selected: Callable[[str, str], Collection[Labelled] | None] = lambda _namespace, _labels: None
    """Secrets of a namespace by their labels; None where they may not be listed."""
    config: Callable[[str, str], str | None] = lambda _config_map, _key: None
    prices: Prices = Prices()
    """What providers charge for the models that pools do not price."""


def snapshot_of(view: ConfigView) -> Compiled:
    """What the gateway is to serve."""
    everything: list[Watched[Any]] = [*view.pools, *view.policies]
    cluster = Cluster(
        discovered=lambda pool: view.found(pool).discovered,
        exists=view.secret_exists,
        config=view.config,
        labels=view.labels,
        selected=lambda namespace, labels: view.selected(namespace, selector(labels)),
        last_good=view.last_good,
        unreadable=[watched.key for watched in everything if watched.item is None],
        prices=view.prices,
    )
    readable = [watched.item for watched in everything if watched.item is not None]
    return compile_snapshot(readable, view.gateway, view.has_secret, cluster)


def referenced(pools: Iterable[Watched[ModelPool]], last_good: Iterable[Snapshot | None] = ()) -> frozenset[str]:
    """The Secrets that pools refer to, as namespace/name. A pool that cannot be read goes on with those it had."""
    names = set()
    unreadable = set()
    for watched in pools:
        if watched.item is None:
            unreadable.add(_name(watched))
            continue
        spec = watched.item.spec
        refs = [spec.auth.secret_ref] if spec.auth is not None else []
        provider = spec.source.provider
        if provider is not None:
            refs += [each.secret_ref for each in provider.accounts if each.secret_ref is not None]
            if provider.proxy is not None and provider.proxy.secret_ref is not None:
                refs.append(provider.proxy.secret_ref)
        names |= {f"{watched.namespace}/{ref.name}" for ref in refs}
    if unreadable:
        kept = (pool for last in last_good if last is not None for pool in last.pools if pool.name in unreadable)
        names |= {each.secret for pool in kept for each in pool.credentials()}
    return frozenset(names)


def config_maps(pools: Iterable[Watched[ModelPool]]) -> frozenset[str]:
    """The ConfigMaps that pools refer to, as namespace/name."""
    specs = ((watched.namespace, watched.item.spec.tls) for watched in pools if watched.item is not None)
    refs = ((space, tls.ca_config_map_ref) for space, tls in specs if tls is not None)
    return frozenset(f"{space}/{ref.name}" for space, ref in refs if ref is not None)


def selections(
    policies: Iterable[Watched[RoutePolicy]], last_good: Iterable[Snapshot | None] = ()
) -> frozenset[Selection]:
    """By what consumers are found. A route that goes on as it was does so with those of the day."""
    found = {
        (watched.namespace, selector(watched.item.spec.consumers.secret_selector.match_labels))
        for watched in policies
        if watched.item is not None and watched.item.spec.consumers is not None
    }
    routes = (route for last in last_good if last is not None for route in last.routes)
    return frozenset(
        found.union(
            (route.name.partition("/")[0], selector(route.consumers.match_labels))
            for route in routes
            if route.consumers is not None
        )
    )


def boot_config_map(facts: GatewayFacts, namespace: str, saved: stream.Saved) -> Object | None:
    """What a new balancer of the gateway boots from while no operator answers; None when it is too large for one."""
    packed = stream.pack(saved)
    if len(packed) * 4 / 3 > BOOT_BYTES:
        return None
    return _child(facts, namespace, "ConfigMap", "boot") | {"binaryData": {BOOT_KEY: _base64(packed)}}


def saved_in(config_map: Mapping[str, Any] | None) -> stream.Saved | None:
    """The state that such a ConfigMap holds; None where it holds none that can be read."""
    try:
        return stream.unpack(base64.b64decode(((config_map or {}).get("binaryData") or {})[BOOT_KEY]))
    except (KeyError, ValueError):
        return None


def credentials_secret(
    facts: GatewayFacts, namespace: str, snapshot: Snapshot, value: Callable[[str, str], bytes | None]
) -> Object:
    """The values that the gateway's endpoints need and its consumers show, and no others, in one Secret that only it
    mounts. Endpoints come first: consumers for whose keys there is no room are unknown to the gateway."""
    data: dict[str, str] = {}
    room = CREDENTIAL_BYTES
    endpoints = (each for pool in snapshot.pools for each in pool.credentials())
    members = (each for route in snapshot.routes if route.consumers is not None for each in route.consumers.members)
    for secret, key in [
        *((each.secret, each.key) for each in endpoints),
        *((each.secret, each.key) for each in members),
    ]:
        found = value(secret, key)
        file = file_of(secret, key)
        if found is None or file in data:
            continue
        room -= len(file) + len(found) * 4 // 3 + 8
        if room >= 0:
            data[file] = _base64(found)
    return _child(facts, namespace, "Secret", "credentials") | {"type": "Opaque", "data": dict(sorted(data.items()))}


class Gateway(NamedTuple):
    """A gateway as statuses depend on it."""

    facts: GatewayFacts | None
    progress: Progress
    subscribers: Sequence[Subscriber]


class StatusView(NamedTuple):
    """All that statuses depend on."""

    pools: Sequence[Watched[ModelPool]]
    policies: Sequence[Watched[RoutePolicy]]
    found: Callable[[ModelPool], Found]
    gateways: Mapping[str, Gateway]
    settling: bool = False
    """Balancers may not have come to this operator yet: who is missing is not counted as behind, and as long as not
    all have reported, what rests on reports stays as the operator before this one left it."""
    scale: Callable[[ModelPool], Scale | None] = lambda _: None
    """Of the workload behind a pool."""
    totals: Mapping[str, Total] = {}
    """How budgets that balancers share stand, by name; empty where each counts for itself."""


class Written(NamedTuple):
    """The status that an object should have."""

    watched: Watched[Any]
    status: Status


def statuses_of(view: StatusView, now: float) -> list[Written]:
    """The status of every object, `now` in seconds of Unix time. A fault over one of them stops no other."""
    problems: dict[str, dict[Problem, None]] = {}
    routes: dict[str, set[str]] = {}
    opinions = {}
    for name, gateway in view.gateways.items():
        compiled = gateway.progress.compiled
        opinions[name] = Opinions(each.report for each in gateway.subscribers if each.report is not None)
        if compiled is None:
            continue
        for problem in compiled.problems:
            problems.setdefault(problem.object, {})[problem] = None
        for route in compiled.snapshot.routes:
            for target in route.targets():
                routes.setdefault(target.pool, set()).add(route.name)
    unheard = view.settling and any(
        gateway.facts is not None
        and sum(each.report is not None for each in gateway.subscribers) < gateway.facts.replicas
        for gateway in view.gateways.values()
    )
    written = []
    ready: dict[str, int] = {}
    for watched in view.pools:
        own = list(problems.get(watched.key, ()))
        try:
            sight, numbers = _pool_sight(view, watched, own, opinions, len(routes.get(_name(watched), ())))
            status = of_pool(sight, numbers, watched.generation, watched.status, now, unheard)
        except Exception as error:
            ready[_name(watched)] = _served(view, watched.key)
            status = of_fault(internal(watched.key, error).message, watched.generation, watched.status, now)
        else:
            ready[_name(watched)] = sight.ready
        written.append(Written(watched, status))
    for policy in view.policies:
        own = list(problems.get(policy.key, ()))
        try:
            seen = _route_sight(view, policy, own, opinions, ready)
            status = of_route(seen, policy.generation, policy.status, now, unheard)
        except Exception as error:
            status = of_fault(internal(policy.key, error).message, policy.generation, policy.status, now)
        written.append(Written(policy, status))
    return written


def _served(view: StatusView, key: str) -> int:
    """How many endpoints a pool has where it is served."""
    pools = (gateway.progress.pool(key) for gateway in view.gateways.values())
    return max((len(pool.endpoints) for pool in pools if pool is not None), default=0)


def _pool_sight(
    view: StatusView,
    watched: Watched[ModelPool],
    problems: Sequence[Problem],
    opinions: Mapping[str, Opinions],
    routes: int,
) -> tuple[PoolSight, PoolNumbers]:
    part, name = watched.key, _name(watched)
    served = {
        each: pool for each, gateway in view.gateways.items() if (pool := gateway.progress.pool(part)) is not None
    }
    using = list(served)
    endpoints = next((tuple(endpoint.name for endpoint in pool.endpoints) for pool in served.values()), ())
    found = view.found(watched.item) if watched.item is not None else None
    if not using and watched.item is not None:
        endpoints = _unused(watched.item, problems, found)
    there = set(endpoints)
    views = [opinions[gateway].pool(name) for gateway in using]
    unhealthy, ejected, refused = (
        set[str]().union(*(getattr(each, what) for each in views)) & there
        for what in ("unhealthy", "ejected", "refused")
    )
    told = next((each for each in views if each.metrics is not None), None)
    scale = view.scale(watched.item) if watched.item is not None else None
    if scale is not None and scale.replicas is None:
        problems = [*problems, Problem(part, "spec.scaling.targetRef", "ScaleTargetNotFound", scale.why, fatal=False)]
    sight = PoolSight(
        unreadable=watched.unreadable,
        problems=problems,
        reach=[_reach(view, gateway, part, watched) for gateway in using],
        total=len(endpoints),
        not_ready=found.not_ready if found else 0,
        draining=found.draining if found else 0,
        nobody=found.why if found else "",
        unhealthy=len(unhealthy),
        ejected=len(ejected - unhealthy),
        refused=len(refused - unhealthy - ejected),
        refused_message=next((each.refused_message for each in views if each.refused_message), ""),
        metrics=told.metrics if told else None,
        metrics_message=told.metrics_message if told else "",
        asleep=scale is not None and scale.replicas == 0,
        unpaid=_unpaid(watched, problems, list(served.values())),
    )
    spec = watched.item.spec if watched.item is not None else None
    engine = next((each.engine for each in views if each.engine), None)
    if engine is None and spec is not None:
        engine = spec.source.provider.type if spec.source.provider is not None else spec.engine
    spents = [each.spent for each in views if each.spent]
    total = view.totals.get(of_pool_budget(name, spec.budget)) if spec is not None and spec.budget is not None else None
    if total is not None:
        spents = [f"{total.spent:f}"]
    return sight, PoolNumbers(
        source_type=_source_type(watched.item),
        engine=engine,
        models=tuple(model.name for model in spec.models) if spec is not None else (),
        routes=routes,
        spent=f"{sum(map(Decimal, spents), Decimal(0)):f}" if spents else "",
        budget=_budget(spec.budget if spec is not None else None),
    )


def _unpaid(watched: Watched[ModelPool], problems: Sequence[Problem], served: Sequence[Pool]) -> str:
    """Why none of a pool's models can be paid for from its budget; of several, as the gateways that have it know."""
    why = next((problem.message for problem in problems if problem.path == "spec.budget"), "")
    if not why or watched.item is None:
        return ""
    models = [(pool, model.name) for pool in served for model in pool.models]
    payable = any(pool.budget and unpriced(pool, name, (), pool.budget) is None for pool, name in models)
    return "" if payable or (not models and len(watched.item.spec.models) > 1) else why


def _unused(pool: ModelPool, problems: Sequence[Problem], found: Found | None) -> tuple[str, ...]:
    """The endpoints that a pool would have if a route led to it: none that lacks its Secret or has a useless URL, and
    none at all where nobody could be believed, or its proxy's log-in is missing."""
    source = pool.spec.source
    amiss = {problem.path for problem in problems}
    if "spec.tls.caConfigMapRef" in amiss:
        return ()
    if source.provider is not None:
        path = "spec.source.provider"
        if f"{path}.baseURL" in amiss or f"{path}.proxy.secretRef" in amiss:
            return ()
        accounts = enumerate(source.provider.accounts)
        return tuple(
            each.name
            for index, each in accounts
            if amiss.isdisjoint({f"{path}.accounts[{index}].secretRef", f"{path}.accounts[{index}].region"})
        )
    if "spec.auth.secretRef" in amiss:
        return ()
    if source.static is not None:
        path = "spec.source.static.endpoints"
        endpoints = enumerate(source.static.endpoints)
        return tuple(each.name for index, each in endpoints if f"{path}[{index}].url" not in amiss)
    return tuple(each.name for each in found.discovered.endpoints) if found is not None else ()


def _route_sight(
    view: StatusView,
    watched: Watched[RoutePolicy],
    problems: Sequence[Problem],
    opinions: Mapping[str, Opinions],
    ready: Mapping[str, int],
) -> RouteSight:
    part, name = watched.key, _name(watched)
    named = watched.item.spec.gateways if watched.item is not None else tuple(view.gateways)
    tiers: list[TierSight] = []
    kept = served = shadow = False
    for gateway in named:
        known = view.gateways.get(gateway)
        if known is None or known.progress.compiled is None:
            continue
        compiled = known.progress.compiled
        route = known.progress.route(part)
        kept = kept or name in compiled.kept
        if route is None:
            continue
        served = True
        shadow = route.mode == "Shadow"
        if tiers:
            continue  # of several gateways the first one's tiers are shown
        barred = _barred(route, compiled.snapshot)
        for rule in route.rules:
            for tier in rule.tiers:
                open_to = [target.pool for target in tier.targets if target.pool not in barred]
                seen = opinions[gateway].tier(name, rule.name, tier.name, sum(ready.get(pool, 0) for pool in open_to))
                seen = seen if open_to else TierSight(rule.name, tier.name, "Unavailable", 0, 100)
                budget = None if tier.limits is None else tier.limits.budget
                total = None if budget is None else view.totals.get(of_tier(name, rule.name, tier.name, budget))
                if total is not None:
                    seen = seen._replace(spent=f"{total.spent:f}")
                tiers.append(seen._replace(budget=_budget(budget)))
    return RouteSight(
        unreadable=watched.unreadable,
        problems=problems,
        reach=[_reach(view, gateway, part, watched) for gateway in named],
        served=served,
        kept=kept,
        tiers=tiers,
        shadow=shadow,
    )


def _budget(budget: Budget | None) -> str:
    """What may be spent, for people; empty without a budget."""
    return "" if budget is None else f"{budget.amount} {budget.currency} a {budget.period.lower()}"


def _barred(route: Route, snapshot: Snapshot) -> frozenset[str]:
    """The pools that guards without a condition keep every request of the policy from."""
    always = [guard.require for guard in route.guards if guard.when is None]
    return frozenset(
        pool.name
        for pool in (snapshot.pools if always else ())
        if not all(passes(pool.data_handling, require) for require in always)
    )


def _reach(view: StatusView, name: str, part: str, watched: Watched[Any]) -> Reach:
    gateway = view.gateways.get(name)
    if gateway is None or gateway.facts is None:
        return Reach(name, False, 0, 0)
    programmed = gateway.progress.programmed(part, gateway.subscribers)
    if view.settling and programmed < gateway.facts.replicas:
        programmed = max(programmed, _programmed_before(name, watched))
    said = refusal(gateway.subscribers, gateway.progress.digest)
    return Reach(name, True, gateway.facts.replicas, programmed, said)


def _programmed_before(gateway: str, watched: Watched[Any]) -> int:
    """What the status says of the same generation, from the operator before this one."""
    if watched.status.get("observedGeneration") != watched.generation:
        return 0
    there = (each for each in watched.status.get("gateways") or () if each["name"] == gateway)
    return next((int(each.get("programmedReplicas", 0)) for each in there), 0)


def _source_type(pool: ModelPool | None) -> str:
    if pool is None:
        return ""
    source = pool.spec.source
    names = {
        "Pods": source.pods,
        "Service": source.service,
        "InferencePool": source.inference_pool,
        "Static": source.static,
        "Provider": source.provider,
    }
    return next(name for name, value in names.items() if value is not None)


def _name(watched: Watched[Any]) -> str:
    return f"{watched.namespace}/{watched.name}"


def _child(facts: GatewayFacts, namespace: str, kind: str, suffix: str) -> Object:
    owner = reference(facts.deployment, facts.uid)
    return owned(kind, namespace, f"{facts.deployment}-{suffix}", [owner], {GATEWAY_LABEL: facts.name})


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
