"""Why a request went where it did, in one header: for people who ask, by curl."""

from __future__ import annotations

from spillway_api.types import Explain

from ..core.attempts import Attempts, Try
from ..core.planning import Plan
from ..core.telling import line, told
from .facts import Facts

EXPLAIN = "x-spillway-explain"
"""A request that carries this header is told in the one of the same name why it went where it did."""


def tells(spec: Explain | None, facts: Facts) -> bool:
    """Whether the policy lets this client be told."""
    if spec is None or spec.headers == "OnRequest":
        return facts.header(EXPLAIN) is not None
    return spec.headers == "Always"


def explained(made: Plan, step: Try, attempts: Attempts) -> bytes:
    """The value of `x-spillway-explain`; `spillway explain` prints the same."""
    return line(told(made, step, attempts.number, attempts.log)).encode()
