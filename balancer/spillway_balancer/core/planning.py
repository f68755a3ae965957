"""From a request to the tiers that may serve it: every decision that is made before an endpoint is looked for.

What a plan leaves out, no later step can reach: attempts, retries and the last resort see its tiers and nothing else.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from spillway_api import types

from .apis import MESSAGES
from .capabilities import LeftOut, able
from .conditions import Asked, ErrorKind, Moment
from .errors import (
    AttemptsFailed,
    InvalidOverride,
    ModelNotFound,
    NoCapableTarget,
    NoCompliantTarget,
    NoReadyEndpoint,
    NoRule,
    SpillwayError,
)
from .guards import Guards, Held
from .mirroring import copied
from .narrowing import narrowed
from .overrides import Wanted, chosen, no_such_rule, wanted
from .routing import Route, Routes, Ruling, Target, Tier


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
    clamp: types.Clamp | None = None
    """What the rule lowers of the request."""
    held: Held | None = None
    """The guards that hold. Whatever is sent anywhere beside `tiers` must ask their `may` first."""
    wants: Wanted | None = None
    """What the caller decides itself; it may, unless the request is refused."""
    cut: tuple[LeftOut, ...] = ()
    """Those of `left_out` that guards have taken away."""
    first: int = 0
    """Number of the tier to begin with: a sidecar has left those before."""
    most_attempts: int | None = None
    """As many as a sidecar has left of its own; None where the route alone says how many."""
    others: int = 0
    """Requests of the rule that a sidecar tells of with this one."""
    goes_back: bool = False
    """Whether it is better off where it came from than waiting here or with an error: to a sidecar it is given back,
    as a request of our own goes home to a tier that it has left for load."""

    def told(self, error: SpillwayError) -> SpillwayError:
        """What the client is told where all that was left to try is not ready, or has failed: if guards have taken
        other pools away, that they have. A limit that passes and a deadline are told as they are."""
        if not self.cut or not isinstance(error, NoReadyEndpoint | AttemptsFailed | NoCapableTarget):
            return error
        message = f"no pool that passes {self.guards()} can serve this request now"
        return NoCompliantTarget(message, retry_after=error.retry_after, attempts=error.attempts)

    def guards(self) -> str:
        """The guards that hold, for people."""
        names = [f'"{guard.name}"' for guard in (self.held.guards if self.held is not None else ())]
        return ("guard " if len(names) == 1 else "guards ") + ", ".join(names)


def plan(routes: Routes, asked: Asked, moment: Moment, for_us: bool = True) -> Plan:
    """Decide on a request. Raises ModelNotFound where no route has its model. `for_us`: whether it may have headers by
    which a caller decides itself."""
    found = routes.resolve(asked.model)
    if found is None:
        raise ModelNotFound(f"the model {asked.model!r} does not exist", param="model")
    route, declared, name, select = found
    if select is not None:
        asked.model = name  # from here on the suffix is no part of it
    if route.callers is not None:
        who = route.callers.identify(asked.key_digest)
        if isinstance(who, SpillwayError):
            return Plan(route, declared, "", (), refused=who)
        asked.consumer = who
    elif asked.consumer is not None:  # it has waited, and the policy is open now
        asked.consumer = None
    return plan_by(route, declared, asked, moment, wanted(asked) if for_us else None, select)


def plan_by(
    route: Route,
    declared: str,
    asked: Asked,
    moment: Moment,
    wants: Wanted | None = None,
    select: str | None = None,
) -> Plan:
    """What this route decides on a request. It takes and changes nothing, so that a route may be asked in Shadow.

    `wants`: what the caller decides itself, if it may. `select`: how pools are selected, whatever the tiers say.
    """
    foreign = asked.path.startswith(MESSAGES)  # which hardly any endpoint speaks: it is translated
    plain = wants is None and select is None and route.plain and not foreign
    if plain and (known := route.plans.get(declared)) is not None:
        return known
    view = held = None
    if route.guards is not None:
        view = route.view(asked, moment)
        held = route.guards.held(view)
    ruling: Ruling | None = None
    if wants is not None:
        view = view or route.view(asked, moment)
        error = route.allowed.refusal(wants, view)
        if error is None and wants.rule is not None and (ruling := route.ruling(wants.rule)) is None:
            error = no_such_rule(rule.name for rule in route.spec.rules)
        if error is not None:
            return Plan(route, declared, "", (), refused=error, held=held, wants=wants)
    ruling = ruling or route.decide(asked, moment, view)
    made = Plan(
        route, declared, ruling.rule or "", ruling.tiers, ruling.errors, clamp=ruling.clamp, held=held, wants=wants
    )
    if ruling.rule is None:
        return made._replace(refused=NoRule("no rule of this model's policy is for this request", param="model"))
    if not ruling.tiers:
        return made._replace(refused=NoReadyEndpoint("no pool of the rule for this request is there", retry_after=1.0))
    if wants is not None:
        made = _as_wanted(made, wants)
    if held is not None and route.guards is not None and made.refused is None:
        made = _within_guards(made, held, route.guards)
    if made.refused is not None:
        return made
    if select is not None:
        made = made._replace(tiers=route.selecting(made.rule, made.tiers, select))
    if route.declares or foreign:
        made = _within_their_power(made, asked)
    if route.mirror is not None and made.refused is None and (held is None or held.may(route.mirror.pool)):
        made = made._replace(mirror=copied(route, asked, moment.dice))
    if plain:
        route.plans[declared] = made
    return made


def _as_wanted(made: Plan, wants: Wanted) -> Plan:
    """What is left of a plan for a caller that decides itself."""
    try:
        tiers, cut = chosen(wants, made.rule, made.route.name.partition("/")[0], made.tiers)
    except InvalidOverride as error:
        return made._replace(tiers=(), refused=error)
    return made._replace(tiers=tiers, left_out=tuple(LeftOut(tier, pool, "not asked for") for tier, pool in cut))


def _within_guards(made: Plan, held: Held, guards: Guards) -> Plan:
    """What is left of a plan where these guards hold."""
    own = made.wants is not None  # of what a caller has chosen nothing is remembered
    tiers, cut = narrowed(made.tiers, held.may) if own else guards.narrowed(held, made.rule, made.tiers)
    if not cut:
        return made
    out = tuple(LeftOut(tier, pool, "not compliant") for tier, pool in cut)
    made = made._replace(tiers=tiers, left_out=made.left_out + out, cut=out)
    if tiers:
        return made
    what = "nothing that is asked for" if own else "no pool of this model"
    message = f"{what} passes {made.guards()}"
    return made._replace(refused=NoCompliantTarget(message, attempts=tuple(map(str, out))))


def _within_their_power(made: Plan, asked: Asked) -> Plan:
    """What is left of a plan where models declare what they can do, or tiers ask something of them."""
    most = made.clamp.max_output_tokens if made.clamp is not None else None
    cut = partial(made.route.cuts.part, made.rule)
    tiers, left_out, refused = able(made.tiers, asked, cut, most)
    made = made._replace(tiers=tiers, left_out=made.left_out + left_out)
    if refused is None:
        return made
    refused.attempts = tuple(map(str, made.left_out))
    return made._replace(refused=made.told(refused))
