"""Who is subscribed to which gateway, as far as this replica knows: its own subscribers and those of its followers."""

from __future__ import annotations

from typing import Final, NamedTuple

from spillway_api.stream import Report

OWN: Final = ""
"""The source of subscribers that are connected to this replica itself; a follower's is its Pod's name."""


class Subscriber(NamedTuple):
    """One balancer on the config stream."""

    balancer: str
    """Name of its Pod; of a sidecar namespace/name, so that no two are one."""
    gateway: str
    digest: str | None = None
    """Of the snapshot that it serves from, as it has acknowledged; None when it has none."""
    refused: tuple[str, str] | None = None
    """Digest and message of the last snapshot, when that cannot be served from."""
    report: Report | None = None
    sidecar: bool = False
    """One is known here only while it wants a pool to be woken."""


class Roster:
    """The subscribers of every source. A balancer that is known from two has moved: the later arrival counts."""

    def __init__(self) -> None:
        self._gateways: dict[str, dict[str, dict[str, tuple[int, Subscriber]]]] = {}
        self._sources: dict[str, set[tuple[str, str]]] = {}
        self._arrivals = 0

    def put(self, source: str, subscriber: Subscriber) -> bool:
        """Adds a subscriber or replaces what was known of it; False when nothing is new."""
        balancers = self._gateways.setdefault(subscriber.gateway, {})
        entries = balancers.setdefault(subscriber.balancer, {})
        entry = entries.get(source)
        if entry is not None and entry[1] == subscriber:
            return False
        if entry is None:
            self._arrivals += 1
            entry = (self._arrivals, subscriber)
            self._sources.setdefault(source, set()).add((subscriber.gateway, subscriber.balancer))
        entries[source] = (entry[0], subscriber)
        return True

    def drop(self, source: str, gateway: str, balancer: str) -> bool:
        """Forgets what one source says of a balancer; False when it said nothing."""
        entries = self._gateways.get(gateway, {}).get(balancer, {})
        if entries.pop(source, None) is None:
            return False
        self._sources[source].discard((gateway, balancer))
        if not entries:
            del self._gateways[gateway][balancer]
        if not self._gateways[gateway]:
            del self._gateways[gateway]
        return True

    def forget(self, source: str) -> set[str]:
        """Forgets all that one source said; the gateways that this concerns."""
        known = set(self._sources.get(source, ()))
        for gateway, balancer in known:
            self.drop(source, gateway, balancer)
        self._sources.pop(source, None)
        return {gateway for gateway, _ in known}

    def said(self, source: str, gateway: str, balancer: str) -> Subscriber | None:
        """What one source says of a balancer."""
        entry = self._gateways.get(gateway, {}).get(balancer, {}).get(source)
        return None if entry is None else entry[1]

    def keys(self, source: str) -> set[tuple[str, str]]:
        """Gateway and balancer of all that one source has."""
        return set(self._sources.get(source, ()))

    def of(self, gateway: str) -> tuple[Subscriber, ...]:
        """The subscribers of a gateway by their names, each once."""
        balancers = self._gateways.get(gateway, {})
        return tuple(max(balancers[name].values(), key=_arrival)[1] for name in sorted(balancers))

    def count(self, source: str) -> int:
        """How many subscribers a source has."""
        return len(self._sources.get(source, ()))


def _arrival(entry: tuple[int, Subscriber]) -> int:
    return entry[0]
