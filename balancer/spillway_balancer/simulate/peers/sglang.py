"""SGLang's cache-aware router: the longest match while loads are near each other, else the shortest queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..request import Request
from .base import View
from .index import Indexed
from .ties import first_least_busy


class CacheAware(Indexed):
    """A tree of everything sent, per worker; the router does not know the engines' capacity, only its own bound.

    The source walks its tree to one worker at the deepest node, whichever its map gives first: the dice here. Where
    the match is too small a share of the prompt it takes the least loaded worker (older versions, sgl-router stored
    at 026f853b: the one with the smallest tree).
    """

    name: ClassVar[str] = "sglang-cache-aware"
    source: ClassVar[str] = (
        "sgl-project/sglang, sgl-model-gateway/src/policies/cache_aware.rs (stored at 053b63ff); "
        "command line defaults in sgl-model-gateway/src/main.rs"
    )
    parameters: ClassVar[str] = (
        "cache_threshold 0.3, balance_abs_threshold 64, balance_rel_threshold 1.5, "
        "max_tree_size 2^26 characters a worker (4 to a token)"
    )
    threshold: ClassVar[float] = 0.3
    absolute: ClassVar[int] = 64
    relative: ClassVar[float] = 1.5
    characters: ClassVar[int] = 1 << 26

    def prepare(self, views: Sequence[View]) -> None:
        super().prepare(views)
        self.capacity = self.characters // (4 * self.block_tokens)

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        found = self.matches(request, views, now)
        idlest = first_least_busy(views)
        fewest = idlest.in_flight
        most = max([view.in_flight for view in views])
        if most - fewest > self.absolute and most > self.relative * fewest:
            return idlest
        depth = 0
        best: list[View] = []
        for view in views:
            here = found.get(view.index, 0)
            if here > depth:
                depth = here
                best = [view]
            elif here == depth:
                best.append(view)
        if depth * self.block_tokens > self.threshold * request.prompt_tokens:
            return best[0] if len(best) == 1 else self.dice.choice(best)
        return idlest

    def dispatched(self, request: Request, view: View, now: float) -> None:
        self.index.record(request.blocks, view.index, self.capacity)
