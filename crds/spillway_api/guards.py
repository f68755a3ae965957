"""Whether what a pool declares is enough for a guard: one answer for the compiler, the operator and the balancer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args

from spillway_api.types import DataHandling, Requirement, Sensitivity

RANK: Final[Mapping[str, int]] = {name: rank for rank, name in enumerate(get_args(Sensitivity))}
"""How sensitive data is, rising."""


def passes(declared: DataHandling | None, require: Requirement) -> bool:
    """Whether a pool that declares this may be sent what the guard is about. What is not declared never passes.

    A request may end at any endpoint of a pool, so every one of its jurisdictions has to be among the required.
    """
    if require.jurisdictions is not None:
        places = (declared.jurisdictions if declared is not None else None) or ()
        if not places or not set(places) <= set(require.jurisdictions):
            return False
    if require.max_sensitivity is not None:
        most = declared.max_sensitivity if declared is not None else None
        if most is None or RANK[most] < RANK[require.max_sensitivity]:
            return False
    return True
