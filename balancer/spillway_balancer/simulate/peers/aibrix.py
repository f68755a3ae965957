"""AIBrix' prefix-cache routing: the best match among pods whose load is not far above the others'."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import ClassVar

from ..request import Request
from .base import View
from .index import Believer, SharedLruIndex, leading
from .ties import least_busy


class PrefixCache(Believer):
    """Where running requests differ by more than 8, only pods with the fewest are looked at for a match.

    Of the matching pods, by falling share of the prompt (whole percents), then rising load, the first whose load is
    at most the mean and one (sample) standard deviation; nobody: the fewest requests of all.
    """

    name: ClassVar[str] = "aibrix-prefix-cache"
    source: ClassVar[str] = (
        "vllm-project/aibrix at e3e10f9e, pkg/plugins/gateway/algorithms/prefix_cache.go, "
        "pkg/utils/prefixcacheindexer/hash.go, dist/chart/values.yaml"
    )
    parameters: ClassVar[str] = (
        "POD_RUNNING_REQUEST_IMBALANCE_ABS_COUNT 8, STANDARD_DEVIATION_FACTOR 1, BLOCK_NUMBER 200000 for all pods "
        "together, EVICTION_DURATION 20 min; BLOCK_SIZE 128 characters (the chart's; the code's own 4 would remember "
        "800 kB of text)"
    )
    imbalance: ClassVar[int] = 8
    deviations: ClassVar[float] = 1.0
    block_number: ClassVar[int] = 200_000
    block_characters: ClassVar[int] = 128
    seconds: ClassVar[float] = 1200.0

    def prepare(self, views: Sequence[View]) -> None:
        self.index = SharedLruIndex(self.block_number * self.block_characters // 4 // self.block_tokens, self.seconds)

    def look(self, request: Request, views: Sequence[View], now: float) -> dict[int, int]:
        return leading(self.index.holders, request.blocks)

    def choose(self, request: Request, views: Sequence[View], now: float) -> View:
        self.index.expire(now)
        found = self.matches(request, views, now)
        loads = [view.in_flight for view in views]
        fewest = min(loads)
        gated = max(loads) - fewest > self.imbalance
        matching = [view for view in views if view.index in found and not (gated and view.in_flight != fewest)]
        if matching:
            mean = sum(loads) / len(loads)
            spread = sqrt(sum([(load - mean) ** 2 for load in loads]) / (len(loads) - 1)) if len(loads) > 1 else 0.0
            bound = mean + self.deviations * spread
            blocks = len(request.blocks)
            best: list[View] = []
            rank = (0, 0)
            for view in matching:
                load = view.in_flight
                if load > bound:
                    continue
                here = (-(found[view.index] * 100 // blocks), load)
                if not best or here < rank:
                    best = [view]
                    rank = here
                elif here == rank:
                    best.append(view)
            if best:
                return best[0] if len(best) == 1 else self.dice.choice(best)
        return least_busy(views, self.dice)

    def dispatched(self, request: Request, view: View, now: float) -> None:
        self.index.record(request.blocks, view.index, now)

    def removed(self, view: View) -> None:
        self.index.drop(view.index)
