"""What the client is told when nothing is left to try: the most informative error there is."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from .errors import AttemptsFailed, BudgetSpent, CostTooHigh, DeadlineExceeded, NoReadyEndpoint, RateLimited
from .purse import Purse
from .reasons import REASONS, Failure, Reason
from .routing import Tier
from .steps import Stop

LIMITED = "all that serves this model is at its limit"

_LIMITS = ("rate-limited", "quota-exhausted")


def over(log: Sequence[str]) -> Stop:
    """The request's time is up."""
    return Stop(DeadlineExceeded("the request's total time is over", attempts=tuple(log)))


def ending(
    failures: Sequence[Failure],
    final: bool,
    why: Reason,
    tiers: Sequence[Tier],
    log: Sequence[str],
    now: float,
    until: float = inf,
) -> Stop:
    """`final`: the last failure is an error answer that the policy does not retry. `why`: what the tiers say, where
    nothing was sent. `until`: seconds until a limit of theirs lets one more in, infinite where none would."""
    told = tuple(log)
    if not failures:
        if why == "budget":
            after = until if until < inf else None
            message = "what is left to be spent on this model is less than this request may cost"
            return Stop(BudgetSpent(message, retry_after=after, attempts=told))
        wait = _limited(why, tiers, now, until)
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


def short(failures: Sequence[Failure], final: bool, purse: Purse, log: Sequence[str]) -> Stop | None:
    """Where more could be tried but for what it might cost: that is why it ends, unless the last answer says more."""
    told = tuple(log)
    if not failures:
        message = f"this request could cost more than {purse}, the most that one may; ask for fewer tokens"
        return Stop(CostTooHigh(message, param="max_tokens", attempts=told))
    if REASONS[failures[-1].reason].answer_as_is or final:
        return None
    message = f"every attempt failed, and with another one the request could cost more than {purse}"
    return Stop(AttemptsFailed(message, retry_after=1.0, attempts=told))


def _limited(why: Reason, tiers: Sequence[Tier], now: float, until: float) -> float | None:
    """Seconds until an account is back or a tier lets one more in, where nothing could be tried and limits are why."""
    if why not in _LIMITS:
        return None
    targets = [target for tier in tiers for target in tier.targets]
    waits = [wait for target in targets if (wait := target.pool.limited_for(now)) is not None]
    if until < inf:
        waits.append(until)
    return min(waits, default=None)
