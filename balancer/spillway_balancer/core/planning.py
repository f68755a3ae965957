"""From a request to the tiers that may serve it: every decision that is made before an endpoint is looked for.

What a plan leaves out, no later step can reach: attempts, retries and the last resort see its tiers and nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

from .capabilities import LeftOut, able
from .conditions import Asked, ErrorKind, Moment
from .errors import ModelNotFound, NoCapableTarget, NoReadyEndpoint, NoRule, SpillwayError
from .mirroring import copied
from .routing import Route, Routes, Target, Tier


class Plan(NamedTuple):
    """What has been decided on a request."""

    route: Route
    model: str
    """The declared name or pattern that matched, never what the client wrote: a bounded metric label."""
    rule: str
    """Name of the rule that holds; empty when none does."""
    tiers: tuple[Tier, ...]
    """In the order to try them."""
    errors: tuple[tuple[str, ErrorKind], ...] = ()
    """Rules that could not be evaluated, and so did not hold."""
    refused: SpillwayError | None = None
    """Why it is not to be served at all."""
    mirror: Target | None = None
    """Where a copy of it goes."""
    left_out: tuple[LeftOut, ...] = ()
    """Targets of the rule that the tiers do not hold."""


def plan(routes: Routes, asked: Asked, moment: Moment) -> Plan:
    """Decide on a request. Raises ModelNotFound where no route has its model."""
    found = routes.resolve(asked.model)
    if found is None:
        raise ModelNotFound(f"the model {asked.model!r} does not exist", param="model")
    return plan_by(*found, asked, moment)


def plan_by(route: Route, declared: str, asked: Asked, moment: Moment) -> Plan:
    """What this route decides on a request. It takes and changes nothing, so that a route may be asked in Shadow."""
    ruling = route.decide(asked, moment)
    made = Plan(route, declared, ruling.rule or "", ruling.tiers, ruling.errors)
    if ruling.rule is None:
        error: SpillwayError = NoRule("no rule of this model's policy is for this request", param="model")
        return made._replace(refused=error)
    if not ruling.tiers:
        error = NoReadyEndpoint("no pool of the rule for this request is there", retry_after=1.0)
        return made._replace(refused=error)
    if route.declares:
        made = _within_their_power(made, asked)
    if route.mirror is not None and made.refused is None:
        made = made._replace(mirror=copied(route, asked, moment.dice))
    return made


def _within_their_power(made: Plan, asked: Asked) -> Plan:
    """What is left of a plan where models declare what they can do."""
    tiers, left_out, missing = able(made.tiers, asked)
    made = made._replace(tiers=tiers, left_out=made.left_out + left_out)
    if tiers:
        return made
    needed = ", ".join(missing)
    return made._replace(
        refused=NoCapableTarget(
            f"no model behind this name can do all that the request needs: {needed}",
            param="model",
            attempts=tuple(map(str, left_out)),
        )
    )
