"""Whether money can be counted: a budget is kept only over models that have a price in its currency."""

from __future__ import annotations

from collections.abc import Sequence

from spillway_api.rated import used
from spillway_api.snapshot import Pool
from spillway_api.types import Budget


def unpriced(pool: Pool, model: str | None, publics: Sequence[str], budget: Budget) -> str | None:
    """Why a budget cannot be kept where a tier leads to this pool, in words; None where it can.

    `model` is what the tier asks the pool for, `publics` are the names that clients ask for where it says none.
    """
    for each in used(pool, model, publics):
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
