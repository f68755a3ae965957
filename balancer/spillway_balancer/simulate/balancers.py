"""The balancers of a run: the product's own core, or the policy of a peer, with the books that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final

import msgspec
from xxhash import xxh3_64_intdigest

from spillway_api import snapshot

from ..core.endpoint import EndpointState
from ..core.learning import Usage
from ..core.load import Reported
from ..core.notes import Note
from ..core.past import Past
from ..core.pool import Pool, Want
from ..core.prefix import Prompt
from ..core.visits import Visit
from .peers.base import Peer, View
from .request import Request, session_of
from .stations import Flight, Reading, Sent, Shed, Station
from .world import World

BYTES_PER_TOKEN: Final = 4
"""Of the text that the requests stand for."""
OUTPUT_ASKED: Final = 256
"""Tokens. How long an answer will be nobody knows beforehand; this is what requests that do not say are taken for."""
SCRAPE: Final = 1.0
"""Seconds."""


class CoreBalancer:
    """The product's own dispatch: a pool of core/ with all that it is told by a proxy around it.

    `template` has the settings of the pool; its endpoints' weights go to the stations in their order. With `usage`
    engines say what they counted, as vLLM does with --enable-prompt-tokens-details.
    """

    scrape_seconds = SCRAPE

    def __init__(self, world: World, template: snapshot.Pool, dice: Random, usage: bool = True) -> None:
        self._world = world
        self._template = template
        self._dice = dice
        self._usage = usage
        self._stations = {station.name: station for station in world.configured}
        self.pool = Pool(self._spec())
        self.pool.partial = world.setting.partial
        self._name = f"balancer {world.started}"
        if world.setting.exchange is not None:
            self.pool.tell_sisters = self._tell

    def _spec(self) -> snapshot.Pool:
        given = self._template.endpoints
        endpoints = tuple(
            snapshot.Endpoint(
                name, f"http://{name}", given[station.index].weight if station.index < len(given) else 100
            )
            for name, station in self._stations.items()
        )
        return msgspec.structs.replace(self._template, endpoints=endpoints)

    def dispatch(self, request: Request, now: float) -> Sent | Shed:
        pool = self.pool
        prompt = prompt_of(request) if pool.wants_prompt else None
        want = Want(key_of(request), request.prompt_tokens, OUTPUT_ASKED, prompt)
        picked = pool.pick(want, (), now, self._dice)
        if isinstance(picked, str):
            return Shed(picked)
        request.hit_predicted = picked.forecast.cached_tokens
        request.ttft_predicted = picked.forecast.ttft
        return Sent(self._stations[picked.endpoint.name], pool.visit(picked, now))

    def first_token(self, flight: Flight, now: float) -> None:
        visit: Visit = flight.ticket
        visit.first_token(now)

    def finished(self, flight: Flight, now: float) -> None:
        visit: Visit = flight.ticket
        if self._usage:
            visit.usage(Usage(flight.prompt_tokens, flight.cached_tokens, flight.output_tokens))
        visit.end(now, flight.request.answer_blocks)

    def lost(self, flight: Flight, now: float) -> None:
        visit: Visit = flight.ticket
        visit.end(now, ok=False)

    def scraped(self, readings: Sequence[Reading], now: float) -> None:
        endpoints = self.pool.endpoints
        for reading in readings:
            endpoint = endpoints.get(reading.station.name)
            if endpoint is not None:
                tell_metrics(endpoint, reading, late=self.pool.partial)

    def removed(self, station: Station, now: float) -> None:
        if self._stations.pop(station.name, None) is not None:
            self.pool = Pool(self._spec(), self.pool)

    def added(self, station: Station, now: float) -> None:
        self._stations[station.name] = station
        self.pool = Pool(self._spec(), self.pool)

    def _tell(self, note: Note) -> None:
        self._world.publish(self, (self._name, note))

    def noted(self, note: Any, now: float) -> None:
        sender, said = note
        self.pool.heard(sender, said, now)


def prompt_of(request: Request) -> Prompt:
    """As a balancer would have hashed its text."""
    size, block = request.prompt_tokens * BYTES_PER_TOKEN, request.block_tokens * BYTES_PER_TOKEN
    return Prompt(request.blocks, size, block, request.history_tokens * BYTES_PER_TOKEN)


def key_of(request: Request) -> int:
    return xxh3_64_intdigest(session_of(request).to_bytes(8, "little"))


def tell_metrics(endpoint: EndpointState, reading: Reading, late: bool = False) -> None:
    """What a scrape of the engine's page tells of it. Of one that comes `late` to a sidecar, own requests are those of
    its time. (Where balancers tell each other of their requests that is late too, and makes up for it.)"""
    if endpoint.past is None:
        endpoint.past = Past(endpoint.load)
    own = endpoint.past.at(reading.at if late else float("inf"))
    report = Reported(
        at=reading.at,
        waiting=reading.waiting,
        running=reading.running,
        kv_usage=reading.kv_usage,
        own=own.in_flight,
        prefix_queries=reading.queried_tokens,
        prefix_hits=reading.cached_tokens,
        own_pending=own.pending,
        own_context=own.context,
    )
    endpoint.reported(report, reading.station.timing.profile.kv_tokens)


class PeerBalancer:
    """A balancer that decides as another project does, with books as exact as ours."""

    def __init__(self, world: World, policy: type[Peer], dice: Random) -> None:
        self.scrape_seconds = policy.scrape_seconds
        self._stations = {station.index: station for station in world.configured}
        self._views = {index: _view(station) for index, station in self._stations.items()}
        self._policy = policy()
        self._policy.begin(list(self._views.values()), dice, world.setting.block_tokens)

    def dispatch(self, request: Request, now: float) -> Sent | Shed:
        views = list(self._views.values())
        if not views:
            return Shed("no-ready-endpoint")
        view = self._policy.choose(request, views, now)
        cached = min(float(request.prompt_tokens), self._policy.estimate(request, view))
        uncached = request.prompt_tokens - cached
        request.view = view
        request.hit_predicted = cached
        view.in_flight += 1
        view.pending += 1
        view.pending_tokens += uncached
        view.context_tokens += request.prompt_tokens
        self._policy.dispatched(request, view, now)
        return Sent(self._stations[view.index], (view, uncached))

    def first_token(self, flight: Flight, now: float) -> None:
        view, uncached = flight.ticket
        view.pending -= 1
        view.pending_tokens = view.pending_tokens - uncached if view.pending else 0.0
        view.decoding += 1
        if view.alive:
            self._policy.first_token(flight.request, view, now)

    def finished(self, flight: Flight, now: float) -> None:
        view, _ = flight.ticket
        view.in_flight -= 1
        view.context_tokens -= flight.prompt_tokens
        view.decoding -= 1
        if view.alive:
            self._policy.finished(flight.request, view, now)

    def lost(self, flight: Flight, now: float) -> None:
        view, uncached = flight.ticket
        view.in_flight -= 1
        view.context_tokens -= flight.prompt_tokens
        if flight.first_token_at is None:
            view.pending -= 1
            view.pending_tokens = view.pending_tokens - uncached if view.pending else 0.0
        else:
            view.decoding -= 1
        if flight.station.alive:  # refused: for its books that is an end like any other
            self._policy.finished(flight.request, view, now)

    def scraped(self, readings: Sequence[Reading], now: float) -> None:
        for reading in readings:
            view = self._views.get(reading.station.index)
            if view is not None:
                view.waiting = reading.waiting
                view.running = reading.running
                view.kv_usage = reading.kv_usage
        self._policy.scraped(now)

    def removed(self, station: Station, now: float) -> None:
        view = self._views.pop(station.index, None)
        if view is not None:
            view.alive = False
            self._policy.removed(view)

    def added(self, station: Station, now: float) -> None:
        self._stations[station.index] = station
        self._views[station.index] = view = _view(station)
        self._policy.added(view)

    def noted(self, note: Any, now: float) -> None:
        """Peers have no exchange between their balancers."""


def _view(station: Station) -> View:
    return View(station.index, station.name, station.timing.profile, station.truth)
