"""One request's way through tiers and endpoints: a state machine. Failures go in, the next step comes out.

It decides and does nothing: the caller asks `next(now)`, carries the step out, and reports with `failed(...)`.
Only attempts that the client has seen nothing of are reported, so nothing is ever retried after the first
content byte.
"""

from __future__ import annotations

import random
from typing import NamedTuple, Protocol

from spillway_api.types import Retry

from . import spill
from .endpoint import EndpointState
from .errors import AttemptsFailed, DeadlineExceeded, NoReadyEndpoint, RateLimited, SpillwayError
from .keys import KeyFacts
from .observing import Observer
from .pool import Picked, Pool, Want
from .prefix import Prompt
from .reasons import REASONS, Failure, Reason
from .retry_budget import RetryBudget
from .routing import Tier, order
from .spilling import Spilling

LIMITED = "every endpoint that serves this model is at its limit"


class Facts(KeyFacts, Protocol):
    """What an attempt needs to know of a request."""

    @property
    def model(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def streams(self) -> bool: ...
    def prompt(self, model: str) -> Prompt | None: ...


class Try(NamedTuple):
    """Send the request to this endpoint."""

    tier: str
    pool: Pool
    picked: Picked
    upstream_model: str
    spilled: bool  # another tier than the first
    shares: tuple[tuple[str, float], ...] = ()
    """What was leaving the tiers that spill, of those that were asked, when they were: 0 to 1."""

    @property
    def endpoint(self) -> EndpointState:
        return self.picked.endpoint


class Stop(NamedTuple):
    """Give up. `answer` means: the last endpoint's own answer is the most informative one."""

    error: SpillwayError
    answer: bool = False


class Attempts:
    def __init__(
        self,
        tiers: tuple[Tier, ...],
        retry: Retry,
        budget: RetryBudget,
        facts: Facts,
        dice: random.Random,
        deadline: float,
    ) -> None:
        self._tiers = tiers
        self._retry = retry
        self._budget = budget
        self._facts = facts
        self._dice = dice
        self._deadline = deadline
        self._keys: dict[str, int | None] = {}
        self._tier = 0
        self._home: list[int] = []  # tiers left before sending; they are better than an error
        self._entered = -1
        self._shares: tuple[tuple[str, float], ...] = ()
        self._failed: set[EndpointState] = set()
        self._failures: list[Failure] = []
        self._why: Reason = "no-ready-endpoint"
        self.log: list[str] = []
        """`tier pool/endpoint: reason` of every failed attempt, and why tiers were left without one."""
        self.observer: Observer | None = None

    def next(self, now: float) -> Try | Stop:
        """The next step at time `now`."""
        last = self._failures[-1] if self._failures else None
        if now >= self._deadline:
            return Stop(DeadlineExceeded("the request's total time is over", attempts=tuple(self.log)))
        if last is not None:
            if len(self._failures) >= self._retry.attempts or not self._may_retry(last):
                return self._stop(now)
            if not REASONS[last.reason].elsewhere and not self._leave(last.reason):
                return self._stop(now)
            if not self._budget.try_take(now):
                return self._stop(now)
        else:
            self._budget.note_request(now)
        return self._find(now) or self._stop(now)

    def failed(self, step: Try, failure: Failure) -> None:
        """The attempt ended before the client saw anything of it."""
        self._failed.add(step.endpoint)
        self._failures.append(failure)
        self._why = failure.reason
        self.log.append(f"{step.tier} {step.pool.name}/{step.endpoint.name}: {failure}")

    def _may_retry(self, failure: Failure) -> bool:
        treatment = REASONS[failure.reason]
        if not treatment.elsewhere and treatment.enters is None:
            return False
        if failure.retry_on is not None:
            return failure.retry_on in self._retry.retry_on
        return not self._status_is_final(failure)

    def _status_is_final(self, failure: Failure) -> bool:
        """An error status that the policy does not retry: the client gets the endpoint's own answer."""
        status = failure.status
        if status is None or status < 400 or not REASONS[failure.reason].by_status:
            return False
        return status not in self._retry.retry_status_codes

    def _find(self, now: float) -> Try | None:
        while self._tier < len(self._tiers):
            tier = self._tiers[self._tier]
            if tier.spilling is not None and self._spills(tier, tier.spilling, now):
                self._home.append(self._tier)
                self._why = tier.spilling.reason
                self.log.append(f"{tier.spec.name}: {self._why}")
                if self._leave(self._why):
                    continue
            found = self._pick(tier, now)
            if found is not None:
                return found
            if not self._leave(self._why):
                break
        for index in self._home:
            found = self._pick(self._tiers[index], now)
            if found is not None:
                return found
        return self._panic(now)

    def _leave(self, reason: Reason) -> bool:
        """Go to the next tier if it may be entered for this reason."""
        onward = self._may_leave(reason)
        if self.observer is not None:
            self.observer.left(self._tiers[self._tier], reason, onward)
        self._tier += onward
        return onward

    def _may_leave(self, reason: Reason) -> bool:
        if self._tier + 1 >= len(self._tiers):
            return False
        spilling = self._tiers[self._tier].spec.spill
        if reason in ("no-ready-endpoint", "circuit-open") and spilling and not spilling.when_unavailable:
            return False
        return REASONS[reason].enters in self._tiers[self._tier + 1].spec.enter_on

    def _spills(self, tier: Tier, spilling: Spilling, now: float) -> bool:
        """Whether load sends this request away from the tier before it is tried; asked once a tier."""
        if self._entered >= self._tier:
            return False
        self._entered = self._tier
        share = spilling.share(now)
        self._shares += ((tier.spec.name, share),)
        key = self._key(tier.targets[0].pool)
        leaves = spill.leaves(share, key, spilling.by, self._dice, salt=self._tier)
        if self.observer is not None:
            self.observer.spilling(tier, share, leaves)
        return leaves

    def _pick(self, tier: Tier, now: float) -> Try | None:
        key = self._key(tier.targets[0].pool)
        for target in order(tier.targets, tier.spec.select, key, self._dice):
            pool = target.pool
            upstream_model = pool.upstream_model(self._facts.model, target.model)
            want = None if upstream_model is None else self._want(pool, upstream_model)
            if self.observer is not None:
                self.observer.looking(tier, target, want, self._failed, now)
            if upstream_model is None or want is None:
                continue
            picked = pool.pick(want, self._failed, now, self._dice)
            if self.observer is not None:
                self.observer.found(tier, target, picked)
            if isinstance(picked, Picked):
                return self._try(tier, pool, upstream_model, picked)
            if not self._failures or picked != "no-ready-endpoint":
                self._why = picked
        return None

    def _panic(self, now: float) -> Try | None:
        """Every endpoint of the last tier is ejected: the one due back soonest is tried rather than nothing."""
        tier = self._tiers[min(self._tier, len(self._tiers) - 1)]
        soonest: tuple[tuple[bool, float], Pool, str, EndpointState] | None = None
        for target in order(tier.targets, tier.spec.select, self._key(tier.targets[0].pool), self._dice):
            upstream_model = target.pool.upstream_model(self._facts.model, target.model)
            if upstream_model is None:
                continue
            endpoint = target.pool.soonest_back(self._failed, now)
            if endpoint is not None and (soonest is None or endpoint.due_back < soonest[0]):
                soonest = endpoint.due_back, target.pool, upstream_model, endpoint
        if soonest is None:
            return None
        _, pool, upstream_model, endpoint = soonest
        return self._try(tier, pool, upstream_model, pool.take(endpoint, self._want(pool, upstream_model), now))

    def _try(self, tier: Tier, pool: Pool, upstream_model: str, picked: Picked) -> Try:
        spilled = tier is not self._tiers[0]
        return Try(tier.spec.name, pool, picked, upstream_model, spilled, self._shares)

    def _want(self, pool: Pool, upstream_model: str) -> Want:
        facts = self._facts
        prompt = facts.prompt(upstream_model) if pool.wants_prompt else None
        return Want(self._key(pool), facts.prompt_tokens, facts.output_tokens, prompt, facts.streams)

    def _key(self, pool: Pool) -> int | None:
        if pool.name not in self._keys:
            self._keys[pool.name] = pool.key(self._facts)
        return self._keys[pool.name]

    def _limited(self, now: float) -> float | None:
        """Seconds until an account is back, where nothing could be tried and limits are why."""
        if self._why not in ("rate-limited", "quota-exhausted"):
            return None
        targets = [target for tier in self._tiers for target in tier.targets]
        waits = [wait for target in targets if (wait := target.pool.limited_for(now)) is not None]
        return min(waits, default=None)

    def _stop(self, now: float) -> Stop:
        """The most informative error there is."""
        log = tuple(self.log)
        failures = self._failures
        if not failures:
            wait = self._limited(now)
            if wait is not None:
                return Stop(RateLimited(LIMITED, retry_after=wait, attempts=log))
            return Stop(NoReadyEndpoint("no endpoint is ready for this model", retry_after=1.0, attempts=log))
        last = failures[-1]
        answer = REASONS[last.reason].answer_as_is or self._status_is_final(last)
        limited = ("rate-limited", "quota-exhausted")
        if not answer and all(failure.reason in limited for failure in failures):
            waits = [failure.retry_after for failure in failures if failure.retry_after is not None]
            return Stop(RateLimited(LIMITED, retry_after=min(waits, default=None), attempts=log))
        if all(failure.reason in ("first-byte-timeout", "stall") for failure in failures):
            return Stop(DeadlineExceeded("no endpoint answered in time", attempts=log))
        return Stop(AttemptsFailed("every attempt failed", retry_after=1.0, attempts=log), answer)
