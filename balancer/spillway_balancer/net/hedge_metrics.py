"""What is measured of attempts that were sent beside slow ones, and of what they cost."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from ..core.hedging import Waste


class HedgeMetrics:
    """Labels are declared names: route, rule and tier of the request, pool of the attempt."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._sent = Counter(
            "spillway_hedges", "Second attempts beside slow ones: won, lost to the first, or failed with it.",
            ["route", "rule", "tier", "result"], registry=registry,
        )  # fmt: skip
        self._tokens = Counter(
            "spillway_hedge_wasted_tokens", "Estimated prompt tokens of attempts that another one has outrun.",
            ["route", "pool"], registry=registry,
        )  # fmt: skip
        self._cost = Counter(
            "spillway_hedge_wasted_cost", "What these cost by the price of their model.",
            ["route", "pool", "currency"], registry=registry,
        )  # fmt: skip

    def ended(self, route: str, rule: str, tier: str, result: str) -> None:
        self._sent.labels(route, rule, tier, result).inc()

    def wasted(self, route: str, pool: str, waste: Waste) -> None:
        self._tokens.labels(route, pool).inc(waste.prompt_tokens)
        if waste.currency:
            self._cost.labels(route, pool, waste.currency).inc(float(waste.cost))
