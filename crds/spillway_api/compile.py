"""Objects to Snapshot: what one gateway serves, and all that does not fit together. Pure.

The operator and the file mode both call it. Equal objects give equal bytes, in whatever order they come, so a
digest tells whether anything has changed. Problems are found, not raised: what can be served is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from spillway_api.problem import did_you_mean
from spillway_api.snapshot import (
    Credential,
    Endpoint,
    Pool,
    Route,
    RouteRule,
    RouteTier,
    Snapshot,
    Target,
)
from spillway_api.types import Model, ModelPool, RoutePolicy, SecretRef

HasSecret = Callable[[str, str], bool]
"""Whether the Secret "namespace/name" exists and has this key."""

_OPENAI = "https://api.openai.com/v1"
_AFTER_ALL = "~"
"""Sorts behind every RFC 3339 time: an object without creationTimestamp is younger than one that has it."""


class Problem(NamedTuple):
    """Something in an object that does not fit the others; `reason` is a condition reason of the API.

    `fatal` means that the object cannot do what it says: whoever reads whole files refuses them. The snapshot
    beside it still holds all that can be served: a target that leads nowhere is left out, and with it a tier
    or route of which nothing is left; a route whose name is another's is left out.
    """

    object: str
    """Kind/namespace/name."""
    path: str
    reason: str
    message: str
    fatal: bool


class Compiled(NamedTuple):
    """A snapshot and the problems met on the way, in the order of the objects' names."""

    snapshot: Snapshot
    problems: tuple[Problem, ...]


def compile_snapshot(objects: Iterable[ModelPool | RoutePolicy], gateway: str, secrets: HasSecret) -> Compiled:
    """What the gateway of this name serves. The snapshot has its routes and the pools that they lead to.

    Problems are reported of every pool and of the routes of this gateway. Validated objects are expected;
    the order of `objects` never matters.
    """
    ordered = sorted(objects, key=lambda item: (*_key(item), msgspec.json.encode(item)))
    problems: list[Problem] = []
    pools = {_key(item): _pool(item, secrets, problems) for item in ordered if isinstance(item, ModelPool)}
    policies = {_key(item): item for item in ordered if isinstance(item, RoutePolicy) and gateway in item.spec.gateways}
    served = _without_conflicts(policies.values(), problems)
    routes = [route for item in served if (route := _route(item, pools, problems)) is not None]
    used = {target.pool for route in routes for rule in route.rules for tier in rule.tiers for target in tier.targets}
    snapshot = Snapshot(
        gateway=gateway,
        pools=tuple(pool for pool in pools.values() if pool.name in used),
        routes=tuple(routes),
    )
    return Compiled(snapshot, tuple(sorted(problems)))


def _key(item: ModelPool | RoutePolicy) -> tuple[str, str]:
    return item.metadata.namespace, item.metadata.name


def _named(item: ModelPool | RoutePolicy) -> str:
    return f"{type(item).__name__}/{item.metadata.namespace}/{item.metadata.name}"


def _pool(item: ModelPool, secrets: HasSecret, problems: list[Problem]) -> Pool:
    spec = item.spec
    namespace = item.metadata.namespace
    provider = spec.source.provider
    endpoints: list[Endpoint] = []

    def found(ref: SecretRef, path: str, left_out: str) -> bool:
        if secrets(f"{namespace}/{ref.name}", ref.key):
            return True
        message = f'no Secret "{ref.name}" with a key "{ref.key}" in namespace {namespace}; {left_out}'
        problems.append(Problem(_named(item), path, "SecretNotFound", message, fatal=False))
        return False

    if provider is not None:
        url = (provider.base_url or _OPENAI).rstrip("/")
        for index, account in enumerate(provider.accounts):
            ref = account.secret_ref
            path = f"spec.source.provider.accounts[{index}].secretRef"
            if ref is None or found(ref, path, f'account "{account.name}" is left out'):
                credential = None if ref is None else _credential(namespace, ref, "Authorization", "Bearer ")
                endpoints.append(Endpoint(account.name, url, account.weight, credential))
    elif spec.source.static is not None:
        auth = spec.auth
        credential = None if auth is None else _credential(namespace, auth.secret_ref, auth.header, auth.prefix)
        if auth is None or found(auth.secret_ref, "spec.auth.secretRef", "all endpoints of the pool are left out"):
            endpoints += [
                Endpoint(endpoint.name, endpoint.url.rstrip("/"), endpoint.weight, credential)
                for endpoint in spec.source.static.endpoints
            ]
    return Pool(
        name=f"{namespace}/{item.metadata.name}",
        models=tuple(Model(model.name, model.upstream_name or model.name) for model in spec.models),
        engine=spec.engine,
        provider=None if provider is None else provider.type,
        endpoints=tuple(endpoints),
        dispatch=spec.dispatch,
        capacity=spec.capacity,
        metrics=spec.metrics,
        health=spec.health,
    )


