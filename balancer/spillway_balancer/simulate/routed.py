"""A balancer that serves a whole policy in virtual time: rules, tiers, spill, limits and attempts are the product's.

Endpoints of all pools are the world's stations, in the order of the snapshot's pools and their endpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

from spillway_api import snapshot
from spillway_api.providers import Api

from ..core.attempts import Attempts, Stop, Try
from ..core.conditions import Moment
from ..core.consumers import Consumer
from ..core.learning import Usage
from ..core.planning import plan
from ..core.prefix import Prompt
from ..core.prices import NOTHING_USED, Used
from ..core.runtime import Runtime
from ..core.visits import Visit
from .balancers import OUTPUT_ASKED, SCRAPE, prompt_of, tell_metrics
from .request import Request, session_of
from .stations import Flight, Reading, Sent, Shed, Station
from .world import World

EPOCH: Final = 1_750_000_000.0
"""Unix time at which a run begins: whole days and hours lie ahead."""


class Facts:
    """A request without text, as the core asks about it."""

    path = "/v1/chat/completions"
    streams = True
    client_ip = "127.0.0.1"
    caller = "127.0.0.1"
    consumer: Consumer | None = None
    key_digest = None

    def __init__(self, request: Request, model: str, limit: int) -> None:
        self._request = request
        self._limit = limit
        self.output_tokens = limit or OUTPUT_ASKED
        self.model = model
        self.prompt_tokens = request.prompt_tokens

    def header(self, name: str) -> str | None:
        return str(session_of(self._request)) if name.lower() == "x-session-id" else None

    def headers(self, names: Collection[str] | None) -> Mapping[str, str]:
        del names
        return {"x-session-id": str(session_of(self._request))}

    def body(self, name: str) -> str | None:
        del name
        return None

    def prefix(self, chars: int | None) -> bytes | None:
        del chars
        return None

    def prompt(self, model: str) -> Prompt | None:
        del model
        return prompt_of(self._request)

    def tools(self) -> bool:
        return False

    def images(self) -> bool:
        return False

    def json(self) -> bool:
        return False

    @property
    def thorough(self) -> bool:
        return False

    def uncarried(self, into: Api, provider: str | None, model: str) -> tuple[str, ...]:
        return ()

    def max_tokens(self) -> int:
        return self._limit

    def user(self) -> str:
        return ""


class Served(NamedTuple):
    """Where a request went. `share` is what was leaving the first tier then, 0 to 1."""

    request: Request
    tier: str
    share: float


class _Ticket(NamedTuple):
    step: Try
    visit: Visit


class RoutedBalancer:
    """Everything between a request's facts and its endpoint; `served` is told of every dispatch."""

    scrape_seconds = SCRAPE

    def __init__(
        self,
        world: World,
        spec: snapshot.Snapshot,
        model: str,
        dice: Random,
        served: Callable[[Served], None],
        limit: int = 0,
    ) -> None:
        """`model`: the public name that all requests ask for; `limit`: tokens that they let be generated, 0 for none
        said."""
        self._limit = limit
        self.runtime = Runtime(spec)
        self._world = world
        self._model = model
        self._dice = dice
        self._served = served
        endpoints = [endpoint for pool in self.runtime.pools.values() for endpoint in pool.endpoints.values()]
        self._stations = dict(zip(endpoints, world.stations, strict=True))
        self._endpoints = {station: endpoint for endpoint, station in self._stations.items()}

    def dispatch(self, request: Request, now: float) -> Sent | Shed:
        facts = Facts(request, self._model, self._limit)
        made = plan(self.runtime.routes, facts, Moment(now, EPOCH + now, self._dice))
        deadline = request.at + made.route.deadlines.total
        attempts = Attempts.of(made, facts, self._dice, deadline, EPOCH)
        step = attempts.next(now)
        if not isinstance(step, Try):
            return Shed(step.error.code if isinstance(step, Stop) else step.why)
        request.hit_predicted = step.picked.forecast.cached_tokens
        request.ttft_predicted = step.picked.forecast.ttft
        self._served(Served(request, step.tier, step.shares[0][1] if step.shares else 0.0))
        return Sent(self._stations[step.endpoint], _Ticket(step, step.pool.visit(step.picked, now)))

    def first_token(self, flight: Flight, now: float) -> None:
        flight.ticket.visit.first_token(now)

    def finished(self, flight: Flight, now: float) -> None:
        step, visit = flight.ticket
        used = Used(flight.prompt_tokens, flight.cached_tokens, flight.output_tokens)
        visit.usage(Usage(*used))
        visit.end(now, flight.request.answer_blocks)
        if step.permit is not None:
            step.permit.settle(now, used)
        step.pool.succeeded(step.endpoint, flight.request.dispatched_at, now)

    def lost(self, flight: Flight, now: float) -> None:
        step, visit = flight.ticket
        visit.end(now, ok=False)
        if step.permit is not None:
            step.permit.settle(now, NOTHING_USED)

    def scraped(self, readings: Sequence[Reading], now: float) -> None:
        for reading in readings:
            if not reading.station.timing.profile.latency_s:  # a provider has no metrics for its customers
                tell_metrics(self._endpoints[reading.station], reading)

    def removed(self, station: Station, now: float) -> None:
        """Endpoints of a policy's run neither come nor go."""

    def added(self, station: Station, now: float) -> None:
        """As above."""

    def noted(self, note: object, now: float) -> None:
        """One balancer has nobody to listen to."""
