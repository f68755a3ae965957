"""Why a request goes where it goes, as values: the account that `spillway explain` prints and `spillway test` checks.

Nothing is decided here. A request is planned and attempted by the code that serves, with an observer beside it that
takes down each step, and what an endpoint would answer is told by whoever asks. So an account cannot say anything else
than what happens. Names and numbers, and no content of the request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import inf
from typing import Final, Protocol

from msgspec.structs import replace

from .account import (
    NO_MODEL,
    SIGNALS,
    Attempted,
    EndpointSeen,
    Explanation,
    GuardAsked,
    Held,
    Left,
    Looked,
    NotUsed,
    Queued,
    Refused,
    RuleAsked,
    Served,
    Shadowed,
    Signal,
    Spilled,
    Step,
    Waited,
)
from .admitting import admit
from .attempts import Attempts, Facts, Stop, Try, Wait
from .conditions import Asked, Moment, bucket
from .endpoint import EndpointState
from .errors import InvalidKey, OverrideNotAllowed, QueueTimeout, SpillwayError
from .keys import key_of
from .planning import Plan, plan
from .pool import Picked, Pool, Want
from .reasons import Failure, Reason
from .routing import Routes, Target, Tier
from .selecting import Selection
from .shadows import Look, looks
from .spill import Ramps
from .strategies.adaptive import Adaptive
from .telling import line, told

TEXT: Final = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Paths on which a second attempt does nothing a second time: text is made, and nothing is kept."""


class Request(Asked, Facts, Protocol):
    """What plans and attempts both ask of a request."""


Answers = Callable[[Pool, EndpointState], Failure | None]
"""What an endpoint would make of the request: None is a good answer."""


def explain(routes: Routes, asked: Request, moment: Moment, answers: Answers) -> Explanation:
    """Plan the request and attempt it. No time passes but while it waits."""
    account = Explanation(
        model=asked.model,
        path=asked.path,
        stream=asked.streams,
        prompt_tokens=asked.prompt_tokens,
        output_tokens=asked.output_tokens,
        outcome=_NOTHING,
    )
    try:
        made = plan(routes, asked, moment)
    except SpillwayError as error:
        return replace(account, outcome=_refused(error))
    used: dict[str, float] = {}
    if asked.consumer is not None and (allowance := asked.consumer.allowance) is not None:
        used = {str(limit): percent for limit, percent in allowance.used_percent(moment.now, moment.unix).items()}
    key = _key(made, asked)
    seen = looks(routes, made, asked, moment)
    account = replace(
        account,
        policy=made.route.name,
        matched=made.model,
        key="" if key is None else key[0],
        bucket=None if key is None else bucket(key[1]),
        guards=_guards(made),
        rules=_rules(made),
        rule=made.rule,
        tiers=tuple(tier.spec.name for tier in made.tiers),
        left_out=tuple(NotUsed(*each) for each in made.left_out),
        clamp=made.clamp,
        consumer="" if asked.consumer is None else asked.consumer.whole,
        used=used,
        mirror="" if made.mirror is None else made.mirror.pool.name,
        shadows=tuple(Shadowed(*each[:5]) for each in seen),
    )
    if asked.consumer is not None:
        made, passed = admit(made, asked.consumer, asked, moment)
        if passed is not None:
            passed.leave(moment.now, moment.unix)  # nothing is sent
        out = tuple(NotUsed(*each) for each in made.left_out)
        account = replace(account, tiers=tuple(tier.spec.name for tier in made.tiers), left_out=out)
    if made.refused is not None:
        return replace(account, outcome=_refused(made.refused))
    return _attempted(account, made, asked, moment, answers, seen)


