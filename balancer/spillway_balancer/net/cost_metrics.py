"""What attempts and requests cost, at providers and on own engines, as metrics. Labels are declared names only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..core.pool import Pool
from ..core.prices import cost
from ..core.upkeep import CACHED, OUTPUT

if TYPE_CHECKING:
    from .telemetry import Decision

_TIER = ["route", "rule", "tier"]
_SORTS = {"prompt": 1.0, "cached": CACHED, "output": OUTPUT}


class CostMetrics:
    """Counted as attempts end, and as requests do."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self._cost = counter(
            "spillway_cost",
            "What attempts at models with a price have cost, failed and cut ones included.",
            *_TIER, "pool", "model", "currency",
        )  # fmt: skip
        self._estimated = counter(
            "spillway_usage_estimated",
            "Attempts whose tokens count and whose answers did not say how many they were.",
            "pool",
        )
        self._unpriced = counter(
            "spillway_unpriced_requests",
            "Requests to providers of which nobody knows what they cost.",
            "route", "pool", "model",
        )  # fmt: skip
        names = (*_TIER, "currency", "spilled", "result")
        self._of_requests = counter(
            "spillway_request_cost",
            "What requests have cost with all of their attempts, own engines by what their endpoints cost.",
            *names,
        )
        self._requests = counter("spillway_costed_requests", "Requests of which it is known what they cost.", *names)
        self._saved = counter(
            "spillway_saved_cost",
            "What requests that were served at home would have cost at the next tier that has a price.",
            *_TIER, "currency",
        )  # fmt: skip
        self._children: dict[tuple[object, ...], Counter] = {}

    def _child(self, metric: Counter, *names: str) -> Counter:
        """The series of a metric, remembered: `labels()` costs ten times what `inc()` does."""
        key = id(metric), *names
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*names)
        return child

    def paid(self, route: str, rule: str, tier: str, pool: str, model: str, currency: str, cost: Decimal) -> None:
        """One attempt has ended."""
        self._child(self._cost, route, rule, tier, pool, model, currency).inc(float(cost))

    def estimated(self, pool: str) -> None:
        self._child(self._estimated, pool).inc()

    def unpriced(self, route: str, pool: str, model: str) -> None:
        self._child(self._unpriced, route, pool, model).inc()

    def ended(self, decision: Decision, result: str) -> None:
        """A request has ended: `ok`, `failed`, or `left` by its client."""
        bill = decision.bill
        if bill is None:
            return
        at = decision.route, decision.rule, decision.tier
        for currency, amount in bill.amounts.items():
            names = *at, currency, "true" if decision.spilled else "false", result
            self._child(self._of_requests, *names).inc(float(amount))
            self._child(self._requests, *names).inc()
        price = decision.beyond
        if price is not None and bill.own is not None and result == "ok" and not decision.spilled:
            self._child(self._saved, *at, price.currency).inc(float(cost(price, bill.own)))


def read_upkeep(pools: Iterable[Pool], now: float) -> Iterator[Metric]:
    """What endpoints of one's own cost; `now` in seconds of the monotonic clock."""
    total = CounterMetricFamily(
        "spillway_pool_cost", "What keeping the endpoints has cost, as far as they serve this balancer.",
        labels=["pool", "currency"],
    )  # fmt: skip
    price = GaugeMetricFamily(
        "spillway_pool_token_cost", "What a million tokens cost, by what the endpoints cost and serve.",
        labels=["pool", "kind", "currency"],
    )  # fmt: skip
    for pool in pools:
        upkeep = pool.upkeep
        if upkeep is None:
            continue
        upkeep.look(pool, now)
        total.add_metric([pool.name, upkeep.currency], upkeep.total)
        token = upkeep.price(now)
        for kind, share in _SORTS.items() if token is not None else ():
            price.add_metric([pool.name, kind, upkeep.currency], 1e6 * share * (token or 0.0))
    yield from (total, price)
