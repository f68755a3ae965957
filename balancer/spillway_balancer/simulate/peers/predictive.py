"""Policies from papers that cost each endpoint and take the cheapest: LMetric's product, Mooncake's predicted TTFT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..request import Request
from .base import View
from .estimates import prefill_seconds
from .index import Indexed, Informed
from .ties import lowest


class LMetric(Indexed):
    """(Uncached prompt tokens queued there and ours) times (requests there and ours)."""

    name: ClassVar[str] = "lmetric"
    source: ClassVar[str] = (
        "Zhang et al., LMetric: Simple is Better, arXiv 2603.15202; read beside it: vllm-project/aibrix, "
        "pkg/plugins/gateway/algorithms/l_metric_local.go (stored at 2519ad59)"
    )
    parameters: ClassVar[str] = (
        "none; index: LRU as large as the engine's cache; queued tokens until the first token, as in the paper "
        "(AIBrix counts them to the end); ties at random"
    )

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        found = self.matches(request, views, now)
        prompt = request.prompt_tokens
        costs = [
            (view.pending_tokens + prompt - self.cached(request, found.get(view.index, 0))) * (view.in_flight + 1)
            for view in views
        ]
        return lowest(views, costs, self.dice)


class MinTtft(Informed):
    """Least predicted TTFT: prefill seconds queued there plus our own with what is cached there.

    Algorithm 1 of the paper without its second branch (fetching the prefix from a sister's cache), which our pools
    do not have. Conductor's index is told of stored and evicted blocks by the engines.
    """

    name: ClassVar[str] = "mooncake-min-ttft"
    source: ClassVar[str] = (
        "Qin et al., Mooncake, arXiv 2407.00079 (FAST 2025), algorithm 1; kvcache-ai/Mooncake at 3b5a5941, "
        "docs/source/design/conductor/conductor-architecture-design.md"
    )
    parameters: ClassVar[str] = (
        "kvcache_balancing_threshold infinite (no transfers), no early rejection; an ideal event feed; "
        "prefill time by the engine's own cost model"
    )

    def prepare(self, views: Sequence[View]) -> None:
        self.queued: dict[int, dict[int, float]] = {}  # endpoint -> request -> prefill seconds
        self.totals: dict[int, float] = {}
        self.owns: dict[int, float] = {}  # of the request that was chosen for last

    def _own(self, request: Request, view: View, blocks: int) -> float:
        miss = request.prompt_tokens - self.cached(request, blocks)
        return prefill_seconds(view.profile, miss, request.prompt_tokens)

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        found = self.matches(request, views, now)
        self.owns = {view.index: self._own(request, view, found[view.index]) for view in views}
        totals = self.totals
        return lowest(views, [totals.get(view.index, 0.0) + self.owns[view.index] for view in views], self.dice)

    def dispatched(self, request: Request, view: View, now: float) -> None:
        seconds = self.owns[view.index]
        self.queued.setdefault(view.index, {})[request.id] = seconds
        self.totals[view.index] = self.totals.get(view.index, 0.0) + seconds

    def first_token(self, request: Request, view: View, now: float) -> None:
        queued = self.queued.get(view.index)
        if queued is None or request.id not in queued:
            return
        seconds = queued.pop(request.id)
        # An empty queue takes no time: rounding must not add up over a million requests.
        self.totals[view.index] = self.totals[view.index] - seconds if queued else 0.0

    def finished(self, request: Request, view: View, now: float) -> None:
        self.first_token(request, view, now)  # one that ended without any

    def removed(self, view: View) -> None:
        self.queued.pop(view.index, None)
        self.totals.pop(view.index, None)
