"""A burst against a policy, and what spillover has made of it: waits, shares, and sessions that moved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import Final, NamedTuple

from spillway_api import snapshot

from ..engine.profiles import Profile
from .bursts import Crowd, burst
from .measure import Recorder, percentile
from .plan import Arrivals
from .request import Request
from .routed import RoutedBalancer, Served
from .world import Setting, World

CALM: Final = 60.0
"""Seconds before the burst, with half of what the pool can do: caches fill, rates are learned."""
LENGTH: Final = 180.0
"""Of the burst."""
AFTER: Final = 120.0
SETTLING: Final = 90.0
"""Of the burst, the part before the share is looked at for swings: conversations grow, and the load with them."""
BLOCK_TOKENS: Final = 64


class Judgement(NamedTuple):
    """Of the requests that came during the burst, unless said otherwise. Times in seconds to the first token."""

    requests: int
    home_p50: float
    home_p99: float
    all_p99: float
    spilled: float
    """Share of the requests that were served by another tier than the first."""
    lowest: float
    """The share that was to leave, once settled."""
    highest: float
    whole: float
    """Of the sessions with several turns, the share that changed sides at most once."""
    home_after: float
    """Seconds from the end of the burst to the last request that left; 0 when none did."""
    refused: int
    """Of all requests, those without an answer."""


def judge(
    spec: snapshot.Snapshot, profiles: Sequence[Profile], model: str, capacity: float, times: float, seed: int
) -> Judgement:
    """Half the `capacity` (requests a second) all the time, and for a while so many `times` the capacity in all.

    `spec` has one policy; its endpoints' engines are `profiles`, in the order of its pools and their endpoints.
    """
    served: list[Served] = []
    recorder = _Recorder(float("inf"), 1 << 30)

    def make(world: World, index: int) -> RoutedBalancer:
        del index
        return RoutedBalancer(world, spec, model, Random(f"balancer {seed}"), served.append)

    ends = CALM + LENGTH
    crowds = (Crowd(0.0, ends + AFTER, capacity / 2), Crowd(CALM, ends, capacity * (times - 0.5)))
    world = World(Setting(profiles, BLOCK_TOKENS), make, recorder, seed)
    world.run(Arrivals(burst(crowds, seed), 1 << 30))
    return _judgement(served, recorder, ends)


class _Recorder(Recorder):
    def __init__(self, objective: float, most: int) -> None:
        super().__init__(objective, most)
        self.waited: dict[int, float] = {}

    def finished(self, request: Request, now: float) -> None:
        super().finished(request, now)
        assert request.first_token_at is not None
        self.waited[request.id] = request.first_token_at - request.at


def _judgement(served: Sequence[Served], recorder: _Recorder, ends: float) -> Judgement:
    first = served[0].tier
    inside = [each for each in served if CALM <= each.request.at < ends and each.request.id in recorder.waited]
    home = sorted(recorder.waited[each.request.id] for each in inside if each.tier == first)
    everywhere = sorted(recorder.waited[each.request.id] for each in inside)
    shares = [each.share for each in inside if each.request.at >= CALM + SETTLING]
    sides: dict[int, list[str]] = defaultdict(list)
    for each in inside:
        sides[each.request.user_key].append(each.tier)
    moves = [sum(a != b for a, b in pairwise(tiers)) for tiers in sides.values() if len(tiers) > 1]
    left = max((each.request.at for each in served if each.tier != first), default=0.0)
    return Judgement(
        requests=len(inside),
        home_p50=percentile(home, 0.5),
        home_p99=percentile(home, 0.99),
        all_p99=percentile(everywhere, 0.99),
        spilled=1.0 - len(home) / len(inside),
        lowest=min(shares),
        highest=max(shares),
        whole=sum(each <= 1 for each in moves) / len(moves),
        home_after=max(0.0, left - ends),
        refused=recorder.shed,
    )
