"""A RoutePolicy to the Route of a snapshot: whose public names are whose, and where its tiers lead."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from spillway_api.consumers import compile_consumers, uncounted
from spillway_api.expressions import InvalidExpression, condition
from spillway_api.guards import passes
from spillway_api.idle import idle
from spillway_api.known import HasSecret, Known, Problem, key_of, listed, named, refuse, served_by
from spillway_api.priced import unpriced
from spillway_api.problem import did_you_mean
from spillway_api.rated import unmet
from spillway_api.snapshot import Mirror, Route, RouteRule, RouteTier, Target
from spillway_api.types import Clamp, Explain, PoolRef, Priority, Queue, RoutePolicy

_YOUNGEST = "~"
"""Sorts behind every RFC 3339 time: an object without creationTimestamp counts as the youngest."""


def without_conflicts(policies: Sequence[RoutePolicy], problems: list[Problem]) -> list[RoutePolicy]:
    """The policies whose public names are their own, in the order given.

    A name belongs to the oldest policy that claims it. Who claims another's name serves nothing and holds no
    name either, so that the answer depends on age alone and never on the order of arrival. A policy in Shadow claims
    none: it looks on as the requests of others are decided.
    """
    owners: dict[str, RoutePolicy] = {}
    enforced = [item for item in policies if item.spec.mode == "Enforce"]
    for item in sorted(enforced, key=lambda item: (item.metadata.creation_timestamp or _YOUNGEST, key_of(item))):
        taken = [(index, model) for index, model in enumerate(item.spec.models) if model in owners]
        for index, model in taken:
            message = f'model "{model}" belongs to {named(owners[model])}, which is older or first by name'
            refuse(item, f"spec.models[{index}]", "ModelNameConflict", message, problems)
        if not taken:
            owners.update(dict.fromkeys(item.spec.models, item))
    kept = {key_of(item) for item in owners.values()}
    return [item for item in policies if item.spec.mode == "Shadow" or key_of(item) in kept]


def compile_route(item: RoutePolicy, known: Known, secrets: HasSecret, problems: list[Problem]) -> Route | None:
    """The route of a policy with the targets that exist; None where none does."""
    spec = item.spec
    before = len(problems)
    served: set[str] = set()
    rules = []
    for at_rule, rule in enumerate(spec.rules):
        tiers = []
        for at_tier, tier in enumerate(rule.tiers):
            targets, of_tier = [], set[str]()
            at = f"spec.rules[{at_rule}].tiers[{at_tier}]"
            for at_pool, ref in enumerate(tier.pools):
                target, names = _target(item, ref, f"{at}.pools[{at_pool}]", known, problems)
                if target is not None and tier.limits is not None and tier.limits.budget is not None:
                    pool = known.pools[_pool_of(item, ref)]
                    missing = unpriced(pool, ref.model, item.spec.models, tier.limits.budget)
                    if missing is not None:
                        refuse(item, f"{at}.limits.budget", "Invalid", missing, problems)
                        continue
                of_tier |= names
                targets += [] if target is None else [target]
            if any(target.weight for target in targets):
                pools = [(known.pools[_split(target.pool)], target.model) for target in targets]
                for field, message in unmet(tier, pools, spec.models):
                    refuse(item, f"{at}.{field}", "Invalid", message, problems)
                made = RouteTier(
                    tier.name,
                    tuple(targets),
                    tier.select,
                    tier.enter_on,
                    spill=tier.spill,
                    hedge=tier.hedge,
                    min_quality_percent=tier.min_quality_percent,
                    max_cost=tier.max_cost,
                    limits=tier.limits,
                )
                tiers.append(made)
                served |= of_tier
        sound = rule.when is None or _compiles(item, rule.when, f"spec.rules[{at_rule}].when", problems)
        rules += [route_rule(rule.name, tiers, rule.when, rule.set_)] if sound else []
    if not any(rule.tiers for rule in rules):
        return None
    if len(problems) == before:  # else what is missing might have served them, and is reported already
        for index, model in enumerate(spec.models):
            if model not in served:
                message = f'no pool of this policy has a model "{model}"; set model at one, or add one'
                refuse(item, f"spec.models[{index}]", "ModelNotInPool", message, problems)
    models = tuple(model for model in spec.models if model in served)
    mirror = _mirror(item, known, problems)
    _check_guards(item, rules, known, problems)
    if spec.overrides is not None and spec.overrides.when is not None:
        _compiles(item, spec.overrides.when, "spec.overrides.when", problems)
    led = [target for rule in rules for tier in rule.tiers for target in tier.targets]
    uncounted(item, led, known.pools, problems)
    idle(item, led, known.pools, problems)
    return Route(
        "/".join(key_of(item)),
        models,
        tuple(rules),
        spec.timeouts,
        spec.retry,
        consumers=compile_consumers(item, secrets, known.cluster, problems),
        mirror=mirror,
        mode=spec.mode,
        streams=spec.streams,
        guards=spec.guards or (),
        overrides=spec.overrides,
        explain=None if spec.explain == Explain() else spec.explain,
        queue=None if spec.queue == Queue() else spec.queue,
        priority=None if spec.priority == Priority() else spec.priority,
    )


def _mirror(item: RoutePolicy, known: Known, problems: list[Problem]) -> Mirror | None:
    """Where copies go; None where none are wanted, or where there is no such pool."""
    spec = item.spec.mirror
    if spec is None:
        return None
    ref = PoolRef(spec.pool.name, spec.pool.namespace, spec.pool.model)
    target, _ = _target(item, ref, "spec.mirror.pool", known, problems)
    return None if target is None else Mirror(target, spec.percent)


def _check_guards(item: RoutePolicy, rules: Sequence[RouteRule], known: Known, problems: list[Problem]) -> None:
    """Report guards that do not compile, which hold always then, and those that no pool passes."""
    declared = {pool.name: pool.data_handling for pool in known.pools.values()}
    targets = {target.pool for rule in rules for tier in rule.tiers for target in tier.targets if target.weight}
    for index, guard in enumerate(item.spec.guards or ()):
        if guard.when is not None:
            _compiles(item, guard.when, f"spec.guards[{index}].when", problems)
        if not any(passes(declared[pool], guard.require) for pool in targets):
            message = (
                f'no pool of this policy passes "{guard.name}": requests that it holds for get 503; '
                "spec.dataHandling of a ModelPool declares what it may be sent"
            )
            problems.append(Problem(named(item), f"spec.guards[{index}]", "GuardRefuses", message, fatal=False))


def _compiles(item: RoutePolicy, when: str, path: str, problems: list[Problem]) -> bool:
    """Whether an expression is one. A rule without is left out, as if it never held, and `overrides`
    allow nothing; a guard without holds always."""
    own = item.metadata.namespace
    try:
        pools = condition(when).pools or ()
    except InvalidExpression as error:
        refuse(item, path, "InvalidExpression", str(error), problems)
        return False
    known = {
        ref.name if ref.namespace in (None, own) else f"{ref.namespace}/{ref.name}"
        for rule in item.spec.rules
        for tier in rule.tiers
        for ref in tier.pools
    }
    for name in sorted(pools):
        if name not in known:
            message = f'pools["{name}"]: this policy leads to no such pool; it leads to {listed(sorted(known))}'
            refuse(item, path, "InvalidExpression", message, problems)
    return known.issuperset(pools)


def _target(
    item: RoutePolicy, ref: PoolRef, path: str, known: Known, problems: list[Problem]
) -> tuple[Target | None, set[str]]:
    """What a reference leads to, and the public names that it serves there."""
    own = item.metadata.namespace
    namespace, _ = at = _pool_of(item, ref)
    pool = known.pools.get(at)
    if pool is not None and not known.allows((namespace, ref.name), own):
        message = (
            f'ModelPool "{namespace}/{ref.name}" does not allow routes of namespace {own}; '
            "its owner may set spec.allowedRoutes"
        )
        refuse(item, path, "NotAllowedByPool", message, problems)
        return None, set()
    if pool is None:
        # What another namespace holds is told to nobody who may not use it.
        near = did_you_mean(ref.name, [key[1] for key in known.pools if key[0] == namespace and known.allows(key, own)])
        message = f'no ModelPool "{ref.name}" in namespace {namespace}' + (f"; {near}" if near else "")
        refuse(item, f"{path}.name", "PoolNotFound", message, problems)
        return None, set()
    names = [model.name for model in pool.models]
    if ref.model is not None and ref.model not in names:
        message = f'ModelPool "{ref.name}" has no model "{ref.model}"; it has {listed(names)}'
        refuse(item, f"{path}.model", "ModelNotInPool", message, problems)
        return None, set()
    serves = served_by(names, ref.model, item.spec.models)
    if not serves:
        asked = listed(item.spec.models, " or ")
        message = f'ModelPool "{ref.name}" has no model {asked}; set model to one of {listed(names)}'
        refuse(item, path, "ModelNotInPool", message, problems)
        return None, set()
    return Target(pool.name, ref.model, ref.weight), serves


def _pool_of(item: RoutePolicy, ref: PoolRef) -> tuple[str, str]:
    return ref.namespace or item.metadata.namespace, ref.name


def _split(name: str) -> tuple[str, str]:
    namespace, _, own = name.partition("/")
    return namespace, own


def route_rule(name: str, tiers: Sequence[RouteTier], when: str | None, clamp: Clamp | None) -> RouteRule:
    """With the tiers behind it gone, a tier has nowhere to spill to.

    A rule of which no tier is left stays: what it is for must not go where the next rule leads.
    """
    last = [msgspec.structs.replace(tier, spill=None) for tier in tiers[-1:]]
    return RouteRule(name, (*tiers[:-1], *last), when, clamp)
