"""Statuses: from what is seen of an object to the `status` that is written, and whether it is worth writing. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any, NamedTuple, TypeVar

from spillway_api.faults import INTERNAL

from .conditions import POOL, ROUTE, PoolSight, Reach, RouteSight, TierSight, Verdict

NUMBERS_SECONDS = 10.0
"""Numbers and wording are written this rarely; a condition that turns is written at once."""

CENTS = Decimal("0.01")

OPTIONAL = frozenset({"engine", "budgetSummary"})
"""Fields of ours that a status may lack; what others have put beside ours is none of our business."""

Status = dict[str, Any]
S = TypeVar("S", PoolSight, RouteSight)


class Turn(NamedTuple):
    """A condition that has a new status or reason, worth an event."""

    type: str
    verdict: Verdict


class PoolNumbers(NamedTuple):
    """What the columns of a ModelPool show beside its conditions."""

    source_type: str
    engine: str | None
    models: tuple[str, ...]
    routes: int
    spent: str = ""
    """Of its own budget, as a decimal number; empty without one, or where nobody says."""
    budget: str = ""
    """What may be spent, for people."""


REPORTED = frozenset({"MetricsHealthy", "Spilling"})
"""Conditions that rest on what balancers report."""
REPORTED_REASONS = frozenset({"AllEjected", "AllUnhealthy", "CredentialsRefused", "AllPoolsUnready", "NoOpenTier"})
"""Reasons of `Ready` that do."""


def of_pool(
    sight: PoolSight,
    numbers: PoolNumbers,
    generation: int,
    before: Mapping[str, Any],
    now: float,
    unheard: bool = False,
) -> Status:
    """The status of a ModelPool, `now` in seconds of Unix time.

    `unheard`: not all balancers have reported yet, so what rests on that stays as it was `before` for this generation.
    """
    total = sight.total + sight.not_ready
    status = {
        "observedGeneration": generation,
        "sourceType": numbers.source_type,
        "engine": numbers.engine,
        "endpointSummary": f"{sight.ready}/{total}",
        "endpoints": {
            "total": total,
            "ready": sight.ready,
            "unhealthy": sight.unhealthy,
            "ejected": sight.ejected,
            "draining": sight.draining,
        },
        "attachedRoutes": numbers.routes,
        "models": list(numbers.models),
        "budgetSummary": _spent(numbers.spent, numbers.budget) if numbers.spent and numbers.budget else None,
        "gateways": _gateways(sight.reach),
        "conditions": _conditions(POOL, sight, generation, before, now, unheard),
    }
    return {name: value for name, value in status.items() if value is not None}


def of_route(
    sight: RouteSight, generation: int, before: Mapping[str, Any], now: float, unheard: bool = False
) -> Status:
    """The status of a RoutePolicy, as `of_pool` of a ModelPool."""
    summary = budget_summary(sight.tiers)
    return {
        "observedGeneration": generation,
        "tierSummary": tier_summary(sight.tiers),
        **({"budgetSummary": summary} if summary else {}),
        "tiers": [
            {
                "rule": tier.rule,
                "name": tier.name,
                "state": tier.state,
                "readyEndpoints": tier.ready,
                "sharePercent": tier.share_percent,
                **({"spent": tier.spent} if tier.spent else {}),
            }
            for tier in sight.tiers
        ],
        "gateways": _gateways(sight.reach),
        "conditions": _conditions(ROUTE, sight, generation, before, now, unheard),
    }


def of_fault(message: str, generation: int, before: Mapping[str, Any], now: float) -> Status:
    """The status of an object over which the operator has failed: as it was, but for what is said of that."""
    verdict = Verdict("False", INTERNAL, message)
    others = [each for each in _own_conditions(before) if each["type"] != "Accepted"]
    told = _told("Accepted", verdict, generation, before, now)
    return {**before, "observedGeneration": generation, "conditions": [told, *others]}


def tier_summary(tiers: Sequence[TierSight]) -> str:
    """One line for a column: `default: local=Spilling(18%) cloud=Open`."""
    rules: dict[str, list[str]] = {}
    for tier in tiers:
        share = f"({tier.share_percent}%)" if tier.state == "Spilling" else ""
        rules.setdefault(tier.rule, []).append(f"{tier.name}={tier.state}{share}")
    return "; ".join(f"{rule}: {' '.join(states)}" for rule, states in rules.items())


def budget_summary(tiers: Sequence[TierSight]) -> str:
    """One line for a column: `default/cloud: 12.40 of 50.00 USD a day`. Money is told in hundredths, cut off."""
    told = [
        f"{tier.rule}/{tier.name}: {_spent(tier.spent, tier.budget)}" for tier in tiers if tier.spent and tier.budget
    ]
    return "; ".join(told)


def _spent(spent: str, budget: str) -> str:
    return f"{Decimal(spent).quantize(CENTS, ROUND_DOWN)} of {budget}"


def turns(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Turn]:
    """Conditions that have turned and that somebody who reads events wants to hear of. That balancers have not all
    taken a change yet is not among them: so begins every change, and it is over in a moment.
    """
    known = {each["type"]: each for each in before.get("conditions") or ()}
    found = []
    for each in after["conditions"]:
        old = known.get(each["type"])
        well = each["status"] == ("False" if each["type"] == "Spilling" else "True")
        if each["type"] == "Programmed" or each["reason"] == "PartiallyProgrammed" or (old is None and well):
            continue
        if old is None or (old["status"], old["reason"]) != (each["status"], each["reason"]):
            found.append(Turn(each["type"], Verdict(each["status"], each["reason"], each["message"])))
    return found


def worth_writing(before: Mapping[str, Any], after: Mapping[str, Any], since_last: float) -> bool:
    """Whether a status is to be written, so many seconds after the last time."""
    ours = {name: value for name, value in before.items() if name in after or name in OPTIONAL}
    if _essence(ours) != _essence(after):
        return True
    return since_last >= NUMBERS_SECONDS and _normal(ours) != _normal(after)


def _normal(status: Mapping[str, Any]) -> dict[str, Any]:
    """Lists that the server merges by key come back in its own order."""
    keys = {"conditions": ("type",), "gateways": ("name",), "tiers": ("rule", "name")}
    lists = {**status, "conditions": _own_conditions(status)}
    return {
        name: sorted(value, key=lambda each: [each[key] for key in keys[name]]) if name in keys else value
        for name, value in lists.items()
    }


def _own_conditions(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those of others stay where they are whatever is written, and are no reason to write."""
    return [each for each in status.get("conditions") or () if each["type"] in POOL or each["type"] in ROUTE]