def _attempted(
    account: Explanation, made: Plan, asked: Request, moment: Moment, answers: Answers, seen: Sequence[Look]
) -> Explanation:
    now, route = moment.now, made.route
    deadline = now + route.deadlines.total
    attempts = Attempts.of(made, asked, moment.dice, deadline, moment.epoch)
    attempts.observer = watch = Watch(asked, now, moment.epoch)
    last: Failure | None = None
    waited = 0.0
    while True:
        step = attempts.next(now)
        if isinstance(step, Wait):
            watch.steps.append(Waited(watch.steps[-1].tier, step.seconds, step.why))
            watch.now = now = now + step.seconds
            continue
        if not isinstance(step, Try):
            if step.spills_in is not None and not route.queue.bounds.requests:
                attempts.spill()
                continue
            at = watch.steps[-1].tier if step.cold and watch.steps else made.tiers[-1].spec.name
            waits = _waits(made, step, at, deadline - now, waited)
            if waits is not None:
                watch.steps.append(waits)
                if not waits.known:
                    error = QueueTimeout("no endpoint was free in time", attempts=step.error.attempts)
                    return replace(account, outcome=_refused(error), steps=tuple(watch.steps))
                waited += waits.seconds
                watch.now = now = now + waits.seconds
                attempts.reopen(made.tiers)
                continue
            own = last if step.answer and last is not None and last.status is not None else None
            outcome = _refused(made.told(step.error)) if own is None else _answered(own)
            return replace(account, outcome=outcome, steps=tuple(watch.steps))
        if step.permit is not None:
            step.permit.cancel(now)  # nothing is sent
        failure = answers(step.pool, step.endpoint)
        if failure is None:
            header = line(told(made, step, attempts.number, attempts.log, seen))
            served = _served(step, attempts.number)
            if asked.streams and asked.path in TEXT and (hedging := attempts.hedging(step)) is not None:
                served = replace(served, hedged_after=hedging.after)
            return replace(account, outcome=served, steps=tuple(watch.steps), header=header)
        watch.steps.append(Attempted(step.tier, step.pool.name, step.endpoint.name, str(failure)))
        attempts.failed(step, failure)
        last = failure


def _waits(made: Plan, stop: Stop, at: str, left: float, waited: float) -> Queued | None:
    """How long the request waits in the queue, which is taken to be empty; None where it does not. `at` is the tier
    that it has come to."""
    queue = made.route.queue
    if not stop.may_wait or not queue.bounds.requests:
        return None
    patience = min((queue.cold_wait if stop.cold else queue.max_wait) - waited, left)
    opens_in = stop.opens_in if stop.spills_in is None else stop.spills_in
    known = opens_in is not None and (opens_in <= patience or stop.spills_in is not None)
    if patience <= 0 or (opens_in is not None and not known):
        return None
    return Queued(at, opens_in if known and opens_in is not None else patience, known, stop.cold)


class Watch:
    """The observer that takes down the steps of a request."""

    def __init__(self, asked: Request, now: float, epoch: float) -> None:
        """`epoch`: what makes Unix time of the clock's."""
        self.now = now
        self._epoch = epoch
        self._asked = asked
        self.steps: list[Step] = []

    def spilling(self, tier: Tier, share: float, leaves: bool) -> None:
        spilling = tier.spilling
        assert spilling is not None
        known = zip(Ramps._fields, spilling.ramps, spilling.signals(self.now), strict=True)
        signals = tuple(Signal(SIGNALS[name], value, *ends) for name, ends, value in known if ends is not None)
        self.steps.append(Spilled(tier.spec.name, share, spilling.by, leaves, signals))

    def looking(
        self, tier: Tier, target: Target, want: Want | None, tried: Collection[EndpointState], now: float
    ) -> None:
        pool = target.pool
        look = Looked(tier.spec.name, pool.name, target.weight, pool.spec.dispatch.strategy)
        if isinstance(tier.chooser, Selection):
            scores = dict(zip(tier.targets, tier.chooser.scores(tier.targets, self._asked, now), strict=True))
            look = replace(look, select=tier.chooser.select, score=scores[target])
        if tier.limits is not None:
            used = tier.limits.used_percent(now, now + self._epoch)
            look = replace(look, limits={str(name): percent for name, percent in used.items()})
        if pool.fund is not None:
            look = replace(
                look, limits=look.limits | {"budget of the pool": pool.fund.money.used_percent(now + self._epoch)}
            )
        if want is None:
            look = replace(look, reason=NO_MODEL)
        else:
            look = replace(look, endpoints=_seen(pool, want, tried, now))
        self.steps.append(look)

    def found(self, tier: Tier, target: Target, found: Picked | Reason) -> None:
        look = self.steps[-1] if self.steps else None
        if not isinstance(look, Looked) or look.reason:  # a last resort that is not looked at anew
            look = Looked(tier.spec.name, target.pool.name, target.weight, target.pool.spec.dispatch.strategy)
            self.steps.append(look)
        if isinstance(found, Picked):
            self.steps[-1] = replace(look, chosen=found.endpoint.name, reason=found.choice.reason)
        else:
            self.steps[-1] = replace(look, reason=found)

    def left(self, tier: Tier, reason: Reason, onward: bool) -> None:
        self.steps.append(Left(tier.spec.name, reason, onward))


