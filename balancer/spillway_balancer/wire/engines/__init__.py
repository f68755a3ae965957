"""The engines whose load can be read, and how a page of metrics becomes numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

from ..prometheus import Page, Sample, largest, selector, total
from .dialect import Dialect
from .generic import GENERIC
from .sglang import SGLANG
from .vllm import VLLM

__all__ = ["DIALECTS", "Dialect", "NameOverrides", "Reading", "detect", "read"]

DIALECTS: Final[dict[str, Dialect]] = {
    "vLLM": VLLM,
    "SGLang": SGLANG,
    "Generic": GENERIC,
}


class NameOverrides(Protocol):
    """Metric names that replace an engine's own: `spec.metrics.names` of a ModelPool."""

    @property
    def waiting(self) -> str | None: ...
    @property
    def running(self) -> str | None: ...
    @property
    def kv_cache_usage(self) -> str | None: ...
    @property
    def prefix_cache_queries(self) -> str | None: ...
    @property
    def prefix_cache_hits(self) -> str | None: ...


class Reading(NamedTuple):
    """What a page says; None is unknown, which is not 0."""

    waiting: float | None = None  # requests in the engine's queue
    running: float | None = None  # requests in its batch
    kv_usage: float | None = None  # 0..1, of the fullest rank
    prefix_queries: float | None = None  # counters; in tokens or blocks, so only their quotient compares
    prefix_hits: float | None = None
    prefix_hit_rate: float | None = None  # 0..1, where the engine computes one itself
    missing: tuple[str, ...] = ()  # names that were looked for and must be there: load, KV usage, whatever a pool named


def detect(page: bytes) -> str | None:
    """The engine whose metrics a page shows, as a key of DIALECTS; None when none of them does."""
    text = Page(page)
    for engine, dialect in DIALECTS.items():
        if dialect.prefix and text.names_begin_with(dialect.prefix.replace(":", "_").encode()):
            return engine
    return None


def read(dialect: Dialect, page: bytes, names: NameOverrides | None = None) -> Reading:
    """The numbers of a page, by the dialect's names or the pool's. Never raises on what a page holds.

    A name of the pool's is summed over all its series (KV usage: their largest), for its labels are unknown.
    """
    text = Page(page)
    missing: list[str] = []
    rank = dialect.rank.encode() if dialect.rank else None

    def find(own: str | None, known: tuple[str, ...], needed: bool) -> tuple[Iterable[Sample], bytes | None]:
        for name in (own,) if own else known:
            try:
                samples = text.samples(selector(name))
            except ValueError:  # a pool's name with a selector that is none; missing says it
                continue
            if samples:
                return samples, None if own else rank
        if own or (known and needed):
            missing.append(own or known[0])
        return (), None

    waiting = total(*find(names.waiting if names else None, dialect.waiting, True))
    running = total(*find(names.running if names else None, dialect.running, True))
    kv_usage = largest(find(names.kv_cache_usage if names else None, dialect.kv_usage, True)[0])
    queries = total(find(names.prefix_cache_queries if names else None, dialect.prefix_queries, False)[0], None)
    hits = total(find(names.prefix_cache_hits if names else None, dialect.prefix_hits, False)[0], None)
    hit_rate = largest(find(None, dialect.prefix_hit_rate, False)[0])
    return Reading(waiting, running, kv_usage, queries, hits, hit_rate, tuple(missing))
