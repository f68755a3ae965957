"""How far the predicted times to the first token are off: what was said when a request was sent, against what came."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Final, NamedTuple

from .measure import Recorder, percentile

NEAR: Final = 0.2
"""A prediction within this part of what came is near."""


class Forecast(NamedTuple):
    """One run. Errors are what was predicted less what came; times in seconds."""

    known: float
    """Share of the requests of which anything was predicted."""
    near: float
    """Share of those within NEAR."""
    bias: float
    """Mean error, as a part of the mean of what came: above 0 too much is predicted."""
    error_p50: float
    """Of the size of the error, as a part of what came."""
    error_p90: float
    error_p99: float
    seconds_p50: float
    """Of the size of the error."""
    seconds_p90: float
    seconds_p99: float


def forecast(recorder: Recorder) -> Forecast | None:
    """How far they were off in a run; None where nothing was predicted."""
    return errors(*recorder.first_tokens())


def errors(predicted: Sequence[float], came: Sequence[float]) -> Forecast | None:
    """NaN is not predicted."""
    pairs = [(said, was) for said, was in zip(predicted, came, strict=True) if not isnan(said) and was > 0]
    if not pairs:
        return None
    seconds = sorted(abs(said - was) for said, was in pairs)
    parts = sorted(abs(said - was) / was for said, was in pairs)
    return Forecast(
        known=len(pairs) / len(predicted),
        near=sum(part <= NEAR for part in parts) / len(parts),
        bias=sum(said - was for said, was in pairs) / sum(was for _, was in pairs),
        error_p50=percentile(parts, 0.5),
        error_p90=percentile(parts, 0.9),
        error_p99=percentile(parts, 0.99),
        seconds_p50=percentile(seconds, 0.5),
        seconds_p90=percentile(seconds, 0.9),
        seconds_p99=percentile(seconds, 0.99),
    )
