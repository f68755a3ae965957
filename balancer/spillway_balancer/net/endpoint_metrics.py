"""What is known of every endpoint and of tiers, as metrics: read at the scrape instead of kept in step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..core.endpoint import EndpointState
from ..core.load import Reported
from ..core.pool import Pool
from ..core.routing import Route
from ..core.runtime import Runtime
from .account_metrics import read_accounts
from .cost_metrics import read_upkeep
from .limit_metrics import read_funds, read_leases, read_limits
from .pace_metrics import read_paces
from .quotas import read_consumers

STATES: Final = ("Ready", "Ejected", "HalfOpen", "Unhealthy")


class Known(NamedTuple):
    """Where a value is read from; `seen` is the last scrape of the engine, None when it is stale or there was none."""

    pool: Pool
    endpoint: EndpointState
    seen: Reported | None


class Column(NamedTuple):
    name: str
    help: str
    value: Callable[[Known], float | None]
    """None is unknown, and makes no sample."""
    counter: bool = False
    cache: bool = False
    """Only for pools whose strategy asks what is cached where."""


def _mirror_tokens(at: Known) -> float:
    return (at.endpoint.cache.pinned + at.endpoint.cache.idle) * at.pool.block_tokens


COLUMNS: Final = (
    Column("spillway_endpoint_in_flight", "Own requests in flight.", lambda at: at.endpoint.load.in_flight),
    Column("spillway_engine_waiting_requests", "Waiting, as scraped.", lambda at: at.seen and at.seen.waiting),
    Column("spillway_engine_running_requests", "Running, as scraped.", lambda at: at.seen and at.seen.running),
    Column("spillway_engine_kv_cache_usage_ratio", "KV cache in use, 0 to 1.", lambda at: at.seen and at.seen.kv_usage),
    Column(
        "spillway_engine_prefix_cache_queries",
        "Tokens looked up.",
        lambda at: at.seen and at.seen.prefix_queries,
        counter=True,
    ),
    Column(
        "spillway_engine_prefix_cache_hits",
        "Tokens found cached.",
        lambda at: at.seen and at.seen.prefix_hits,
        counter=True,
    ),
    Column(
        "spillway_endpoint_queued_tokens",
        "Uncached prompt tokens sent there that have no first token yet.",
        lambda at: at.endpoint.load.pending_tokens,
        cache=True,
    ),
    Column("spillway_endpoint_mirror_tokens", "Tokens believed to be in its prefix cache.", _mirror_tokens, cache=True),
    Column(
        "spillway_endpoint_cache_capacity_tokens",
        "Room of its prefix cache: as the engine says, else learned.",
        lambda at: at.endpoint.learned.cache_tokens,
        cache=True,
    ),
    Column(
        "spillway_endpoint_prefill_tokens_per_second",
        "Rate at which it computes prompts, learned.",
        lambda at: at.endpoint.learned.rate,
        cache=True,
    ),
    Column(
        "spillway_endpoint_relative_speed",
        "Its speed by the pool's typical one, learned; 1 unless it differs clearly.",
        lambda at: at.endpoint.learned.speed,
        cache=True,
    ),
    Column(
        "spillway_endpoint_trusted",
        "0 while its first tokens come far later than what is known explains.",
        lambda at: at.endpoint.learned.trusted,
        cache=True,
    ),
)


def state_of(pool: Pool, endpoint: EndpointState, now: float) -> str:
    """One of STATES."""
    if not endpoint.probe.usable:
        return "Unhealthy"
    circuit = endpoint.circuit.state(now)
    return {"closed": "Ready", "open": "Ejected", "half-open": "HalfOpen"}[circuit]


class EndpointMetrics(Collector):
    """Holds what `read` has taken; rendering happens on another thread, which must not touch what lives."""

    def __init__(self) -> None:
        self.leased: Callable[[], Mapping[str, tuple[Decimal, Decimal]]] = dict
        """What is spent of leased budgets and what may be, by name."""
        self._metrics = [
            *_read((), 0.0),
            _shares((), 0.0),
            *read_limits((), 0.0),
            *read_funds(()),
            *read_leases({}),
            *read_consumers((), 0.0),
            *read_paces((), 0.0),
            *read_accounts((), 0.0),
            *read_upkeep((), 0.0),
        ]

    def read(self, runtime: Runtime, now: float) -> None:
        """Take what is known now."""
        routes = runtime.routes.all
        limits = (*read_limits(routes, now), *read_consumers(routes, now))
        pools = runtime.pools.values()
        leases = read_leases(self.leased())
        accounts = (*read_accounts(pools, now), *read_funds(pools), *leases, *read_upkeep(pools, now))
        self._metrics = [*_read(pools, now), _shares(routes, now), *limits, *read_paces(pools, now), *accounts]

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _shares(routes: Iterable[Route], now: float) -> Metric:
    family = GaugeMetricFamily(
        "spillway_tier_spill_share", "Part of a tier's requests that leaves for load.", labels=["route", "rule", "tier"]
    )
    for route in routes:
        for names, spilling in route.spilling.items():
            family.add_metric([route.name, *names], spilling.share(now))
    return family


def _read(pools: Collection[Pool], now: float) -> Iterator[Metric]:
    everywhere = [
        (Known(pool, endpoint, endpoint.load.report(now, pool.stale_after)), [pool.name, endpoint.name])
        for pool in pools
        for endpoint in pool.endpoints.values()
    ]
    state = GaugeMetricFamily(
        "spillway_endpoint_state", "1 for the state that the endpoint is in.", labels=["pool", "endpoint", "state"]
    )
    for at, labels in everywhere:
        is_in = state_of(at.pool, at.endpoint, now)
        for each in STATES:
            state.add_metric([*labels, each], float(each == is_in))
    yield state
    for column in COLUMNS:
        kind = CounterMetricFamily if column.counter else GaugeMetricFamily
        family = kind(column.name, column.help, labels=["pool", "endpoint"])
        for at, labels in everywhere:
            value = None if column.cache and not at.pool.wants_prompt else column.value(at)
            if value is not None:
                family.add_metric(labels, float(value))
        yield family
    ratio = GaugeMetricFamily(
        "spillway_pool_bytes_per_token", "Bytes of prompt text in a token, learned from usage.", labels=["pool"]
    )
    attention = GaugeMetricFamily(
        "spillway_pool_attention_weight",
        "Work that each token before it adds to computing one of a prompt, in tokens, learned from first tokens.",
        labels=["pool"],
    )
    for pool in pools:
        if pool.wants_prompt:
            ratio.add_metric([pool.name], pool.learned.bytes_per_token)
            attention.add_metric([pool.name], pool.learned.attention.weight)
    yield ratio
    yield attention
