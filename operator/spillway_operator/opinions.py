"""What the balancers say of pools and tiers, put together: several see the same thing, and not always alike. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from spillway_api.stream import MetricsState, PoolReport, Report, TierReport

from .conditions import TierSight

_WORST_LAST: tuple[MetricsState, ...] = ("Off", "Ok", "Stale", "UnknownNames", "NotExposed", "AuthRequired")


MOST = Decimal(10) ** 12
"""No balancer has spent so much."""


class PoolOpinion(NamedTuple):
    """How a pool is doing, in the eyes of the balancers that speak of it."""

    engine: str | None = None
    unhealthy: frozenset[str] = frozenset()
    ejected: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    refused_message: str = ""
    metrics: MetricsState | None = None
    metrics_message: str = ""
    spent: str = ""
    """Of its own budget, in this period, by all balancers that say so; empty where none does."""


NO_OPINION = PoolOpinion()


class Opinions:
    """All that the balancers of one gateway say."""

    def __init__(self, reports: Iterable[Report]) -> None:
        self._balancers = 0
        self._pools: dict[str, list[PoolReport]] = {}
        self._tiers: dict[tuple[str, str, str], list[TierReport]] = {}
        for report in reports:
            self._balancers += 1
            for pool in report.pools:
                self._pools.setdefault(pool.pool, []).append(pool)
            for tier in report.tiers:
                self._tiers.setdefault((tier.route, tier.rule, tier.tier), []).append(tier)

    def pool(self, name: str) -> PoolOpinion:
        """Of an endpoint counts what at least half of the balancers say: one that cannot reach it may be the one at
        fault. A balancer that does not speak of a pool finds nothing amiss with it.
        """
        said = self._pools.get(name)
        if not said:
            return NO_OPINION
        refused = self._by_half(each.refused for each in said)
        unhealthy = self._by_half(each.unhealthy for each in said) - refused
        worst = max(said, key=lambda each: _WORST_LAST.index(each.metrics))
        return PoolOpinion(
            engine=_most_common(each.engine for each in said),
            unhealthy=unhealthy,
            ejected=self._by_half(each.ejected for each in said) - unhealthy - refused,
            refused=refused,
            refused_message=next((each.refused_message for each in said if each.refused_message), ""),
            metrics=worst.metrics,
            metrics_message=worst.metrics_message,
            spent=_sum(each.spent for each in said),
        )

    def tier(self, route: str, rule: str, tier: str, ready: int) -> TierSight:
        """How a tier is doing; where nobody says, by the endpoints that there are."""
        said = self._tiers.get((route, rule, tier))
        sight = self._tier(rule, tier, ready, said or [])
        spent = _sum(each.spent for each in said or [])
        return sight._replace(spent=spent) if spent else sight

    def _tier(self, rule: str, tier: str, ready: int, said: Sequence[TierReport]) -> TierSight:
        if not said:
            return TierSight(rule, tier, "Open" if ready else "Unavailable", ready, 0)
        if all(each.state in ("Unavailable", "Cold") for each in said):
            cold = any(each.state == "Cold" for each in said)
            return TierSight(rule, tier, "Cold" if cold else "Unavailable", 0, 100)
        if 2 * sum(each.state == "Closed" for each in said) >= self._balancers:
            return TierSight(rule, tier, "Closed", ready, 0)
        share = round(sum(each.share_percent for each in said) / max(1, self._balancers))
        if any(each.state == "Spilling" for each in said):
            return TierSight(rule, tier, "Spilling", ready, share)
        full = 2 * sum(each.state == "Saturated" for each in said) >= self._balancers
        return TierSight(rule, tier, "Saturated" if full else "Open", ready, share)

    def _by_half(self, named: Iterable[Sequence[str]]) -> frozenset[str]:
        counts = Counter(name for names in named for name in set(names))
        return frozenset(name for name, times in counts.items() if times * 2 >= self._balancers)


def _sum(told: Iterable[str]) -> str:
    """Of amounts; empty where there is none."""
    amounts = [_amount(each) for each in told if each]
    return f"{sum(amounts, Decimal(0)):f}" if amounts else ""


def _amount(text: str) -> Decimal:
    """Nothing, where it is no amount of money."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        return Decimal(0)
    return amount if amount.is_finite() and 0 <= amount < MOST else Decimal(0)


def _most_common(names: Iterable[str | None]) -> str | None:
    counts = Counter(name for name in names if name is not None)
    return min(counts, key=lambda name: (-counts[name], name)) if counts else None
