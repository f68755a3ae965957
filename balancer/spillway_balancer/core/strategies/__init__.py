"""The table of strategies: adding one is a file beside this one and a line below."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from spillway_api.types import Dispatch

from .adaptive import Adaptive
from .chwbl import CHWBL
from .least_load import LeastLoad
from .lowest_latency import LowestLatency
from .power_of_two import PowerOfTwo
from .prefix_cache import PrefixCache
from .protocol import Ask, Candidate, Choice, Strategy
from .random import Random
from .round_robin import RoundRobin
from .weighted_round_robin import WeightedRoundRobin

__all__ = ["BLIND", "STRATEGIES", "Ask", "Candidate", "Choice", "Strategy"]

STRATEGIES: dict[str, Callable[[Mapping[str, int], Dispatch], Strategy]] = {
    "Adaptive": Adaptive,
    "CHWBL": CHWBL,
    "PrefixCache": PrefixCache,
    "LeastLoad": LeastLoad,
    "PowerOfTwo": PowerOfTwo,
    "LowestLatency": LowestLatency,
    "WeightedRoundRobin": WeightedRoundRobin,
    "RoundRobin": RoundRobin,
    "Random": Random,
}
"""By `dispatch.strategy` of the ModelPool; built from the members (name to weight, in order) and settings."""

BLIND = frozenset({"WeightedRoundRobin", "RoundRobin", "Random"})
"""Those that do not look at load: an endpoint's share of the requests is what decides its load, not the other way."""
