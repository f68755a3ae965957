"""One request from its facts to its end, read top to bottom: plan, attempt, relay, account."""

from __future__ import annotations

import asyncio
import random
from time import monotonic, time
from typing import NamedTuple

from ..core.admitting import admit, within
from ..core.attempts import Attempts, Stop, Try, Wait
from ..core.billing import elsewhere
from ..core.conditions import Moment
from ..core.consumers import Consumer
from ..core.errors import ConsumerLimited, QueueFull, SpillwayError
from ..core.forwarded import Forwarded, gone_on
from ..core.hedging import Hedging, waste
from ..core.planning import Plan, plan
from ..core.reasons import Failure
from ..core.routing import Route
from ..core.runtime import Runtime
from ..core.visits import Visit
from ..wire.clamps import Clamped
from ..wire.peeked import Peeked
from ..wire.resume import may_go_on
from .accepting import GIVEN_BACK
from .answer import Answer, Told
from .auditing import audited, replanned
from .client import ClientConnection
from .explaining import explained, refused, tells
from .facts import Facts
from .forwarding import onward
from .hedging import Outcome, Race
from .keepalive import KeepAlive
from .mirroring import Copies
from .queueing import Place, Queue
from .quotas import quota
from .recording import Record, Recorder
from .relay import Exchange
from .resuming import Resumable, Resumption
from .sending import Job, Sender
from .shadowing import looked
from .telemetry import Decision, Telemetry
from .upstream import RawHeaders

QUEUE = "x-spillway-queue"
"""With `comments` a stream that has to wait is told its place in comments."""


class Shared(NamedTuple):
    """What all requests of a balancer share."""

    sender: Sender
    telemetry: Telemetry
    dice: random.Random
    recorder: Recorder | None
    copies: Copies
    queue: Queue


