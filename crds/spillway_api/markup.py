"""What a type says about itself beyond its Python type: Kubernetes list types and CEL rules.

The types of the API (`types.py`, `status.py`) are the one truth: CRDs, defaults, file validation and the
reference page are all read from them. msgspec carries bounds, patterns and descriptions in `msgspec.Meta`;
this module adds the two things it has no word for, in a form that stands right beside the field.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Meta


class Cel(NamedTuple):
    """One CEL rule as it goes into `x-kubernetes-validations`; `self` is the value it stands at.

    `field_path` (such as `.rules`) is where the error is shown, relative to that value.
    """

    rule: str
    message: str
    field_path: str | None = None


def doc(description: str, **bounds: Any) -> Meta:
    """A description (what `kubectl explain` shows), with msgspec's own bounds beside it."""
    return Meta(description=description, **bounds)


def pattern(expression: str) -> Meta:
    """A regular expression in RE2 syntax, as the API server reads it.

    It goes into the schema only and not into msgspec's own check: Python's `re` reads `\\s` and `$` a little
    differently from RE2, and two readings of one rule would refuse different objects.
    """
    return Meta(extra_json_schema={"pattern": expression})


def checked(*rules: Cel) -> Meta:
    """CEL rules of a single field or list."""
    return Meta(extra={"rules": rules})


def map_list(*keys: str) -> Meta:
    """A list whose entries are known by these keys; server-side apply merges by them, and they are unique."""
    return Meta(extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)})


SET = Meta(extra_json_schema={"x-kubernetes-list-type": "set"})
ATOMIC = Meta(extra_json_schema={"x-kubernetes-list-type": "atomic"})
INT32 = Meta(extra_json_schema={"format": "int32"})
INT64 = Meta(extra_json_schema={"format": "int64"})
DATE_TIME = Meta(extra_json_schema={"format": "date-time"})
