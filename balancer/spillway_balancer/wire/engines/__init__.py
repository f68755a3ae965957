"""The engines whose load can be read, and how a page of metrics becomes numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

from ..prometheus import Layout, Page, Sample, largest, product, selector, total
from .dialect import Dialect
from .generic import GENERIC
from .sglang import SGLANG
from .vllm import VLLM

__all__ = ["DIALECTS", "Dialect", "Layout", "NameOverrides", "Page", "Reading", "detect", "read"]

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
    prefix_hit_rate: float | None = None  # 0..1, where the engine computes one itself and shows no counters
    cache_tokens: float | None = None  # room for keys and values, in tokens
    missing: tuple[str, ...] = ()  # names that were looked for and must be there: load, KV usage, whatever a pool named


def detect(page: Page, likely: str | None = None) -> str | None:
    """The engine whose metrics a page shows, as a key of DIALECTS, `likely` first; None when none of them does."""
    for engine in (likely, *DIALECTS) if likely else DIALECTS:
        prefix = DIALECTS[engine].prefix
        if prefix and page.names_begin_with(prefix.replace(":", "_").encode()):
            return engine
    return None


def read(dialect: Dialect, page: Page, names: NameOverrides | None = None) -> Reading:
    """The numbers of a page, by the dialect's names or the pool's. Never raises on what a page holds.

    A name of the pool's is summed over all its series (KV usage: their largest), for its labels are unknown.
    """
    missing: list[str] = []
    rank = dialect.rank.encode() if dialect.rank else None
    known = page.layout.names

    def find(own: str | None, several: tuple[str, ...], needed: bool) -> tuple[Iterable[Sample], bytes | None]:
        last = known.get(several)
        for name in (own,) if own else several if last is None else (last, *several):
            try:
                samples = page.samples(selector(name))
            except ValueError:  # a pool's name with a selector that is none; missing says it
                continue
            if samples:
                if own:
                    return samples, None
                known[several] = name
                return samples, rank
        if own or (several and needed):
            missing.append(own or several[0])
        return (), None

    waiting = total(*find(names.waiting if names else None, dialect.waiting, True))
    running = total(*find(names.running if names else None, dialect.running, True))
    kv_usage = largest(find(names.kv_cache_usage if names else None, dialect.kv_usage, True)[0])
    queries = total(find(names.prefix_cache_queries if names else None, dialect.prefix_queries, False)[0], None)
    hits = total(find(names.prefix_cache_hits if names else None, dialect.prefix_hits, False)[0], None)
    hit_rate = None if queries is not None else largest(find(None, dialect.prefix_hit_rate, False)[0])
    room = _room(dialect, page, rank)
    return Reading(waiting, running, kv_usage, queries, hits, hit_rate, room, tuple(missing))


def _room(dialect: Dialect, page: Page, rank: bytes | None) -> float | None:
    """The engine's room for keys and values in tokens, by the first product that its page has the factors of."""
    seen: dict[str, list[Sample]] = {}
    for metric, labels in dialect.cache_tokens:
        if metric not in seen:
            seen[metric] = page.samples(selector(metric))
        samples = product(seen[metric], labels)
        if samples:
            return total(samples, rank)
    return None
