"""What differs between inference engines when their load and health are read: names, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Product(NamedTuple):
    """A number that stands in labels: their product. Without labels it is the metric's own value."""

    metric: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dialect:
    """One engine's metric names, those of each number in order of preference: the first that a page has is taken.

    Names are as Prometheus shows them; `:` and `_` count as the same. `waiting` and `running` are summed over
    data-parallel ranks, which the label `rank` tells apart; the counters over all their series; of `kv_usage` (0..1)
    and `prefix_hit_rate` (0..1) the largest is taken. `cache_tokens` is the room for keys and values, of all ranks.
    """

    engine: str
    prefix: str
    """What names of this engine's metrics begin with; empty when it has none, and cannot be told by its page."""
    health_path: str
    waiting: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    kv_usage: tuple[str, ...] = ()
    prefix_queries: tuple[str, ...] = ()
    prefix_hits: tuple[str, ...] = ()
    prefix_hit_rate: tuple[str, ...] = ()
    cache_tokens: tuple[Product, ...] = ()
    rank: str | None = None
