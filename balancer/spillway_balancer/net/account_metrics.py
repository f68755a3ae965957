"""What accounts of providers may still be sent, as metrics: by their owner's limits and by their provider's word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from ..core.pool import Pool


def read_accounts(pools: Iterable[Pool], now: float) -> Iterator[Metric]:
    """As it is now; `now` in seconds of the monotonic clock."""
    used = GaugeMetricFamily(
        "spillway_endpoint_limit_used_percent", "How much of an account's limit is used, what is under way included.",
        labels=["pool", "endpoint", "limit"],
    )  # fmt: skip
    left = GaugeMetricFamily(
        "spillway_endpoint_quota_remaining", "What is left of an account's quota by what its provider said last, less "
        "what has been sent since.", labels=["pool", "endpoint", "kind"],
    )  # fmt: skip
    for pool in pools:
        for endpoint in pool.endpoints.values():
            quota = endpoint.quota
            if quota is not None:
                for limit, percent in quota.used_percent(pool.requests_at(endpoint, now), now).items():
                    used.add_metric([pool.name, endpoint.name, limit], percent)
                for kind, number in quota.remaining(now):
                    left.add_metric([pool.name, endpoint.name, kind], number)
    yield used
    yield left
