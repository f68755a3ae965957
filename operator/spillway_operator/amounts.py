"""What a sidecar may use: the installation's amounts, and over them what a Pod asks for.

The API server refuses a Pod in which less is allowed than asked for. So of the two the one that the Pod says itself
leads, and the other, which it has only been given, makes room.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

ANNOTATIONS: Final = {
    "spillway.dev/cpu": ("requests", "cpu"),
    "spillway.dev/cpu-limit": ("limits", "cpu"),
    "spillway.dev/memory": ("requests", "memory"),
    "spillway.dev/memory-limit": ("limits", "memory"),
}

LEAST: Final = {"cpu": "10m", "memory": "64Mi"}
"""Of a limit. With less a sidecar does not come up, nor does its Pod. `128m` of memory is an eighth of a byte."""

Resources = dict[str, dict[str, str]]
"""`resources` of a container: requests and limits by what is counted."""

DEFAULT: Final[Resources] = {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}
"""Where neither the installation nor the Pod says how much; read only."""

_UNITS: Final[dict[str, Fraction]] = {
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{unit: Fraction(1000**power) for power, unit in enumerate(("k", "M", "G"), 1)},
    **{unit: Fraction(1024**power) for power, unit in enumerate(("Ki", "Mi", "Gi"), 1)},
}
_QUANTITY: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)(m|k|Ki|M|Mi|G|Gi)?").fullmatch


def amount(text: str) -> Fraction | None:
    """What a quantity says, in units; None when it is none of those that a sidecar takes."""
    found = _QUANTITY(text) if text.isascii() else None
    return Fraction(found[1]) * _UNITS[found[2] or ""] if found else None


def too_little(what: str, limit: str) -> str:
    """Why a sidecar does not start with this limit; empty where it does. To Kubernetes 0 is no limit."""
    most, least = amount(limit), amount(LEAST.get(what, "0"))
    if most is None or least is None or most == 0 or most >= least:
        return ""
    return f"{limit} is too little for a sidecar to start with; it takes {LEAST[what]}"


def resources(said: Mapping[str, str], defaults: Resources) -> Resources | str:
    """By a Pod's annotations over the defaults; why not, where the annotations cannot be."""
    wanted: Resources = {}
    for name, (kind, what) in ANNOTATIONS.items():
        if name not in said:
            continue
        if amount(said[name]) is None:
            return f"{name}: {said[name][:16]!r} is no quantity; write it like 100m or 128Mi"
        why = too_little(what, said[name]) if kind == "limits" else ""
        if why:
            return f"{name}: {why}"
        wanted.setdefault(kind, {})[what] = said[name]
    found = {kind: {**defaults.get(kind, {}), **wanted.get(kind, {})} for kind in ("requests", "limits")}
    for what, limit in list(found["limits"].items()):
        request = found["requests"].get(what)
        most, least = amount(limit), amount(request or "0")
        if request is None or most is None or least is None or least <= most:
            continue
        if what not in wanted.get("requests", {}):  # nor does the installation get more than the limit that it says
            found["requests"][what] = limit
        elif what not in wanted.get("limits", {}):
            found["limits"][what] = request
        else:
            return f"spillway.dev/{what}: {request} is more than the {limit} of spillway.dev/{what}-limit"
    return {kind: amounts for kind, amounts in found.items() if amounts}
