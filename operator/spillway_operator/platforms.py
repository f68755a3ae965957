"""Whether a Pod is for Windows, for which there is no sidecar. Pure.

An image for Linux on such a node keeps its Pod from starting, so all the ways to say so count: the Pod's `os`, node
selector and required affinity, and options of Windows that it or a container has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from .cluster import Object

_LABEL: Final = "kubernetes.io/os"


def windows(spec: Object) -> bool:
    """Whether a Pod with this spec can only be meant for Windows."""
    selected = (spec.get("nodeSelector") or {}).get(_LABEL)
    if "windows" in (selected, (spec.get("os") or {}).get("name")):
        return True
    if any((each.get("securityContext") or {}).get("windowsOptions") for each in _parts(spec)):
        return True
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    return bool(terms) and all(map(_only_windows, terms))  # one of the terms is enough for a node


def _parts(spec: Object) -> Iterator[Object]:
    yield spec
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()


def _only_windows(term: dict[str, Any]) -> bool:
    return any(
        (each["key"], each["operator"], each.get("values")) == (_LABEL, "In", ["windows"])
        for each in term.get("matchExpressions") or ()
    )
