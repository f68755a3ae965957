"""How full the limits of tiers are, as metrics. Labels are declared names only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from time import time

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..core.pool import Pool
from ..core.routing import Route

_TIER = ["route", "rule", "tier"]


def read_limits(routes: Iterable[Route], now: float, unix: float | None = None) -> Iterator[Metric]:
    """The limits of tiers as they are; `now` in seconds of the monotonic clock, `unix` since 1970, by default the
    system's."""
    unix = time() if unix is None else unix
    spent = CounterMetricFamily(
        "spillway_tier_spent", "Money spent in a tier that has a budget, over all periods.", labels=[*_TIER, "currency"]
    )
    used = GaugeMetricFamily(
        "spillway_tier_limit_used_percent", "How much of a limit is used, what is under way included.",
        labels=[*_TIER, "limit"],
    )  # fmt: skip
    limited = CounterMetricFamily(
        "spillway_tier_limited", "Requests that a limit has kept out of a tier.", labels=[*_TIER, "limit"]
    )
    for route in routes:
        for (rule, tier), limits in route.limits.items():
            names = [route.name, rule, tier]
            if limits.money is not None:
                spent.add_metric([*names, limits.currency], float(limits.money.total))
            for limit, percent in limits.used_percent(now, unix).items():
                used.add_metric([*names, limit], percent)
                limited.add_metric([*names, limit], limits.refused[limit])
    yield from (spent, used, limited)


def read_leases(leased: Mapping[str, tuple[Decimal, Decimal]]) -> Iterator[Metric]:
    """Budgets that balancers share: what this one has spent of each in the present period, and what it was granted."""
    spent = GaugeMetricFamily(
        "spillway_budget_spent", "Of a budget that balancers share: what this one has spent in this period.",
        labels=["budget"],
    )  # fmt: skip
    ceiling = GaugeMetricFamily(
        "spillway_budget_granted", "What it may have spent in all before it is granted more.", labels=["budget"]
    )
    for name, (paid, most) in leased.items():
        spent.add_metric([name], float(paid))
        ceiling.add_metric([name], float(most))
    yield from (spent, ceiling)


def read_funds(pools: Iterable[Pool], unix: float | None = None) -> Iterator[Metric]:
    """The pools' own budgets as they are, likewise."""
    unix = time() if unix is None else unix
    spent = CounterMetricFamily(
        "spillway_pool_spent", "Money spent in a pool that has a budget, over all periods.", labels=["pool", "currency"]
    )
    used = GaugeMetricFamily(
        "spillway_pool_budget_used_percent", "How much of a pool's own budget is used, what is under way included.",
        labels=["pool"],
    )  # fmt: skip
    limited = CounterMetricFamily(
        "spillway_pool_limited", "Requests that a pool's own budget has kept out.", labels=["pool"]
    )
    for pool in pools:
        fund = pool.fund
        if fund is not None:
            spent.add_metric([pool.name, fund.spec.currency], float(fund.money.total))
            used.add_metric([pool.name], fund.money.used_percent(unix))
            limited.add_metric([pool.name], fund.refused)
    yield from (spent, used, limited)
