"""What the client is told when nothing is left to try: the most informative error there is."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import AttemptsFailed, DeadlineExceeded, NoReadyEndpoint, RateLimited
from .reasons import REASONS, Failure, Reason
from .routing import Tier
from .steps import Stop

LIMITED = "every endpoint that serves this model is at its limit"

_LIMITS = ("rate-limited", "quota-exhausted")


def over(log: Sequence[str]) -> Stop:
    """The request's time is up."""
    return Stop(DeadlineExceeded("the request's total time is over", attempts=tuple(log)))


def ending(
    failures: Sequence[Failure], final: bool, why: Reason, tiers: Sequence[Tier], log: Sequence[str], now: float
) -> Stop:
    """`final`: the last failure is an error answer that the policy does not retry. `why`: what the tiers say, where
    nothing was sent."""
    told = tuple(log)
    if not failures:
        wait = _limited(why, tiers, now)
        if wait is not None:
            return Stop(RateLimited(LIMITED, retry_after=wait, attempts=told))
        return Stop(NoReadyEndpoint("no endpoint is ready for this model", retry_after=1.0, attempts=told))
    answer = REASONS[failures[-1].reason].answer_as_is or final
    if not answer and all(failure.reason in _LIMITS for failure in failures):
        waits = [failure.retry_after for failure in failures if failure.retry_after is not None]
        return Stop(RateLimited(LIMITED, retry_after=min(waits, default=None), attempts=told))
    if all(failure.reason in ("first-byte-timeout", "stall") for failure in failures):
        return Stop(DeadlineExceeded("no endpoint answered in time", attempts=told))
    return Stop(AttemptsFailed("every attempt failed", retry_after=1.0, attempts=told), answer)


def _limited(why: Reason, tiers: Sequence[Tier], now: float) -> float | None:
    """Seconds until an account is back, where nothing could be tried and limits are why."""
    if why not in _LIMITS:
        return None
    targets = [target for tier in tiers for target in tier.targets]
    waits = [wait for target in targets if (wait := target.pool.limited_for(now)) is not None]
    return min(waits, default=None)
