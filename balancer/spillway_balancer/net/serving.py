"""What the balancer serves from now: one Runtime, replaced whole."""

from __future__ import annotations

import time
from collections.abc import Callable

from spillway_api.snapshot import Snapshot

from ..core.runtime import Runtime

MOST_NAMES = 20
"""Of models in a line for a person."""


class Serving:
    """Holds the current Runtime. Requests under way keep the one that they began with."""

    def __init__(self, partial: bool = False) -> None:
        """`partial`: as a sidecar does, which sees a part of what endpoints are sent, and sends the rest to a
        gateway."""
        self.partial = partial
        self.current = Runtime(Snapshot(gateway="default", pools=(), routes=()), partial=partial)
        self.created = int(time.time())  # what /v1/models says of every model: when this balancer came up
        self.ready = False
        self._followers: list[Callable[[Runtime], None]] = []

    def follow(self, follower: Callable[[Runtime], None]) -> None:
        """Call `follower` after every change: probes, scrapes and metrics follow the endpoints that there are."""
        self._followers.append(follower)

    def swap(self, snapshot: Snapshot) -> bool:
        """Take a snapshot in force. False when it is the one that is in force already. Raises RuntimeError for one that
        would send a gateway's requests to a gateway."""
        if not self.partial and any(pool.remote for pool in snapshot.pools):
            raise RuntimeError("it is for a sidecar: it leads to a gateway, and this is one")
        runtime = Runtime(snapshot, self.current)
        if self.ready and runtime.digest == self.current.digest:
            return False
        self.current = runtime
        self.ready = True
        for follower in self._followers:
            follower(runtime)
        return True


def summary(snapshot: Snapshot) -> str:
    """One line for a person."""
    endpoints = sum(len(pool.endpoints) for pool in snapshot.pools)
    names = [name for route in snapshot.routes for name in route.models if route.mode == "Enforce"]
    named = ", ".join(names[:MOST_NAMES]) or "(none)"
    if len(names) > MOST_NAMES:
        named += f" and {len(names) - MOST_NAMES} more"
    shadows = sum(route.mode == "Shadow" for route in snapshot.routes)
    looking = f", {shadows} in Shadow" if shadows else ""
    return f"{len(snapshot.pools)} pools, {endpoints} endpoints, models {named}{looking}"
