"""What the balancer's /metrics page says, read as Prometheus would read it: the view shows nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

WINDOW_SECONDS: Final = 5.0
"""Over how long the rates and times of the view are taken."""


class EndpointFigures(NamedTuple):
    """One endpoint. None where the page says nothing: unknown, not 0."""

    pool: str  # without the namespace
    name: str
    state: str
    attempts: float
    in_flight: float | None
    waiting: float | None
    queried: float | None  # prompt tokens looked up in the engine's prefix cache, by the last scrape
    cached: float | None  # of those, found
    first_tokens: float
    first_token_seconds: float

    @property
    def hit_share(self) -> float | None:
        return share(self.cached, self.queried)


class Figures(NamedTuple):
    """One page, taken `at` seconds of the caller's clock."""

    at: float
    endpoints: tuple[EndpointFigures, ...]
    requests: float
    tiered: float  # requests that were sent to some tier
    spilled: float  # of those, not to the first

    @property
    def spilled_share(self) -> float | None:
        return share(self.spilled, self.tiered)

    @property
    def hit_share(self) -> float | None:
        known = [each for each in self.endpoints if each.queried is not None and each.cached is not None]
        return share(sum(each.cached or 0.0 for each in known), sum(each.queried or 0.0 for each in known))


def share(part: float | None, whole: float | None) -> float | None:
    """None for a share of nothing or of the unknown."""
    if part is None or not whole:
        return None
    return part / whole


def read(page: str, at: float) -> Figures:
    """The figures of a page. ValueError when it is no page of metrics."""
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))

    def by_endpoint(name: str) -> dict[tuple[str, str], float]:
        sums: dict[tuple[str, str], float] = {}
        for labels, value in samples.get(name, ()):
            key = (labels["pool"], labels["endpoint"])
            sums[key] = sums.get(key, 0.0) + value
        return sums

    states = {
        (labels["pool"], labels["endpoint"]): labels["state"]
        for labels, value in samples.get("spillway_endpoint_state", ())
        if value
    }
    attempts = by_endpoint("spillway_attempts_total")
    in_flight = by_endpoint("spillway_endpoint_in_flight")
    waiting = by_endpoint("spillway_engine_waiting_requests")
    queried = by_endpoint("spillway_engine_prefix_cache_queries_total")
    cached = by_endpoint("spillway_engine_prefix_cache_hits_total")
    firsts = by_endpoint("spillway_endpoint_time_to_first_byte_seconds_count")
    first_seconds = by_endpoint("spillway_endpoint_time_to_first_byte_seconds_sum")
    endpoints = tuple(
        EndpointFigures(
            pool=key[0].rpartition("/")[2],
            name=key[1],
            state=state,
            attempts=attempts.get(key, 0.0),
            in_flight=in_flight.get(key),
            waiting=waiting.get(key),
            queried=queried.get(key),
            cached=cached.get(key),
            first_tokens=firsts.get(key, 0.0),
            first_token_seconds=first_seconds.get(key, 0.0),
        )
        for key, state in states.items()
    )
    tiers = samples.get("spillway_tier_requests_total", [])
    return Figures(
        at=at,
        endpoints=endpoints,
        requests=sum(value for _, value in samples.get("spillway_requests_total", ())),
        tiered=sum(value for _, value in tiers),
        spilled=sum(value for labels, value in tiers if labels["spilled"] == "true"),
    )


class Window:
    """The pages of the last seconds, for what is a rate. Pages must come in the order of their time."""

    def __init__(self, pages: Iterable[Figures] = (), seconds: float = WINDOW_SECONDS) -> None:
        self._seconds = seconds
        self._pages: deque[Figures] = deque()
        for page in pages:
            self.add(page)

    def add(self, page: Figures) -> None:
        self._pages.append(page)
        # The youngest page that is at least as old as the window stays: it is what the others are compared with.
        while len(self._pages) > 2 and self._pages[1].at <= page.at - self._seconds:
            self._pages.popleft()

    @property
    def last(self) -> Figures | None:
        return self._pages[-1] if self._pages else None

    def requests_per_second(self) -> float | None:
        if len(self._pages) < 2:
            return None
        old, new = self._pages[0], self._pages[-1]
        return (new.requests - old.requests) / (new.at - old.at) if new.at > old.at else None

    def first_token(self, pool: str | None = None, name: str | None = None) -> float | None:
        """Mean seconds to the first token within the window, of one endpoint or of all; None when there was none."""
        if len(self._pages) < 2:
            return None
        (old_count, old_sum), (new_count, new_sum) = (
            _first_tokens(page, pool, name) for page in (self._pages[0], self._pages[-1])
        )
        return share(new_sum - old_sum, new_count - old_count) if new_count > old_count else None


def _first_tokens(page: Figures, pool: str | None, name: str | None) -> tuple[float, float]:
    chosen = [
        each for each in page.endpoints if (pool is None or each.pool == pool) and (name is None or each.name == name)
    ]
    return sum(each.first_tokens for each in chosen), sum(each.first_token_seconds for each in chosen)
