"""DualMap: two hash functions give every prefix two homes, and the better of the two takes the request."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import ClassVar

from ..request import Request
from .base import View
from .estimates import prefill_seconds
from .hashing import Ring, hash_text, members
from .index import Indexed


class HotPrefixes:
    """How much of a prompt is its key: one block, and one more for as long as the key so far is hot.

    Hot is a key with more than its share of the last prefixes seen. (The source also means to take an extension
    back where it has gone cold, but what it deletes was never set.)
    """

    __slots__ = ("_counts", "_extended", "_seen", "minimum", "ratio", "window")

    def __init__(self, window: int, ratio: float, minimum: int) -> None:
        self.window = window
        self.ratio = ratio
        self.minimum = minimum
        self._seen: deque[int] = deque()
        self._counts: dict[int, int] = {}
        self._extended: set[int] = set()

    def key(self, blocks: Sequence[int]) -> int:
        """A chained hash, which stands for all blocks up to its own."""
        depth = 0
        last = len(blocks) - 1
        while depth < last and blocks[depth] in self._extended:
            depth += 1
        key = blocks[depth]
        if self._hot(key) and depth < last:
            self._extended.add(key)
        if depth:
            self._hot(blocks[depth - 1])
        return key

    def _hot(self, key: int) -> bool:
        """Counts it, too."""
        seen, counts = self._seen, self._counts
        seen.append(key)
        counts[key] = counts.get(key, 0) + 1
        if len(seen) > self.window:
            oldest = seen.popleft()
            counts[oldest] -= 1
            if not counts[oldest]:
                del counts[oldest]
        return len(seen) >= self.minimum and counts[key] >= self.ratio * len(seen)


class DualMap(Indexed):
    """Of the two homes the one with more of the prompt cached, unless its predicted TTFT breaks the objective: then
    the one with the lower prediction. Level: less KV cache in use, then the dice.

    Moving requests that already wait (hotspot-aware rebalancing) is left out: a balancer that has passed a request
    on cannot take it back, here as in the AIBrix router's own default thresholds.
    """

    name: ClassVar[str] = "dualmap"
    source: ClassVar[str] = (
        "Yuan et al., DualMap, arXiv 2602.06502 (ICLR 2026); details from vllm-project/aibrix, "
        "pkg/plugins/gateway/algorithms/dualmap.go (stored at 9c8981ea)"
    )
    parameters: ClassVar[str] = (
        "TTFT objective 1 s (the operator's to set: the strictest of our workloads, which serves it best), 100 virtual "
        "nodes, hot prefix 6.12 % of the last 200 (20 at "
        "least), no rebalancing; prefill time by the engine's own cost model; index: LRU as large as the engine's cache"
    )
    objective: ClassVar[float] = 1.0
    points: ClassVar[int] = 100

    def prepare(self, views: Sequence[View]) -> None:
        super().prepare(views)
        self.all = {view.index: view for view in views}
        self.prefixes = HotPrefixes(200, 0.0612, 20)
        self._build()

    def _build(self) -> None:
        names = members(self.all.values())
        self.rings = (Ring(names, self.points), Ring(names, self.points, seed=1))

    def removed(self, view: View) -> None:
        super().removed(view)
        self.all.pop(view.index, None)
        self._build()

    def added(self, view: View) -> None:
        self.all[view.index] = view
        self._build()

    def homes(self, request: Request) -> tuple[View, View]:
        """Two that are not the same while there are two."""
        key = str(self.prefixes.key(request.blocks) if request.blocks else request.prompt_tokens)
        first = self.rings[0].order(hash_text(key))[0]
        other = next((one for one in self.rings[1].order(hash_text(key, 1)) if one != first), first)
        return self.all[first], self.all[other]

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        one, other = self.homes(request)
        found = self.matches(request, views, now)
        here = self.cached(request, found.get(one.index, 0))
        there = self.cached(request, found.get(other.index, 0))
        if here < there or (here == there and self._second(one, other)):
            one, other = other, one
            here, there = there, here
        if self._ttft(request, one, here) <= self.objective:
            return one
        return one if self._ttft(request, one, here) <= self._ttft(request, other, there) else other

    def _second(self, one: View, other: View) -> bool:
        """Whether the other is to be preferred where nothing else speaks."""
        if one.kv_usage != other.kv_usage:
            return other.kv_usage < one.kv_usage
        return self.dice.random() < 0.5

    def _ttft(self, request: Request, view: View, cached: int) -> float:
        own = prefill_seconds(view.profile, request.prompt_tokens - cached, request.prompt_tokens)
        return view.profile.token_s * view.pending_tokens + own
