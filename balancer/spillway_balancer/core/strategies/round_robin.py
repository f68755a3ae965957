"""RoundRobin: each in turn, whatever its load or weight; the baseline that others are compared with."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import ClassVar

from spillway_api.types import Dispatch

from .protocol import Ask, Candidate, Choice, Reads


class RoundRobin:
    """Remembers whose turn it was by its place among all members, so absent ones do not upset the order."""

    __slots__ = ("_last", "_place")
    reads: ClassVar[Reads] = "load"

    def __init__(self, members: Mapping[str, int], dispatch: Dispatch) -> None:
        self._place = {name: place for place, name in enumerate(members)}
        self._last: int | None = None

    def choose(self, ask: Ask, candidates: Sequence[Candidate], dice: random.Random) -> Choice | None:
        if not candidates:
            return None
        if self._last is None:
            # Anywhere: a thousand sidecars that start with the first endpoint would bury it.
            at = dice.randrange(len(candidates))
        else:
            at = bisect_right(candidates, self._last, key=self._place_of) % len(candidates)
        name = candidates[at].name
        self._last = self._place[name]
        return Choice(name, "round-robin")

    def _place_of(self, candidate: Candidate) -> int:
        return self._place[candidate.name]
