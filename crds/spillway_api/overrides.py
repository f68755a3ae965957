"""What a consumer's own Secret says of its limits, by annotations, over the defaults of a policy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from spillway_api.labelled import OWN
from spillway_api.types import ConsumerBudget, ConsumerLimits

NONE: Final = "none"
"""As the value of an annotation: no such limit, whatever the default is."""

_AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class Override(NamedTuple):
    """One annotation."""

    field: str
    read: Callable[[str], Any]
    """None of what cannot be read."""
    wanted: str


def _whole(most: int) -> Callable[[str], int | None]:
    def read(text: str) -> int | None:
        return int(text) if re.fullmatch(r"[0-9]{1,19}", text) and 1 <= int(text) <= most else None

    return read


def _amount(text: str) -> str | None:
    return text if _AMOUNT.fullmatch(text) else None


OVERRIDES: Final[Mapping[str, Override]] = {
    f"{OWN}requests-per-minute": Override("requests_per_minute", _whole(2**63 - 1), "a whole number from 1"),
    f"{OWN}tokens-per-minute": Override("tokens_per_minute", _whole(2**63 - 1), "a whole number from 1"),
    f"{OWN}max-in-flight": Override("max_in_flight", _whole(2**31 - 1), "a whole number from 1"),
    f"{OWN}budget": Override("budget", _amount, "an amount such as 50 or 0.25"),
}
"""By annotation. A budget has the currency and the period of the default."""


class Limited(NamedTuple):
    """The limits of one consumer, None without any, and what of its annotations could not be read."""

    limits: ConsumerLimits | None
    wrong: tuple[str, ...] = ()


def limits_of(defaults: ConsumerLimits | None, annotations: Mapping[str, str]) -> Limited:
    """What an annotation says counts; one that cannot be read counts as not there, so that a slip lifts no limit."""
    changes: dict[str, Any] = {}
    wrong = []
    for name, override in OVERRIDES.items():
        text = annotations.get(name)
        if text is None:
            continue
        value = None if text == NONE else override.read(text.strip())
        if value is None and text != NONE:
            wrong.append(f'annotation {name}: must be {override.wanted}, or "{NONE}"')
        elif override.field == "budget" and value is not None:
            base = defaults.budget if defaults is not None and defaults.budget is not None else ConsumerBudget("0")
            changes["budget"] = replace(base, amount=value)
        else:
            changes[override.field] = value
    limits = replace(defaults or ConsumerLimits(), **changes)
    return Limited(None if limits == ConsumerLimits() else limits, tuple(wrong))
