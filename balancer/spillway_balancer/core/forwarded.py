"""What a sidecar tells its gateway of a request that it sends on: how far it has come, and what is left of its means.

A gateway goes on from there. It may be less generous than the sidecar and never more: a tier that the sidecar has left
is not entered again, and its own bounds on attempts and time hold as well.
"""

from __future__ import annotations

from typing import NamedTuple

from spillway_api.sidecars import direct

from .errors import NoReadyEndpoint
from .planning import Plan


class Forwarded(NamedTuple):
    """What is left of a request, and where it is to be gone on with."""

    deadline: float
    """Seconds that are left of its time."""
    attempts: int | None = None
    """Attempts that are left; None where nobody has counted."""
    route: str = ""
    """namespace/name of the policy that has decided on it; empty where the sidecar has none for it."""
    rule: str = ""
    """Of that policy, that holds for it."""
    tier: str = ""
    """Of that rule, that it is to enter: those before have been tried, or are too busy."""
    home: bool = False
    """Whether it has left one of those for load alone: there it is served rather than not at all."""
    others: int = 0
    """Requests of that rule that the sidecar has had in the last minute and has told nobody of yet, beside this one: a
    share of the rule's requests is one of them all."""


def gone_on(made: Plan, so_far: Forwarded) -> Plan:
    """The gateway's own plan for a request, as far as a sidecar that has begun with it leaves it to be carried out."""
    if so_far.attempts is not None:
        made = made._replace(most_attempts=max(1, so_far.attempts))  # whoever sends it on means one at least
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
