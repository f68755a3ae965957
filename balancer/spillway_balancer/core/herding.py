"""Why a thousand sidecars do not all rush to the endpoint that was the emptiest in the last message.

What they are told of others' requests is a second old or two, and all are told the same. If each took the least loaded,
all would take the same one until the next message says that it is the fullest. So who goes by load alone sees two
candidates, drawn by weight: the better of two is nearly as good as the best, and nobody is the better one for all
(Mitzenmacher, "How Useful Is Old Information?", 2000). What is known at first hand is no old information: of a pool to
which hardly anybody else sends, all candidates are seen most of the time.

Strategies that look into caches need none of this: keys, conversations and prefixes have homes of their own, and spread
over them.
"""

from __future__ import annotations

import random
from typing import Final

from .strategies import Candidate
from .strategies.random import drawn

HERDS: Final = frozenset({"LeastLoad", "LowestLatency"})


def apart(candidates: list[Candidate], own: int, dice: random.Random) -> list[Candidate]:
    """What one of many is to see of the candidates. `own`: how many of the requests in flight there are its own."""
    total = sum(at.requests for at in candidates)
    if len(candidates) < 3 or dice.random() * total < own:
        return candidates
    first = drawn(candidates, dice)
    second = drawn(candidates, dice, without=first)
    return [candidates[min(first, second)], candidates[max(first, second)]]
