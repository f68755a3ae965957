"""Conditions of both kinds: each is a named check, a pure function from what is seen of an object to a verdict.

Reasons are those of the API; a message says what is wrong and what would be right. `True` has a reason too, since
metav1.Condition demands one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from spillway_api.compile import Problem
from spillway_api.faults import INTERNAL
from spillway_api.stream import MetricsState
from spillway_api.types.status import TierState

REFERENCES = frozenset(
    {
        "SecretNotFound",
        "SecretKeyNotFound",
        "SecretsNotListed",
        "ConfigMapNotFound",
        "PoolNotFound",
        "ServiceNotFound",
        "PortNotFound",
        "InferencePoolNotFound",
        "ScaleTargetNotFound",
    }
)
"""Reasons of problems that are about what an object refers to; all others are about the object itself."""

LONGEST_MESSAGE = 2000
"""Characters. A condition takes 32 KiB, people and tables far less."""


class Verdict(NamedTuple):
    """What a check says."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


class Reach(NamedTuple):
    """How far an object has come on one gateway."""

    gateway: str
    exists: bool
    replicas: int
    programmed: int
    refused: str = ""
    """What a balancer said that could not serve by it."""


class PoolSight(NamedTuple):
    """All that the conditions of a ModelPool depend on."""

    unreadable: str
    problems: Sequence[Problem]
    reach: Sequence[Reach]
    """Gateways with a route that leads here."""
    total: int
    """Endpoints that may take traffic as far as the cluster knows."""
    not_ready: int = 0
    draining: int = 0
    nobody: str = ""
    """Why the source yields nothing at all, where no problem says it."""
    unhealthy: int = 0
    ejected: int = 0
    refused: int = 0
    refused_message: str = ""
    """Why one of them has no credential."""
    metrics: MetricsState | None = None
    """None as long as no balancer has told."""
    metrics_message: str = ""
    asleep: bool = False
    """The workload behind it is scaled to zero."""
    unpaid: str = ""
    """Why no request may be paid for from its budget, so that none comes; empty where some may, or none is kept."""

    @property
    def ready(self) -> int:
        return 0 if self.unpaid else max(0, self.total - self.unhealthy - self.ejected - self.refused)


class RouteSight(NamedTuple):
    """All that the conditions of a RoutePolicy depend on."""

    unreadable: str
    problems: Sequence[Problem]
    reach: Sequence[Reach]
    """The gateways that it names."""
    served: bool
    """Some version of it is in a snapshot."""
    kept: bool
    """That is its last good version and not this one."""
    tiers: Sequence[TierSight] = ()
    shadow: bool = False
    """It looks on as another route decides."""


class TierSight(NamedTuple):
    """One tier of a RoutePolicy, as the balancers see it."""

    rule: str
    name: str
    state: TierState
    ready: int
    share_percent: int
    spent: str = ""
    """Money of its budget spent in this period, as a decimal number; empty without a budget, or where nobody says."""
    budget: str = ""
    """What may be spent, for people."""


def accepted(sight: PoolSight | RouteSight) -> Verdict:
    """Whether the object says something that can be done."""
    if sight.unreadable:
        return Verdict("False", "Invalid", _kept(sight, sight.unreadable))
    missing = [reach.gateway for reach in sight.reach if not reach.exists]
    own = [problem for problem in sight.problems if problem.reason not in (*REFERENCES, "GuardRefuses")]
    fatal = [problem for problem in own if problem.fatal]
    if fatal:
        return Verdict("False", fatal[0].reason, _kept(sight, _said(fatal)))
    if missing and isinstance(sight, RouteSight):
        message = f"no gateway {', '.join(missing)} in the operator's namespace; spec.gateways names it"
        return Verdict("False", "UnknownGateway", message)
    return Verdict("True", "Accepted", _said(own) or "valid")


def resolved(sight: PoolSight | RouteSight) -> Verdict:
    """Whether everything that it refers to is there."""
    missing = [problem for problem in sight.problems if problem.reason in REFERENCES]
    if missing:
        return Verdict("False", missing[0].reason, _kept(sight, _said(missing)))
    return Verdict("True", "ResolvedRefs", "everything that it refers to is there")


def programmed(sight: PoolSight | RouteSight) -> Verdict:
    """Whether all balancers serve by this very version."""
    there = [reach for reach in sight.reach if reach.exists]
    if not sight.reach:
        return Verdict("False", "Pending", "no RoutePolicy leads here yet, so no gateway serves it")
    if not there:
        names = ", ".join(reach.gateway for reach in sight.reach)
        return Verdict("False", "NoGateway", f"there is no gateway {names}")
    old = sight.kept if isinstance(sight, RouteSight) else bool(sight.unreadable) or _failed(sight)
    if old or (isinstance(sight, RouteSight) and not sight.served):
        what = "its last good version goes on serving" if old else "nothing of it can be served"
        return Verdict("False", "Pending", f"this version is not in force: {what}")
    behind = [reach for reach in there if reach.programmed < max(1, reach.replicas)]
    if not behind:
        return Verdict("True", "Programmed", "in force on all balancers")
    counts = ", ".join(f"{each.programmed} of {each.replicas} balancers of gateway {each.gateway}" for each in behind)
    refused = next((each.refused for each in behind if each.refused), "")
    message = f"in force on {counts}" + (f"; refused: {refused}" if refused else "")
    return Verdict("False", "PartiallyProgrammed", message)


