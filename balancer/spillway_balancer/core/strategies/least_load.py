"""LeastLoad: the endpoint that would have the least load for its weight; what keeps a pool even."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import ClassVar

from spillway_api.types import Dispatch

from .protocol import Ask, Candidate, Choice, Reads


class LeastLoad:
    """Reads every candidate, so it is exact; several balancers that read the same stale gauges may herd."""

    __slots__ = ()
    reads: ClassVar[Reads] = "load"

    def __init__(self, members: Mapping[str, int], dispatch: Dispatch) -> None:
        pass

    def choose(self, ask: Ask, candidates: Sequence[Candidate], dice: random.Random) -> Choice | None:
        if not candidates:
            return None
        return Choice(least_loaded(ask.cost, candidates, dice).name, "least-load")


def least_loaded(cost: float, candidates: Sequence[Candidate], dice: random.Random) -> Candidate:
    """The candidate with the smallest (load + cost) / weight, ties by dice. `candidates` is not empty.

    The request itself is counted in, because among idle endpoints load / weight is 0 for all, and one of
    weight 1 would get as much as one of weight 1000. With equal weights both orders are the same.
    """
    best: list[Candidate] = []
    least = float("inf")
    for candidate in candidates:
        _, weight, load = candidate[:3]
        share = (load + cost) / weight
        if share < least:
            least = share
            best = [candidate]
        elif share == least:
            best.append(candidate)
    return best[0] if len(best) == 1 else dice.choice(best)
