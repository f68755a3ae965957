"""Tiers further on, without the pools whose API has no words for a request.

To know that, a request has to be read as a whole, which costs about as much as all else that is decided on it. So only
where it begins is that found out before anything is sent; what lies behind is looked at when a request may go on there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from spillway_api.providers import Api

from .errors import BadRequest
from .narrowing import narrowed
from .pool import Pool
from .routing import Tier


class Asks(Protocol):
    @property
    def model(self) -> str: ...
    @property
    def path(self) -> str: ...
    def uncarried(self, into: Api, provider: str | None, model: str) -> tuple[str, ...]:
        """As in `capabilities.Asks`."""
        ...


def told(tiers: tuple[Tier, ...], asks: Asks, log: list[str]) -> tuple[Tier, ...]:
    """Those of these tiers, and of their pools, that can be told what is asked; what is left out is logged."""
    lost: set[str] = set()
    for tier in tiers:
        for pool, why in _lost(tier, asks):
            lost.add(pool)
            log.append(f"{tier.spec.name} {pool}: {why}")
    return narrowed(tiers, lambda pool: pool.name not in lost).tiers if lost else tiers


def _lost(tier: Tier, asks: Asks) -> Iterator[tuple[str, str]]:
    for target in tier.targets:
        name = target.pool.upstream_model(asks.model, target.model)
        if name is None or (into := target.pool.apis.into(asks.path, name)) is None:
            continue
        if (why := _why(target.pool, into, asks, name)) is not None:
            yield target.pool.name, why


def _why(pool: Pool, into: Api, asks: Asks, model: str) -> str | None:
    try:
        fields = asks.uncarried(into, pool.spec.provider, model)
    except BadRequest as error:
        return f"cannot be translated for: {error.code}"
    return f"cannot be told {', '.join(fields)}" if fields else None
