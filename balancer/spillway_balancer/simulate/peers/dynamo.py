"""Dynamo's KV router: prefill still to do and blocks in use, in one unit, least wins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..request import Request
from .base import View
from .index import ActiveBlocks, Believer, Informed, TimedIndex, leading
from .ties import lowest

_SOURCE = (
    "ai-dynamo/dynamo, lib/kv-router/src/scheduling/selector.rs (stored at 01690d42) and config.rs (KvRouterConfig)"
)
_PARAMETERS = (
    "overlap_score_credit 1.0, overlap_score_credit_decay 0, prefill_load_scale 1.0, router_temperature 0, "
    "router_track_active_blocks on, router_track_output_blocks off, decode_active_request_weight 0, no queue"
)


class Router(Believer):
    """Cost in blocks: prompt tokens without a first token there, ours uncached, and the distinct blocks in use there
    once ours are. Ties at random (the source's reservoir sampling)."""

    def prepare(self, views: Sequence[View]) -> None:
        self.active = ActiveBlocks()

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        found = self.matches(request, views, now)
        shared = leading(self.active.holders, request.blocks)
        per_block = float(self.block_tokens)
        blocks = len(request.blocks)
        prompt = request.prompt_tokens
        costs = []
        for view in views:
            one = view.index
            miss = prompt - self.cached(request, found.get(one, 0))
            in_use = self.active.size(one) + blocks - shared.get(one, 0)
            costs.append((view.pending_tokens + miss) / per_block + in_use)
        return lowest(views, costs, self.dice)

    def dispatched(self, request: Request, view: View, now: float) -> None:
        self.active.add(request.blocks, view.index)

    def finished(self, request: Request, view: View, now: float) -> None:
        self.active.remove(request.blocks, view.index)

    def removed(self, view: View) -> None:
        self.active.drop(view.index)


class Approximate(Router):
    """Without events: what was sent to an endpoint in the last two minutes is taken to be cached there."""

    name: ClassVar[str] = "dynamo-approximate"
    source: ClassVar[str] = _SOURCE
    parameters: ClassVar[str] = f"{_PARAMETERS}; use_kv_events off, router_ttl_secs 120"
    seconds: ClassVar[float] = 120.0

    def prepare(self, views: Sequence[View]) -> None:
        super().prepare(views)
        self.index = TimedIndex(self.seconds)

    def look(self, request: Request, views: Sequence[View], now: float) -> dict[int, int]:
        return leading(self.index.holders, request.blocks)

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        self.index.expire(now)
        return super().choose(request, views, now)

    def dispatched(self, request: Request, view: View, now: float) -> None:
        super().dispatched(request, view, now)
        self.index.record(request.blocks, view.index, now)

    def removed(self, view: View) -> None:
        super().removed(view)
        self.index.drop(view.index)


class Events(Router, Informed):
    """With an ideal feed of the engines' cache events."""

    name: ClassVar[str] = "dynamo-events"
    source: ClassVar[str] = _SOURCE
    parameters: ClassVar[str] = f"{_PARAMETERS}; use_kv_events on"