def pool_ready(sight: PoolSight) -> Verdict:
    """Whether some endpoint takes traffic."""
    if sight.unreadable:
        return Verdict("False", "Invalid", sight.unreadable)
    if not sight.total:
        if sight.asleep and not sight.not_ready:
            return Verdict("False", "ScaledToZero", "no endpoint is there: its workload is scaled to zero")
        waiting = f"; {sight.not_ready} are not ready yet" if sight.not_ready else ""
        leaving = f"; {sight.draining} are draining" if sight.draining else ""
        why = _said(sight.problems) or sight.nobody
        return Verdict("False", "NoEndpoints", f"no endpoint is there{waiting}{leaving}" + (f": {why}" if why else ""))
    if sight.unpaid:
        return Verdict("False", "Invalid", f"no requests come here: {sight.unpaid}")
    missing = f"; {sight.refused_message}" if sight.refused and sight.refused_message else ""
    if sight.ready:
        counts = f"{sight.ready} of {sight.total + sight.not_ready} take traffic"
        return Verdict("True", "EndpointsReady", counts + missing)
    if sight.refused == sight.total:
        said = "every endpoint refuses its credential, or the balancers have not got it yet, which takes a minute"
        return Verdict("False", "CredentialsRefused", said + missing)
    reason = "AllUnhealthy" if sight.unhealthy >= sight.ejected else "AllEjected"
    reasons = (
        (sight.unhealthy, "fail their probes"),
        (sight.ejected, "are ejected for failing requests"),
        (sight.refused, "refuse their credential"),
    )
    said = ", ".join(f"{count} {what}" for count, what in reasons if count)
    return Verdict("False", reason, f"of {sight.total} endpoints {said}")


def metrics_healthy(sight: PoolSight) -> Verdict | None:
    """Whether the load of the engines can be read; nothing is said of pools whose metrics are not read."""
    match sight.metrics:
        case None | "Off":
            return None
        case "Ok":
            return Verdict("True", "MetricsRead", "the load of the endpoints is read")
        case state:
            said = sight.metrics_message or "the balancers use their own counts meanwhile"
            return Verdict("False", state, said)


def route_ready(sight: RouteSight) -> Verdict:
    """Whether a request of its models can be served, by this version of the policy."""
    for check in (accepted, resolved, programmed):
        verdict = check(sight)
        if verdict.status != "True":
            return verdict
    refusing = [problem for problem in sight.problems if problem.reason == "GuardRefuses"]
    if refusing and sight.tiers and all(tier.state == "Unavailable" for tier in sight.tiers):
        return Verdict("False", "NoOpenTier", _said(refusing))
    # What sleeps is woken for a request, which waits for it.
    if sight.tiers and all(tier.ready == 0 and tier.state != "Cold" for tier in sight.tiers):
        return Verdict("False", "AllPoolsUnready", "no pool of any tier has a ready endpoint")
    if sight.tiers and all(tier.state in ("Unavailable", "Closed") for tier in sight.tiers):
        return Verdict("False", "NoOpenTier", "no tier takes requests")
    if sight.shadow:
        return Verdict("True", "Shadow", "on all balancers it records what it would do; it serves nothing")
    return Verdict("True", "Programmed", "in force on all balancers")


def spilling(sight: RouteSight) -> Verdict:
    """A state, not an error."""
    closed = [tier for tier in sight.tiers if tier.state == "Closed"]
    leaving = [tier for tier in sight.tiers if tier.state == "Spilling" and _leads_on(tier, sight.tiers)]
    if closed and not leaving:
        said = ", ".join(f"{tier.rule}/{tier.name} has spent its budget of {tier.budget}" for tier in closed)
        return Verdict("False", "BudgetSpent", said)
    if not leaving:
        if refusing := [problem for problem in sight.problems if problem.reason == "GuardRefuses"]:
            return Verdict("False", "GuardRefuses", _said(refusing))
        return Verdict("False", "NotSpilling", "no tier sends requests on for load")
    said = ", ".join(f"{tier.rule}/{tier.name} sends {tier.share_percent}% on" for tier in leaving)
    return Verdict("True", "Load", said)


def _leads_on(tier: TierSight, tiers: Sequence[TierSight]) -> bool:
    """Whether what leaves a tier goes somewhere: not all those behind it, of the same rule, have spent their budget."""
    of_rule = [each for each in tiers if each.rule == tier.rule]
    behind = of_rule[of_rule.index(tier) + 1 :]
    return not behind or any(each.state != "Closed" for each in behind)


POOL: dict[str, Callable[[PoolSight], Verdict | None]] = {
    "Accepted": accepted,
    "ResolvedRefs": resolved,
    "Programmed": programmed,
    "Ready": pool_ready,
    "MetricsHealthy": metrics_healthy,
}
ROUTE: dict[str, Callable[[RouteSight], Verdict | None]] = {
    "Accepted": accepted,
    "ResolvedRefs": resolved,
    "Programmed": programmed,
    "Ready": route_ready,
    "Spilling": spilling,
}


def _failed(sight: PoolSight) -> bool:
    """Whether the operator has failed over it, so that it is served as it was."""
    return any(problem.reason == INTERNAL for problem in sight.problems)


def _said(problems: Sequence[Problem]) -> str:
    text = "; ".join(f"{problem.path}: {problem.message}" for problem in problems)
    return text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + "…"


def _kept(sight: PoolSight | RouteSight, message: str) -> str:
    if isinstance(sight, RouteSight) and sight.kept:
        return f"{message}; its last good version goes on serving"
    return message
