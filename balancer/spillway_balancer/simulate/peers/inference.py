"""The endpoint picker of the Gateway API inference extension and of llm-d, which took it over: weighted scorers.

Three of its profiles and llm-d's precise one. Ties of the best score are broken by shuffling, as its picker does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import ClassVar

from ..request import Request
from .base import View
from .estimates import decode_seconds, prefill_seconds
from .index import Believer, Indexed, Informed, LruIndex
from .ties import lowest

_LLM_D = "llm-d/llm-d-router at ebab6879"


class Scored(Believer):
    """The scorers and the picker."""

    scrape_seconds: ClassVar[float] = 0.05
    queue: ClassVar[float]
    memory: ClassVar[float]
    prefix: ClassVar[float]

    def best(self, views: Sequence[View], found: Mapping[int, int], of: int) -> View:
        """`found` of `of` blocks are cached there."""
        waiting = [view.waiting for view in views]
        longest = max(waiting)
        spread = longest - min(waiting)
        scale = self.prefix / (of or 1)
        costs = [
            -(
                self.queue * ((longest - view.waiting) / spread if spread else 1.0)
                + self.memory * (1.0 - view.kv_usage)
                + scale * found.get(view.index, 0)
            )
            for view in views
        ]
        return lowest(views, costs, self.dice)


class Default(Scored, Indexed):
    """Weighted sum of three scores: shortness of the queue, free KV cache, share of the prompt's blocks cached.

    Its index is an LRU of the engine's number of blocks, filled in the prompt's order. A block counts for an
    endpoint that holds it even where an earlier one was evicted, until a block that nobody holds.
    """

    name: ClassVar[str] = "inference-extension"
    source: ClassVar[str] = (
        "kubernetes-sigs/gateway-api-inference-extension v1.5.0 (df9f8909), the last with the full picker: "
        "pkg/epp/config/loader/defaults.go, pkg/epp/framework/plugins/scheduling/scorer, "
        "pkg/epp/framework/plugins/requestcontrol/dataproducer/approximateprefix"
    )
    parameters: ClassVar[str] = (
        "queue-scorer 2, kv-cache-utilization-scorer 2, prefix-cache-scorer 3, max-score-picker; "
        "maxPrefixBlocksToMatch 256 of 16 tokens; autoTune: LRU as large as the engine's cache; metrics every 50 ms"
    )
    queue: ClassVar[float] = 2.0
    memory: ClassVar[float] = 2.0
    prefix: ClassVar[float] = 3.0
    prefix_tokens: ClassVar[int] = 256 * 16

    def prepare(self, views: Sequence[View]) -> None:
        self.index = LruIndex(ends_first=False)
        self.limit = max(1, self.prefix_tokens // self.block_tokens)

    def look(self, request: Request, views: Sequence[View], now: float) -> dict[int, int]:
        get = self.index.holders.get
        runs: dict[int, int] = {}  # bit set of holders -> blocks that just these hold
        for block in islice(request.blocks, self.limit):
            held = get(block, 0)
            if not held:
                break
            runs[held] = runs.get(held, 0) + 1
        found: dict[int, int] = {}
        for held, blocks in runs.items():
            left = held
            while left:
                lowest_bit = left & -left
                endpoint = lowest_bit.bit_length() - 1
                found[endpoint] = found.get(endpoint, 0) + blocks
                left ^= lowest_bit
        return found

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        return self.best(views, self.matches(request, views, now), min(self.limit, len(request.blocks)))

    def dispatched(self, request: Request, view: View, now: float) -> None:
        self.index.record(request.blocks, view.index, view.kv_blocks, self.limit)


class Uncapped(Default):
    """The same with the whole prompt in the index, which became the default when llm-d took the picker over."""

    name: ClassVar[str] = "inference-extension-uncapped"
    source: ClassVar[str] = (
        f"{_LLM_D} (so from v0.9.0): pkg/epp/config/loader/defaults.go, "
        "pkg/epp/framework/plugins/requestcontrol/dataproducer/approximateprefix/types.go"
    )
    parameters: ClassVar[str] = "as inference-extension, but maxPrefixTokensToMatch 131072"
    prefix_tokens: ClassVar[int] = 131_072


class Precise(Scored, Informed):
    """llm-d's precise prefix cache: the same scorers, and the engines report every block they store or evict."""

    name: ClassVar[str] = "llm-d-precise"
    source: ClassVar[str] = f"{_LLM_D}, deploy/config/epp-precise-prefix-cache-config.yaml and the scorers it names"
    parameters: ClassVar[str] = (
        "prefix-cache-scorer 2 (precise-prefix-cache-producer, speculativeIndexing off), "
        "kv-cache-utilization-scorer 1, queue-scorer 1; an ideal event feed; metrics every 50 ms"
    )
    queue: ClassVar[float] = 1.0
    memory: ClassVar[float] = 1.0
    prefix: ClassVar[float] = 2.0

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        return self.best(views, self.matches(request, views, now), len(request.blocks))


