"""What came of a run: every finished request as a line of numbers, and the figures made of them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import ceil, nan
from typing import Final, NamedTuple

from .request import Request

WARM_UP: Final = 0.1
"""Share of the requests, the first to arrive, that are not counted: caches and queues start empty."""
PARTS: Final = (*(each / 20 for each in range(20)), 0.97, 0.98, 0.99, 0.995, 1.0)
"""Where the curve of the times to the first token is read off."""
WINDOWS: Final = 60
"""A run is cut into about so many, to see what changes in its course."""
SHORTEST_WINDOW: Final = 5.0
"""Seconds."""


def percentile(ordered: Sequence[float], part: float) -> float:
    """Nearest rank: the smallest value that `part` (0 to 1) of the values do not exceed; 0 when there are none."""
    return ordered[max(0, ceil(part * len(ordered)) - 1)] if ordered else 0.0


class Window(NamedTuple):
    """Requests that arrived in a stretch of the run that begins at `at` seconds."""

    at: float
    requests: int
    ttft_mean: float
    ttft_p99: float
    hit_share: float


class Figures(NamedTuple):
    """One run. Times in seconds, from the arrival at the balancer."""

    requests: int
    """Counted ones: finished, and not of the warm-up."""
    ttft_mean: float
    ttft_p50: float
    ttft_p90: float
    ttft_p99: float
    e2e_mean: float
    within_objective: float
    """Share of requests whose first token came in time; shed ones did not have one."""
    throughput: float
    """Finished requests a second."""
    hit_share: float
    """Prompt tokens found in the engines' caches."""
    hit_believed: float
    """Share of prompt tokens that the balancer believed to be there."""
    imbalance: float
    """Load of the busiest endpoint by the mean load, over all looks at them."""
    shed: int
    """Requests that found no endpoint that would take them, or were longer than any engine's memory."""
    repeated: int
    """Attempts that were lost with their endpoint and made again."""
    span: float
    """Seconds of simulated time."""


class Course(NamedTuple):
    """What the figures of a run do not tell."""

    curve: tuple[float, ...]
    """Times to the first token at PARTS."""
    windows: tuple[Window, ...]
    balancers: tuple[tuple[Window, ...], ...]
    """The same for the requests of each balancer, where there are several."""


