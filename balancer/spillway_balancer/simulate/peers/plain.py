"""Policies that look at nothing of the prompt."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from ..request import Request
from .base import Peer, View
from .ties import least_busy

_AIBRIX = "vllm-project/aibrix at e3e10f9e, pkg/plugins/gateway/algorithms"


class Plain(Peer):
    def begin(self, views: Sequence[View], dice: random.Random, block_tokens: int) -> None:
        self.dice = dice


class Random(Plain):
    name: ClassVar[str] = "random"
    source: ClassVar[str] = f"{_AIBRIX}/random.go; the same in every proxy"
    parameters: ClassVar[str] = "none"

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        return self.dice.choice(views)


class RoundRobin(Plain):
    """In turn. Each balancer begins somewhere else, as proxies that were started at different times would be."""

    name: ClassVar[str] = "round-robin"
    source: ClassVar[str] = (
        "vllm-project/production-stack at a6c01db0, src/vllm_router/routers/routing_logic.py (RoundRobinRouter)"
    )
    parameters: ClassVar[str] = "none"

    def begin(self, views: Sequence[View], dice: random.Random, block_tokens: int) -> None:
        super().begin(views, dice, block_tokens)
        self.turn = dice.randrange(1 << 16)

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        self.turn += 1
        return views[self.turn % len(views)]


class PowerOfTwo(Plain):
    """Two at random, the less loaded of them; the first where they are level."""

    name: ClassVar[str] = "power-of-two"
    source: ClassVar[str] = (
        f"{_AIBRIX}/power_of_two.go; Mitzenmacher, The Power of Two Choices in Randomized Load Balancing (2001)"
    )
    parameters: ClassVar[str] = "d = 2; load = own requests in flight"

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        if len(views) == 1:
            return views[0]
        one, other = self.dice.sample(views, 2)
        return one if one.in_flight <= other.in_flight else other


class LeastRequest(Plain):
    """Fewest own requests in flight."""

    name: ClassVar[str] = "least-request"
    source: ClassVar[str] = (
        "substratusai/kubeai at 2f32ef49, internal/loadbalancer/balance_least_load.go (a Go map's order breaks ties)"
    )
    parameters: ClassVar[str] = "load = own requests in flight; ties at random"

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        return least_busy(views, self.dice)