class Latency(Uncapped):
    """Routing by predicted latency, for requests that name no objective.

    Two gates keep the endpoints with at least 99 %, then 80 % of the prompt, unless the best of them is predicted
    more than 5 s slower than the best of the others. Of those left, idle ones alone if there are any. Scores fall
    with predicted TTFT and TPOT, each scaled to its range, and the picker draws in proportion to the score.

    The source trains gradient-boosted trees on what it observes; here the cost model of the simulated engine itself
    predicts, from the balancer's own books, so the predictor is better than any that learns.
    """

    name: ClassVar[str] = "inference-extension-latency"
    source: ClassVar[str] = (
        f"{_LLM_D}: config/charts/routerlib/templates/_config.yaml (latencyPredictor.enabled), "
        "pkg/epp/framework/plugins/scheduling/filter/prefixcacheaffinity, .../scorer/latency, .../picker"
    )
    parameters: ClassVar[str] = (
        "affinityThreshold 0.99 then 0.80, maxTTFTPenaltyMs 5000, explorationProbability 0, ttftWeight 0.8, "
        "tpotWeight 0.2, weighted-random-picker; no SLO headers; maxPrefixTokensToMatch 131072"
    )
    gates: ClassVar[tuple[float, ...]] = (0.99, 0.80)
    penalty: ClassVar[float] = 5.0
    ttft_weight: ClassVar[float] = 0.8
    tpot_weight: ClassVar[float] = 0.2

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        found = self.matches(request, views, now)
        if len(views) == 1:
            return views[0]
        of = min(self.limit, len(request.blocks)) or 1
        rows: list[tuple[View, float, float, float]] = []
        for view in views:
            blocks = found.get(view.index, 0)
            miss = request.prompt_tokens - self.cached(request, blocks)
            ttft = view.profile.token_s * view.pending_tokens + prefill_seconds(
                view.profile, miss, request.prompt_tokens
            )
            rows.append((view, blocks / of, ttft, decode_seconds(view)))
        for gate in self.gates:
            rows = self._gated(rows, gate)
        idle = [row for row in rows if not row[0].in_flight]
        return self._drawn(idle or rows)

    def _gated(
        self, rows: list[tuple[View, float, float, float]], gate: float
    ) -> list[tuple[View, float, float, float]]:
        sticky = [row for row in rows if row[1] >= gate]
        if not sticky or len(sticky) == len(rows):
            return rows
        others = min(row[2] for row in rows if row[1] < gate)
        return rows if min(row[2] for row in sticky) - others > self.penalty else sticky

    def _drawn(self, rows: list[tuple[View, float, float, float]]) -> View:
        if len(rows) == 1:
            return rows[0][0]
        first = [row[2] for row in rows]
        rest = [row[3] for row in rows]
        low, range_ = min(first), max(first) - min(first)
        low_rest, range_rest = min(rest), max(rest) - min(rest)
        # A prediction that is the same everywhere has no say.
        if range_ <= 1e-9 < range_rest:
            weight, weight_rest = 0.0, 1.0
        elif range_rest <= 1e-9 < range_:
            weight, weight_rest = 1.0, 0.0
        else:
            weight, weight_rest = self.ttft_weight, self.tpot_weight
        scores: list[int] = []
        for _, _, ttft, tpot in rows:
            scaled = (ttft - low) / range_ if range_ > 1e-9 else 0.5
            scaled_rest = (tpot - low_rest) / range_rest if range_rest > 1e-9 else 0.5
            scores.append(int((1.0 - weight * scaled - weight_rest * scaled_rest) * 100) + 1)
        drawn = self.dice.random() * sum(scores)
        for row, score in zip(rows, scores, strict=True):
            drawn -= score
            if drawn < 0:
                return row[0]
        return rows[-1][0]
