"""WeightedRoundRobin: turns in proportion to weights, evenly interleaved; blind to load."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from math import gcd
from typing import ClassVar

from spillway_api.types import Dispatch

from .protocol import Ask, Candidate, Choice, Reads

START_STEPS = 4096
"""Most credits that are moved to find a place to start: well under a millisecond, once."""


class WeightedRoundRobin:
    """Smooth weighted round robin, as in nginx (ngx_http_upstream_round_robin.c).

    Weights 5, 1, 1 give a a b a c a a. Each turn every candidate earns its weight in credits, the richest is
    chosen and pays what all have earned. Credits always add up to 0, and stay with a member while it is no
    candidate, so coming and going neither starves nor floods.
    """

    __slots__ = ("_credit", "_started")
    reads: ClassVar[Reads] = "load"

    def __init__(self, members: Mapping[str, int], dispatch: Dispatch) -> None:
        self._credit = dict.fromkeys(members, 0)
        self._started = False

    def choose(self, ask: Ask, candidates: Sequence[Candidate], dice: random.Random) -> Choice | None:
        if not candidates:
            return None
        if not self._started:
            self._started = True
            self._start(candidates, dice)
        return Choice(self._turn(candidates), "weighted-round-robin")

    def _turn(self, candidates: Sequence[Candidate]) -> str:
        credit = self._credit
        earned = 0
        richest = ""
        most: int | None = None
        for name, weight in (candidate[:2] for candidate in candidates):
            earned += weight
            credit[name] = has = credit[name] + weight
            if most is None or has > most:
                most = has
                richest = name
        credit[richest] -= earned
        return richest

    def _start(self, candidates: Sequence[Candidate], dice: random.Random) -> None:
        """Skips into the middle of the cycle, lest many balancers march in step, all to the same endpoint."""
        weights = [candidate.weight for candidate in candidates]
        cycle = sum(weights) // gcd(*weights)
        for _ in range(dice.randrange(max(1, min(cycle, START_STEPS // len(weights))))):
            self._turn(candidates)
