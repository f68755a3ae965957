"""Single runs, and the searches for the highest rate that are made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import log2
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, Final, NamedTuple

import msgspec

from spillway_api import snapshot

from ..engine.profiles import profile
from .balancers import CoreBalancer, PeerBalancer
from .faults import Fault
from .forecasts import Forecast, forecast
from .measure import Course, Figures, Recorder
from .peers import PEERS
from .plan import Plan
from .sights import SCRAPING, Sight
from .stations import Balancer
from .traces import read
from .workloads import workload
from .world import Setting, World

STEPS: Final = 64
"""Rates that a search tries are powers of 2 ** (1 / STEPS): neighbours differ by 1.1 %."""
STRIDE: Final = 32
"""Of the first steps of a search, before it has an upper and a lower bound."""
LOWEST: Final = -20 * STEPS
"""Where a search gives up: nothing holds the objective."""
FAR: Final = 6 * STEPS
"""Above where it began a search gives up too: so few requests are no load, however fast they come."""
GUESSED_ON: Final = 2_000
"""Requests from which the first rate of a search is guessed."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """All that runs have in common; it crosses to other processes, which read the trace for themselves."""

    trace: Path | None
    workload: str | None
    pool: snapshot.Pool
    profiles: tuple[str, ...]
    objective: float | None = None
    balancers: int = 1
    scrape: float | None = None
    exchange: float | None = None
    faults: tuple[Fault, ...] = ()
    limit: int | None = None
    usage: bool = True
    sight: Sight = SCRAPING
    stay: bool = False


class Run(NamedTuple):
    """One run to the last request."""

    strategy: str
    rate: float
    seed: int


class Outcome(NamedTuple):
    figures: Figures
    course: Course
    forecast: Forecast | None


class Hold(NamedTuple):
    """Whether a strategy meets the objective at a rate, a power of 2 ** (1 / STEPS)."""

    strategy: str
    exponent: int
    seed: int


class Search(NamedTuple):
    """The highest such rate; begins at `start`, or where a guess says."""

    strategy: str
    seed: int
    start: int | None = None


Task = Run | Hold | Search


class Done(NamedTuple):
    """What a task came to: an Outcome, whether it held, or the exponent found (None where nothing holds)."""

    result: Any
    requests: int
    """Simulated, all told."""
    seconds: float
    """That it took, of a processor."""


def rate_of(exponent: int) -> float:
    return float(2.0 ** (exponent / STEPS))


class NoLoad(ValueError):
    """No rate is too high; the text says what would help."""


class Bench:
    """Where runs are made: the workload read once."""

    def __init__(self, experiment: Experiment, tick: Callable[[int], None] | None = None) -> None:
        self.experiment = experiment
        self.workload = workload(experiment.workload, read(experiment.trace) if experiment.trace else None)
        self.objective = self.workload.objective if experiment.objective is None else experiment.objective
        self.profiles = tuple(profile(name) for name in experiment.profiles or (self.workload.profile,) * self._size)
        self._tick = tick
        self._simulated = 0

    @property
    def _size(self) -> int:
        return len(self.experiment.pool.endpoints)

    def do(self, task: Task) -> Done:
        begun, before = perf_counter(), self._simulated
        result: Any
        match task:
            case Run(strategy, rate, seed):
                recorder = self._run(strategy, rate, seed)
                result = Outcome(recorder.figures(), recorder.course(self.experiment.balancers), forecast(recorder))
            case Hold(strategy, exponent, seed):
                result = self._holds(strategy, exponent, seed)
            case Search(strategy, seed, start):
                result = self._search(strategy, seed, self.guess() if start is None else start)
        return Done(result, self._simulated - before, perf_counter() - begun)

    def guess(self) -> int:
        """Where the endpoints would be busy all the time if nothing were ever cached; a place to begin."""
        plan = Plan(1.0, 1, self._size, min(GUESSED_ON, self.experiment.limit or GUESSED_ON))
        arrivals = self.workload.arrivals(plan)
        requests = list(arrivals.requests)
        span = max(requests[-1].at - requests[0].at, 1e-3)
        turns = arrivals.most / len(requests)
        speed = 0.0
        for each in self.profiles:
            work = 0.0
            for request in requests:
                size = request.prompt_tokens
                work += size * each.token_s + each.attention_s * size * size / 2
                work += request.output_tokens * (each.kv_read_s * size + each.weights_s / 32)
            speed += span / (work * turns)
        return STRIDE * round(STEPS / STRIDE * log2(speed))

    def _run(self, strategy: str, rate: float, seed: int, until_hopeless: bool = False) -> Recorder:
        experiment = self.experiment
        arrivals = self.workload.arrivals(Plan(rate, seed, self._size, experiment.limit))
        recorder = Recorder(self.objective, arrivals.most)
        setting = Setting(
            self.profiles,
            self.workload.block_tokens,
            experiment.balancers,
            experiment.scrape,
            experiment.exchange,
            experiment.faults,
            experiment.sight,
            experiment.stay,
        )
        World(setting, partial(self._balancer, strategy), recorder, seed, self._tick).run(arrivals, until_hopeless)
        self._simulated += len(recorder)
        return recorder

    def _balancer(self, strategy: str, world: World, index: int) -> Balancer:
        dice = Random(f"balancer {index} {world.started} {world.seed}")
        if strategy in PEERS:
            return PeerBalancer(world, PEERS[strategy], dice)
        return CoreBalancer(world, settings_of(self.experiment.pool, strategy), dice, self.experiment.usage)

    def _holds(self, strategy: str, exponent: int, seed: int) -> bool:
        recorder = self._run(strategy, rate_of(exponent), seed, until_hopeless=True)
        return not recorder.hopeless and recorder.figures().ttft_p90 <= self.objective

    def _search(self, strategy: str, seed: int, start: int) -> int | None:
        holds = partial(self._holds, strategy, seed=seed)
        low = high = start
        if holds(start):
            high += STRIDE
            while holds(high):
                if high > start + FAR:
                    raise NoLoad(
                        f"{self.workload.name} meets the objective of {self.objective:g} s at any rate: it has too few "
                        "requests to keep the endpoints busy; ask for a larger --limit, a smaller --objective, fewer "
                        "--endpoints, or say the --rate"
                    )
                low, high = high, high + STRIDE
        else:
            low -= STRIDE
            while not holds(low):
                if low <= LOWEST:
                    return None
                low, high = low - STRIDE, low
        while high - low > 1:
            middle = (low + high) // 2
            if holds(middle):
                low = middle
            else:
                high = middle
        return low


def settings_of(pool: snapshot.Pool, strategy: str) -> snapshot.Pool:
    """The pool with a strategy of ours; `CHWBL/Requests` and `CHWBL/Tokens` say in what load is counted."""
    name, _, load = strategy.partition("/")
    changes = {"strategy": name, "load": load} if load else {"strategy": name}
    return msgspec.structs.replace(pool, dispatch=msgspec.structs.replace(pool.dispatch, **changes))
