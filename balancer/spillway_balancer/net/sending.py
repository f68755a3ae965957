"""One attempt: a connection, the request's bytes, the exchange, and what everybody learns from how it ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from time import monotonic, time
from typing import NamedTuple, Protocol

from ..core.attempts import Try
from ..core.forwarded import Forwarded
from ..core.learning import NOT_TOLD
from ..core.pool import Pool
from ..core.reasons import REASONS, Failure
from ..core.routing import Deadlines
from ..core.runtime import Runtime
from ..core.visits import Visit
from ..wire.clamps import Clamped
from ..wire.paths import Path
from ..wire.peeked import Edit, Peeked
from ..wire.providers import ADAPTERS
from ..wire.providers.fields import adapted, with_own
from ..wire.quota_headers import quotas
from ..wire.usage_chunk import ask_for_usage, without_usage
from . import translating
from .answer import Answer
from .credentials import Credentials
from .dialling import Dialler, Origin, origin_of, said, way_of
from .explaining import paid
from .facts import Facts
from .forwarding import Forwarder, Forwarding
from .lesson import Lesson
from .relay import Exchange, Gate, Writer
from .settling import counts_tokens, settle, unpriced
from .signing import shown
from .telemetry import Decision, Telemetry
from .translating import Translated
from .upstream import Connection, ConnectionPool, RawHeaders, Receiver

log = logging.getLogger("spillway.endpoints")


class Reader(Protocol):
    """Who is told which exchange is for it, so that it can slow an endpoint that it does not keep up with."""

    def attach(self, exchange: Exchange | None) -> None: ...


class Job(NamedTuple):
    """What all attempts of one request share."""

    path: Path
    peeked: Peeked
    facts: Facts
    headers: RawHeaders
    """The client's headers, as far as they go on."""
    client: Reader
    answer: Writer
    decision: Decision
    deadlines: Deadlines
    total: float
    """When the request's time is over; seconds of the monotonic clock."""
    listens: bool = False
    """Whether the answer's token counts are wanted, though the pool may not learn from them."""
    clamped: Clamped | None = None
    """What the rule lowers in the body."""
    copy: bool = False
    """Whether nobody waits for the answer. How a copy fares takes no endpoint from those who wait for theirs."""
    gate: Gate | None = None
    """Asked before the first byte of an answer, where two attempts go for one."""
    visit: Visit | None = None
    """The place at the endpoint, where it has been taken before: the attempt gives it back."""
    onward: Forwarded | None = None
    """What a gateway is told of it that it is forwarded to."""
    body: bytes | None = None
    """Sent instead of the client's own, where a part of the answer is there already."""


