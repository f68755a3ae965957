"""What a sidecar hands over to its gateway with a request: how far it has come with it, and what is left of its means.

A gateway goes on from there. It may be less generous than the sidecar and never more: a tier that the sidecar has left
is not entered again, and its own bounds on attempts and time hold as well.
"""

from __future__ import annotations

from typing import Protocol

from spillway_api.sidecars import direct

from .errors import NoReadyEndpoint
from .planning import Plan


class HandedOver(Protocol):
    """How far a sidecar has come, and what is left."""

    @property
    def route(self) -> str:
        """Of the policy that has decided on the request there; empty where the sidecar has none for it."""

    @property
    def rule(self) -> str: ...
    @property
    def tier(self) -> str:
        """To be entered."""

    @property
    def home(self) -> bool:
        """Whether it has left a tier for load alone, and would rather be served there than not at all."""

    @property
    def others(self) -> int:
        """Requests of that rule that have been there beside this one, and that are told of now."""

    @property
    def attempts(self) -> int | None:
        """That are left; None where nobody has counted."""

    @property
    def deadline(self) -> float:
        """Seconds that are left."""


def gone_on(made: Plan, so_far: HandedOver) -> Plan:
    """The gateway's own plan for a request, as far as a sidecar that has begun with it leaves it to be carried out."""
    if so_far.attempts is not None:
        made = made._replace(most_attempts=max(1, so_far.attempts))  # whoever hands over means one at least
    if not so_far.rule:
        return made
    if made.mirror is not None and direct(made.mirror.pool.spec):
        made = made._replace(mirror=None)  # its copy is under way from the sidecar
    if made.refused is not None or (made.route.name, made.rule) != (so_far.route, so_far.rule):
        return made  # another configuration is in force here: by that one the request has not begun
    first = _first(made, so_far.tier)
    made = made._replace(others=so_far.others)
    made = made._replace(first=min(first, len(made.tiers)), goes_back=so_far.home and first > 0)
    if first < len(made.tiers):
        return made
    error = NoReadyEndpoint("no pool is left in the tiers that the sidecar leaves to be tried", retry_after=1.0)
    error.attempts = tuple(map(str, made.left_out))
    return made._replace(refused=made.told(error))


def _first(made: Plan, tier: str) -> int:
    """The number of the tier to enter, of those that the request has left: the one that is named or, where that one is
    not for this request, the next one of the rule."""
    names = [each.name for rule in made.route.spec.rules if rule.name == made.rule for each in rule.tiers]
    if tier not in names:
        return 0
    before = frozenset(names[: names.index(tier)])
    return sum(each.spec.name in before for each in made.tiers)
