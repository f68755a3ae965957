"""The operator's own metrics in Prometheus' form. Labels are gateways and kinds: few, and nobody's text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from spillway_api.snapshot import Snapshot

from .arbiter import Total
from .sharing import Sharing

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, which nobody reads

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DURATIONS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Streams(Protocol):
    """The config stream, as far as it is counted."""

    bytes_sent: int

    @property
    def connected(self) -> int: ...
    @property
    def sharing(self) -> Sharing: ...
    def subscribers(self, gateway: str) -> Sized: ...
    def sidecars(self, gateway: str) -> Mapping[str, int]: ...


class Metrics:
    """All metrics of an operator; docs/metrics.md explains each."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._reconciles = Histogram(
            "spillway_operator_reconcile_duration_seconds", "One reconcile: a snapshot, children, or statuses.",
            ["what"], buckets=DURATIONS, registry=registry,
        )  # fmt: skip
        self._published = Counter(
            "spillway_operator_snapshots_published", "Changes of a gateway's snapshot.", ["gateway"], registry=registry
        )
        self._endpoints = Gauge(
            "spillway_operator_snapshot_endpoints", "Endpoints in a gateway's snapshot.", ["gateway"], registry=registry
        )
        self._routes = Gauge(
            "spillway_operator_snapshot_routes", "Routes in a gateway's snapshot.", ["gateway"], registry=registry
        )
        self._writes = Counter(
            "spillway_operator_writes", "Objects and statuses written to Kubernetes.", ["kind"], registry=registry
        )
        self._subscribers = Gauge(
            "spillway_operator_subscribers", "Balancers known here: connected to this replica, or told of by others.",
            ["gateway"], registry=registry,
        )  # fmt: skip
        self._connected = Gauge(
            "spillway_operator_connections",
            "Balancers of gateways that are connected to this replica.",
            registry=registry,
        )
        self._sidecars = Gauge(
            "spillway_operator_sidecars",
            "Sidecars connected to this replica, by what they serve from: Current, Behind, or having Refused.",
            ["gateway", "state"], registry=registry,
        )  # fmt: skip
        self._sent = Gauge(
            "spillway_operator_stream_sent_bytes", "Bytes of messages sent to balancers.", registry=registry
        )
        self._loads_sent = Gauge(
            "spillway_operator_loads_sent_bytes", "Bytes of endpoints' loads sent to sidecars.", registry=registry
        )
        self._loads_age = Gauge(
            "spillway_operator_loads_age_seconds",
            "Seconds since a balancer of the gateway has shared what it scrapes; absent while there are no sidecars.",
            ["gateway"], registry=registry,
        )  # fmt: skip
        self._leads = Gauge(
            "spillway_operator_leads", "1 while this replica is the one that writes.", registry=registry
        )

        self._budgets = Gauge(
            "spillway_operator_budget",
            "Budgets that balancers share, in the present period: limit, spent, leased beyond that, left.",
            ["budget", "amount"], registry=registry,
        )  # fmt: skip

        self._injections = Counter(
            "spillway_operator_injections", "Pods that the webhook was asked about.", ["result"], registry=registry
        )
        self._lacking = Gauge(
            "spillway_operator_pods_without_sidecar", "Pods that asked for a sidecar and have none.",
            ["namespace", "reason"], registry=registry,
        )  # fmt: skip

    def injected(self, result: str) -> None:
        """The webhook has decided on a Pod."""
        self._injections.labels(result).inc()

    def lacking(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Pods without sidecars by namespace and reason, as the leader sees them."""
        self._lacking.clear()
        for (namespace, reason), count in counts.items():
            self._lacking.labels(namespace, reason).set(count)

    def budgeted(self, totals: Mapping[str, Total]) -> None:
        """How budgets stand, as the leader knows."""
        self._budgets.clear()
        for name, each in totals.items():
            left = each.limit - each.spent - each.leased
            for what, amount in zip(("limit", "spent", "leased", "left"), (*each, left), strict=True):
                self._budgets.labels(name, what).set(float(amount))

    def reconciled(self, what: str, elapsed: float) -> None:
        self._reconciles.labels(what).observe(elapsed)

    def published(self, gateway: str, snapshot: Snapshot) -> None:
        self._published.labels(gateway).inc()
        self._endpoints.labels(gateway).set(sum(len(pool.endpoints) for pool in snapshot.pools))
        self._routes.labels(gateway).set(len(snapshot.routes))

    def written(self, kind: str) -> None:
        self._writes.labels(kind).inc()

    def refresh(self, leads: bool, streams: Streams, gateways: Iterable[str]) -> None:
        """Set what is known only when it is asked."""
        self._leads.set(leads)
        self._connected.set(streams.connected)
        self._sent.set(streams.bytes_sent)
        self._loads_sent.set(streams.sharing.bytes_sent)
        self._loads_age.clear()
        self._subscribers.clear()
        self._sidecars.clear()
        for gateway in gateways:
            for state, count in streams.sidecars(gateway).items():
                self._sidecars.labels(gateway, state).set(count)
            if (age := streams.sharing.age(gateway)) is not None:
                self._loads_age.labels(gateway).set(age)
            self._subscribers.labels(gateway).set(len(streams.subscribers(gateway)))

    def page(self) -> bytes:
        return generate_latest(self.registry)
