"""What providers charge for models that pools do not price themselves: by an operator's own list, else the shipped one.

The shipped table, `table.json`, is made of a public list by `update.py`, which says how; it is read when it is first
asked for. Own engines are never priced by it: what they cost nobody else can know.

Names of models stand in a list as they are sent to the provider. One that ends in `*` also stands for what carries a
date, a version or `preview` behind it, and any other for itself, and for itself with a date or `latest`; what is not
found is not guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
import yaml

from spillway_api.schema import schema_of
from spillway_api.types import Price
from spillway_api.validate import checked

Named = Mapping[str, Price]
"""Prices by the provider's name of a model."""

_DATED: Final = re.compile(r"(?:[-@](?:\d{8}|\d{4}-\d{2}-\d{2}|latest|default))")
_VARIANT: Final = re.compile(
    r"(?:[-@:.](?:\d{4}-\d{2}-\d{2}|\d{2}-\d{2}|\d{2}-\d{4}|\d{2,8}|latest|default|preview|exp|v\d+(?::\d+)?|\d+k))+"
)
_REGION: Final = re.compile(r"^(?!global\.)[a-z]{2,6}(?:-[a-z]+)?\.(?=[a-z0-9-]+\.)")
_LIKE: Final = {"AzureOpenAI": "OpenAI", "VertexAI": "Gemini"}
"""Types whose own entries stand beside those of another."""
_HOMES: Final = ("publishers/google/models/", "publishers/anthropic/models/", "google/", "anthropic/", "models/")


class Found(NamedTuple):
    price: Price
    source: Literal["overlay", "table"]
    name: str
    """As it stands in the list."""


class Origin(NamedTuple):
    """Where the shipped table comes from."""

    source: str
    commit: str
    on: str
    """The day for which prices that change with time were taken."""


class BadPrices(ValueError):
    """A list of prices cannot be read; the text says where and why."""


class Prices:
    """What is known of prices beside those of pools: an overlay, which wins, and the shipped table. Called with a type
    of provider and the name of a model that is sent there; None is what nobody knows."""

    def __init__(self, overlay: Mapping[str, Named] | None = None) -> None:
        self._overlay = overlay or {}

    def __call__(self, provider: str, model: str) -> Found | None:
        own = _found(self._overlay, (provider,), model)
        if own is not None:
            return Found(own[1], "overlay", own[0])
        types = (provider, _LIKE[provider]) if provider in _LIKE else (provider,)
        known = _found(_table()[1], types, model)
        return None if known is None else Found(known[1], "table", known[0])


def shipped(provider: str, model: str) -> Found | None:
    """As the shipped table alone has it."""
    return Prices()(provider, model)


def origin() -> Origin:
    return _table()[0]


def known_types() -> tuple[str, ...]:
    """Types of providers for whose models the shipped table may have a price."""
    return tuple(sorted({*_table()[1], *_LIKE}))


def read_overlay(path: Path) -> Prices:
    """The shipped table under the list of a file, YAML or JSON: type of provider, name of the model, price as in a
    ModelPool. Raises BadPrices."""
    try:
        plain = yaml.safe_load(path.read_bytes())
        return Prices(_checked(plain if plain is not None else {}))
    except OSError as error:
        raise BadPrices(f"{path}: {error.strerror or error}") from None
    except yaml.YAMLError as error:
        raise BadPrices(f"{path}: no YAML: {' '.join(str(error).split())}") from None
    except BadPrices as error:
        raise BadPrices(f"{path}: {error}") from None


def _checked(plain: Any) -> dict[str, Named]:
    """A list of prices, held to what the API demands of one. Raises BadPrices."""
    try:
        lists = msgspec.convert(plain, dict[str, dict[str, Any]])
    except msgspec.ValidationError as error:
        raise BadPrices(f"{error}; expected are types of providers, and in each names of models") from None
    found: dict[str, Named] = {}
    for provider, named in lists.items():
        prices: dict[str, Price] = {}
        for name, said in named.items():
            if not isinstance(said, dict):
                raise BadPrices(f"{provider}.{name}: expected a price, as in a ModelPool")
            made = checked(schema_of(Price), said)
            if made.errors:
                wrong = made.errors[0]
                raise BadPrices(f"{provider}.{name}.{wrong.path}: {wrong.message}")
            prices[name] = msgspec.convert(made.document, Price)
        found[provider] = prices
    return found


def _found(lists: Mapping[str, Named], types: Sequence[str], model: str) -> tuple[str, Price] | None:
    for each in types:
        for name in _names(types[0], model) if each in lists else ():
            found = _in(lists[each], name)
            if found is not None:
                return found
    return None


def _names(provider: str, model: str) -> Iterator[str]:
    """A name, and what is left of it without what says only where the model is."""
    yield model
    if provider in ("Gemini", "VertexAI"):
        yield from (model.removeprefix(home) for home in _HOMES if model.startswith(home))
    elif provider == "Bedrock":
        name = model.rpartition("/")[2]
        anywhere = _REGION.sub("", name)
        yield from (name, anywhere, anywhere.removeprefix("anthropic."))


def _in(named: Named, model: str) -> tuple[str, Price] | None:
    price = named.get(model)
    if price is not None:
        return model, price
    for end in range(len(model), 0, -1):
        family = model[:end] + "*"
        if family in named and (end == len(model) or _VARIANT.fullmatch(model, end)):
            return family, named[family]
        if model[:end] in named and _DATED.fullmatch(model, end):
            return model[:end], named[model[:end]]
    return None


class _Table(msgspec.Struct):
    source: str
    commit: str
    on: str
    prices: dict[str, dict[str, Price]]


@lru_cache(maxsize=1)
def _table() -> tuple[Origin, Mapping[str, Named]]:
    data = files("spillway_api.prices").joinpath("table.json").read_bytes()
    table = msgspec.json.decode(data, type=_Table)
    return Origin(table.source, table.commit, table.on), table.prices
