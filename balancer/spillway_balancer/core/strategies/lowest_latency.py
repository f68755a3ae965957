"""LowestLatency: the endpoint whose first tokens have come soonest of late, weighed with what it has to do."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import ClassVar

from spillway_api.types import Dispatch

from .least_load import least_loaded
from .protocol import Ask, Candidate, Choice, Reads


class LowestLatency:
    """Peak EWMA, as in Finagle (com.twitter.finagle.loadbalancer.PeakEwma): latency * (requests in flight + 1).

    A rise counts at once, a fall little by little, and what is not seen anew fades, so that an endpoint that was slow
    is tried again. One that was never measured counts as the quickest of those that were: it is tried soon, and not by
    everybody at once. For pools of unequal endpoints or accounts of providers; it knows nothing of caches.
    """

    __slots__ = ()
    reads: ClassVar[Reads] = "latency"

    def __init__(self, members: Mapping[str, int], dispatch: Dispatch) -> None:
        pass

    def choose(self, ask: Ask, candidates: Sequence[Candidate], dice: random.Random) -> Choice | None:
        if not candidates:
            return None
        known = [at.latency for at in candidates if at.latency is not None]
        if not known:
            return Choice(least_loaded(ask.cost, candidates, dice).name, "least-load")
        unknown = min(known)
        costs = [(unknown if at.latency is None else at.latency) * (at.requests + 1) / at.weight for at in candidates]
        least = min(costs)
        best = [at for at, cost in zip(candidates, costs, strict=True) if cost == least]
        return Choice((best[0] if len(best) == 1 else dice.choice(best)).name, "lowest-latency")
