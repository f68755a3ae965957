"""Which budgets a snapshot has, each by a name that the operator, balancers and files on disk call it alike.

Another currency, or another period, is another budget: what was counted in one says nothing of the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from spillway_api.snapshot import Route, Snapshot
from spillway_api.types import Budget, ConsumerBudget

AnyBudget = Budget | ConsumerBudget


def of_tier(route: str, rule: str, tier: str, budget: AnyBudget) -> str:
    """`limits.budget` of a tier; `route` is namespace/name of its policy."""
    return f"tier/{route}/{rule}/{tier}/{budget.currency}/{budget.period}"


def of_pool(pool: str, budget: AnyBudget) -> str:
    """`spec.budget` of a ModelPool, by namespace/name."""
    return f"pool/{pool}/{budget.currency}/{budget.period}"


def of_consumer(route: str, consumer: str, budget: AnyBudget) -> str:
    """That of a consumer of a policy."""
    return f"consumer/{route}/{consumer}/{budget.currency}/{budget.period}"


def budgets(snapshot: Snapshot) -> dict[str, AnyBudget]:
    """Those of tiers and pools. Policies in Shadow spend nothing."""
    return dict(_budgets(snapshot))


def _budgets(snapshot: Snapshot) -> Iterator[tuple[str, AnyBudget]]:
    for pool in snapshot.pools:
        if pool.budget is not None:
            yield of_pool(pool.name, pool.budget), pool.budget
    for route in snapshot.routes:
        yield from _of_tiers(route) if route.mode == "Enforce" else ()


def _of_tiers(route: Route) -> Iterator[tuple[str, AnyBudget]]:
    for rule in route.rules:
        for tier in rule.tiers:
            budget = None if tier.limits is None else tier.limits.budget
            if budget is not None:
                yield of_tier(route.name, rule.name, tier.name, budget), budget
