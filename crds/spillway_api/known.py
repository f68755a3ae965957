"""What is known while objects are compiled, and how what does not fit together is told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from spillway_api.labelled import Labelled
from spillway_api.prices import Prices
from spillway_api.snapshot import Endpoint, Pool, Snapshot, Target
from spillway_api.types import ModelPool, RoutePolicy, SecretRef, matches

HasSecret = Callable[[str, str], bool]
"""Whether the Secret "namespace/name" exists and has this key."""


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
            if item.spec.scaling is not None:
                message += ", and nobody wakes it"
            return Discovered((), ((f"spec.source.{field}", "NoEndpoints", message),))
    return Discovered()


class Cluster(NamedTuple):
    """What is known beside the objects themselves. By default nothing is: so it is where they come from files."""

    discovered: Callable[[ModelPool], Discovered] = _nowhere
    """Endpoints of a pool whose source is pods, service or inferencePool."""
    exists: Callable[[str], bool] = lambda _secret: False
    """Whether there is a Secret "namespace/name", whatever its keys."""
    config: Callable[[str, str], str | None] = lambda _config_map, _key: None
    """What the ConfigMap "namespace/name" has under a key; None without the key, or without the ConfigMap."""
    labels: Callable[[str], Mapping[str, str]] = lambda _namespace: {}
    """Labels of a namespace."""
    selected: Callable[[str, Mapping[str, str]], Collection[Labelled] | None] = lambda _namespace, _labels: ()
    """The Secrets of a namespace that have these labels; None where they may not be listed."""
    last_good: Snapshot | None = None
    """The memory of the compilation before. A policy that has become bad goes on with its route of it."""
    unreadable: Collection[str] = ()
    """Kind/namespace/name of objects that exist and cannot be read: they too go on as they were."""
    prices: Prices = Prices()
    """What providers charge for the models that pools do not price."""


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
        return served_by([model.name for model in pool.models], target.model, models)


def key_of(item: ModelPool | RoutePolicy) -> tuple[str, str]:
    return item.metadata.namespace, item.metadata.name


def named(item: ModelPool | RoutePolicy) -> str:
    return "/".join((type(item).__name__, *key_of(item)))


class Missing(NamedTuple):
    """Something that an object names and that is not there."""

    reason: str
    message: str


def missing_secret(item: ModelPool, ref: SecretRef, secrets: HasSecret, cluster: Cluster) -> Missing | None:
    """Why a Secret of the object's namespace cannot be used; None where it can."""
    namespace = item.metadata.namespace
    name = f"{namespace}/{ref.name}"
    if secrets(name, ref.key):
        return None
    if cluster.exists(name):
        return Missing("SecretKeyNotFound", f'Secret "{ref.name}" has no key "{ref.key}", or nothing in it')
    return Missing("SecretNotFound", f'no Secret "{ref.name}" with a key "{ref.key}" in namespace {namespace}')


def refuse(item: RoutePolicy, path: str, reason: str, message: str, problems: list[Problem]) -> None:
    problems.append(Problem(named(item), path, reason, message, fatal=True))


def listed(names: Iterable[str], joint: str = ", ") -> str:
    return joint.join(f'"{name}"' for name in names)


def served_by(names: Sequence[str], model: str | None, publics: Iterable[str]) -> set[str]:
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
