"""PrefixCache: the endpoint that has most of the prompt cached, by the mirror; least load among equals."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import ClassVar

from spillway_api.types import Dispatch

from .least_load import least_loaded
from .protocol import Ask, Candidate, Choice, Reads


class PrefixCache:
    """Nothing bounds what a popular prefix brings to its endpoint; Adaptive weighs that, this is for comparison and
    for pools whose prompts are long and load is low."""

    __slots__ = ()
    reads: ClassVar[Reads] = "cache"

    def __init__(self, members: Mapping[str, int], dispatch: Dispatch) -> None:
        pass

    def choose(self, ask: Ask, candidates: Sequence[Candidate], dice: random.Random) -> Choice | None:
        if not candidates:
            return None
        most = max(at.cached for at in candidates)
        if most <= 0:
            return Choice(least_loaded(ask.cost, candidates, dice).name, "least-load")
        warmest = [at for at in candidates if at.cached == most]
        return Choice(least_loaded(ask.cost, warmest, dice).name, "prefix")