class Sender:
    """Carries attempts out. Knows sockets and credentials; decides nothing."""

    def __init__(self, credentials: Credentials, telemetry: Telemetry) -> None:
        self._credentials = credentials
        self._telemetry = telemetry
        self.freed: Callable[[str], None] | None = None
        """Told the name of a pool when a request has ended there."""
        self._runtime: Runtime | None = None
        self.forwarder = Forwarder()
        """Writes what goes to a gateway."""
        self.connections = ConnectionPool(Dialler(asyncio.get_running_loop(), credentials))

    def follow(self, runtime: Runtime) -> None:
        """Look for the credentials of the pools that have changed."""
        before = {} if self._runtime is None else self._runtime.pools
        self._runtime = runtime
        for name, pool in runtime.pools.items():
            if before.get(name) is not pool:
                self._look(pool)

    def rekeyed(self) -> None:
        """Credentials have changed: who refused the old one may take the new one."""
        for pool in () if self._runtime is None else self._runtime.pools.values():
            for endpoint in pool.endpoints.values():
                if endpoint.refused and self._credentials.renewed(endpoint.spec):
                    endpoint.refused = False
            self._look(pool)

    def _look(self, pool: Pool) -> None:
        """Which endpoints of a pool have their credential here: kubelet brings a new key into a Pod up to a minute
        after the snapshot that speaks of it. They get no requests until then."""
        for endpoint in pool.endpoints.values():
            before, endpoint.keyed = endpoint.keyed, self._credentials.keyed(endpoint.spec)
            if before and not endpoint.keyed and endpoint.spec.credential is not None:
                name = f"{pool.name}/{endpoint.name}"
                log.warning("endpoint %s has no credential here yet and gets no requests", name)

    async def attempt(self, step: Try, job: Job) -> Exchange | Failure:
        """Send to one endpoint and relay its answer. Every way out, cancellation included, gives the lease back.

        The exchange that comes back has either been relayed to its end or holds a `failure` that the client has
        seen nothing of; a bare Failure means that there was no connection.
        """
        endpoint, pool = step.picked.endpoint, step.pool
        begun = monotonic()
        reason: str | None = None
        if job.decision.audit is not None:
            job.decision.audit.sent(step)
        visit = job.visit or pool.visit(step.picked, begun)
        lesson: Lesson | None = None
        counts = counts_tokens(step, job.decision)
        if pool.wants_prompt or job.listens or counts or pool.learned.paces:
            prompt = job.facts.prompts.get(step.upstream_model) if pool.wants_prompt else None
            lesson = Lesson(prompt, job.peeked.stream)
        committed, failure = False, None
        try:
            ask = _usage_wanted(step, job) if counts else None
            first_byte = self._on_first_byte(step, job, visit, begun, lesson)
            result = await self._exchange(step, job, visit, first_byte, lesson, ask)
            now = monotonic()
            failure = result if isinstance(result, Failure) else result.failure or result.interrupted
            committed = isinstance(result, Exchange) and result.failure is None
            if failure is None:
                reason = "ok"
                if not job.copy:
                    pool.succeeded(endpoint, begun, now)
            else:
                reason = failure.reason
                blamed = not (job.copy and REASONS[reason].counts)
                if blamed and pool.failed(endpoint, failure, begun, now):
                    why = f": {failure.why}" if failure.why else ""
                    log.warning("endpoint %s/%s is ejected: %s%s", pool.name, endpoint.name, failure, why)
                if reason == "auth" and not self._credentials.refused(endpoint.spec, begun):
                    endpoint.refused = False
            return result
        except asyncio.CancelledError:
            reason = "outrun" if job.gate is not None and job.gate.outrun else "client-gone"
            raise
        finally:
            usage = NOT_TOLD
            if lesson is not None and (reason == "ok" or counts):
                usage = lesson.end(pool.learned.bytes_per_token)
            had = committed or (reason in ("client-gone", "outrun") and (lesson is None or lesson.sent))
            had = (had or (lesson is not None and lesson.broken_off(failure))) and not job.path.free
            if step.permit is not None or job.decision.passed is not None or counts:
                unsaid = usage.prompt_tokens is None or (job.path.generates and lesson is not None and not lesson.told)
                of_it = usage if had and lesson is not None else None
                settle(self._telemetry, job.decision, step, visit, of_it, estimated=counts and unsaid)
            if had and pool.spec.provider is not None and step.price is None:
                unpriced(self._telemetry, job.decision, step)
            if lesson is not None and reason == "ok":
                job.decision.usage = usage
                lesson.teach(visit, usage, monotonic())
            else:
                visit.end(monotonic(), ok=reason == "ok")
            if reason in (None, "client-gone", "outrun"):
                pool.untried(endpoint, begun, monotonic())
            if reason != "outrun":
                job.decision.status = reason or "error"
            if self.freed is not None:
                self.freed(pool.name)
            if reason is not None:
                self._telemetry.attempt(pool.name, endpoint.name, reason)

    async def _exchange(
        self,
        step: Try,
        job: Job,
        visit: Visit,
        on_first_byte: Callable[[], None],
        lesson: Lesson | None,
        ask: Edit | None,
    ) -> Exchange | Failure:
        """`ask`: the change to the body that makes its stream tell its usage, which the client is not to see then."""
        origin = origin_of(step.picked.endpoint.url, way_of(step.pool.spec))
        strip = None if ask is None else without_usage
        remote = step.pool.remote
        pieces = self.forwarder.request(step, job, origin) if remote else self._request(step, job, origin, ask)
        receives = Forwarding if remote else Exchange
        foreign = step.into is not None
        told = None if visit.endpoint.quota is None else partial(_told, visit)
        while True:
            connection = self.connections.reuse(origin)
            if connection is None:
                patience = min(job.deadlines.connect, job.total - monotonic())
                try:
                    connection = await self.connections.dial(origin, max(patience, 0.0))
                    if remote:
                        connection.mind_silence()
                except (OSError, TimeoutError) as error:
                    why = said(error)
                    if remote:
                        self.forwarder.unreached(why)
                    return Failure("connect", retry_on="ConnectError", why=why)
            overhear = None if lesson is None else lesson.hear
            if lesson is not None:
                lesson.sent = True
            gate = job.gate
            hears = None if foreign else told
            exchange = receives(
                connection, job.answer, job.path, job.deadlines, job.total, on_first_byte, overhear, gate, strip, hears
            )
            heard = None if lesson is None else lesson.tell
            receiver = Translated(exchange, step, job, heard, told) if foreign else exchange
            await self._carry(connection, exchange, receiver, job.client, pieces)
            # A kept connection that breaks before a byte of answer was most likely closed for idleness as we
            # wrote: that says nothing of the endpoint, and a new connection will.
            if not exchange.broke_silently or connection.used == 1:
                return exchange

    async def _carry(
        self,
        connection: Connection,
        exchange: Exchange,
        receiver: Receiver,
        client: Reader,
        pieces: list[bytes | memoryview],
    ) -> None:
        """One exchange on one connection. A client that leaves cancels this, and the connection is closed.

        One that leaves with all of a stream in hand, as SDKs do at `[DONE]`, has not left: the attempt has ended.
        """
        client.attach(exchange)
        try:
            connection.send(pieces, receiver)
            await exchange.finished
        except asyncio.CancelledError:
            if not exchange.said:
                raise
        finally:
            client.attach(None)
            exchange.close()
            connection.release()

    def _on_first_byte(
        self, step: Try, job: Job, visit: Visit, begun: float, lesson: Lesson | None
    ) -> Callable[[], None]:
        def first_byte() -> None:
            answer, decision = job.answer, job.decision
            now = monotonic()
            if job.peeked.stream:
                visit.first_token(now)
            elif isinstance(answer, Answer) and answer.told and lesson is not None:
                # The head goes with the answer that says so.
                answer.told = paid(answer.told, step, lesson.heard(), decision.bill)
            if decision.first_byte is None:  # else this is the rest of an answer
                decision.first_byte = now
            self._telemetry.first_byte(step.pool.name, visit.endpoint.name, now - begun)

        return first_byte

    def body(self, step: Try, job: Job) -> Sequence[bytes | memoryview]:
        """The client's own body, as it goes to this endpoint."""
        return _body(step, job, _usage_wanted(step, job) if counts_tokens(step, job.decision) else None)

    def _request(self, step: Try, job: Job, origin: Origin, ask: Edit | None) -> list[bytes | memoryview]:
        """The request to an endpoint: one head of ours, then the client's own bytes."""
        spec, provider = step.picked.endpoint.spec, step.pool.spec.provider
        path, headers = job.path.path, job.headers
        if step.into is not None:
            path, headers, whole = translating.request(step, job)
            body: Sequence[bytes | memoryview] = [whole]
        else:
            body = _body(step, job, ask) if job.body is None else [job.body]
        start = _request_start(provider, spec.url, path, origin)
        head = [start, b"content-length: %d\r\n" % sum(map(len, body))]
        credential = spec.credential
        taken = None if credential is None else credential.header.lower().encode()
        if provider is not None:
            head += _own_headers(provider, headers)
        for name, value in headers:
            if name != taken:  # of two such headers an endpoint might read the client's
                head += (name, b": ", value, b"\r\n")
        service = None if provider is None else ADAPTERS[provider].preset.signs
        line = self._credentials.line(spec) if service is None else shown(self._credentials, spec, service, start, body)
        head += (line, b"\r\n")
        return [b"".join(head), *body]

    def close(self) -> None:
        self.connections.close()


