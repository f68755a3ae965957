"""How a balancer runs that is a sidecar: where its gateway is, and what it asks the operator for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spillway_api.sidecars import reached, unknown_world
from spillway_api.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What only a sidecar is told."""

    gateway_url: str
    """http(s)://host:port, where what it cannot send itself goes."""
    gateway_token_file: Path | None = None
    """Token of its Pod to show there, read anew as it is rotated."""
    routes: tuple[str, ...] = ()
    """Names of RoutePolicies, with their namespace where that is another than the Pod's; none means all that it may
    have."""
    address: str | None = None
    """Of its Pod: its clients come from there, whatever address they have within."""

    def reached(self, view: Snapshot) -> Snapshot:
        """What it serves from, by what the operator gives it."""
        return reached(view, self.gateway_url)

    def unknown(self, gateway: str) -> Snapshot:
        """What it serves from as long as it has been given nothing."""
        return self.reached(unknown_world(gateway))
