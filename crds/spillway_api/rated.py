"""Whether a tier's demands on its models can be met at all: by what the owners of its pools say of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from spillway_api.snapshot import Pool
from spillway_api.types import Model, Tier


def unmet(tier: Tier, targets: Iterable[tuple[Pool, str | None]], publics: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Field and fault of each demand that no model of the tier meets, so that it would never take a request.

    `targets` are its pools with what it asks them for, `publics` the names that clients ask for where it says none.
    """
    models = [model for pool, wanted in targets for model in used(pool, wanted, publics)]
    least = tier.min_quality_percent
    if least is not None and all(model.quality_percent is None or model.quality_percent < least for model in models):
        yield (
            "minQualityPercent",
            f"no model of this tier has a qualityPercent of {least} or more; its owner may set "
            "spec.models[].qualityPercent",
        )
    if tier.max_cost is not None:
        currency = tier.max_cost.currency
        if all(model.price is None or model.price.currency != currency for model in models):
            yield (
                "maxCost",
                f"no model of this tier has a price in {currency}; its owner may set spec.models[].price",
            )


def used(pool: Pool, wanted: str | None, publics: Sequence[str]) -> Iterator[Model]:
    """The models of a pool that requests may be served by."""
    for model in pool.models:
        if wanted is not None:
            fits = model.name == wanted
        else:
            fits = len(pool.models) == 1 or any(_matches(model.name, each) for each in publics)
        if fits:
            yield model


def _matches(name: str, public: str) -> bool:
    return name.startswith(public[:-1]) if public.endswith("*") else name == public
