"""The consumers of a RoutePolicy to those of its Route: who may call, by Secrets that are told from their labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from spillway_api.known import Cluster, HasSecret, Pools, Problem, key_of, listed, named, refuse
from spillway_api.labelled import Labelled
from spillway_api.overrides import limits_of
from spillway_api.snapshot import Consumer, Consumers, Route, Target
from spillway_api.types import ConsumerLimits, RoutePolicy

KEY: Final = "api-key"
"""The key of a consumer's Secret that holds what the consumer shows."""
MOST: Final = 1000
"""Consumers of one policy: all keys of a gateway travel in one Secret, which holds a mebibyte."""

_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL = re.compile(rf"([a-z0-9]([-.a-z0-9]{{0,251}}[a-z0-9])?/)?{_NAME}")
_VALUE = re.compile(rf"({_NAME})?")


class Found(NamedTuple):
    """The consumers that a selector gives, and what is amiss: path, reason and message of each."""

    members: tuple[Consumer, ...]
    problems: tuple[tuple[str, str, str], ...]


def compile_consumers(
    item: RoutePolicy, secrets: HasSecret, cluster: Cluster, problems: list[Problem]
) -> Consumers | None:
    """Who may call by a policy; None where it is open."""
    given = item.spec.consumers
    if given is None:
        return None
    labels = given.secret_selector.match_labels
    path = "spec.consumers.secretSelector.matchLabels"
    for name, value in labels.items():
        if not _LABEL.fullmatch(name) or not _VALUE.fullmatch(value):
            refuse(item, path, "Invalid", f'"{name}: {value}" is no label that a Secret can have', problems)
            return Consumers(labels, (), given.defaults)
    found = _members(key_of(item)[0], labels, given.defaults, secrets, cluster)
    problems += [Problem(named(item), *problem, fatal=False) for problem in found.problems]
    return Consumers(labels, found.members, given.defaults)


def uncounted(item: RoutePolicy, targets: Iterable[Target], pools: Pools, problems: list[Problem]) -> None:
    """Say where the budget of a policy's consumers does not count: models of providers without a price; and where it
    lets nobody: those with one in another currency."""
    consumers = item.spec.consumers
    budget = consumers.defaults.budget if consumers is not None and consumers.defaults is not None else None
    if budget is None:
        return
    path = "spec.consumers.defaults.budget"
    found: dict[str, None] = {}
    for target in targets:
        pool = pools[tuple_of(target.pool)]
        for model in pool.models:
            named_so = f'model "{model.name}" of ModelPool "{target.pool}"'
            if target.model not in (None, model.name):
                continue
            if model.price is None and pool.provider is not None:
                found[f"{named_so} has no price, so what it costs is not counted"] = None
            elif model.price is not None and model.price.currency != budget.currency:
                message = (
                    f"{named_so} is paid in {model.price.currency} and not in {budget.currency}, so no consumer gets it"
                )
                found[message] = None
    problems += [Problem(named(item), path, "Invalid", message, fatal=False) for message in found]


def tuple_of(name: str) -> tuple[str, str]:
    """Namespace and name of "namespace/name"."""
    namespace, _, own = name.partition("/")
    return namespace, own


def refreshed(route: Route, secrets: HasSecret, cluster: Cluster) -> Route:
    """A route of before with the consumers of today: whose key is gone is refused, however bad the policy became."""
    if route.consumers is None:
        return route
    before = route.consumers
    found = _members(route.name.partition("/")[0], before.match_labels, before.defaults, secrets, cluster)
    return replace(route, consumers=replace(before, members=found.members))


def _members(
    namespace: str,
    labels: Mapping[str, str],
    defaults: ConsumerLimits | None,
    secrets: HasSecret,
    cluster: Cluster,
) -> Found:
    path = "spec.consumers.secretSelector"
    shown = listed((f"{name}={value}" for name, value in sorted(labels.items())), " and ")
    there = cluster.selected(namespace, labels)
    if there is None:
        message = (
            f"the operator may not list the Secrets of namespace {namespace}, so nobody may call; "
            "the chart's value consumers.enabled gives it the right"
        )
        return Found((), ((path, "SecretsNotListed", message),))
    if not there:
        message = f"no Secret of namespace {namespace} has the labels {shown}, so nobody may call"
        return Found((), ((path, "SecretNotFound", message),))
    return _of(namespace, sorted(there), defaults, secrets, path)


def _of(
    namespace: str, there: Sequence[Labelled], defaults: ConsumerLimits | None, secrets: HasSecret, path: str
) -> Found:
    problems = []
    members = []
    for each in there[:MOST]:
        secret = f"{namespace}/{each.name}"
        if not secrets(secret, KEY):
            message = f'Secret "{secret}" has no key "{KEY}"; this consumer is left out'
            problems.append((path, "SecretKeyNotFound", message))
            continue
        limited = limits_of(defaults, each.annotations)
        problems += [(path, "Invalid", f'Secret "{secret}": {wrong}') for wrong in limited.wrong]
        members.append(Consumer(each.name, secret, KEY, dict(each.labels), limited.limits))
    if len(there) > MOST:
        message = f"{len(there)} Secrets are selected; the first {MOST} by name are consumers, the others are left out"
        problems.append((path, "Invalid", message))
    return Found(tuple(members), tuple(problems))
