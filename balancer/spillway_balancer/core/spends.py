"""All money that a runtime counts, by the names of its budgets."""

from __future__ import annotations

from collections.abc import Iterator

from spillway_api import budgets

from .meters import Spend
from .runtime import Runtime


def shared(runtime: Runtime) -> dict[str, Spend]:
    """What pools and tiers may cost: of the whole gateway. Policies in Shadow spend nothing."""
    return dict(_shared(runtime))


def counted(runtime: Runtime) -> dict[str, Spend]:
    """The same, and what consumers may cost."""
    return dict(_shared(runtime)) | dict(_of_consumers(runtime))


def _shared(runtime: Runtime) -> Iterator[tuple[str, Spend]]:
    for pool in runtime.pools.values():
        if pool.fund is not None:
            yield budgets.of_pool(pool.name, pool.fund.spec), pool.fund.money
    for route in runtime.routes.all:
        for (rule, tier), limits in route.limits.items() if route.spec.mode == "Enforce" else ():
            if limits.money is not None and limits.spec.budget is not None:
                yield budgets.of_tier(route.name, rule, tier, limits.spec.budget), limits.money


def _of_consumers(runtime: Runtime) -> Iterator[tuple[str, Spend]]:
    for route in runtime.routes.all:
        for member in () if route.callers is None else route.callers.members:
            allowance = member.allowance
            if allowance is not None and allowance.money is not None and allowance.spec.budget is not None:
                yield budgets.of_consumer(route.name, member.name, allowance.spec.budget), allowance.money
