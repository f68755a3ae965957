"""Tiers without the pools that a request may not go to: what is cut away here is out of reach of everything later."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from .pool import Pool
from .spilling import Spilling

if TYPE_CHECKING:
    from .routing import Target, Tier

MOST = 256
"""Parts of tiers whose shares a route remembers."""


class Narrowed(NamedTuple):
    """What is left of a rule's tiers."""

    tiers: tuple[Tier, ...]
    cut: tuple[tuple[str, str], ...] = ()
    """Tiers and those of their pools that are not."""


def narrowed(tiers: tuple[Tier, ...], may: Callable[[Pool], bool], idle: bool = False) -> Narrowed:
    """The tiers with the pools that the request may go to; the very object where those are all.

    A tier of which no pool with a weight is left is gone, unless `idle` ones will do, and the one before it leads to
    the one behind it. With the tiers behind it gone, a tier has nowhere to spill to.
    """
    kept: list[Tier] = []
    cut: list[tuple[str, str]] = []
    for tier in tiers:
        left = {target.pool.name for target in tier.targets if may(target.pool)}
        gone = dict.fromkeys(target.pool.name for target in tier.targets if target.pool.name not in left)
        cut += [(tier.spec.name, pool) for pool in gone]
        if not gone:
            kept.append(tier)
        elif left and (idle or any(target.weight for target in tier.targets if target.pool.name in left)):
            kept.append(_of(tier, left))
    if not cut:
        return Narrowed(tiers)
    return Narrowed((*kept[:-1], *alone(*kept[-1:])), tuple(cut))


def alone(*tiers: Tier) -> tuple[Tier, ...]:
    """Tiers that have none behind them."""
    return tuple(
        tier if tier.spec.spill is None else tier._replace(spec=replace(tier.spec, spill=None), spilling=None)
        for tier in tiers
    )


def _of(tier: Tier, pools: set[str]) -> Tier:
    """A tier of some of its pools. How full these are decides on who leaves it, so its share is
    its own from here on."""
    spec = replace(tier.spec, targets=tuple(target for target in tier.spec.targets if target.pool in pools))
    targets = tuple(target for target in tier.targets if target.pool.name in pools)
    spilling = tier.spilling
    if spilling is not None and spec.spill is not None:
        spilling = Spilling(spec.spill, [(target.pool, target.weight) for target in targets], spilling)
    return tier._replace(spec=spec, targets=targets, spilling=spilling)


class Cuts:
    """Parts of the tiers of a route, as requests see them that not all of its targets can serve. Each spills by the
    load of its own pools, and what its share has come to is remembered."""

    __slots__ = ("_shares",)

    def __init__(self) -> None:
        self._shares: dict[tuple[str, str, tuple[str, ...]], Spilling] = {}

    def part(self, rule: str, tier: Tier, targets: tuple[Target, ...]) -> Tier:
        """A tier of these of its targets."""
        there = {(target.pool.name, target.model) for target in targets}
        spec = replace(tier.spec, targets=tuple(each for each in tier.spec.targets if (each.pool, each.model) in there))
        part = tier._replace(spec=spec, targets=targets)
        pools = tuple(sorted({target.pool.name for target in targets if target.weight > 0}))
        if tier.spilling is None or spec.spill is None:
            return part
        at = rule, spec.name, pools
        if at not in self._shares:
            if len(self._shares) >= MOST:
                self._shares.clear()
            aimed = [(target.pool, target.weight) for target in targets]
            self._shares[at] = Spilling(spec.spill, aimed, tier.spilling)
        return part._replace(spilling=self._shares[at])
