"""Random: a throw of the dice by weight; needs no state at all, and shows what the others are worth."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import ClassVar

from spillway_api.types import Dispatch

from .protocol import Ask, Candidate, Choice, Reads


class Random:
    """Blind to load: bunching is part of it."""

    __slots__ = ()
    reads: ClassVar[Reads] = "load"

    def __init__(self, members: Mapping[str, int], dispatch: Dispatch) -> None:
        pass

    def choose(self, ask: Ask, candidates: Sequence[Candidate], dice: random.Random) -> Choice | None:
        if not candidates:
            return None
        return Choice(candidates[drawn(candidates, dice)].name, "random")


def drawn(candidates: Sequence[Candidate], dice: random.Random, without: int = -1) -> int:
    """Index of a candidate drawn in proportion to weight, never `without`; there has to be another one."""
    total = 0
    for at, candidate in enumerate(candidates):
        if at != without:
            total += candidate.weight
    left = dice.randrange(total)
    for at, candidate in enumerate(candidates):
        if at != without:
            left -= candidate.weight
            if left < 0:
                return at
    raise AssertionError("weights are at least 1")
