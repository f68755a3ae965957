"""One request's attempts: a state machine. Failures go in, the next step comes out.

It decides and does nothing: the caller asks `next(now)`, carries the step out, and reports with `failed(...)`.
Only attempts that the client has seen nothing of are reported, so nothing is ever retried after the first
content byte.
"""

from __future__ import annotations

import random
from math import inf
from typing import Self

from spillway_api.types import Retry

from . import endings
from .backoff import Again, again
from .endpoint import EndpointState
from .hedging import Hedging
from .joining import may_wait
from .observing import Observer
from .planning import Plan
from .purse import Purse
from .reasons import REASONS, STANDS_FOR, Failure
from .retry_budget import RetryBudget
from .routing import Tier
from .steps import Facts, Step, Stop, Try, Wait
from .tiers import Tiers

__all__ = ["Attempts", "Facts", "Step", "Stop", "Try", "Wait"]


class Attempts:
    """The budget of one request, in attempts and time, over all endpoints, accounts and tiers."""

    __slots__ = (
        "_beside",
        "_budget",
        "_deadline",
        "_dice",
        "_excluded",
        "_failed",
        "_most",
        "_purse",
        "_reopened",
        "_retry",
        "_told",
        "_waits",
        "log",
        "tiers",
    )

    def __init__(
        self,
        tiers: tuple[Tier, ...],
        retry: Retry,
        budget: RetryBudget,
        facts: Facts,
        dice: random.Random,
        deadline: float,
        epoch: float = 0.0,
        first: int = 0,
        most: int | None = None,
        others: int = 0,
    ) -> None:
        """`deadline` in seconds of the clock that `next` is asked by; `epoch` makes Unix time of them, for budgets.
        `first`: number of the tier to begin with; `most`: attempts, where that is less than the policy allows;
        `others`: requests of the rule that come to be known with this one."""
        self.log: list[str] = []
        """`tier pool/endpoint: reason` of every failed attempt, and why tiers were left without one."""
        self.tiers = Tiers(tiers, facts, dice, self.log, epoch, first, others)
        self._purse = self.tiers.purse = None if retry.max_cost is None else Purse(retry.max_cost, facts)
        self._retry = retry
        self._most = retry.attempts if most is None else min(most, retry.attempts)
        self._budget = budget
        self._dice = dice
        self._deadline = deadline
        self._failed: list[tuple[Try, Failure]] = []
        self._excluded: frozenset[EndpointState] = frozenset()
        """Those that have failed it."""
        self._waits: tuple[float, Again] | None = None
        """What is waited for, and until when."""
        self._beside = 0
        self._reopened: int | None = None
        """So many failures had been there when the tiers were looked at anew."""
        self._told = 0  # entries of the log that stay when they are

    @classmethod
    def of(cls, made: Plan, facts: Facts, dice: random.Random, deadline: float, epoch: float) -> Self:
        """Those of a plan, as its route allows them."""
        route = made.route
        retry, first, most = route.spec.retry, made.first, made.most_attempts
        return cls(made.tiers, retry, route.retry_budget, facts, dice, deadline, epoch, first, most, made.others)

    @property
    def observer(self) -> Observer | None:
        return self.tiers.observer

    @observer.setter
    def observer(self, observer: Observer) -> None:
        self.tiers.observer = observer

    @property
    def number(self) -> int:
        """Of the attempt that is under way, or comes next, from 1; of the second of two."""
        return len(self._failed) + 1 + self._beside

    @property
    def left(self) -> int:
        """Attempts that may still be made, with the one that is under way or comes next."""
        return max(1, self._most - len(self._failed))

    def next(self, now: float) -> Step:
        """The next step at time `now`."""
        if now >= self._deadline:
            return endings.over(self.log)
        if self._waits is not None:
            until, what = self._waits
            if now < until:  # timers may be early
                return Wait(until - now, what.why)
            self._waits = None  # what allowed the wait allows what it was for
            return self._find(now) or self._taken(self.tiers.again(what.step, now)) or self._stop(now)
        if self._reopened == len(self._failed):
            return self._find(now) or self._closed(now)  # it has waited for what is new: that is no retry
        if not self._failed:
            self._budget.note_request(now)
            return self._find(now) or self._closed(now)
        step, last = self._failed[-1]
        if len(self._failed) >= self._most or not self._may_retry(last):
            return self._stop(now)
        if not REASONS[last.reason].elsewhere and not self.tiers.leave(last.reason):
            return self._stop(now)
        # A gateway that was not reached has had no work of it: where all wait for it to come back, all may.
        spares = step.pool.remote and last.retry_on == "ConnectError"
        if not spares and not self._budget.try_take(now):
            return self._stop(now)
        return self._find(now) or self._wait(last, now) or self._closed(now)

    def reopen(self, tiers: tuple[Tier, ...], first: int = 0) -> None:
        """The request has waited in the queue: look at these tiers anew, from the one with this number on."""
        self._reopened = len(self._failed)
        del self.log[self._told :]
        self.tiers.reopen(tiers, first)

    def spill(self) -> None:
        """It cannot be held for a tier that is scaled to zero, and goes on."""
        self.tiers.give_up()
        self.reopen(self.tiers.all, self.tiers.first)

    def hedging(self, step: Try) -> Hedging | None:
        """Whether the step may get a second one beside it if it is slow. To be asked once for each step."""
        hedging = self.tiers.of(step).hedging
        if hedging is None:
            return None
        if not any(before.tier == step.tier for before, _ in self._failed):
            hedging.budget.note_request()
        return hedging if self.number < self._most else None

    def hedge(self, step: Try, hedging: Hedging, now: float) -> Try | None:
        """The second step, if there is an endpoint for it and it is within the budget. It counts as an attempt."""
        if not hedging.budget.try_take():
            return None
        found = self.tiers.beside(step, self._excluded, now)
        if found is None:
            hedging.budget.give_back()
            return None
        there = f"{found.pool.name}/{found.endpoint.name}"
        self._beside = 1
        self.log.append(f"{step.tier} {step.pool.name}/{step.endpoint.name}: slow, hedged at {there}")
        return self._taken(found)

    def unsent(self, step: Try, now: float) -> None:
        """The step was not carried out: as if it had not been found."""
        self.tiers.unsent(step, now)

    def resume(self, step: Try, now: float) -> Try | None:
        """Another endpoint of the same pool, to go on with what the one of this step has cut off; it counts as a
        retry. `failed` is told of the cut before."""
        if now >= self._deadline or len(self._failed) >= self._most or not self._budget.try_take(now):
            return None
        return self._taken(self.tiers.in_pool(step, self._excluded, now))

    def failed(self, step: Try, failure: Failure) -> None:
        """The attempt ended before the client saw anything of it, or the rest is to come from elsewhere."""
        self._excluded |= {step.endpoint}
        if failure.reason == "saturated":
            self._reopened = len(self._failed)  # a gateway has sent nothing anywhere: it was no attempt
        else:
            self._failed.append((step, failure))
        if self._purse is not None:
            self._purse.failed(step, failure)
        self._beside = 0
        self.tiers.why = failure.reason
        self.log.append(f"{step.tier} {step.pool.name}/{step.endpoint.name}: {failure}")
        self._told = len(self.log)

    def _find(self, now: float) -> Try | None:
        found = self.tiers.find(self._excluded, now)
        return found if self._purse is None else self._taken(found)

    def _taken(self, found: Try | None) -> Try | None:
        """The same, paid from the purse if there is one."""
        return found if self._purse is None or found is None else self._purse.take(found)

    def _wait(self, last: Failure, now: float) -> Wait | None:
        """Nothing else is left: wait for an endpoint that may be asked again, if there is time for it."""
        if not REASONS[last.reason].elsewhere:
            return None
        best = again(self._failed, self._retry, len(self._failed) - 1, now, self._dice)
        if best is None or now + best.seconds >= self._deadline:
            return None
        self._waits = now + best.seconds, best
        return Wait(best.seconds, best.why)

    def _may_retry(self, failure: Failure) -> bool:
        treatment = REASONS[failure.reason]
        if not treatment.elsewhere and treatment.enters is None:
            return False
        if failure.retry_on is not None:
            return failure.retry_on in self._retry.retry_on
        return not self._is_final(failure)

    def _is_final(self, failure: Failure) -> bool:
        """An error status that the policy does not retry: the client gets the endpoint's own answer."""
        status = failure.status
        if status is None or status < 400 or not REASONS[failure.reason].by_status:
            return False
        codes = self._retry.retry_status_codes
        return status not in codes and STANDS_FOR.get(status) not in codes

    def _closed(self, now: float) -> Stop:
        """Nothing is left to try now."""
        failures = [failure for _, failure in self._failed]
        return may_wait(self._stop(now), self.tiers, failures, self._excluded, now, self._until)

    def _stop(self, now: float) -> Stop:
        failures = [failure for _, failure in self._failed]
        final = bool(failures) and self._is_final(failures[-1])
        tiers = self.tiers
        if self._purse is not None and tiers.why == "budget" and "budget" not in tiers.closed:
            short = endings.short(failures, final, self._purse, self.log)
            if short is not None:
                return short
        return endings.ending(failures, final, self.tiers.why, self.tiers.reachable, self.log, now, self._until)

    @property
    def _until(self) -> float:
        """Seconds until a limit of the tiers lets one more in; infinite where none would."""
        return inf if self.tiers.entering is None else self.tiers.entering.until
