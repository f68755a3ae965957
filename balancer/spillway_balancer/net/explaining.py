"""Why a request went where it did, in one header: for people who ask, by curl."""

from __future__ import annotations

from ..core.attempts import Attempts, Try
from ..core.planning import Plan
from ..core.telling import line, told


def explained(made: Plan, step: Try, attempts: Attempts) -> bytes:
    """The value of `x-spillway-explain`; `spillway explain` prints the same."""
    return line(told(made, step, attempts.number, attempts.log)).encode()
