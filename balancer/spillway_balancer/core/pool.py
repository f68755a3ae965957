"""One pool made ready to serve: its endpoints with what is known of each, and the choice among them."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import NamedTuple

from spillway_api import snapshot
from spillway_api.durations import seconds

from .circuit import Circuit, CircuitPolicy, may_eject
from .health import ProbeState
from .keys import KeyFacts, key_of
from .load import LoadBook, RequestSize
from .reasons import REASONS, Failure, Reason
from .strategies import STRATEGIES, Ask, Candidate, Choice, Strategy


class EndpointState:
    """One endpoint and all that is learned of it. Outlives a reload as long as its pool, name and URL stay."""

    __slots__ = ("circuit", "load", "name", "pool", "probe", "spec", "url")

    def __init__(self, pool: str, spec: snapshot.Endpoint, size: RequestSize) -> None:
        self.pool = pool
        self.name = spec.name
        self.url = spec.url
        self.spec = spec
        self.load = LoadBook(size)
        self.circuit = Circuit()
        self.probe = ProbeState()

    def __repr__(self) -> str:
        return f"<endpoint {self.pool}/{self.name}>"


class Picked(NamedTuple):
    endpoint: EndpointState
    choice: Choice


class Pool:
    """Interchangeable endpoints: one ring, one load book, whichever route leads here."""

    def __init__(self, spec: snapshot.Pool, previous: Pool | None = None) -> None:
        self.spec = spec
        self.name = spec.name
        kept = previous.endpoints if previous else {}
        self.size: RequestSize = previous.size if previous else RequestSize()
        self.endpoints: dict[str, EndpointState] = {}
        for endpoint in spec.endpoints:
            state = kept.get(endpoint.name)
            if state is None or state.url != endpoint.url:
                # A stranger at a known name inherits neither its circuit nor its load.
                state = EndpointState(spec.name, endpoint, self.size)
            state.spec = endpoint
            self.endpoints[endpoint.name] = state
        self.circuits = CircuitPolicy.of(spec.health.passive)
        self.stale_after = seconds(spec.metrics.stale_after)
        self._by_tokens = spec.dispatch.load == "Tokens"
        members = {endpoint.name: endpoint.weight for endpoint in spec.endpoints}
        self.members: dict[str, int] = members
        if previous and previous.members == members and previous.spec.dispatch == spec.dispatch:
            self.strategy: Strategy = previous.strategy  # a round-robin cursor or ring need not start anew
        else:
            self.strategy = STRATEGIES[spec.dispatch.strategy](members, spec.dispatch)
        self.models = {model.name: model.upstream_name or model.name for model in spec.models}

    def upstream_model(self, requested: str, target_model: str | None) -> str | None:
        """What this pool calls the model: the target's own, else the requested name, else the pool's only one."""
        if target_model is not None:
            return self.models.get(target_model)
        if requested in self.models:
            return self.models[requested]
        return next(iter(self.models.values())) if len(self.models) == 1 else None

    def key(self, facts: KeyFacts) -> int | None:
        """The key whose requests this pool keeps together, None when the request has none."""
        return key_of(self.spec.dispatch.key, facts)

    def usable(self, endpoint: EndpointState, now: float) -> bool:
        """Whether the endpoint may take a request now, its load aside."""
        return endpoint.probe.usable and endpoint.circuit.admits(now)

    def ready(self, now: float) -> int:
        """How many endpoints are usable."""
        return sum(self.usable(endpoint, now) for endpoint in self.endpoints.values())

    def requests(self, now: float) -> int:
        """Requests in flight on the usable endpoints, by own count and scrape."""
        return sum(
            endpoint.load.requests(now, self.stale_after)
            for endpoint in self.endpoints.values()
            if self.usable(endpoint, now)
        )

    def pick(
        self,
        key: int | None,
        tokens: int,
        exclude: Collection[EndpointState],
        now: float,
        dice: random.Random,
    ) -> Picked | Reason:
        """An endpoint for a request of `tokens` prompt and output tokens, or why there is none."""
        unit = self.spec.dispatch.load
        stale_after = self.stale_after
        bound = self.spec.capacity.max_in_flight_per_endpoint
        candidates: list[Candidate] = []
        why: Reason = "no-ready-endpoint"
        for name, endpoint in self.endpoints.items():
            if endpoint in exclude or not endpoint.probe.usable:
                continue
            if not endpoint.circuit.admits(now):
                why = "circuit-open"
                continue
            weight = endpoint.spec.weight
            requests = endpoint.load.requests(now, stale_after)
            if bound and requests * 100 >= bound * weight:
                why = "saturated"
                continue
            load = endpoint.load.load(unit, now, stale_after)
            candidates.append(Candidate(name, weight, load, requests))
        ask = Ask(key, float(tokens) if self._by_tokens else 1.0)
        choice = self.strategy.choose(ask, candidates, dice)
        if choice is None:
            return why
        return self._take(self.endpoints[choice.name], choice, now)

    def soonest_back(self, exclude: Collection[EndpointState], now: float) -> Picked | None:
        """The ejected endpoint that is due back first: better than nothing when every other way is closed."""
        shut = [
            endpoint
            for endpoint in self.endpoints.values()
            if endpoint not in exclude and endpoint.probe.usable and not endpoint.circuit.admits(now)
        ]
        if not shut:
            return None
        endpoint = min(shut, key=lambda each: (each.circuit.until, each.name))
        return self._take(endpoint, Choice(endpoint.name, "panic"), now)

    def _take(self, endpoint: EndpointState, choice: Choice, now: float) -> Picked:
        endpoint.circuit = endpoint.circuit.trial(now)
        return Picked(endpoint, choice)

    def succeeded(self, endpoint: EndpointState, begun: float, now: float) -> None:
        """Learn from an attempt that `begun` then and ended well."""
        endpoint.circuit = endpoint.circuit.succeeded(now, self.circuits, begun)

    def untried(self, endpoint: EndpointState, begun: float, now: float) -> None:
        """An attempt that `begun` then ended without a verdict (the client left): if a trial, another may go."""
        endpoint.circuit = endpoint.circuit.untried(now, begun)

    def failed(self, endpoint: EndpointState, failure: Failure, begun: float, now: float) -> bool:
        """Learn from an attempt that failed. True when it has just ejected the endpoint.

        Never more than `maxEjectedPercent` of the pool is ejected at once, whatever fails. A limit that the
        endpoint has announced itself (Retry-After on a 429) is no ejection: it is believed.
        """
        before = endpoint.circuit
        if failure.reason == "rate-limited" and failure.retry_after:
            wait = min(failure.retry_after, MAX_RETRY_AFTER)
            endpoint.circuit = before.untried(now, begun).shut(now, now + wait)
            return False
        if not REASONS[failure.reason].counts:
            self.untried(endpoint, begun, now)
            return False
        others = sum(each.circuit.ejected_until is not None for each in self.endpoints.values() if each is not endpoint)
        may_open = may_eject(others, len(self.endpoints), self.circuits.max_ejected_percent)
        endpoint.circuit = before.failed(now, self.circuits, begun, may_open)
        return before.ejected_until is None and endpoint.circuit.ejected_until is not None


MAX_RETRY_AFTER = 300.0
"""Seconds. A longer Retry-After is asked again by then: limits are lifted early, and a wrong clock must not shut an
account for a day."""