def _body(step: Try, job: Job, ask: Edit | None) -> Sequence[bytes | memoryview]:
    provider = step.pool.spec.provider
    edits: tuple[Edit, ...] = () if job.clamped is None else tuple(job.clamped.edits(provider))
    if provider is not None:
        edits = with_own(edits, adapted(job.peeked, ADAPTERS[provider].preset, step.upstream_model))
    return job.peeked.forward(step.upstream_model, edits if ask is None else (*edits, ask))


def _own_headers(provider: str, headers: RawHeaders) -> list[bytes]:
    """What a provider wants to be told beside the credential, where the client does not say it."""
    wanted = ADAPTERS[provider].headers
    return [line for name, line in wanted if all(name != said for said, _ in headers)] if wanted else []


def _usage_wanted(step: Try, job: Job) -> Edit | None:
    """The change to a body that makes its stream tell its usage, where that has to be asked for. What is translated
    always asks for it."""
    if step.into is not None:
        return None
    provider = step.pool.spec.provider
    return None if provider is not None and ADAPTERS[provider].preset.tells_usage else ask_for_usage(job.peeked)


def _told(visit: Visit, status: int, headers: RawHeaders) -> None:
    """The head of an answer has come: it may say what is left of the account's quota."""
    visit.answered(quotas(headers, time()), status < 400, monotonic())


@lru_cache(maxsize=8192)
def _request_start(provider: str | None, url: str, path: str, origin: Origin) -> bytes:
    """Request line and Host header; the same for every request to an endpoint."""
    target = ADAPTERS[provider or "OpenAICompatible"].target(url, path)
    return b"POST %b HTTP/1.1\r\nhost: %b\r\n" % (target.encode(), origin.authority.encode())
