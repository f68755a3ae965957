"""Sidecars on the config stream: who may be one, under which name, and what it may have."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from spillway_api.sidecars import Asked
from spillway_api.snapshot import Snapshot

from .identity import Caller
from .routes import Routes

MAX_ROUTES: Final = 1000
"""That one sidecar may name."""


def obstacle(caller: Caller, routes: Routes) -> str:
    """Why a caller cannot be a sidecar; empty when it can. Every Pod of the cluster may be one where sidecars are
    allowed, since a view has nothing in it that a gateway keeps from anybody."""
    if routes == "None":
        return "this installation has no sidecars"
    # Else one token would be everybody's who runs as the ServiceAccount, and all of them one sidecar.
    return "" if caller.pod else "a sidecar's token must be bound to its Pod"


def name_of(caller: Caller) -> str:
    """Of a sidecar: Pods in two namespaces may have one name. No gateway's balancer has a slash in its name."""
    return f"{caller.namespace}/{caller.pod}"


def question(caller: Caller, wanted: Collection[str], routes: Routes) -> Asked:
    """What a sidecar is given, by what it says. A name without a namespace is of its own."""
    named = frozenset(name if "/" in name else f"{caller.namespace}/{name}" for name in wanted)
    return Asked(caller.namespace if routes == "Same" else None, named)


def may_wake(view: Snapshot, wanted: Iterable[str]) -> tuple[str, ...]:
    """Of the pools that a sidecar wants to be woken those that it knows and that can be."""
    asleep = {pool.name for pool in view.pools if pool.wakes}
    return tuple(sorted(asleep.intersection(wanted)))