class Journey:
    """One request. `run` answers it, or raises a SpillwayError before anything of an answer has been written."""

    __slots__ = (
        "_answer",
        "_clamped",
        "_client",
        "_copy",
        "_decision",
        "_explains",
        "_facts",
        "_forwarded",
        "_headers",
        "_peeked",
        "_place",
        "_routes",
        "_sent",
        "_shared",
    )

    def __init__(
        self,
        shared: Shared,
        facts: Facts,
        peeked: Peeked,
        headers: RawHeaders,
        client: ClientConnection,
        answer: Answer,
        decision: Decision,
        forwarded: Forwarded | None = None,
    ) -> None:
        """`headers`: those of the client's that go on. `forwarded`: where a sidecar has begun with it."""
        self._shared = shared
        self._facts = facts
        self._peeked = peeked
        self._headers = headers
        self._client = client
        self._answer = answer
        self._decision = decision
        self._forwarded = forwarded
        self._sent: Try | None = None
        """The last attempt."""
        self._clamped: Clamped | None = None
        self._copy: asyncio.Task[str] | None = None
        self._explains = False
        """Whether the client is told what became of the request."""
        self._place: Place | None = None
        """In the queue, once it has had to wait."""

    async def run(self, runtime: Runtime) -> None:
        """Only who waits in the queue comes to see another runtime than this one."""
        shared, decision = self._shared, self._decision
        self._routes = runtime.routes
        moment = Moment(monotonic(), time(), shared.dice)
        made = self._planned(moment)
        for rule, reason in made.errors:
            shared.telemetry.rule_error(made.route.name, rule, reason)
        forwarded = self._forwarded
        if runtime.routes.shadows and (forwarded is None or not forwarded.rule):
            decision.shadows = looked(runtime.routes, made, self._facts, moment, shared.telemetry)
        if made.held is not None or made.route.spec.explain is not None:
            decision.audit = audited(made, shared.telemetry, shared.dice)
        if self._facts.consumer is not None:
            made = self._admitted(made, self._facts.consumer, moment)
        if forwarded is not None:
            made = gone_on(made, forwarded)
        self._explains = tells(made.route.spec.explain, self._facts)
        if made.refused is not None:
            self._give_back(made)
            if self._explains:
                self._answer.told = refused(made)
            raise made.refused
        if made.route.untold is not None:
            made.route.untold[made.rule].take(moment.now)
        if made.clamp is not None:
            self._clamped = self._facts.clamp(made.clamp)
        lively: KeepAlive | None = None
        interval = made.route.keep_alive
        if interval is not None and self._peeked.stream and self._peeked.path.generates:
            lively = KeepAlive(self._answer, interval)
        try:
            await self._attempt(made, moment.epoch)
        except asyncio.CancelledError:
            if self._copy is not None:  # what nobody waits for in life nobody waits for in the mirror
                self._copy.cancel()
            raise
        finally:
            if lively is not None:
                lively.stop()
            if self._place is not None:
                self._place.leave()
            if shared.recorder is not None:
                shared.recorder.record(self._record(monotonic()))

    def _planned(self, moment: Moment) -> Plan:
        """What the configuration in force decides on the request."""
        decision = self._decision
        made = plan(self._routes, self._facts, moment, self._facts.for_us)
        decision.route, decision.model, decision.rule = made.route.name, made.model, made.rule
        return made

    def _admitted(self, made: Plan, who: Consumer, moment: Moment) -> Plan:
        """The plan as far as the consumer's limits allow it."""
        decision = self._decision
        decision.consumer = who
        made, decision.passed = admit(made, who, self._facts, moment)
        decision.limited = isinstance(made.refused, ConsumerLimited)
        if decision.limited:
            decision.shadows = ()  # no policy has decided
        if who.allowance is not None:
            self._answer.quota = quota(who.allowance, moment.now)
        return made

    async def _attempt(self, made: Plan, epoch: float) -> None:
        """Attempts until one is answered or nothing is left to try. `epoch`: that of the moment it was planned at."""
        shared, facts, decision = self._shared, self._facts, self._decision
        # Who meets a tier that sleeps finds out first how long it is held for it.
        if shared.queue.crowded(made.route.name, made.rule) and not any(
            tier.sleeps for tier in made.tiers[made.first :]
        ):
            if self._give_back(made):
                raise QueueFull("others wait for this model")
            made = await self._turn(made, None)
        route = made.route
        total = self._until(route)
        keeps = self._resumable() if route.resumes and self._peeked.stream else None
        job = Job(
            self._peeked.path,
            self._peeked,
            facts,
            self._headers,
            self._client,
            keeps or self._answer,
            decision,
            route.deadlines,
            total,
            listens=shared.recorder is not None,
            clamped=self._clamped,
        )
        attempts = Attempts.of(made, facts, shared.dice, total, epoch)
        # A second attempt may do nothing a second time: text is made, and nothing is kept.
        hedges = bool(route.hedging) and self._peeked.stream and self._peeked.path.repeatable
        last: Exchange | Failure | None = None
        while True:
            step = attempts.next(monotonic())
            if isinstance(step, Stop):
                error = made.told(step.error)
                error.attempts = (*map(str, made.left_out), *error.attempts)
                if self._give_back(made):
                    decision.status = decision.status or error.code
                    raise error
                if step.spills_in is not None and not self._may_be_held(made):
                    attempts.spill()
                    continue
                if step.may_wait:
                    made = await self._turn(made, step._replace(error=error))
                    attempts.reopen(made.tiers, made.first)
                    job = job._replace(clamped=self._clamped)
                    continue
                if step.answer and isinstance(last, Exchange):
                    last.pass_on()
                    return
                decision.status = decision.status or error.code
                raise error
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)  # a client that leaves cancels it
                continue
            if self._place is not None:
                self._place.served()
            self._sent = decision.sent = step
            decision.tier, decision.spilled = step.tier, step.spilled
            decision.beyond = None if step.pool.upkeep is None else elsewhere(made.tiers, step.tier, facts.model)
            if self._explains:
                self._answer.told = explained(made, step, attempts, decision)
            if made.mirror is not None and self._copy is None:  # a task: it is sent once this request has been
                self._copy = shared.copies.send(route, made.mirror, facts, job)
                if self._copy is not None and decision.audit is not None:
                    decision.audit.mirrored = made.mirror.pool.name
            hedging = attempts.hedging(step) if hedges else None
            if hedging is not None:
                outcome = await self._race(step, hedging, attempts, job, made)
                last = outcome.result
                if outcome.won is not None:
                    assert isinstance(last, Exchange)
                    decision.status = last.interrupted.reason if last.interrupted else "ok"
                    if keeps is not None and last.withheld:
                        await self._go_on(outcome.won, last, keeps, attempts, job, made)
                    return
                for each, failure in outcome.failed:
                    attempts.failed(each, failure)
                continue
            onto = onward(job, made, step, attempts, self._answer) if step.pool.remote else job
            last = await shared.sender.attempt(step, onto)
            failed = last if isinstance(last, Failure) else last.failure
            if failed is None:
                assert isinstance(last, Exchange)
                if keeps is not None and last.withheld:
                    await self._go_on(step, last, keeps, attempts, job, made)
                return
            attempts.failed(step, failed)

    def _until(self, route: Route) -> float:
        """When the request's time is over."""
        total, forwarded = route.deadlines.total, self._forwarded
        return self._decision.started + (total if forwarded is None else min(total, forwarded.deadline))

    def _give_back(self, made: Plan) -> bool:
        """Whether the sidecar that has begun with it is to go on with it, since nothing here was open to it."""
        goes = made.goes_back and self._sent is None
        if goes:
            self._answer.marks = GIVEN_BACK
        return goes

    def _resumable(self) -> Resumable | None:
        """The answer in a form that can be gone on with, where the request allows it."""
        peeked = self._peeked
        return Resumable(self._answer) if may_go_on(peeked.path, peeked.values()) else None

    async def _go_on(
        self, step: Try, exchange: Exchange, keeps: Resumable, attempts: Attempts, job: Job, made: Plan
    ) -> None:
        """The answer has come to its end with a cut that the client has not been told of."""

        def tell(step: Try) -> Told:
            return explained(made, step, attempts, self._decision) if self._explains else ()

        shared = self._shared
        rest = Resumption(made.route.name, job, keeps, shared.sender, attempts, shared.telemetry, tell)
        self._sent = await rest.run(step, exchange)

    async def _race(self, step: Try, hedging: Hedging, attempts: Attempts, job: Job, made: Plan) -> Outcome:
        """An attempt, with a second one beside it if it is slow to begin."""
        decision, metrics = self._decision, self._shared.telemetry.hedges

        def through(winner: Try, hedged: bool) -> None:
            if hedged:
                self._sent = decision.sent = winner
                if self._explains:
                    self._answer.told = explained(made, winner, attempts, decision)

        def unsent(found: Try, visit: Visit) -> None:
            visit.end(monotonic(), ok=False)
            attempts.unsent(found, monotonic())

        race = Race(
            job,
            self._shared.sender.attempt,
            lambda: attempts.hedge(step, hedging, monotonic()),
            through,
            lambda found: found.pool.visit(found.picked, monotonic()),
            unsent,
        )
        result = "client-gone"
        try:
            outcome = await race.run(step, hedging.after)
            result = "failed" if outcome.won is None else "lost" if outcome.won is step else "won"
            if outcome.lost is not None:
                metrics.wasted(made.route.name, outcome.lost.pool.name, waste(outcome.lost))
        finally:
            if race.hedged:
                metrics.ended(made.route.name, made.rule, step.tier, result)
        return outcome

    def _may_be_held(self, made: Plan) -> bool:
        """Whether there is a place to wait for what is woken from zero."""
        stands = self._place is not None and self._place.taken
        return stands or self._shared.queue.has_room(made, self._peeked.size)

    async def _turn(self, made: Plan, why: Stop | None) -> Plan:
        """Wait until this request may try. By then another configuration may be in force: what opens may be new in it,
        so the plan is made anew."""
        shared, decision = self._shared, self._decision
        if self._place is None:
            total = self._until(made.route)
            streams = self._peeked.stream and self._peeked.path.generates
            tell = self._answer.comment if streams and self._facts.header(QUEUE) == "comments" else None
            self._place = shared.queue.place(made, self._facts, self._peeked.size, total, tell)
        try:
            await self._place.turn(why)
            runtime = shared.queue.runtime
            if runtime is None or runtime.routes is self._routes:
                return made
            self._routes = runtime.routes
            self._facts.model = self._peeked.model
            made = self._planned(Moment(monotonic(), time(), shared.dice))
            decision.audit = replanned(made, decision.audit)
            if decision.passed is not None and made.refused is None:
                made = within(made, decision.passed, self._facts)
            if self._forwarded is not None:
                made = gone_on(made, self._forwarded)
            if made.refused is not None:
                raise made.refused
        except SpillwayError as error:
            decision.status = decision.status or error.code
            raise
        self._clamped = None if made.clamp is None else self._facts.clamp(made.clamp)
        lost = self._place.replanned(made)
        return await self._turn(made, None) if lost and shared.queue.crowded(made.route.name, made.rule) else made

    def _record(self, now: float) -> Record:
        """The request as it is taken down. Where no engine has counted tokens, an estimate."""
        decision, facts, sent = self._decision, self._facts, self._sent
        prompt = facts.prompt(facts.model if sent is None else sent.upstream_model)
        usage = decision.usage
        tokens = usage.prompt_tokens
        if tokens is None:
            tokens = facts.prompt_tokens
            if prompt is not None and sent is not None:
                tokens = max(1, round(prompt.size / sent.pool.learned.bytes_per_token))
        return Record(
            started=decision.started,
            ended=now,
            pool=None if sent is None else sent.pool.name,
            endpoint=None if sent is None else sent.endpoint.name,
            model=decision.model,
            prompt_tokens=tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            size=0 if prompt is None else prompt.size,
            blocks=() if prompt is None else prompt.blocks,
            key=None if sent is None else sent.pool.key(facts),
            streams=facts.streams,
            ttft=None if decision.first_byte is None or not facts.streams else decision.first_byte - decision.started,
            status=decision.status or "error",
        )