class Recorder:
    """Takes down what happens, cheaply; `most` bounds how many requests there will be."""

    __slots__ = (
        "_arrived",
        "_at",
        "_balancer",
        "_cached",
        "_e2e",
        "_expected",
        "_late",
        "_late_allowed",
        "_prompt",
        "_ttft",
        "_warm",
        "_warm_until",
        "believed",
        "busiest",
        "finished_at",
        "hopeless",
        "mean",
        "objective",
        "repeated",
        "shed",
        "started_at",
    )

    def __init__(self, objective: float, most: int) -> None:
        self.objective = objective
        self.hopeless = False  # whether p90 must come out above the objective, however the run goes on
        self.shed = 0
        self.repeated = 0
        self.started_at: float | None = None
        self.finished_at = 0.0
        self.busiest = array("d")
        self.mean = array("d")
        self.believed = array("d")
        self._arrived = 0
        self._warm = int(WARM_UP * most)
        self._warm_until = float("inf")
        self._late = 0
        self._late_allowed = 0.1 * (most - self._warm) + 1
        self._at = array("d")
        self._ttft = array("d")
        self._e2e = array("d")
        self._expected = array("d")
        self._prompt = array("L")
        self._cached = array("L")
        self._balancer = array("H")

    def __len__(self) -> int:
        return len(self._at)

    def arrived(self, now: float) -> None:
        if self.started_at is None:
            self.started_at = now
        self._arrived += 1
        if self._arrived == self._warm + 1:
            self._warm_until = now

    def late(self, request: Request, waited: float) -> None:
        """Its first token has come, or will come, too late: called at most once for a request."""
        if request.at >= self._warm_until:
            self._late += 1
            self.hopeless = self._late > self._late_allowed

    def finished(self, request: Request, now: float) -> None:
        at = request.at
        first = request.first_token_at
        waited = (now if first is None else first) - at
        if waited > self.objective:
            self.late(request, waited)
        self._at.append(at)
        self._ttft.append(waited)
        self._e2e.append(now - at)
        said = request.ttft_predicted
        self._expected.append(nan if said is None or request.attempts != 1 else said)
        self._prompt.append(request.prompt_tokens)
        self._cached.append(request.cached_tokens)
        self._balancer.append(request.balancer)
        self.believed.append(request.hit_predicted)
        self.finished_at = now

    def turned_away(self, request: Request) -> None:
        self.shed += 1
        self.late(request, float("inf"))

    def sampled(self, loads: Sequence[int]) -> None:
        """How many requests are on each endpoint that is alive, at one moment."""
        total = sum(loads)
        if total:
            self.busiest.append(max(loads))
            self.mean.append(total / len(loads))

    def figures(self) -> Figures:
        order = self._counted()
        ttft = sorted(self._ttft[index] for index in order)
        number = len(order)
        prompt = sum(self._prompt[index] for index in order)
        late = sum(each > self.objective for each in ttft)
        looks = slice(int(WARM_UP * len(self.mean)), None)
        load = sum(self.mean[looks])
        span = self.finished_at - (self.started_at or 0.0)
        return Figures(
            requests=number,
            ttft_mean=_mean(ttft),
            ttft_p50=percentile(ttft, 0.5),
            ttft_p90=percentile(ttft, 0.9),
            ttft_p99=percentile(ttft, 0.99),
            e2e_mean=sum(self._e2e[index] for index in order) / number if number else 0.0,
            within_objective=(number - late) / (number + self.shed) if number else 0.0,
            throughput=len(self._at) / span if span else 0.0,
            hit_share=sum(self._cached[index] for index in order) / prompt if prompt else 0.0,
            hit_believed=sum(self.believed[index] for index in order) / prompt if prompt else 0.0,
            imbalance=sum(self.busiest[looks]) / load if load else 1.0,
            shed=self.shed,
            repeated=self.repeated,
            span=span,
        )

    def first_tokens(self) -> tuple[list[float], list[float]]:
        """Seconds to the first token, as predicted when they were sent and as they came. What was not predicted, and
        requests that were sent more than once, are NaN."""
        order = self._counted()
        return [self._expected[index] for index in order], [self._ttft[index] for index in order]

    def course(self, balancers: int) -> Course:
        ttft = sorted(self._ttft[index] for index in self._counted())
        everything = range(len(self._at))
        each = tuple(
            self._windows([index for index in everything if self._balancer[index] == balancer])
            for balancer in range(balancers if balancers > 1 else 0)
        )
        return Course(tuple(percentile(ttft, part) for part in PARTS), self._windows(everything), each)

    def _counted(self) -> list[int]:
        """Indices of what is not of the warm-up, in order of arrival."""
        order = sorted(range(len(self._at)), key=self._at.__getitem__)
        return order[int(WARM_UP * len(order)) :]

    def _windows(self, indices: Sequence[int]) -> tuple[Window, ...]:
        start = self.started_at or 0.0
        width = max(SHORTEST_WINDOW, (self.finished_at - start) / WINDOWS)
        inside: dict[int, list[int]] = {}
        for index in indices:
            inside.setdefault(int((self._at[index] - start) / width), []).append(index)
        windows = []
        for number in sorted(inside):
            those = inside[number]
            ttft = sorted(self._ttft[index] for index in those)
            prompt = sum(self._prompt[index] for index in those)
            hit = sum(self._cached[index] for index in those) / prompt if prompt else 0.0
            windows.append(Window(start + number * width, len(those), _mean(ttft), percentile(ttft, 0.99), hit))
        return tuple(windows)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


# ---- several runs ------------------------------------------------------------------------------------------------

# Student's t: 97.5 % quantiles for 1 to 30 degrees of freedom; NIST/SEMATECH e-Handbook, 1.3.6.7.2.
_T: Final = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class Estimate(NamedTuple):
    """Mean over seeds, and half the width of its 95 % confidence interval; None of one seed, which tells nothing."""

    mean: float
    margin: float | None


def estimate(values: Sequence[float]) -> Estimate:
    number = len(values)
    mean = sum(values) / number
    if number < 2:
        return Estimate(mean, None)
    deviation = (sum((value - mean) ** 2 for value in values) / (number - 1)) ** 0.5
    return Estimate(mean, _T[min(number - 1, len(_T)) - 1] * deviation / number**0.5)
