"""Dispatch policies of other projects, to measure ours against; never used by the balancer itself.

Each was written anew from the source it names: the rule and its defaults, not the code. Where the simulator cannot
show what a source does, or where the source leaves something open, the class says what stands in for it.
"""

from __future__ import annotations

from . import aibrix, dualmap, dynamo, hashing, inference, plain, preble, predictive, production_stack, sglang
from .base import Peer, View

__all__ = ["PEERS", "Peer", "View"]

PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        plain.Random,
        plain.RoundRobin,
        plain.PowerOfTwo,
        plain.LeastRequest,
        hashing.SessionHash,
        hashing.KubeAI,
        hashing.PrefixHash,
        sglang.CacheAware,
        aibrix.PrefixCache,
        production_stack.PrefixAware,
        preble.Preble,
        dualmap.DualMap,
        predictive.MinTtft,
        inference.Default,
        inference.Uncapped,
        inference.Latency,
        dynamo.Approximate,
        dynamo.Events,
        predictive.LMetric,
        inference.Precise,
    )
}
"""By name, as `--strategy` takes them."""
