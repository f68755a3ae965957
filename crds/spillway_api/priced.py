"""Whether money can be counted: a budget is kept only over models that have a price in its currency."""

from __future__ import annotations

from collections.abc import Sequence

from spillway_api.snapshot import Pool
from spillway_api.types import Budget, Model


def unpriced(pool: Pool, model: str | None, publics: Sequence[str], budget: Budget) -> str | None:
    """Why a budget cannot be kept where a tier leads to this pool, in words; None where it can.

    `model` is what the tier asks the pool for, `publics` are the names that clients ask for where it says none.
    """
    for each in pool.models:
        if not _used(pool, each, model, publics):
            continue
        name = pool.name.partition("/")[2]
        if each.price is None or (each.price.input is None and each.price.output is None):
            return (
                f'ModelPool "{name}" has no price for its model "{each.name}", so no budget can be kept there; '
                "its owner may set spec.models[].price"
            )
        if each.price.currency != budget.currency:
            return (
                f'ModelPool "{name}" has its price for "{each.name}" in {each.price.currency}, the budget is in '
                f"{budget.currency}; nothing is converted"
            )
    return None


def _used(pool: Pool, each: Model, model: str | None, publics: Sequence[str]) -> bool:
    """Whether a request may be served by this model of the pool."""
    if model is not None:
        return each.name == model
    return len(pool.models) == 1 or any(
        each.name.startswith(public[:-1]) if public.endswith("*") else each.name == public for public in publics
    )
