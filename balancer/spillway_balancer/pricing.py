"""`spillway prices`: what models cost, and who says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from spillway_api.files import load
from spillway_api.known import named
from spillway_api.prices import Found, Prices, known_types, origin, read_overlay
from spillway_api.snapshot import Snapshot
from spillway_api.types import LongContext, ModelPool, Price

_AMOUNTS = ("input", "cached_input", "cache_write", "cache_write_long", "output", "reasoning")


def listed(models: Sequence[str], paths: Sequence[Path], overlay: Path | None) -> Iterator[str]:
    """Lines for a person: of models by the names that providers know, and of those of pools in files. Raises
    BadPrices, and ValueError with what is wrong with the files."""
    prices = Prices() if overlay is None else read_overlay(overlay)
    for model in models:
        found = {provider: each for provider in known_types() if (each := prices(provider, model)) is not None}
        yield from (f"{provider} {model}: {_told(each)}" for provider, each in found.items())
        if not found:
            yield f"{model}: unknown"
    loaded = load(paths)
    if loaded.problems:
        raise ValueError("\n".join(map(str, loaded.problems)))
    for item in loaded.objects:
        if isinstance(item, ModelPool):
            yield from _of_pool(item, prices)


def unknown(snapshot: Snapshot) -> Iterator[str]:
    """What `lint` notes of models that routes lead to at providers, and of which nobody knows what they cost."""
    for pool in snapshot.pools:
        for model in pool.models if pool.provider is not None else ():
            if model.price is None:
                yield (
                    f'ModelPool/{pool.name}: nobody knows what model "{model.name}" costs: it is counted as unpriced; '
                    "spec.models[].price says it, or --prices"
                )


def _of_pool(item: ModelPool, prices: Prices) -> Iterator[str]:
    provider = item.spec.source.provider
    for model in item.spec.models:
        said = f"{named(item)} {model.name}: "
        if model.price is not None:
            yield f"{said}{_amounts(model.price)} (its own)"
        elif provider is None:
            yield f"{said}unknown; own engines have what their owner says"
        else:
            found = prices(provider.type, model.upstream_name or model.name)
            yield said + ("unknown; its requests are counted as unpriced" if found is None else _told(found))


def _told(found: Found) -> str:
    source = f"table, {origin().commit[:12]}" if found.source == "table" else "overlay"
    return f"{_amounts(found.price)} ({source}: {found.name})"


def _amounts(price: Price) -> str:
    steps = "".join(f"; above {step.above} tokens {_sorts(step)}" for step in price.long_context)
    return f"{_sorts(price)} {price.currency}{steps}"


def _sorts(price: Price | LongContext) -> str:
    told = ((name.replace("_", " "), getattr(price, name)) for name in _AMOUNTS)
    return ", ".join(f"{name} {amount}" for name, amount in told if amount is not None)