def _credential(namespace: str, ref: SecretRef, header: str, prefix: str) -> Credential:
    return Credential(f"{namespace}/{ref.name}", ref.key, header, prefix)


def _without_conflicts(policies: Iterable[RoutePolicy], problems: list[Problem]) -> list[RoutePolicy]:
    """The policies whose public names are theirs, in the order of their names.

    A name belongs to the oldest policy that claims it; who claims another's name serves nothing and holds
    no name either, so the answer does not depend on the order of arrival.
    """
    owners: dict[str, str] = {}
    kept = []
    for item in sorted(policies, key=lambda item: (item.metadata.creation_timestamp or _AFTER_ALL, _key(item))):
        taken = [(index, model) for index, model in enumerate(item.spec.models) if model in owners]
        for index, model in taken:
            message = f'model "{model}" belongs to {owners[model]}, which is older; this policy serves nothing'
            problems.append(Problem(_named(item), f"spec.models[{index}]", "ModelNameConflict", message, fatal=True))
        if not taken:
            owners.update(dict.fromkeys(item.spec.models, _named(item)))
            kept.append(item)
    return sorted(kept, key=_key)


def _route(item: RoutePolicy, pools: dict[tuple[str, str], Pool], problems: list[Problem]) -> Route | None:
    """The route of a policy, with the targets that exist; None where none does."""
    spec = item.spec
    namespace = item.metadata.namespace
    rules = []
    unserved = dict(enumerate(spec.models))
    any_missing = False

    def report(path: str, reason: str, message: str) -> None:
        problems.append(Problem(_named(item), path, reason, message, fatal=True))

    for at_rule, rule in enumerate(spec.rules):
        tiers = []
        for at_tier, tier in enumerate(rule.tiers):
            targets = []
            for at_pool, ref in enumerate(tier.pools):
                path = f"spec.rules[{at_rule}].tiers[{at_tier}].pools[{at_pool}]"
                pool = pools.get((namespace, ref.name))
                if pool is None:
                    near = did_you_mean(ref.name, [name for space, name in pools if space == namespace])
                    message = f'no ModelPool "{ref.name}" in namespace {namespace}'
                    report(f"{path}.name", "PoolNotFound", f"{message}; {near}" if near else message)
                    any_missing = True
                    continue
                names = [model.name for model in pool.models]
                if ref.model is not None and ref.model not in names:
                    message = f'ModelPool "{ref.name}" has no model "{ref.model}"; it has {_listed(names)}'
                    report(f"{path}.model", "ModelNotInPool", message)
                    continue
                serves = {index: model for index, model in enumerate(spec.models) if ref.model or _serves(names, model)}
                if not serves:
                    message = (
                        f'ModelPool "{ref.name}" has several models and none is called '
                        f"{_listed(spec.models, ' or ')}; set model to one of {_listed(names)}"
                    )
                    report(path, "ModelNotInPool", message)
                    continue
                for index in serves:
                    unserved.pop(index, None)
                targets.append(Target(pool.name, ref.model, ref.weight))
            if any(target.weight for target in targets):
                tiers.append(RouteTier(tier.name, tuple(targets), tier.select, tier.enter_on, tier.spill))
        if tiers:
            # With the tiers behind it gone, a tier has nowhere to spill to.
            tiers[-1] = msgspec.structs.replace(tiers[-1], spill=None)
            rules.append(RouteRule(rule.name, tuple(tiers)))
    if not rules:
        return None
    if not any_missing:
        for index, model in unserved.items():
            report(f"spec.models[{index}]", "ModelNotInPool", f'no pool of this policy serves "{model}"')
    names_left = tuple(model for index, model in enumerate(spec.models) if index not in unserved)
    return Route(f"{namespace}/{item.metadata.name}", names_left, tuple(rules), spec.timeouts, spec.retry)


def _serves(names: Sequence[str], public: str) -> bool:
    """Whether a pool with these models has one for a public name: its only one, or one that is so called."""
    if len(names) == 1:
        return True
    if public.endswith("*"):
        return any(name.startswith(public[:-1]) for name in names)
    return public in names


def _listed(names: Sequence[str], joint: str = ", ") -> str:
    return joint.join(f'"{name}"' for name in names)