def _essence(status: Mapping[str, Any]) -> Any:
    conditions = [
        (each["type"], each["status"], each["reason"], each.get("observedGeneration"))
        for each in _own_conditions(status)
    ]
    return status.get("observedGeneration"), sorted(conditions)


def _conditions(
    checks: Mapping[str, Callable[[S], Verdict | None]],
    sight: S,
    generation: int,
    before: Mapping[str, Any],
    now: float,
    unheard: bool,
) -> list[dict[str, Any]]:
    known = {each["type"]: each for each in before.get("conditions") or ()}
    conditions = []
    for name, check in checks.items():
        old = known.get(name, {})
        if unheard and old.get("observedGeneration") == generation and _reported(old):
            conditions.append(old)
            continue
        verdict = check(sight)
        if verdict is None:
            continue
        conditions.append(_told(name, verdict, generation, before, now))
    return conditions


def _told(name: str, verdict: Verdict, generation: int, before: Mapping[str, Any], now: float) -> dict[str, Any]:
    old: Mapping[str, Any] = next((each for each in before.get("conditions") or () if each["type"] == name), {})
    since = old.get("lastTransitionTime") if old.get("status") == verdict.status else None
    return {
        "type": name,
        "status": verdict.status,
        "observedGeneration": generation,
        "lastTransitionTime": since or datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "reason": verdict.reason,
        "message": verdict.message,
    }


def _reported(condition: Mapping[str, Any]) -> bool:
    return condition["type"] in REPORTED or (condition["type"] == "Ready" and condition["reason"] in REPORTED_REASONS)


def _gateways(reach: Sequence[Reach]) -> list[dict[str, Any]]:
    return [{"name": each.gateway, "replicas": each.replicas, "programmedReplicas": each.programmed} for each in reach]
