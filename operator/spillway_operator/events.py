"""Events, for people who ask what has happened to an object.

What an event is about has been done, whether or not anybody is told: one that cannot be written is a line in the log,
and no reason to do anything again.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Protocol

from .cluster import ApiError, Cluster, Object

log = logging.getLogger("spillway.events")


class Named(Protocol):
    """An object of the API server's, as far as it is known by name."""

    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> str: ...


def about(api_version: str, kind: str, named: Named) -> Object:
    """The ObjectReference of it."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "namespace": named.namespace,
        "name": named.name,
        "uid": named.uid,
    }


async def tell(cluster: Cluster, regarding: Object, usual: bool, reason: str, message: str, at: float) -> None:
    """At a time in seconds of Unix time; `usual` where nobody has to look after it."""
    try:
        severity, now = "Normal" if usual else "Warning", datetime.fromtimestamp(at, UTC)
        await cluster.event(regarding, severity, reason, message, now)
    except ApiError as error:
        what = f"{regarding['kind']} {regarding['namespace']}/{regarding['name']}"
        log.warning("an event about %s could not be written: %s", what, error)
