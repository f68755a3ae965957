"""A fault of Spillway's own that shows at one object: it is told in that object's condition and stops no other.

Without this one object that nobody has thought of would keep a whole cluster as it is.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from spillway_api.known import Problem

INTERNAL: Final = "Internal"
"""Reason of such a problem."""

T = TypeVar("T")


def guarded(name: str, work: Callable[[], T], problems: list[Problem]) -> T | None:
    """What the work on the object of this name (Kind/namespace/name) gives; None where it fails, which is a problem."""
    try:
        return work()
    except Exception as error:
        problems.append(internal(name, error))
        return None


def internal(name: str, error: Exception) -> Problem:
    """What is told: the kind of the error and its place, never its text, which may quote what nobody is to see."""
    *_, at = traceback.extract_tb(error.__traceback__)
    where = f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}, in {at.name}"
    message = f"Spillway failed over this object ({where}), which is a fault of Spillway's: please report it"
    return Problem(name, "spec", INTERNAL, message, fatal=True)
