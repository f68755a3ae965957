"""PrefixCache: of the endpoints within their bound, the one that has most of the prompt cached; then least load."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import ClassVar

from spillway_api.types import Dispatch

from .least_load import least_loaded
from .protocol import Ask, Candidate, Choice, Reads, within_bounds


class PrefixCache:
    """Goes by the mirror alone, as far as the bound of CHWBL on requests allows.

    Without a bound a beginning that all prompts share, such as a system prompt, would bring everything to the endpoint
    that saw it first. Adaptive weighs a miss against a queue instead, and is nearly always the better choice.
    """

    __slots__ = ("_settings",)
    reads: ClassVar[Reads] = "cache"

    def __init__(self, members: Mapping[str, int], dispatch: Dispatch) -> None:
        self._settings = dispatch.chwbl

    def choose(self, ask: Ask, candidates: Sequence[Candidate], dice: random.Random) -> Choice | None:
        if not candidates:
            return None
        able = within_bounds(candidates, self._settings)
        most = max(at.cached for at in able)
        if most <= 0:
            return Choice(least_loaded(ask.cost, able, dice).name, "least-load")
        warmest = [at for at in able if at.cached == most]
        return Choice(least_loaded(ask.cost, warmest, dice).name, "prefix")
