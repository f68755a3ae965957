"""Metrics in Prometheus' form. Labels are declared names only, so no client can make a series."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic, time
from typing import TypeVar, cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from spillway_api.types import Price

from ..core.allowance import Pass
from ..core.attempts import Try
from ..core.billing import Bill
from ..core.consumers import Consumer, Result
from ..core.learning import NOT_TOLD, Usage
from ..core.pool import Pool
from ..core.runtime import Runtime
from ..core.shadows import Look
from .auditing import Audit
from .copy_metrics import CopyMetrics
from .cost_metrics import CostMetrics
from .endpoint_metrics import EndpointMetrics
from .hedge_metrics import HedgeMetrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, which nobody reads

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Seconds. From a cached short answer to the longest total deadline.
DURATIONS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
SCRAPES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)
FIRST_BYTES = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 20, 30, 60)

M = TypeVar("M", Counter, Gauge, Histogram)

KEPT_SECONDS = 300.0
"""How long the series of an endpoint that is gone can still be scraped."""


@dataclass(slots=True)
class Decision:
    """What is recorded of one request. Times are seconds of the monotonic clock."""

    started: float
    free: bool = False  # nobody charges for it, so that there is no bill
    route: str = ""  # empty when no route was found: an unknown model makes no series
    model: str = ""  # the declared name or pattern that matched, never what the client wrote
    rule: str = ""
    tier: str = ""
    spilled: bool = False
    first_byte: float | None = None
    code: int = 0
    status: str = ""  # how the last attempt ended: `ok` or a reason; empty when there was none
    error: str = ""  # code of the error that the client got from us; empty for an endpoint's own
    usage: Usage = NOT_TOLD
    sent: Try | None = None  # the last attempt
    shadows: tuple[Look, ...] = ()  # what policies in Shadow would have done
    consumer: Consumer | None = None  # who asks, where the route knows its callers
    limited: bool = False  # a limit of the consumer has refused it
    passed: Pass | None = None  # what the consumer's limits have let in, and is to leave them
    audit: Audit | None = None  # None where no line is to be written
    bill: Bill | None = None  # what its attempts have cost; None where nothing of that is known
    beyond: Price | None = None  # of the next tier, for requests to own engines of which it is known what they cost


def _result(decision: Decision) -> Result:
    if decision.limited:
        return "limited"
    if decision.code == 499:
        return "left"
    return "ok" if 0 < decision.code < 400 else "failed"


class Telemetry:
    """All metrics of a balancer. docs/metrics.md explains each."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "spillway_requests", "Requests answered, by HTTP status (499: the client left).",
            ["route", "model", "code"], registry=registry,
        )  # fmt: skip
        self._durations = Histogram(
            "spillway_request_duration_seconds", "From the request's head to the end of the answer.",
            ["route", "model"], buckets=DURATIONS, registry=registry,
        )  # fmt: skip
        self._first_bytes = Histogram(
            "spillway_time_to_first_byte_seconds",
            "From the request's head to the first content byte sent to the client.",
            ["route", "model"], buckets=FIRST_BYTES, registry=registry,
        )  # fmt: skip
        self._tiers = Counter(
            "spillway_tier_requests", "Requests by the tier that they were last sent to; spilled: not the first.",
            ["route", "rule", "tier", "spilled"], registry=registry,
        )  # fmt: skip
        self._rule_errors = Counter(
            "spillway_rule_errors", "Expressions of rules that had no value, so that their rule did not hold.",
            ["route", "rule", "reason"], registry=registry,
        )  # fmt: skip
        self._shadows = Counter(
            "spillway_shadow_decisions",
            "What policies in Shadow would have done; agrees: the request was sent to that pool and model.",
            ["route", "rule", "tier", "pool", "agrees"], registry=registry,
        )  # fmt: skip
        self._guard_holds = Counter(
            "spillway_guard_holds", "Requests that a guard held for: its expression was true, or had no value.",
            ["route", "guard", "result"], registry=registry,
        )  # fmt: skip
        self._attempts = Counter(
            "spillway_attempts", "Attempts by how they ended: ok, or a reason of docs/reasons.md.",
            ["pool", "endpoint", "reason"], registry=registry,
        )  # fmt: skip
        self._queued = Gauge(
            "spillway_queue_requests", "Requests that wait for a tier to open.",
            ["route", "rule"], registry=registry,
        )  # fmt: skip
        self._queued_bytes = Gauge(
            "spillway_queue_bytes", "Bytes of the bodies of those that wait.", ["route", "rule"], registry=registry
        )
        self._queue_waits = Histogram(
            "spillway_queue_wait_seconds", "How long requests have waited, whatever became of them.",
            ["route", "rule"], buckets=(*FIRST_BYTES, 120, 300, 600), registry=registry,
        )  # fmt: skip
        self._queue_rejects = Counter(
            "spillway_queue_rejects", "Requests that could not wait, or not long enough.",
            ["route", "rule", "reason"], registry=registry,
        )  # fmt: skip
        self._resumed = Counter(
            "spillway_resumed_streams", "Cut streams that another endpoint was to go on with, by what came of it.",
            ["route", "pool", "result"], registry=registry,
        )  # fmt: skip
        self._endpoint_first_bytes = Histogram(
            "spillway_endpoint_time_to_first_byte_seconds",
            "From sending a request to an endpoint to its first content byte.",
            ["pool", "endpoint"], buckets=FIRST_BYTES, registry=registry,
        )  # fmt: skip
        self._reloads = Counter(
            "spillway_config_reloads", "Configurations read, by whether they were taken in force.",
            ["result"], registry=registry,
        )  # fmt: skip
        self._identities = Counter(
            "spillway_identity_exchanges", "Exchanges of the gateway's identity for credentials, by how they ended.",
            ["cloud", "result"], registry=registry,
        )  # fmt: skip
        self._connected = Gauge(
            "spillway_config_connected", "1 while the config stream from this operator is up.",
            ["operator"], registry=registry,
        )  # fmt: skip
        self._last_change = Gauge(
            "spillway_config_last_change_timestamp_seconds", "When what is in force was taken in force.",
            registry=registry,
        )  # fmt: skip
        self._info = Gauge(
            "spillway_config_info", "1 for the digest of the snapshot that is in force.", ["digest"], registry=registry
        )
        self._scrapes = Counter(
            "spillway_scrapes", "Readings of endpoints' metrics pages, by how they ended.",
            ["pool", "result"], registry=registry,
        )  # fmt: skip
        self._scrape_bytes = Counter(
            "spillway_scrape_bytes", "Bytes of metrics pages read.", ["pool"], registry=registry
        )
        self._scrape_durations = Histogram(
            "spillway_scrape_duration_seconds", "From asking for a metrics page to its last byte.",
            ["pool"], buckets=SCRAPES, registry=registry,
        )  # fmt: skip
        self._in_flight = Gauge(
            "spillway_requests_in_flight", "Requests that the balancer holds now.", registry=registry
        )
        self.copies = CopyMetrics(registry)
        self.hedges = HedgeMetrics(registry)
        self.costs = CostMetrics(registry)
        self.endpoints = EndpointMetrics()
        registry.register(self.endpoints)
        self._followed: dict[str, Pool] = {}
        self._leaving: dict[tuple[str, ...], float] = {}
        """Endpoints and pools that are gone, by (pool, endpoint) and (pool,), with the time since when."""
        self._of_endpoint: dict[object, Counter | Histogram] = {
            id(each): each for each in (self._attempts, self._endpoint_first_bytes)
        }
        self._of_pool: dict[object, Counter | Histogram] = {
            id(each): each for each in (self._scrapes, self._scrape_bytes, self._scrape_durations)
        }
        self._children: dict[tuple[object, ...], Counter | Gauge | Histogram] = {}
        self._last_render: tuple[float, bytes] = (-1.0, b"")

    def record(self, decision: Decision, now: float) -> None:
        """Account for one request, once, at its end."""
        if decision.passed is not None:
            decision.passed.leave(now, time())
        if decision.consumer is not None:
            decision.consumer.results[_result(decision)] += 1
        route, model = decision.route, decision.model
        self._child(self._requests, route, model, str(decision.code)).inc()
        if not route:
            return
        if decision.bill is not None:
            self.costs.ended(decision, _result(decision))
        self._child(self._durations, route, model).observe(now - decision.started)
        if decision.first_byte is not None:
            self._child(self._first_bytes, route, model).observe(decision.first_byte - decision.started)
        for look in decision.shadows:
            agrees = "true" if look.agrees(decision.sent) else "false"
            self._child(self._shadows, look.route, look.rule, look.tier, look.pool, agrees).inc()
        if decision.tier:
            spilled = "true" if decision.spilled else "false"
            self._child(self._tiers, route, decision.rule, decision.tier, spilled).inc()

    def queue(self, route: str, rule: str, requests: int, size: int) -> None:
        """What waits for a rule now, and how many bytes it is."""
        self._child(self._queued, route, rule).set(requests)
        self._child(self._queued_bytes, route, rule).set(size)

    def queue_waited(self, route: str, rule: str, elapsed: float) -> None:
        self._child(self._queue_waits, route, rule).observe(elapsed)

    def queue_refused(self, route: str, rule: str, reason: str) -> None:
        self._child(self._queue_rejects, route, rule, reason).inc()

    def rule_error(self, route: str, rule: str, reason: str) -> None:
        self._child(self._rule_errors, route, rule, reason).inc()

    def guard_held(self, route: str, guard: str, result: str) -> None:
        self._child(self._guard_holds, route, guard, result).inc()

    def attempt(self, pool: str, endpoint: str, reason: str) -> None:
        self._child(self._attempts, pool, endpoint, reason).inc()

    def resumed(self, route: str, pool: str, result: str) -> None:
        self._child(self._resumed, route, pool, result).inc()

    def first_byte(self, pool: str, endpoint: str, elapsed: float) -> None:
        self._child(self._endpoint_first_bytes, pool, endpoint).observe(elapsed)

    def scraped(self, pool: str, result: str, elapsed: float, size: int) -> None:
        """One reading of an endpoint's metrics page: how it ended, seconds, bytes."""
        self._child(self._scrapes, pool, result).inc()
        self._child(self._scrape_bytes, pool).inc(size)
        self._child(self._scrape_durations, pool).observe(elapsed)

    def _child(self, metric: M, *labels: str) -> M:
        """The series of a metric, remembered: `labels()` costs ten times what `inc()` does."""
        key = (id(metric), *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return cast(M, child)

    def reloaded(self, result: str) -> None:
        self._reloads.labels(result).inc()

    def identity(self, cloud: str, result: str) -> None:
        self._identities.labels(cloud, result).inc()

    def connected(self, operator: str, is_so: bool) -> None:
        """Whether the config stream is up."""
        self._connected.labels(operator).set(is_so)

    def follow(self, runtime: Runtime, now: float | None = None) -> None:
        """Note which endpoints are gone. `now`: seconds, monotonic."""
        now = monotonic() if now is None else now
        self._last_change.set_to_current_time()
        self._info.clear()
        self._info.labels(runtime.digest).set(1)
        before, self._followed = self._followed, runtime.pools
        for name, pool in before.items():
            after = runtime.pools.get(name)
            if after is pool:
                continue  # of thousands of pools a change leaves all but one as they are
            for each in pool.endpoints:
                if after is None or each not in after.endpoints:
                    self._leaving.setdefault((name, each), now)
            if after is None:
                self._leaving.setdefault((name,), now)
        for key in list(self._leaving):
            pool_there = runtime.pools.get(key[0])
            if pool_there is not None and (len(key) == 1 or key[1] in pool_there.endpoints):
                del self._leaving[key]
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Drop the series of endpoints that are gone: a rollout a day must not grow the page for ever. Not at once:
        what an endpoint did in its last seconds is often why it is gone, and has to be scraped first.
        """
        gone = {key for key, since in self._leaving.items() if now - since >= KEPT_SECONDS}
        if not gone:
            return
        for key in gone:
            del self._leaving[key]
        of_endpoint, of_pool = self._of_endpoint, self._of_pool
        for child in list(self._children):  # one pass, however many are gone
            metric, named = of_endpoint.get(child[0]), child[1:3]
            if metric is None:
                metric, named = of_pool.get(child[0]), child[1:2]
            if metric is not None and named in gone:
                metric.remove(*child[1:])
                del self._children[child]

    async def page(self, runtime: Runtime, in_flight: int) -> bytes:
        """The page for a scrape. Rendered off the loop, at most once a second."""
        loop = asyncio.get_running_loop()
        now = monotonic()
        at, page = self._last_render
        if now - at < 1.0 and page:
            return page
        self._forget(now)
        self._in_flight.set(in_flight)
        self.endpoints.read(runtime, now)
        page = await loop.run_in_executor(None, generate_latest, self.registry)
        self._last_render = (now, page)
        return page
