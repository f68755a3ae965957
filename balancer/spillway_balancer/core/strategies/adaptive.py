"""Adaptive: the endpoint where this request costs the least prompt work, to itself and to those behind it.

Every candidate gets a cost in uncached prompt tokens, and the smallest wins:

    cost = (queue + miss * (1 + BETA * behind + ALPHA * requests) + DELTA * context) / share
    behind = min(W * share, BEHIND * pending + 1)

`queue` is what has to be computed before us, `miss` what of our own prompt has to be, by the mirror of the endpoint's
cache. `share` is what the endpoint can take, by weight and speed, relative to the mean of the pool. W is the mean
number of requests without a first token on an endpoint, so that W * share would stand here if all were even: the longer
the queues, the more a miss costs everybody `behind` it. So an idle pool sends by least work, and as queues grow,
affinity grows with them.

But behind a miss where hardly anybody waits there will not be many, however long the queues elsewhere. Without that
bound, one long beginning that all prompts have in common would keep them on the first endpoint that has it, the more so
the longer its queue, beside others that idle.

ALPHA keeps prefill away from crowded decoding, DELTA evens out memory. docs/dispatch.md has the comparison that the
constants come from, and how little they matter.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from spillway_api.types import Dispatch

from .protocol import Ask, Candidate, Choice, Reads, within_bounds

BETA: Final = 1.0
ALPHA: Final = 0.05
DELTA: Final = 0.07
BEHIND: Final = 2.0


class Adaptive:
    """Weights count as capacity: an endpoint of twice the weight is charged half, as is one that is twice as fast.

    Where an endpoint answers far later than all of that explains, something is not seen (a queue of others, a cache
    that is not there), and the bound of CHWBL stands in: such an endpoint gets no more than its share of the requests.
    """

    __slots__ = ("_settings",)
    reads: ClassVar[Reads] = "cache"

    def __init__(self, members: Mapping[str, int], dispatch: Dispatch) -> None:
        self._settings = dispatch.chwbl

    def choose(self, ask: Ask, candidates: Sequence[Candidate], dice: random.Random) -> Choice | None:
        if not candidates:
            return None
        waiting = power = 0.0
        trusted = True
        for at in candidates:
            waiting += at.pending
            power += at.weight * at.speed
            if not at.trusted:
                trusted = False
        able = candidates
        if not trusted:
            bounded = {at.name for at in within_bounds(candidates, self._settings)}
            able = [at for at in candidates if at.trusted or at.name in bounded]
        depth, mean = waiting / len(candidates), power / len(candidates)
        least = float("inf")
        best: list[Candidate] = []
        for at in able:
            # Taken apart at once: reading eight fields by name costs twice as much.
            _, weight, _, requests, miss, _, queue, pending, context, speed, _, _ = at
            share = weight * speed / mean
            behind = BEHIND * pending + 1.0
            if behind > depth * share:
                behind = depth * share
            cost = (queue + miss * (1.0 + BETA * behind + ALPHA * requests) + DELTA * context) / share
            if cost < least:
                least = cost
                best = [at]
            elif cost == least:
                best.append(at)
        chosen = best[0] if len(best) == 1 else dice.choice(best or able)
        return Choice(chosen.name, "prefix" if chosen.cached > 0 else "least-work")

    @staticmethod
    def costs(candidates: Sequence[Candidate]) -> list[float]:
        """The cost of each, for people who ask why: `choose` has it inline, where a call for each would be dear."""
        if not candidates:
            return []
        depth = sum(at.pending for at in candidates) / len(candidates)
        mean = sum(at.weight * at.speed for at in candidates) / len(candidates)
        return [_cost(at, depth, at.weight * at.speed / mean) for at in candidates]


def _cost(at: Candidate, depth: float, share: float) -> float:
    behind = min(BEHIND * at.pending + 1.0, depth * share)
    return (at.queue + at.miss * (1.0 + BETA * behind + ALPHA * at.requests) + DELTA * at.context) / share
