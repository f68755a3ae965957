"""What policies in Shadow would do with a request that another one decides on. A look, and nothing that it touches."""

from __future__ import annotations

import random
from collections.abc import Collection
from math import inf
from typing import NamedTuple, Protocol

from .attempts import Attempts, Facts, Try
from .conditions import Asked, ErrorKind, Moment
from .endpoint import EndpointState
from .errors import InvalidKey
from .planning import Plan, plan_by
from .pool import Picked, Pool, Want
from .reasons import Reason
from .retry_budget import RetryBudget
from .routing import Routes, Tier
from .strategies import Choice
from .visits import Forecast


class Seen(Asked, Facts, Protocol):
    """A request, as all decisions on it see it."""


class Look(NamedTuple):
    """What one policy would do."""

    route: str
    rule: str
    """Empty when none holds."""
    tier: str = ""
    """The first that it would send to; empty when it would refuse, or has nothing ready."""
    pool: str = ""
    model: str = ""
    """As the pool's endpoints call it."""
    errors: tuple[tuple[str, ErrorKind], ...] = ()
    """Rules that could not be evaluated."""

    def __str__(self) -> str:
        where = f"{self.tier}:{self.pool}" if self.pool else "nowhere"
        return f"{self.route}:{self.rule}:{where}"

    def agrees(self, sent: Try | None) -> bool:
        """Whether the request has gone where this policy would have sent it, by pool and model; or nowhere, too."""
        if sent is None:
            return not self.pool
        return (self.pool, self.model) == (sent.pool.name, sent.upstream_model)


class Glass(Pool):
    """A pool that is looked at: the very code that decides runs on it, and takes nothing. No cursor moves, no trial
    begins, nobody is noted to have asked."""

    def __init__(self, pool: Pool) -> None:
        # A shallow copy: what is set stays here, and what is read is the pool's own. Prompts need not be hashed, for
        # no endpoint is chosen.
        self.__dict__ = {**pool.__dict__, "wants_prompt": False}

    def pick(self, want: Want, exclude: Collection[EndpointState], now: float, dice: random.Random) -> Picked | Reason:
        """Any endpoint that would take the request; which of them it would be is not asked."""
        candidates, why, _ = self._candidates(None, float(want.prompt_tokens), exclude, now, want.output_tokens)
        if not candidates:
            return why
        name = candidates[0].name
        return self._take(self.endpoints[name], Choice(name, "shadow"), want, now)

    def untried(self, endpoint: EndpointState, begun: float, now: float) -> None:
        """No trial has begun, so none ends."""

    def _take(
        self, endpoint: EndpointState, choice: Choice, want: Want, now: float, cached: float | None = None
    ) -> Picked:
        return Picked(endpoint, choice, Forecast(want.prompt_tokens, 0.0, want.output_tokens))


def looks(routes: Routes, made: Plan, seen: Seen, moment: Moment) -> tuple[Look, ...]:
    """What each policy in Shadow that is for this model would do, where another one has made this plan.

    Nothing where no policy has decided: on callers that were turned away, and on those that decide for themselves.
    """
    if not routes.shadows or made.wants is not None or isinstance(made.refused, InvalidKey):
        return ()
    return tuple(look(plan_by(*found, seen, moment), seen, moment) for found in routes.shadows_of(seen.model))


def look(made: Plan, facts: Facts, moment: Moment) -> Look:
    """Where this plan would lead first."""
    found = Look(made.route.name, made.rule, errors=made.errors)
    if made.refused is not None:
        return found
    tiers = tuple(_behind_glass(tier) for tier in made.tiers)
    step = Attempts(tiers, made.route.spec.retry, RetryBudget(), facts, moment.dice, inf).next(moment.now)
    if not isinstance(step, Try):
        return found
    return found._replace(tier=step.tier, pool=step.pool.name, model=step.upstream_model)


def _behind_glass(tier: Tier) -> Tier:
    """Nothing is sent, so nothing is spent: limits are not asked, for they would count what does not happen."""
    targets = tuple(target._replace(pool=Glass(target.pool)) for target in tier.targets)
    return tier._replace(targets=targets, limits=None, priced=False)
