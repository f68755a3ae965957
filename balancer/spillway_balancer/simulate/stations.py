"""What the world and its balancers have in common: endpoints, attempts, and what is asked of a balancer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ..engine.profiles import Profile
from ..engine.timing import EngineTiming
from ..engine.timing import Sequence as EngineSequence
from .request import Request


class Station:
    """One endpoint: an engine, and what the world must remember of it."""

    __slots__ = ("alive", "due", "index", "known_dead", "lost", "name", "timing")

    def __init__(self, index: int, profile: Profile) -> None:
        self.index = index
        self.name = f"e{index}"
        self.timing = EngineTiming(profile)
        self.alive = True
        self.known_dead = False  # the balancers have noticed
        self.due: float | None = None  # the change of the engine that the world waits for
        self.lost: list[Flight] = []  # what was sent there and will have no answer

    def truth(self, request: Request) -> int:
        """Leading blocks of the prompt that are in the cache at this moment."""
        timing = self.timing
        return timing.pool.match(request.blocks, (request.prompt_tokens - 1) // timing.profile.block_tokens)

    def read(self, now: float) -> Reading:
        """Its metrics, at this moment."""
        if self.due is not None and self.due > now:
            self.timing.advance(now)  # ends nothing, but tokens of long answers count
        timing = self.timing
        return Reading(
            self, now, timing.waiting, timing.running, timing.kv_usage, timing.queried_tokens, timing.cached_tokens
        )


class Reading(NamedTuple):
    """What an endpoint's metrics said `at` seconds of the run."""

    station: Station
    at: float
    waiting: int
    running: int
    kv_usage: float
    queried_tokens: int
    cached_tokens: int


class Flight(EngineSequence):
    """One attempt of a request at one endpoint. `ticket` is what its balancer wants to see again."""

    __slots__ = ("balancer", "request", "station", "ticket")

    def __init__(self, id: int, request: Request, balancer: Balancer, station: Station, ticket: Any) -> None:
        answer = request.answer_blocks
        blocks = request.blocks + answer if answer else request.blocks
        super().__init__(id, request.prompt_tokens, request.output_tokens, blocks)
        self.request = request
        self.balancer = balancer
        self.station = station
        self.ticket = ticket


class Sent(NamedTuple):
    """A balancer's decision."""

    station: Station
    ticket: Any


class Shed(NamedTuple):
    """There is no endpoint for a request."""

    reason: str


class Balancer(Protocol):
    """One balancer, whatever decides in it. It is told of things in the order in which they happen."""

    scrape_seconds: float

    def dispatch(self, request: Request, now: float) -> Sent | Shed:
        """Where a request goes. The request then counts as on its way."""
        ...

    def first_token(self, flight: Flight, now: float) -> None:
        """Its first token has come."""

    def finished(self, flight: Flight, now: float) -> None:
        """Its answer has ended."""

    def lost(self, flight: Flight, now: float) -> None:
        """There will be no answer: the endpoint has died, or has refused it."""

    def scraped(self, readings: Sequence[Reading], now: float) -> None:
        """Metrics of the endpoints that were alive when they were read; just now, or some time ago by another one."""

    def removed(self, station: Station, now: float) -> None:
        """The endpoint has left the configuration."""

    def added(self, station: Station, now: float) -> None:
        """An endpoint has come, its cache empty."""

    def noted(self, note: Any, now: float) -> None:
        """Another balancer has said something."""
