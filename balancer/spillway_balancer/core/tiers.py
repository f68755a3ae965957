"""One request's way down the tiers of its rule: which tier it is in, why it leaves one, and which endpoint it finds."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Final

from . import spill
from .cold import ColdStart, is_cold
from .endpoint import EndpointState
from .entering import Entering
from .limits import Permit, Refusal
from .observing import Observer
from .pool import Picked, Pool, Want
from .purse import Purse
from .reasons import REASONS, Reason
from .routing import Target, Tier
from .selecting import order
from .spilling import Spilling
from .steps import Facts, Try
from .untold import told

LATE: Final[Reason] = "wait-predicted"


class Tiers:
    """The tiers of a plan, as one request sees them. What is not among them cannot be reached."""

    __slots__ = (
        "_at",
        "_dice",
        "_entered",
        "_epoch",
        "_facts",
        "_full",
        "_home",
        "_keys",
        "_left",
        "_log",
        "_others",
        "_shares",
        "_told",
        "all",
        "closed",
        "cold",
        "entering",
        "first",
        "observer",
        "purse",
        "why",
    )

    def __init__(
        self,
        tiers: tuple[Tier, ...],
        facts: Facts,
        dice: random.Random,
        log: list[str],
        epoch: float = 0.0,
        first: int = 0,
        others: int = 0,
    ) -> None:
        """`epoch`: what makes Unix time of the clock's, for budgets. `first`: number of the first tier that may be
        entered; it is as if those before had been left. `others`: requests of the rule that are told of with this
        one."""
        self.all = tiers
        self.first = first
        self._others = others
        self._facts = facts
        self._dice = dice
        self._log = log
        self._keys: dict[str, int | None] = {}
        self._at = first
        self._home: list[int] = []  # tiers left before sending; they are better than an error
        self._entered = -1
        self._shares: tuple[tuple[str, float], ...] = ()
        self._left: Reason | None = None  # why the first tier was left
        self._told = False  # whether the tiers behind were looked at for what can be told there
        self.why: Reason = "no-ready-endpoint"
        """Why the last tier that was asked had no endpoint, or the reason of the last failure."""
        self.closed: frozenset[Reason] = frozenset()
        """Why the pools that were asked had no endpoint."""
        self.cold: ColdStart | None = None
        """What was found asleep; None where nothing was."""
        self._full = -1  # the last tier with a pool whose endpoints hold all that they may
        self.observer: Observer | None = None
        self.purse: Purse | None = None
        """What the request may still cost; None where nobody asks."""
        self._epoch = epoch
        self.entering: Entering | None = None
        """None where nothing is counted."""
        self._count()

    def reopen(self, tiers: tuple[Tier, ...], first: int = 0) -> None:
        """Look anew, from the first tier on; another configuration may have brought others."""
        self.all = tiers
        self.first = first
        self._keys.clear()
        self._home.clear()
        self.closed = frozenset()
        self._at, self._entered, self._full = first, -1, -1
        self._shares = ()
        self._left = None
        self._told = False
        if self.cold is not None:
            self.cold.reopen()
        self._count()

    def _count(self) -> None:
        """From now on, where some tier has limits or its requests a cost."""
        if self.entering is None:
            for tier in self.all:
                if tier.limits is not None or tier.priced:
                    self.entering = Entering(self._facts, self._key, self._epoch, self._others)
                    break

    @property
    def reachable(self) -> tuple[Tier, ...]:
        """Those that the request may enter."""
        return self.all[self.first :] if self.first else self.all

    @property
    def has_home(self) -> bool:
        """Whether it has left a tier for load alone: there it is served rather than not at all."""
        return bool(self._home)

    def find(self, failed: Collection[EndpointState], now: float) -> Try | None:
        """An endpoint that has not failed the request, in the first tier that is open to it."""
        if self.entering is not None:
            self.entering.look(self.all, now)
        while self._at < len(self.all):
            tier = self.all[self._at]
            shut = None if tier.spilling is None else self._shut(tier, tier.spilling, now)
            if shut is not None:
                self._home.append(self._at)
                self.why = shut
                self._log.append(f"{tier.spec.name}: {shut}")
                if self.leave(shut):
                    continue
            found = self._pick(self._at, failed, now)
            if found is not None and (tier.spilling is None or not self._comes_late(tier, tier.spilling, found, now)):
                return found
            if tier.sleeps and self._sleeper().holds(tier, now):
                self._log.append(f"{tier.spec.name}: held, as it is scaled to zero")
                break
            if not self.leave(self.why):
                break
        for index in self._home:
            found = self._pick(index, failed, now)
            if found is not None:
                return found
        # Where an endpoint is only full, another one that is ejected is not all there is.
        return None if self._full == min(self._at, len(self.all) - 1) else self._panic(failed, now)

    def give_up(self) -> None:
        """There is no room to hold the request in for a tier that is asleep."""
        self._sleeper().give_up()

    def _sleeper(self) -> ColdStart:
        if self.cold is None:
            self.cold = ColdStart()
        return self.cold

    def leave(self, reason: Reason) -> bool:
        """Go to the next tier if it may be entered for this reason."""
        onward = self._may_leave(reason)
        if self.observer is not None:
            self.observer.left(self.all[self._at], reason, onward)
        if onward and self._left is None:
            self._left = reason
        self._at += onward
        return onward

    def again(self, step: Try, now: float) -> Try | None:
        """The same endpoint once more, if it takes requests now."""
        others = [each for each in step.pool.endpoints.values() if each is not step.endpoint]
        return self.in_pool(step, others, now)

    def in_pool(self, step: Try, tried: Collection[EndpointState], now: float) -> Try | None:
        """Another endpoint for the same step, of the same pool and with the same model."""
        pool = step.pool
        if self.purse is not None and not self.purse.affords(pool, step.price):
            return None
        permit = step.permit
        if self.entering is not None and permit is not None:
            entered = self.entering.again(permit, self.all, step.tier, pool, now)
            if isinstance(entered, Refusal):
                return None
            permit = entered
        picked = pool.pick(self._want(pool, step.upstream_model), tried, now, self._dice)
        if isinstance(picked, Picked):
            return step._replace(picked=picked, permit=permit)
        if permit is not None:
            permit.cancel(now)
        return None

    def of(self, step: Try) -> Tier:
        """The tier that a step is in."""
        return next(tier for tier in self.all if tier.spec.name == step.tier)

    def beside(self, step: Try, failed: Collection[EndpointState], now: float) -> Try | None:
        """Another endpoint of the same tier, that takes requests now."""
        why = self.why
        at = self.all.index(self.of(step))
        found = self._pick(at, {*failed, step.endpoint}, now)
        self.why = why
        return found

    @staticmethod
    def unsent(found: Try, now: float) -> None:
        """What was set aside for the step is free again."""
        found.pool.untried(found.endpoint, now, now)
        if found.permit is not None:
            found.permit.cancel(now)

    def _may_leave(self, reason: Reason) -> bool:
        if not self._told:
            self._told = True
            onward = self._at + 1
            self.all = (*self.all[:onward], *told(self.all[onward:], self._facts, self._log))
        if self._at + 1 >= len(self.all):
            return False
        tier = self.all[self._at]
        spilling = tier.spec.spill
        stays = reason in ("no-ready-endpoint", "circuit-open") and spilling and not spilling.when_unavailable
        if stays and not is_cold(tier):
            return False
        return REASONS[reason].enters in self.all[self._at + 1].spec.enter_on

    def _shut(self, tier: Tier, spilling: Spilling, now: float) -> Reason | None:
        """Why the tier is not open to this request before anything is sent there. Asked once a tier."""
        if self._entered >= self._at:
            return None
        self._entered = self._at
        return spilling.reason if self._spills(tier, spilling, now) else None

    def _spills(self, tier: Tier, spilling: Spilling, now: float) -> bool:
        """Whether load sends this request away."""
        share = spilling.share(now)
        self._shares += ((tier.spec.name, share),)
        key = self._key(tier.targets[0].pool)
        leaves = spill.leaves(share, key, spilling.by, self._dice, salt=self._at)
        if self.observer is not None:
            self.observer.spilling(tier, share, leaves)
        return leaves

    def _comes_late(self, tier: Tier, spilling: Spilling, found: Try, now: float) -> bool:
        """Whether this very request would wait as long as nobody is to wait there, however it is with a typical one:
        its prompt is long, or its endpoint is busier than the others. It leaves if the next tier takes it."""
        wait = found.picked.forecast.ttft
        if wait is None or wait < spilling.longest or not self._may_leave(LATE):
            return False
        self.unsent(found, now)
        self._home.append(self._at)
        self.why = LATE
        self._log.append(f"{tier.spec.name}: {LATE} ({wait:.1f} s for itself)")
        return True

    def _pick(self, at: int, failed: Collection[EndpointState], now: float) -> Try | None:
        tier = self.all[at]
        for target in self._order(tier, now) if len(tier.targets) > 1 else tier.targets:
            pool = target.pool
            upstream_model = pool.upstream_model(self._facts.model, target.model)
            want = None if upstream_model is None else self._want(pool, upstream_model)
            if self.observer is not None:
                self.observer.looking(tier, target, want, failed, now)
            if upstream_model is None or want is None:
                continue
            if self.purse is not None and not self._affords(tier, target, self.purse):
                continue
            permit = None if self.entering is None else self._permit(self.entering, at, target, now)
            if isinstance(permit, Refusal):
                self._refused(tier, target, permit)
                continue
            picked = pool.pick(want, failed, now, self._dice)
            if self.observer is not None:
                self.observer.found(tier, target, picked)
            if isinstance(picked, Picked):
                return self._try(tier, pool, upstream_model, picked, permit)
            if permit is not None:
                permit.cancel(now)
            self.closed |= {picked}
            if picked == "saturated":
                self._full = self._at
            if not failed or picked != "no-ready-endpoint":
                self.why = picked
        return None

    def _order(self, tier: Tier, now: float) -> Sequence[Target]:
        return order(tier, self._key(tier.targets[0].pool), self._facts, now, self._dice)

    def _permit(self, entering: Entering, at: int, target: Target, now: float) -> Permit | Refusal | None:
        """The way past the limits of the tier number `at`; None where neither limits nor a price have to know."""
        if self.all[at].limits is None and not target.pool.priced:
            return None
        model = target.pool.model(self._facts.model, target.model)
        return None if model is None else entering.enter(self.all, at, target.pool, model, now)

    def _refused(self, tier: Tier, target: Target, refusal: Refusal) -> None:
        self.why = refusal.reason
        self.closed |= {refusal.reason}
        told = f"{tier.spec.name}: {refusal}"
        if told not in self._log[-1:]:
            self._log.append(told)
        if self.observer is not None:
            self.observer.found(tier, target, refusal.reason)

    def _panic(self, failed: Collection[EndpointState], now: float) -> Try | None:
        """Every endpoint of the last tier is ejected: the one due back soonest is tried rather than nothing."""
        at = min(self._at, len(self.all) - 1)
        tier = self.all[at]
        soonest: tuple[tuple[bool, float], Target, str, EndpointState] | None = None
        for target in self._order(tier, now):
            upstream_model = target.pool.upstream_model(self._facts.model, target.model)
            if upstream_model is None:
                continue
            if self.purse is not None and not self._affords(tier, target, self.purse):
                continue
            endpoint = target.pool.soonest_back(failed, now)
            if endpoint is not None and (soonest is None or endpoint.due_back < soonest[0]):
                soonest = endpoint.due_back, target, upstream_model, endpoint
        if soonest is None:
            return None
        _, target, upstream_model, endpoint = soonest
        permit = None if self.entering is None else self._permit(self.entering, at, target, now)
        if isinstance(permit, Refusal):
            self._refused(tier, target, permit)
            return None
        pool = target.pool
        picked = pool.take(endpoint, self._want(pool, upstream_model), now)
        return self._try(tier, pool, upstream_model, picked, permit)

    def _affords(self, tier: Tier, target: Target, purse: Purse) -> bool:
        """Whether the request may cost what it might cost there."""
        pool = target.pool
        known = pool.name in purse.refused
        model = pool.model(self._facts.model, target.model)
        if purse.affords(pool, None if model is None else model.price):
            return True
        self.why = "budget"
        if self.observer is not None:
            self.observer.found(tier, target, "budget")
        if not known:
            self._log.append(f"{tier.spec.name} {pool.name}: budget (retry.maxCost)")
        return False

    def _try(self, tier: Tier, pool: Pool, upstream_model: str, picked: Picked, permit: Permit | None) -> Try:
        spilled = tier is not self.all[0]
        left = self._left if spilled else None
        into = pool.apis.into(self._facts.path, upstream_model)
        return Try(tier.spec.name, pool, picked, upstream_model, spilled, self._shares, left, permit, into)

    def _want(self, pool: Pool, upstream_model: str) -> Want:
        facts = self._facts
        prompt = facts.prompt(upstream_model) if pool.wants_prompt else None
        return Want(self._key(pool), facts.prompt_tokens, facts.output_tokens, prompt, facts.streams, upstream_model)

    def _key(self, pool: Pool) -> int | None:
        if pool.name not in self._keys:
            self._keys[pool.name] = pool.key(self._facts)
        return self._keys[pool.name]
