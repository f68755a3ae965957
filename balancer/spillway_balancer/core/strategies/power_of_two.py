"""PowerOfTwo: two by dice, the better of them; nearly as even as LeastLoad, and balancers do not herd.

Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import ClassVar

from spillway_api.types import Dispatch

from .protocol import Ask, Candidate, Choice, Reads
from .random import drawn


class PowerOfTwo:
    """Two different candidates are drawn by weight; the one with the smaller (load + cost) / weight is
    chosen.

    Drawing by weight matters: drawn evenly, the heavy one of three would be looked at in two requests of
    three and could never get the five of six that its weight may ask for.
    """

    __slots__ = ("_even",)
    reads: ClassVar[Reads] = "load"

    def __init__(self, members: Mapping[str, int], dispatch: Dispatch) -> None:
        self._even = len(set(members.values())) <= 1

    def choose(self, ask: Ask, candidates: Sequence[Candidate], dice: random.Random) -> Choice | None:
        count = len(candidates)
        if count < 2:
            return Choice(candidates[0].name, "power-of-two") if candidates else None
        if self._even:
            first = dice.randrange(count)
            second = dice.randrange(count - 1)
            second += second >= first
        else:
            first = drawn(candidates, dice)
            second = drawn(candidates, dice, without=first)
        one, other = candidates[first], candidates[second]
        # Equal ones fall to the first drawn, which is as good as a throw.
        better = other if (other.load + ask.cost) * one.weight < (one.load + ask.cost) * other.weight else one
        return Choice(better.name, "power-of-two")
