"""Virtual time: engines, balancers and requests in one line of events.

The engines are those of engine/timing.py, with blocks of the workload's size. Nothing happens between events; all
randomness comes from one seed, and what falls into the same instant happens in the order in which it was planned.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any, Final, NamedTuple

from ..engine.profiles import PROFILES, Profile
from ..engine.timing import Event, Kind
from .faults import DETECT, Fault
from .measure import Recorder
from .plan import Arrivals
from .request import Request, session_of
from .sights import SCRAPING, Sight
from .stations import Balancer, Flight, Shed, Station

SAMPLE: Final = 1.0
"""Seconds between two looks at how evenly the engines are loaded."""
JITTER: Final = 0.1
"""Scrapes come this share earlier or later than planned, so that balancers do not fall into step."""
TICK: Final = 512
"""Requests between two signs of life."""

# What an entry of the heap is about.
_ENGINE, _SUBMIT, _ARRIVE, _AGAIN, _SCRAPE, _SHARED, _SAMPLE, _FAULT, _FOUND, _NOTE = range(10)


class Setting(NamedTuple):
    """What a run is made of, but for the requests and what decides."""

    profiles: Sequence[Profile]
    """One for each endpoint."""
    block_tokens: int
    balancers: int = 1
    scrape: float | None = None
    """Seconds between two scrapes; None is each balancer's own."""
    exchange: float | None = None
    """Seconds until a balancer knows what another one said; None when they do not speak to each other."""
    faults: Sequence[Fault] = ()
    sight: Sight = SCRAPING
    stay: bool = False
    """Whether all requests of a session come to the same balancer; else each comes to one by dice."""

    @property
    def partial(self) -> bool:
        """Whether the balancers are sidecars, which know that there are others. Gateways find that out by scrapes, and
        who is told of all requests knows all that the others know."""
        return self.balancers > 1 and self.sight.view != "scraped" and self.exchange is None


