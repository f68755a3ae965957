"""Headers by which a caller decides for itself, where its policy lets it.

They choose among what the policy has, and lift no guard.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from spillway_api import types
from spillway_api.types.overrides import Override

from .conditions import View, When
from .errors import InvalidOverride, OverrideNotAllowed, SpillwayError
from .keys import KeyFacts
from .narrowing import Narrowed, alone, narrowed
from .pool import Pool

if TYPE_CHECKING:
    from .routing import Tier

RULE: Final = "x-spillway-rule"
POOL: Final = "x-spillway-pool"
NO_FALLBACK: Final = "x-spillway-no-fallback"

_FLAGS: Final = {"1": True, "true": True, "0": False, "false": False}


class Wanted(NamedTuple):
    """What a request asks for by these headers."""

    rule: str | None = None
    pool: str | None = None
    no_fallback: str | None = None


def wanted(asked: KeyFacts) -> Wanted | None:
    """None for a request with none of these headers, as nearly all are."""
    rule, pool, stay = asked.header(RULE), asked.header(POOL), asked.header(NO_FALLBACK)
    return None if rule is None and pool is None and stay is None else Wanted(rule, pool, stay)


class Allowed:
    """What a policy lets its callers decide. Without `overrides` in it, nothing."""

    __slots__ = ("_allow", "_when")

    def __init__(self, spec: types.Overrides | None) -> None:
        self._allow: tuple[Override, ...] = () if spec is None else spec.allow
        self._when = None if spec is None or spec.when is None else When(spec.when)

    def compile(self) -> None:
        """Its condition, before the first request."""
        if self._when is not None:
            self._when.compile()

    def refusal(self, wants: Wanted, view: View) -> SpillwayError | None:
        """Why the request is not to be served as it wants to be; None where it is."""
        named: tuple[tuple[Override, str, str | None], ...] = (
            ("Rule", RULE, wants.rule),
            ("Pool", POOL, wants.pool),
            ("NoFallback", NO_FALLBACK, wants.no_fallback),
        )
        given = [(override, header) for override, header, value in named if value is not None]
        for override, header in given:
            if override not in self._allow:
                return OverrideNotAllowed(f"the policy of this model does not allow the header {header}", param=header)
        if self._when is not None and self._when.holds(view) is not True:
            header = given[0][1]
            return OverrideNotAllowed(f"the policy of this model does not allow you the header {header}", param=header)
        return None


def no_such_rule(rules: Iterable[str]) -> SpillwayError:
    return InvalidOverride(f"the policy of this model has no such rule; it has {_listed(rules)}", param=RULE)


def chosen(wants: Wanted, rule: str, namespace: str, tiers: tuple[Tier, ...]) -> Narrowed:
    """What the request wants of a rule's tiers. Raises InvalidOverride for a pool that is not among them.

    A pool that is named is taken even where its weight is 0: that is how it is tried before anybody is sent there.
    """
    cut: tuple[tuple[str, str], ...] = ()
    if wants.pool is not None:
        whole = wants.pool if "/" in wants.pool else f"{namespace}/{wants.pool}"
        pools = [target.pool for tier in tiers for target in tier.targets]
        names = dict.fromkeys(pool.name for pool in pools)
        if whole not in names and not any(pool.remote for pool in pools):
            known = (name.removeprefix(f"{namespace}/") for name in names)
            raise InvalidOverride(f'rule "{rule}" has no such pool; it has {_listed(known)}', param=POOL)

        def may(pool: Pool) -> bool:
            return pool.name == whole or pool.remote  # which has it, or says itself that it has not

        tiers, cut = narrowed(tiers, may, idle=True)
    if wants.no_fallback is None:
        return Narrowed(tiers, cut)
    stays = _FLAGS.get(wants.no_fallback.strip().lower())
    if stays is None:
        raise InvalidOverride(f"the header {NO_FALLBACK} is 1 or 0", param=NO_FALLBACK)
    if not stays or not tiers:
        return Narrowed(tiers, cut)
    behind = dict.fromkeys((tier.spec.name, target.pool.name) for tier in tiers[1:] for target in tier.targets)
    return Narrowed(alone(tiers[0]), (*cut, *behind))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
