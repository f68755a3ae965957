"""One gateway: what it is to serve, since when, and which of its balancers do. Pure but for remembering."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from spillway_api.budgets import AnyBudget, budgets
from spillway_api.compile import Compiled
from spillway_api.snapshot import Pool, Route, Snapshot
from spillway_api.stream import Report, Saved

REMEMBERED = 1000
"""Digests; a balancer whose acknowledgement is older than so many changes counts as one that has none."""


class Subscriber(Protocol):
    """A balancer, as far as progress depends on it."""

    @property
    def balancer(self) -> str: ...
    @property
    def digest(self) -> str | None: ...
    @property
    def refused(self) -> tuple[str, str] | None: ...
    @property
    def report(self) -> Report | None: ...


class Progress:
    """Numbers the changes of a gateway's snapshot, so that an acknowledged digest tells what is in force by it."""

    def __init__(self, gateway: str) -> None:
        self.gateway = gateway
        self.compiled: Compiled | None = None
        self.digest = ""
        self.at = 0.0
        self._number = 0
        self._parts: Mapping[str, Pool | Route] = {}
        self._since: dict[str, int] = {}
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._seed: Snapshot | None = None
        self.budgets: dict[str, AnyBudget] = {}
        """Those of the snapshot, by name."""

    @property
    def last_good(self) -> Snapshot | None:
        """What bad policies go on with: remembered by this process, else put away by the one before it."""
        return self._seed if self.compiled is None else self.compiled.memory

    @property
    def saved(self) -> Saved:
        """What to put away. Raises AssertionError before anything was taken."""
        assert self.compiled is not None
        good = {route.name for route in self.compiled.memory.routes}
        partial = tuple(route.name for route in self.compiled.snapshot.routes if route.name not in good)
        return Saved(self.digest, self.at, self.compiled.snapshot, partial)

    def seed(self, saved: Saved | None) -> None:
        """What an operator before this one put away; policies that are bad by now go on with it."""
        if saved is not None and saved.snapshot.gateway == self.gateway:
            routes = tuple(route for route in saved.snapshot.routes if route.name not in saved.partial)
            self._seed = msgspec.structs.replace(saved.snapshot, routes=routes)

    def take(self, compiled: Compiled, digest: str, at: float) -> bool:
        """A new compilation, `at` in seconds of Unix time. True when balancers are to serve differently by it."""
        changed = self.compiled is None or digest != self.digest
        if changed:
            self._number += 1
            before, parts = self._parts, _parts(compiled.snapshot)
            self._since = {
                name: self._since[name] if before.get(name) == part else self._number for name, part in parts.items()
            }
            self._parts = parts
            self.budgets = budgets(compiled.snapshot)
            self._numbers[digest] = self._number
            self._numbers.move_to_end(digest)
            if len(self._numbers) > REMEMBERED:
                self._numbers.popitem(last=False)
            self.digest, self.at = digest, at
        self.compiled = compiled
        return changed

    def programmed(self, part: str, subscribers: Iterable[Subscriber]) -> int:
        """How many balancers serve the present form of a part ("ModelPool/namespace/name", "RoutePolicy/…")."""
        since = self._since.get(part)
        if since is None:
            return 0
        return sum(self._numbers.get(each.digest or "", -1) >= since for each in subscribers)

    def pool(self, key: str) -> Pool | None:
        """A pool of the snapshot by "ModelPool/namespace/name"."""
        part = self._parts.get(key)
        return part if isinstance(part, Pool) else None

    def route(self, key: str) -> Route | None:
        """A route of the snapshot by "RoutePolicy/namespace/name"."""
        part = self._parts.get(key)
        return part if isinstance(part, Route) else None


def _parts(snapshot: Snapshot) -> Mapping[str, Pool | Route]:
    parts: dict[str, Pool | Route] = {f"ModelPool/{pool.name}": pool for pool in snapshot.pools}
    parts.update((f"RoutePolicy/{route.name}", route) for route in snapshot.routes)
    return parts


def refusal(subscribers: Iterable[Subscriber], digest: str) -> str:
    """What a balancer said that cannot serve from the present snapshot; empty when none did."""
    for each in subscribers:
        if each.refused is not None and each.refused[0] == digest:
            return each.refused[1]
    return ""
