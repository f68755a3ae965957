"""A burst of more than home can do, and little may leave: no limit is passed at any time, and nothing is lost."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from math import ceil
from random import Random
from typing import Any

import pytest
from benchmarks.burst import policy

from spillway_balancer.engine.profiles import PROFILES
from spillway_balancer.simulate.bursts import Crowd, burst
from spillway_balancer.simulate.measure import Recorder
from spillway_balancer.simulate.plan import Arrivals
from spillway_balancer.simulate.routed import EPOCH, RoutedBalancer, Served
from spillway_balancer.simulate.world import Setting, World

SPILL = {"predictedTTFT": {"start": "2s", "full": "6s"}}
PER_TOKEN = Fraction("0.25") / 10**6, Fraction("0.03") / 10**6, Fraction("2.00") / 10**6
"""What benchmarks.burst has for the provider's price: fresh, cached, output."""


class Bookkeeping(RoutedBalancer):
    """Writes down what the provider would, and asks the meters at every dispatch."""

    books = Fraction(0)
    most = Fraction(0)

    @property
    def limits(self) -> Any:
        return self.runtime.routes.all[0].limits["all", "cloud"]

    def dispatch(self, request: Any, now: float) -> Any:
        sent = super().dispatch(request, now)
        if self.limits.money is not None:
            self.most = max(self.most, Fraction(self.limits.money.used(EPOCH + now)))
        return sent

    def finished(self, flight: Any, now: float) -> None:
        if flight.ticket.step.tier == "cloud":
            cached = flight.cached_tokens or 0
            counts = flight.prompt_tokens - cached, cached, flight.output_tokens
            self.books += sum((count * price for count, price in zip(counts, PER_TOKEN, strict=True)), Fraction(0))
        super().finished(flight, now)


def run(limits: dict[str, Any], seed: int) -> tuple[Bookkeeping, list[Served], Recorder]:
    """Two engines with what they can do, for a while with four times as much, and a minute after."""
    spec = policy(2, SPILL, limits=limits)
    served: list[Served] = []
    made: list[Bookkeeping] = []

    def make(world: World, index: int) -> Bookkeeping:
        del index
        made.append(Bookkeeping(world, spec, "chat", Random(seed), served.append))
        return made[-1]

    profiles = [*[PROFILES["l4-llama3-8b"]] * 2, PROFILES["provider"]]
    crowds = Crowd(0.0, 220.0, 4.0), Crowd(60.0, 160.0, 14.0)
    recorder = Recorder(float("inf"), 1 << 30)
    World(Setting(profiles, 64), make, recorder, seed).run(Arrivals(burst(crowds, seed), 1 << 30))
    return made[0], served, recorder


@pytest.mark.parametrize("seed", [1, 2])
def test_a_budget_of_ten_cents_is_spent_to_the_cent_and_never_passed(seed: int) -> None:
    balancer, served, recorder = run({"budget": {"amount": "0.10", "period": "Day"}}, seed)
    money = balancer.limits.money
    assert recorder.shed == 0  # what the budget keeps out waits at home
    assert money.reserved == 0
    assert Fraction(money.spent) == balancer.books
    assert balancer.most <= Fraction("0.10")
    assert Fraction("0.09") < Fraction(money.spent) <= Fraction("0.10")
    assert balancer.limits.refused["budget"] > 0
    assert {each.tier for each in served} == {"home", "cloud"}


@pytest.mark.parametrize("percent", [10, 30])
def test_no_minute_has_more_than_its_share_away(percent: int) -> None:
    balancer, served, recorder = run({"maxSharePercent": percent}, 3)
    assert recorder.shed == 0
    assert balancer.limits.refused["maxSharePercent"] > 0
    minute: deque[tuple[float, bool]] = deque()
    for each in served:
        now, away = each.request.at, each.tier == "cloud"
        minute.append((now, away))
        while minute[0][0] < int(now) - 60:  # as the meter counts: by whole seconds
            minute.popleft()
        if away:
            assert sum(each for _, each in minute) <= ceil(percent * len(minute) / 100)
