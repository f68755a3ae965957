"""Dispatch policies of other projects, to measure ours against; never used by the balancer itself."""

from __future__ import annotations

from .base import Peer, View

__all__ = ["PEERS", "Peer", "View"]

PEERS: dict[str, type[Peer]] = {}
"""By name, as `--strategy` takes them."""
