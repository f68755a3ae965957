"""How the load of endpoints is read, and when they take traffic: metrics, probes, circuit breaker."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Struct, field

from spillway_api.markup import INT32, Cel, doc
from spillway_api.types.fields import Duration, MetricName, UrlPath

MetricsMode = Literal["Auto", "Prometheus", "None"]
ProbeMode = Literal["Auto", "HTTP", "None"]


class MetricNames(Struct, frozen=True, rename="camel"):
    """Metric names that replace those of the engine's dialect."""

    waiting: Annotated[MetricName, doc("Gauge of requests that wait in the engine.")] | None = None
    running: Annotated[MetricName, doc("Gauge of requests that the engine computes.")] | None = None
    kv_cache_usage: Annotated[MetricName, doc("Gauge of the used part of the KV cache, 0 to 1.")] | None = None
    prefix_cache_queries: Annotated[MetricName, doc("Counter of tokens looked up in the prefix cache.")] | None = None
    prefix_cache_hits: Annotated[MetricName, doc("Counter of tokens found in the prefix cache.")] | None = None


class Metrics(Struct, frozen=True, rename="camel"):
    """How the load of endpoints is read."""

    mode: Annotated[
        MetricsMode,
        doc(
            "Auto reads the metrics of self-hosted engines and leaves providers alone; Prometheus reads them "
            "always; None leaves the balancer with its own counts."
        ),
    ] = "Auto"
    path: Annotated[UrlPath, doc("Path of the metrics page on each endpoint.")] = "/metrics"
    port: (
        Annotated[
            int,
            doc("Port of the metrics page, where it is not that of the endpoint.", ge=1, le=65535),
            INT32,
        ]
        | None
    ) = None
    interval: Annotated[Duration, doc("Time between two readings of one endpoint.")] = "1s"
    stale_after: Annotated[Duration, doc("Age from which a reading counts as unknown.")] = "5s"
    names: Annotated[MetricNames, doc("Metric names that replace the built-in ones of the engine.")] | None = None

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "duration(self.staleAfter) >= duration(self.interval)",
            "staleAfter must not be shorter than interval",
        ),
        Cel("duration(self.interval) >= duration('100ms')", "interval must be at least 100ms"),
    )


class ActiveHealth(Struct, frozen=True, rename="camel"):
    """Probes: the balancer asks."""

    mode: Annotated[
        ProbeMode,
        doc("Auto probes self-hosted endpoints and leaves providers alone; HTTP probes always; None never."),
    ] = "Auto"
    path: Annotated[UrlPath, doc("Path of the probe. Absent means the one of the engine (/health).")] | None = None
    interval: Annotated[Duration, doc("Time between two probes of one endpoint.")] = "5s"
    timeout: Annotated[Duration, doc("Time after which a probe without an answer has failed.")] = "2s"
    unhealthy_threshold: Annotated[
        int, doc("Failed probes in a row that make an endpoint unhealthy.", ge=1, le=100), INT32
    ] = 3
    healthy_threshold: Annotated[
        int, doc("Passed probes in a row that make it healthy again.", ge=1, le=100), INT32
    ] = 1


class PassiveHealth(Struct, frozen=True, rename="camel"):
    """The circuit breaker: the balancer learns from traffic."""

    consecutive_failures: Annotated[
        int,
        doc("Failures in a row that eject an endpoint. 0 turns this off.", ge=0, le=1000),
        INT32,
    ] = 3
    error_rate_percent: Annotated[
        int,
        doc("Share of failed requests within the window that ejects an endpoint.", ge=1, le=100),
        INT32,
    ] = 50
    min_requests: Annotated[
        int,
        doc("Requests within the window before the share of failures counts.", ge=1, le=10000),
        INT32,
    ] = 20
    window: Annotated[Duration, doc("Time over which the share of failures is taken.")] = "30s"
    base_ejection: Annotated[
        Duration, doc("How long the first ejection lasts; each further one in a row lasts twice as long.")
    ] = "5s"
    max_ejection: Annotated[Duration, doc("Longest time that an ejection lasts.")] = "5m"
    max_ejected_percent: Annotated[
        int,
        doc(
            "Largest part of the pool that may be ejected at a time, so that a bad day of all ejects none.",
            ge=0,
            le=100,
        ),
        INT32,
    ] = 50

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "duration(self.maxEjection) >= duration(self.baseEjection)",
            "maxEjection must not be shorter than baseEjection",
        ),
    )


class Health(Struct, frozen=True, rename="camel"):
    """When an endpoint takes traffic."""

    active: Annotated[ActiveHealth, doc("Probes that the balancer sends.")] = field(default_factory=ActiveHealth)
    passive: Annotated[
        PassiveHealth, doc("The circuit breaker of each endpoint, which learns from the requests themselves.")
    ] = field(default_factory=PassiveHealth)
    slow_start: Annotated[
        Duration,
        doc(
            "Time over which the load of an endpoint that is new, or back after an ejection or failed probes, rises "
            "from a tenth to its whole share. 0s turns this off."
        ),
    ] = "0s"