class World:
    """One run. `make` gives balancer `index` as it starts, with all endpoints that are in the configuration then."""

    def __init__(
        self,
        setting: Setting,
        make: Callable[[World, int], Balancer],
        recorder: Recorder,
        seed: int,
        tick: Callable[[int], None] | None = None,
    ) -> None:
        self.setting = setting
        self.seed = seed
        self.recorder = recorder
        self.stations: list[Station] = []
        self.open = 0  # requests that have arrived and have no answer yet
        self.started = 0  # balancers, restarted ones included
        self.now = 0.0
        self._make = make
        self._tick = tick
        self._dice = Random(f"world {seed}")
        self._heap: list[tuple[float, int, int, Any]] = []
        self._numbers = count()
        self._ids = count()
        self._to_come = 0  # arrivals that are in the heap
        for profile in setting.profiles:
            self._build(profile)
        self.balancers: list[Balancer] = []
        for index in range(setting.balancers):
            self.balancers.append(self._start(index))
            if setting.sight.view == "scraped":
                self._plan(self._dice.random() * self._scrape(index), _SCRAPE, index)
        if setting.sight.view == "shared":
            self._plan(self._dice.random() * self._scrape(0), _SCRAPE, None)
        self._plan(SAMPLE, _SAMPLE, None)
        for fault in setting.faults:
            self._plan(fault.at, _FAULT, fault)

    @property
    def configured(self) -> list[Station]:
        """The endpoints that balancers have in their configuration: not those known to be dead."""
        return [station for station in self.stations if not station.known_dead]

    def publish(self, sender: Balancer, note: Any) -> None:
        """Let the other balancers know something, as soon as the exchange between them allows."""
        if self.setting.exchange is not None and len(self.balancers) > 1:
            self._plan(self.now + self.setting.exchange, _NOTE, (sender, note))

    def run(self, arrivals: Arrivals, until_hopeless: bool = False) -> None:
        """To the last answer; with `until_hopeless` only until the recorder knows that the objective is missed."""
        heap, recorder, pop = self._heap, self.recorder, heapq.heappop
        source = arrivals.requests
        request = next(source, None)
        while request is not None or self.open or self._to_come:
            if request is not None and request.at <= heap[0][0]:
                self.now = now = request.at
                self._arrive(request, now)
                request = next(source, None)
                continue
            now, _, what, about = pop(heap)
            self.now = now
            if what == _ENGINE:
                if about.due != now or not about.alive:
                    continue  # it was planned anew meanwhile
                about.due = None
                self._happened(about, about.timing.advance(now))
                if until_hopeless and recorder.hopeless:
                    return
            elif what == _SAMPLE:
                timings = [station.timing for station in self.stations if station.alive]
                recorder.sampled([timing.waiting + timing.running for timing in timings])
                self._plan(now + SAMPLE, _SAMPLE, None)
            elif what == _SCRAPE:
                readings = [station.read(now) for station in self.stations if station.alive]
                if about is None:
                    self._plan(now + self.setting.sight.delay, _SHARED, readings)
                else:
                    self.balancers[about].scraped(readings, now)
                wait = self._scrape(about or 0) * (1 - JITTER + 2 * JITTER * self._dice.random())
                self._plan(now + wait, _SCRAPE, about)
            elif what == _SHARED:
                for balancer in self.balancers:
                    balancer.scraped(about, now)
            elif what == _ARRIVE:
                self._to_come -= 1
                self._arrive(about, now)
            elif what == _AGAIN:
                self._dispatch(about, now)
            elif what == _SUBMIT:
                self._submit(about, now)
            elif what == _NOTE:
                sender, note = about
                for balancer in self.balancers:
                    if balancer is not sender:
                        balancer.noted(note, now)
            elif what == _FAULT:
                self._fault(about, now)
            else:
                self._found_dead(about, now)

    # ---- the way of a request ----------------------------------------------------------------------------------

    def _arrive(self, request: Request, now: float) -> None:
        self.open += 1
        self.recorder.arrived(now)
        balancers = len(self.balancers)
        if balancers > 1:
            request.balancer = session_of(request) % balancers if self.setting.stay else self._dice.randrange(balancers)
        self._dispatch(request, now)

    def _dispatch(self, request: Request, now: float) -> None:
        balancer = self.balancers[request.balancer]
        sent = balancer.dispatch(request, now)
        if isinstance(sent, Shed):
            self._turned_away(request)
            return
        request.attempts += 1
        request.dispatched_at = now
        flight = Flight(next(self._ids), request, balancer, sent.station, sent.ticket)
        latency = sent.station.timing.profile.latency_s
        if latency:
            self._plan(now + latency, _SUBMIT, flight)
        else:
            self._submit(flight, now)

    def _submit(self, flight: Flight, now: float) -> None:
        station = flight.station
        if not station.alive:
            if station.known_dead:
                self._again(flight, now)
            else:
                station.lost.append(flight)
        elif flight.prompt_tokens + flight.output_tokens > station.timing.profile.longest:
            flight.balancer.lost(flight, now)
            self._turned_away(flight.request)
        else:
            self._happened(station, station.timing.submit(flight, now))

    def _happened(self, station: Station, events: Sequence[Event]) -> None:
        for at, kind, flight in events:
            assert isinstance(flight, Flight)
            request = flight.request
            if kind == Kind.FIRST_TOKEN:
                request.first_token_at = at
                request.cached_tokens = flight.cached_tokens
                flight.balancer.first_token(flight, at)
                continue
            request.finished_at = at
            flight.balancer.finished(flight, at)
            self.open -= 1
            self.recorder.finished(request, at)
            if self._tick is not None and not len(self.recorder) % TICK:
                self._tick(TICK)
            if request.follow is not None:
                following = request.follow(request, at)
                if following is not None:
                    self._to_come += 1
                    self._plan(following.at, _ARRIVE, following)
        due = station.timing.next_change()
        if due is not None and due != station.due:
            station.due = due
            self._plan(due, _ENGINE, station)

    def _turned_away(self, request: Request) -> None:
        self.open -= 1
        self.recorder.turned_away(request)

    # ---- what goes wrong ---------------------------------------------------------------------------------------

    def _fault(self, fault: Fault, now: float) -> None:
        if fault.kind == "restart-balancer":
            # The old process answers what it has begun; the new one knows nothing of that, nor of anything else.
            self.balancers[fault.target] = self._start(fault.target)
        elif fault.kind == "join":
            station = self._build(PROFILES[fault.profile] if fault.profile else self.setting.profiles[0])
            for balancer in self.balancers:
                balancer.added(station, now)
        else:
            station = self.stations[fault.target]
            station.alive = False
            for sequence in station.timing.live:
                assert isinstance(sequence, Flight)
                station.lost.append(sequence)
            self._plan(now + DETECT, _FOUND, station)

    def _found_dead(self, station: Station, now: float) -> None:
        station.known_dead = True
        for flight in station.lost:
            self._again(flight, now)
        station.lost.clear()
        for balancer in self.balancers:
            balancer.removed(station, now)

    def _again(self, flight: Flight, now: float) -> None:
        flight.balancer.lost(flight, now)
        request = flight.request
        request.first_token_at = None
        request.cached_tokens = 0
        self.recorder.repeated += 1
        self._plan(now, _AGAIN, request)

    # ---- small things ------------------------------------------------------------------------------------------

    def _plan(self, at: float, what: int, about: Any) -> None:
        heapq.heappush(self._heap, (at, next(self._numbers), what, about))

    def _build(self, profile: Profile) -> Station:
        station = Station(len(self.stations), replace(profile, block_tokens=self.setting.block_tokens))
        self.stations.append(station)
        return station

    def _start(self, index: int) -> Balancer:
        self.started += 1
        return self._make(self, index)

    def _scrape(self, index: int) -> float:
        return self.setting.scrape or self.balancers[index].scrape_seconds
