"""When nothing else is left: which endpoint may be asked a second time, and how long to wait before.

Full and equal jitter are those of Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Self

from spillway_api.durations import seconds
from spillway_api.types import Retry

from .reasons import REASONS, Failure
from .steps import Try


class Backoff(NamedTuple):
    """`retry.backoffBase`, `backoffMax`, `jitter` and `maxRetryAfter`, in seconds."""

    base: float
    most: float
    jitter: str
    max_retry_after: float

    @classmethod
    def of(cls, retry: Retry) -> Self:
        """Raises ValueError on a duration that is none, which validated objects do not hold."""
        return cls(
            seconds(retry.backoff_base), seconds(retry.backoff_max), retry.jitter, seconds(retry.max_retry_after)
        )

    def wait(self, before: int, dice: random.Random) -> float:
        """Seconds before the retry that has so many `before` it: with full jitter U(0, min(max, base * 2^before))."""
        whole = min(self.most, self.base * 2.0 ** min(before, 60))
        if self.jitter == "None":
            return whole
        half = whole / 2.0 if self.jitter == "Equal" else 0.0
        return half + dice.random() * (whole - half)


class Again(NamedTuple):
    """An attempt to be repeated at the same endpoint, and when."""

    step: Try
    seconds: float
    why: str


def again(
    failed: Sequence[tuple[Try, Failure]], retry: Retry, before: int, now: float, dice: random.Random
) -> Again | None:
    """The endpoint to ask once more when no other is left; the one that may be asked first, then the one tried first.

    One that was overloaded or broke is asked once more, after the backoff and not before its Retry-After. One that is
    rate-limited is asked again when its Retry-After is over, as often as attempts are left; the backoff comes on top,
    lest all who wait for it come in the same instant. Neither is where that is longer than `maxRetryAfter`. An endpoint
    that has been ejected since, or whose account is off for longer by now, is left alone.

    A gateway stands for all of its replicas: it is asked again as often as attempts are left, whatever went wrong.
    """
    backoff = Backoff.of(retry)
    often = Counter(step.endpoint for step, _ in failed)
    found: list[Again] = []
    for step, failure in {step.endpoint: (step, failure) for step, failure in failed}.values():
        endpoint, treatment = step.endpoint, REASONS[failure.reason].again
        if step.pool.remote and REASONS[failure.reason].elsewhere:
            found.append(Again(step, failure.retry_after or 0.0, failure.reason))
            continue
        if treatment == "never" or not endpoint.keyed or not endpoint.probe.usable:
            continue
        off = max(0.0, endpoint.circuit.shut_until - now)
        if max(failure.retry_after or 0.0, off) > backoff.max_retry_after:
            continue
        if treatment == "once":
            if often[endpoint] > 1 or off or not endpoint.circuit.admits(now):
                continue
            off = failure.retry_after or 0.0
        elif failure.retry_after is None:
            continue
        found.append(Again(step, off, failure.reason))
    if not found:
        return None
    best = min(found, key=lambda each: each.seconds)
    return best._replace(seconds=best.seconds + backoff.wait(before, dice))