_NOTHING: Final = Refused(0, "", "")


def _rules(made: Plan) -> tuple[RuleAsked, ...]:
    """What became of each: a plan says which one holds and which could not be evaluated, and asks none behind."""
    errors = dict(made.errors)
    asked, over = [], isinstance(made.refused, InvalidKey)
    if made.wants is not None and (made.wants.rule is not None or isinstance(made.refused, OverrideNotAllowed)):
        results: dict[str, Held] = {made.rule: "chosen by the caller"}
        rules = made.route.spec.rules
        return tuple(RuleAsked(each.name, each.when, results.get(each.name, "not asked")) for each in rules)
    for rule in made.route.spec.rules:
        result: Held = "not asked" if over else errors.get(rule.name, "does not hold")
        if not over and made.rule == rule.name:
            result, over = "holds", True
        asked.append(RuleAsked(rule.name, rule.when, result))
    return tuple(asked)


def _guards(made: Plan) -> tuple[GuardAsked, ...]:
    """What became of each."""
    results: dict[str, Held] = {}
    if made.held is not None:
        results |= {guard.name: "holds" for guard in made.held.guards}
        results |= dict(made.held.unknown)
    specs = made.route.spec.guards
    other: Held = "not asked" if isinstance(made.refused, InvalidKey) else "does not hold"
    return tuple(GuardAsked(each.name, each.when, results.get(each.name, other)) for each in specs)


def _key(made: Plan, asked: Request) -> tuple[str, int] | None:
    """Where the session's key was found, and the key."""
    home = made.route.home
    for source in () if home is None else home.spec.dispatch.key:
        key = key_of((source,), asked)
        if key is not None:
            return source.type + (f" {source.name}" if source.name else ""), key
    return None


def _seen(pool: Pool, want: Want, tried: Collection[EndpointState], now: float) -> tuple[EndpointSeen, ...]:
    """All endpoints of the pool, those that may take the request with what the strategy goes by."""
    candidates, _, _ = pool.candidates(want, tried, now)
    costs = pool.strategy.costs(candidates) if isinstance(pool.strategy, Adaptive) else [None] * len(candidates)
    able = {at.name: (at, cost) for at, cost in zip(candidates, costs, strict=True)}
    seen = []
    for name, endpoint in pool.endpoints.items():
        weight, requests = endpoint.spec.weight, pool.requests_at(endpoint, now)
        if name not in able:
            seen.append(EndpointSeen(name, _state(endpoint, endpoint in tried, now), weight, requests))
            continue
        at, cost = able[name]
        look = EndpointSeen(name, "ready", at.weight, at.requests, cost=cost)
        if pool.wants_prompt:
            ttft = pool.forecast(endpoint, want, now).ttft
            look = replace(look, queued_tokens=at.queue, cached_tokens=at.cached, ttft=ttft, rate=endpoint.learned.rate)
        seen.append(look)
    return tuple(seen)


def _state(endpoint: EndpointState, tried: bool, now: float) -> str:
    """In words, why an endpoint is none of the candidates."""
    circuit = endpoint.circuit
    if tried:
        return "tried already"
    if not endpoint.keyed:
        return "has no credential"
    if not endpoint.probe.usable:
        return "fails its probes"
    if endpoint.refused:
        return "does not take its credential"
    if now < endpoint.limited_until:
        wait = endpoint.limited_until - now
        return f"limited for {wait:.0f} s" if wait < inf else "too large for its limits"
    if circuit.state(now) == "open":
        return "ejected, awaits a probe" if circuit.awaits_probe else f"ejected for {circuit.until - now:.0f} s"
    return "on trial" if not circuit.admits(now) else "full"


def _served(step: Try, number: int) -> Served:
    forecast = step.picked.forecast
    reads_cache = forecast.ttft is not None
    return Served(
        step.tier,
        step.pool.name,
        step.endpoint.name,
        step.upstream_model,
        step.spilled,
        step.picked.choice.reason,
        number,
        forecast.prompt_tokens,
        forecast.cached_tokens if reads_cache else None,
        forecast.ttft,
        reads_cache and step.endpoint.learned.rate is not None,
        translated=step.into,
    )


def _answered(failure: Failure) -> Refused:
    """The endpoint's own error is the client's answer."""
    return Refused(failure.status or 0, failure.reason, "the endpoint's own answer goes on to the client")


def _refused(error: SpillwayError) -> Refused:
    return Refused(error.status, error.code, error.message, error.retry_after, error.attempts)
