"""The keys of consumers, brought to the routes that know them: as digests, and again when credentials change."""

from __future__ import annotations

import logging

from ..core.consumers import Callers, Consumer
from ..core.runtime import Runtime
from .credentials import Credentials

log = logging.getLogger("spillway.config")


class Keyring:
    """Tells callers their keys. A consumer whose key is not here yet is left out until it is."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._runtime: Runtime | None = None

    def follow(self, runtime: Runtime) -> None:
        """Look for the keys of consumers that are new."""
        self._runtime = runtime
        for route in runtime.routes.all:
            if route.callers is not None and not route.callers.keyed:
                self._fill(route.name, route.callers)

    def refill(self) -> None:
        """Credentials have changed: look for all keys anew."""
        if self._runtime is not None:
            for route in self._runtime.routes.all:
                if route.callers is not None:
                    self._fill(route.name, route.callers)

    def _fill(self, route: str, callers: Callers) -> None:
        keys: dict[bytes, Consumer] = {}
        keyless = 0
        for member in callers.members:
            digest = self._credentials.digest(member.spec.secret, member.spec.key)
            if digest is None:
                keyless += 1
            elif (first := keys.setdefault(digest, member)) is not member:
                log.warning("consumers %s and %s have one key; it counts as the first's", first.whole, member.whole)
        if keyless:
            log.warning("route %s: the keys of %d of its consumers are not here yet", route, keyless)
        callers.tell(keys)
