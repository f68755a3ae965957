"""CHWBL: sessions stay where their cache is, and no endpoint gets more than its bounded share.

Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016 (arXiv:1608.01350),
here with weights and with any cost of a request. Balancers agree by the ring alone, as far as they see the
same loads.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import ClassVar

from spillway_api.types import Dispatch

from ..ring import ring_of
from .least_load import least_loaded
from .protocol import Ask, Candidate, Choice, Reads


class CHWBL:
    """An endpoint may take a request if its load is below its bound, or its requests below `minInFlight`.

    With f = loadFactorPercent / 100, L the load of all candidates, c the cost of the request, w the
    endpoint's weight and W that of all candidates, the bound is f * (L + c) * w / W. For requests (c = 1)
    "load < bound" is the paper's "load + 1 <= ceil(bound)". The bounds add up to f * (L + c) > L, so some
    candidate is always below its own: the choice is total even at 100 percent. Without a key LeastLoad
    decides.
    """

    __slots__ = ("_factor", "_min_in_flight", "_next_on_ring", "_ring")
    reads: ClassVar[Reads] = "load"

    def __init__(self, members: Mapping[str, int], dispatch: Dispatch) -> None:
        settings = dispatch.chwbl
        self._ring = ring_of(members, settings.vnodes)
        self._factor = settings.load_factor_percent
        self._min_in_flight = settings.min_in_flight
        self._next_on_ring = settings.overflow == "NextOnRing"

    def choose(self, ask: Ask, candidates: Sequence[Candidate], dice: random.Random) -> Choice | None:
        if not candidates:
            return None
        key, cost = ask
        if key is None:
            return Choice(least_loaded(cost, candidates, dice).name, "least-load")
        total_load = cost
        total_weight = 0
        by_name = {}
        for candidate in candidates:
            name, weight, load = candidate[:3]
            total_load += load
            total_weight += weight
            by_name[name] = candidate
        # load < f * total * w / W without the divisions: exact while loads are whole numbers.
        allowed = self._factor * total_load
        scale = 100 * total_weight
        room = []
        reason = "ring"
        for name in self._ring.walk(key):
            if (at := by_name.get(name)) is None:
                continue  # the ring holds all members; away, ejected and already tried ones are no candidates
            if at.load * scale < allowed * at.weight or at.requests < self._min_in_flight:
                if self._next_on_ring or reason == "ring":
                    return Choice(name, reason)
                room.append(at)
            reason = "overflow"
        if room:
            # Ties go to the first on the ring, so that a session goes to the same place from every balancer.
            return Choice(min(room, key=lambda at: (at.load + cost) / at.weight).name, reason)
        # Nobody has room only where rounding of huge loads swallowed the cost; somebody still has to serve.
        return Choice(least_loaded(cost, candidates, dice).name, reason)
