"""A burst against a policy, and what spillover has made of it: waits, shares, and sessions that moved."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from random import Random
from typing import Any, Final, NamedTuple

from spillway_api import snapshot

from ..engine.profiles import Profile
from .bursts import MOST_OUTPUT, Crowd, burst
from .measure import Recorder, percentile
from .plan import Arrivals
from .request import Request
from .routed import RoutedBalancer, Served
from .stations import Flight
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
    most_in_a_minute: float
    """The largest share of the requests of any minute that were served by another tier than the first."""
    spent: Decimal
    """By the balancer's own count, in the whole run; 0 where no tier has a budget."""
    charged: Decimal
    """By the books of who is paid, likewise; of models with a price."""


def judge(
    spec: snapshot.Snapshot,
    profiles: Sequence[Profile],
    model: str,
    capacity: float,
    times: float,
    seed: int,
) -> Judgement:
    """Half the `capacity` (requests a second) all the time, and for a while so many `times` the capacity in all.

    `spec` has one policy; its endpoints' engines are `profiles`, in the order of its pools and their endpoints. All
    requests say how much may be generated, which no answer reaches: a budget can be kept only where that is known.
    """
    served: list[Served] = []
    books = _Books(spec)
    recorder = _Recorder(float("inf"), 1 << 30)
    balancers: list[RoutedBalancer] = []

    def make(world: World, index: int) -> RoutedBalancer:
        del index
        balancers.append(_Charged(books, world, spec, model, Random(f"balancer {seed}"), served.append, MOST_OUTPUT))
        return balancers[-1]

    ends = CALM + LENGTH
    crowds = (Crowd(0.0, ends + AFTER, capacity / 2), Crowd(CALM, ends, capacity * (times - 0.5)))
    world = World(Setting(profiles, BLOCK_TOKENS), make, recorder, seed)
    world.run(Arrivals(burst(crowds, seed), 1 << 30))
    return _judgement(served, recorder, ends)._replace(spent=_spent(balancers), charged=books.charged)


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
        most_in_a_minute=_most_in_a_minute(served, first),
        spent=Decimal(0),
        charged=Decimal(0),
    )


def _most_in_a_minute(served: Sequence[Served], first: str) -> float:
    """Over the minutes that end with a request, as soon as there has been a whole one."""
    window: deque[Served] = deque()
    away, most = 0, 0.0
    for each in served:
        window.append(each)
        away += each.tier != first
        while window[0].request.at <= each.request.at - 60.0:
            away -= window.popleft().tier != first
        if each.request.at >= 60.0:
            most = max(most, away / len(window))
    return most


class _Books:
    """What who is paid writes down: every answer, at the price of its model."""

    def __init__(self, spec: snapshot.Snapshot) -> None:
        self._prices = {pool.name: pool.models[0].price for pool in spec.pools}
        self.charged = Decimal(0)

    def write(self, pool: str, flight: Flight) -> None:
        price = self._prices[pool]
        if price is not None:
            cached = price.cached_input or price.input
            self.charged += (
                Decimal(price.input or 0) * (flight.prompt_tokens - flight.cached_tokens)
                + Decimal(cached or 0) * flight.cached_tokens
                + Decimal(price.output or 0) * flight.output_tokens
            ) / 1_000_000


class _Charged(RoutedBalancer):
    def __init__(self, books: _Books, *others: Any) -> None:
        super().__init__(*others)
        self._books = books

    def finished(self, flight: Flight, now: float) -> None:
        super().finished(flight, now)
        self._books.write(flight.ticket.step.pool.name, flight)


def _spent(balancers: Sequence[RoutedBalancer]) -> Decimal:
    """By the meters of all tiers' budgets."""
    routes = [route for balancer in balancers for route in balancer.runtime.routes.all]
    tiers = [tier for route in routes for tiers in route.rules for tier in tiers]
    limits = [tier.limits for tier in tiers if tier.limits is not None]
    return sum((each.money.total for each in limits if each.money is not None), Decimal(0))
