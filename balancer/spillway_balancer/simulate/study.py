"""From what was asked to a document of results: which runs it takes, and what they come to over the seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from .crew import Crew
from .faults import DETECT
from .forecasts import Forecast
from .measure import PARTS, Figures, estimate
from .peers import PEERS
from .runs import STEPS, Bench, Done, Experiment, Hold, Outcome, Run, Search, rate_of
from .world import JITTER

Document = dict[str, Any]
"""What goes to results.json: plain values, no times of day or of processors, so that equal runs make equal files."""

DIGITS: Final = 6
"""Decimals that results are rounded to."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be found out."""

    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    loads: tuple[float, ...] = ()
    """Shares of the capacity of the best strategy."""
    rates: tuple[float, ...] = ()
    """In the workload's unit."""
    capacity: bool = False


class Study:
    """Puts a question to a crew. `said` is told in a few words what is being done."""

    def __init__(self, question: Question, experiment: Experiment, crew: Crew, said: Callable[[str], None]) -> None:
        self._question = question
        self._experiment = experiment
        self._crew = crew
        self._said = said
        self.requests = 0
        """Simulated, all told."""
        self.seconds = 0.0
        """Of processors, that it took."""

    def answer(self, bench: Bench) -> Document:
        question = self._question
        capacity = self._capacities() if question.capacity else None
        rates: list[tuple[float | None, float]] = [(None, rate) for rate in question.rates]
        if question.loads:
            best = self._best(capacity)
            if best:
                rates += [(load, load * best) for load in question.loads]
        return {
            "spillway": version("spillway"),
            "workload": {
                "name": bench.workload.name,
                "about": bench.workload.about,
                "unit": bench.workload.unit,
                "objective": bench.objective,
            },
            "setup": self._setup(bench),
            "strategies": {name: _strategy(name) for name in question.strategies},
            "capacity": capacity,
            "loads": [self._load(share, rate) for share, rate in rates],
        }

    def _setup(self, bench: Bench) -> Document:
        experiment = self._experiment
        return {
            "endpoints": [profile.name for profile in bench.profiles],
            "weights": [endpoint.weight for endpoint in experiment.pool.endpoints],
            "balancers": experiment.balancers,
            "scrapeSeconds": experiment.scrape,
            "scrapeJitter": JITTER,
            "exchangeSeconds": experiment.exchange,
            "view": str(experiment.sight),
            "sessionsStay": experiment.stay,
            "events": [str(fault) for fault in experiment.faults],
            "detectSeconds": DETECT,
            "limit": experiment.limit,
            "usage": experiment.usage,
            "seeds": list(self._question.seeds),
        }

    # ---- capacity ----------------------------------------------------------------------------------------------

    def _capacities(self) -> Document:
        """Of each strategy, the highest rate at which 90 % of first tokens come within the objective."""
        question = self._question
        self._said("capacity")
        done = self._do([Search(strategy, seed) for strategy in question.strategies for seed in question.seeds])
        found: Document = {}
        for index, strategy in enumerate(question.strategies):
            mine = done[index * len(question.seeds) : (index + 1) * len(question.seeds)]
            rates = [0.0 if each.result is None else rate_of(each.result) for each in mine]
            found[strategy] = _estimated(rates)
        for strategy, ratio in _ratios({name: each["seeds"] for name, each in found.items()}, max).items():
            found[strategy]["ratio"] = ratio
        return {"step": round(2 ** (1 / STEPS) - 1, DIGITS), "strategies": found}

    def _best(self, capacity: Document | None) -> float:
        """Capacity of the best strategy; where nothing else asks for it, of the first seed, with few runs."""
        question = self._question
        if capacity is not None:
            return float(max(each["mean"] for each in capacity["strategies"].values()))
        self._said("capacity of the best strategy")
        seed = question.seeds[0]
        first, *others = question.strategies
        best: int | None = self._do([Search(first, seed)])[0].result
        if best is None:
            held = others
        else:
            tried = self._do([Hold(strategy, best + 1, seed) for strategy in others])
            held = [strategy for strategy, each in zip(others, tried, strict=True) if each.result]
        for each in self._do([Search(strategy, seed, best) for strategy in held]):
            if each.result is not None:
                best = each.result if best is None else max(best, each.result)
        return 0.0 if best is None else rate_of(best)

    # ---- one rate ----------------------------------------------------------------------------------------------

    def _load(self, share: float | None, rate: float) -> Document:
        question = self._question
        self._said(f"rate {rate:.4g}" if share is None else f"{share:.0%} load")
        runs = [Run(strategy, rate, seed) for strategy in question.strategies for seed in question.seeds]
        done = self._do(runs)
        strategies: Document = {}
        for index, strategy in enumerate(question.strategies):
            mine = done[index * len(question.seeds) : (index + 1) * len(question.seeds)]
            strategies[strategy] = _summary([each.result for each in mine])
        means = {name: each["figures"]["ttft_mean"]["seeds"] for name, each in strategies.items()}
        for strategy, ratio in _ratios(means, min).items():
            strategies[strategy]["figures"]["ttft_ratio"] = ratio
        return {"rate": _rounded(rate), "share": share, "strategies": strategies}

    def _do(self, tasks: Sequence[Run | Hold | Search]) -> list[Done]:
        done = self._crew.do(tasks) if tasks else []
        self.requests += sum(each.requests for each in done)
        self.seconds += sum(each.seconds for each in done)
        return done


def _summary(outcomes: Sequence[Outcome]) -> Document:
    """Figures over the seeds; the course of the first one."""
    first = outcomes[0].course
    return {
        "figures": {name: _estimated([getattr(each.figures, name) for each in outcomes]) for name in Figures._fields},
        "curve": [
            [part, _rounded(sum(each.course.curve[index] for each in outcomes) / len(outcomes))]
            for index, part in enumerate(PARTS)
        ],
        "forecast": _forecast([each.forecast for each in outcomes if each.forecast is not None]),
        "windows": _rounded(first.windows),
        "balancers": _rounded(first.balancers),
    }


def _forecast(found: Sequence[Forecast]) -> Document | None:
    """None where a strategy predicts nothing."""
    if not found:
        return None
    return {name: _estimated([getattr(each, name) for each in found]) for name in Forecast._fields}


def _ratios(values: Mapping[str, Sequence[float]], best: Callable[..., str]) -> dict[str, Document]:
    """Of each strategy to the best one, seed by seed.

    Under one seed all get the very same requests, so a ratio tells more than two means over seeds that differ.
    """
    leader = values[best(values, key=lambda name: sum(values[name]))]
    return {
        name: _estimated([each / of if of else 1.0 for each, of in zip(mine, leader, strict=True)])
        for name, mine in values.items()
    }


def _estimated(values: Sequence[float]) -> Document:
    mean, margin = estimate(values)
    return {"mean": _rounded(mean), "margin": _rounded(margin), "seeds": _rounded(values)}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return value


def _strategy(name: str) -> Document:
    peer = PEERS.get(name)
    if peer is None:
        return {"ours": True}
    return {"ours": False, "source": peer.source, "parameters": peer.parameters}
