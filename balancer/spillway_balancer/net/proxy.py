"""One request, read top to bottom: peek, route, attempt, relay, account."""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from time import monotonic, time

from aiohttp import web

from ..core.attempts import Attempts, Stop, Try
from ..core.conditions import Moment
from ..core.errors import (
    BodyTooLarge,
    MethodNotAllowed,
    ModelNotFound,
    NoReadyEndpoint,
    NoRule,
    NotFound,
    ProtocolError,
    RequestTimeout,
    SpillwayError,
    VersionNotSupported,
)
from ..core.prefix import Prompt
from ..core.reasons import Failure
from ..wire import asks, openai
from ..wire.headers import check_request, request_headers
from ..wire.paths import PATHS
from ..wire.peeked import Peeked
from ..wire.prompt_blocks import PromptBlocks, seed_of
from .answer import Answer, Sent
from .client import ClientConnection
from .credentials import Credentials
from .explaining import explained
from .recording import Record, Recorder
from .relay import Exchange
from .sending import Job, Sender
from .serving import Serving
from .telemetry import Decision, Telemetry

log = logging.getLogger("spillway.proxy")

EXPLAIN = "x-spillway-explain"
"""A request that carries this header is told in the one of the same name why it went where it did."""

BODY_SECONDS = 300.0
"""How long a client may take to send its whole body."""

BODY_IDLE_SECONDS = 30.0
"""How long it may be silent within it."""


MOST_TOKENS = 1 << 53
"""As a limit on an answer: what is more counts as so many, for numbers of expressions have 64 bits."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take. Bytes."""

    body: int = 32 << 20


class Facts:
    """What the core may ask of a request: its headers, its body's facts, who sent it."""

    __slots__ = (
        "_peeked",
        "_request",
        "client_ip",
        "model",
        "output_tokens",
        "path",
        "prompt_tokens",
        "prompts",
        "streams",
    )

    def __init__(self, request: web.BaseRequest, peeked: Peeked) -> None:
        self._request = request
        self._peeked = peeked
        self.client_ip = request.remote
        self.model = peeked.model
        self.path = peeked.path.path
        self.prompt_tokens = peeked.prompt_tokens
        self.output_tokens = peeked.output_tokens
        self.streams = peeked.stream
        self.prompts: dict[str, PromptBlocks | None] = {}
        """Hashed prompts by the endpoints' name of the model, for models share no cache; made when first asked for."""

    def prompt(self, model: str) -> Prompt | None:
        if model not in self.prompts:
            self.prompts[model] = self._peeked.prompt(seed_of(model, None))
        made = self.prompts[model]
        return None if made is None else made.prompt

    def header(self, name: str) -> str | None:
        return self._request.headers.get(name)

    def body(self, name: str) -> str | None:
        return self._peeked.body_field(name)

    def prefix(self, chars: int | None) -> bytes | None:
        return self._peeked.prefix(chars)

    def headers(self, names: Collection[str] | None) -> dict[str, str]:
        """Those of these names, or all, by lower-case name; one that came several times joined by commas (RFC 9110,
        section 5.3)."""
        given = self._request.headers
        found: dict[str, str] = {}
        for name in {name.lower() for name in given} if names is None else names:
            if values := given.getall(name, None):
                value = values[0] if len(values) == 1 else ", ".join(values)
                # Bytes that are no UTF-8 arrive as lone surrogates, which are no text.
                found[name] = value if value.isascii() else value.encode("utf-8", "replace").decode()
        return found

    def tools(self) -> bool:
        return asks.tools(self._peeked.values())

    def images(self) -> bool:
        return asks.images(self._peeked.values())

    def json(self) -> bool:
        return asks.wants_json(self._peeked.values())

    def max_tokens(self) -> int:
        return min(max(0, asks.output_limit(self._peeked.values()) or 0), MOST_TOKENS)

    def user(self) -> str:
        return self._peeked.body_field("user") or ""


class Proxy:
    """Answers what clients ask under /v1."""

    def __init__(
        self,
        serving: Serving,
        credentials: Credentials,
        telemetry: Telemetry,
        limits: Limits,
        dice: random.Random,
        recorder: Recorder | None = None,
    ) -> None:
        self._serving = serving
        self._telemetry = telemetry
        self._limits = limits
        self._dice = dice
        self._recorder = recorder
        self.sender = Sender(credentials, telemetry)
        self.in_flight = 0
        self.draining = False
        """Clients are told to leave: readiness is off, and answers say that their connection closes."""
        self._closing = False  # nothing new is accepted either
        self._answers: set[Answer] = set()
        self._idle = asyncio.Event()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """aiohttp's handler for every request. Writes the answer itself."""
        client = request.protocol
        assert isinstance(client, ClientConnection)
        client.begun()
        answer = Answer(
            request.transport,
            keep_alive=request.keep_alive and not self.draining,
            old=request.version < (1, 1),
            head_only=request.method == "HEAD",
        )
        self.in_flight += 1
        self._answers.add(answer)
        try:
            check_request(request.method, request.version, request.raw_headers)
            await self._answer(request, client, answer)
        except SpillwayError as error:
            if answer.begun:
                answer.abort()
            else:
                if isinstance(error, ProtocolError | VersionNotSupported):
                    answer.keep_alive = False  # where this request ends is in doubt, so nothing behind it is one
                answer.error(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # Never the exception's text: it may quote the request.
            log.error("bug: %s while answering; --log-level debug shows where", type(error).__name__)
            log.debug("%s", "".join(traceback.format_tb(error.__traceback__)))
            if answer.begun:
                answer.abort()
            else:
                answer.error(SpillwayError("the balancer failed on this request"))
        finally:
            self._answers.discard(answer)
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()
            client.attach(None)
            client.done()
        if self._closing:
            answer.keep_alive = False
        return Sent(answer.keep_alive)

    async def _answer(self, request: web.BaseRequest, client: ClientConnection, answer: Answer) -> None:
        path = PATHS.get(request.path)
        if path is None:
            self._other(request, answer)
            return
        if request.method != "POST":
            raise MethodNotAllowed(f"{request.path} takes POST")
        decision = Decision(started=monotonic())
        try:
            body = await self._read(request, answer)
            peeked = openai.peek(path, request.headers.get("content-type", ""), body)
            await self._proxy(request, client, answer, peeked, decision)
        except SpillwayError as error:
            decision.code = error.status
            raise
        except asyncio.CancelledError:
            decision.code = 499  # nginx's "client closed request": there is no status of HTTP for it
            raise
        except Exception:
            decision.code = 500
            raise
        finally:
            decision.code = decision.code or answer.status
            self._telemetry.record(decision, monotonic())

    def _other(self, request: web.BaseRequest, answer: Answer) -> None:
        if request.method not in ("GET", "HEAD"):
            raise NotFound(f"unknown path; POST is served on {', '.join(PATHS)}")
        self._check_ready()
        names = self._serving.current.routes.names()
        if request.path == "/v1/models":
            answer.json(200, openai.models_list(names, self._serving.created))
        elif request.path.startswith("/v1/models/"):
            name = request.path.removeprefix("/v1/models/")
            if self._serving.current.routes.resolve(name) is None:
                raise ModelNotFound(f"the model {name[:100]!r} does not exist", param="model")
            answer.json(200, openai.model_object(name, self._serving.created))
        else:
            raise NotFound("unknown path; the API is under /v1")

    async def _read(self, request: web.BaseRequest, answer: Answer) -> bytes:
        """The whole body, bounded in bytes and time."""
        limit = self._limits.body
        too_large = f"the body is larger than {limit} bytes"
        length = request.content_length
        if length is not None and length > limit:
            answer.keep_alive = False
            raise BodyTooLarge(too_large)
        content = request.content
        if content.is_eof():
            body = content.read_nowait()
            if len(body) > limit:
                answer.keep_alive = False
                raise BodyTooLarge(too_large)
            return body
        waits = request.headers.get("expect", "").lower() == "100-continue" and request.version >= (1, 1)
        if waits and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    async with asyncio.timeout(BODY_IDLE_SECONDS):
                        piece = await content.readany()
                    if not piece:
                        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
                    size += len(piece)
                    if size > limit:
                        answer.keep_alive = False
                        raise BodyTooLarge(too_large)
                    pieces.append(piece)
        except TimeoutError:
            answer.keep_alive = False
            raise RequestTimeout("the body did not arrive in time") from None

    async def _proxy(
        self,
        request: web.BaseRequest,
        client: ClientConnection,
        answer: Answer,
        peeked: Peeked,
        decision: Decision,
    ) -> None:
        self._check_ready()
        runtime = self._serving.current  # read once, held to the end of the request
        found = runtime.routes.resolve(peeked.model)
        if found is None:
            raise ModelNotFound(f"the model {peeked.model!r} does not exist", param="model")
        route, decision.model = found
        decision.route = route.name
        total = decision.started + route.deadlines.total
        headers = request_headers(request.raw_headers)
        facts = Facts(request, peeked)
        records = self._recorder is not None
        job = Job(
            peeked.path, peeked, facts.prompts, headers, client, answer, decision, route.deadlines, total, records
        )
        ruling = route.decide(facts, Moment(monotonic(), time(), self._dice))
        for rule, reason in ruling.errors:
            self._telemetry.rule_error(route.name, rule, reason)
        if ruling.rule is None:
            raise NoRule("no rule of this model's policy is for this request", param="model")
        decision.rule = ruling.rule
        if not ruling.tiers:
            raise NoReadyEndpoint("no pool of the rule for this request is there", retry_after=1.0)
        attempts = Attempts(ruling.tiers, route.spec.retry, route.retry_budget, facts, self._dice, total)
        explains = EXPLAIN in request.headers
        last: Exchange | Failure | None = None
        sent: Try | None = None
        try:
            while True:
                step = attempts.next(monotonic())
                if isinstance(step, Stop):
                    if step.answer and isinstance(last, Exchange):
                        last.pass_on()
                        return
                    decision.status = decision.status or step.error.code
                    raise step.error
                sent = step
                decision.tier, decision.spilled = step.tier, step.spilled
                if explains:
                    answer.explanation = explained(ruling.rule, step, attempts.log)
                last = await self.sender.attempt(step, job)
                failure = last if isinstance(last, Failure) else last.failure
                if failure is None:
                    return
                attempts.failed(step, failure)
        finally:
            if self._recorder is not None:
                self._recorder.record(_record(decision, facts, sent, monotonic()))

    def _check_ready(self) -> None:
        if not self._serving.ready:
            raise NoReadyEndpoint("this balancer has no configuration yet", retry_after=1.0)

    def leave(self) -> None:
        """Tell clients to leave with the next answer. One that began before said that its connection stays, and it does
        as long as new ones are accepted: to close it would reset a client that trusts that word."""
        self.draining = True
        for answer in self._answers:
            if not answer.begun:
                answer.keep_alive = False

    async def drain(self, limit: float) -> bool:
        """Close every connection with its answer; True when all have ended within `limit` seconds."""
        self.leave()
        self._closing = True
        self._idle.clear()
        if self.in_flight:
            try:
                async with asyncio.timeout(limit):
                    await self._idle.wait()
            except TimeoutError:
                return False
        return True

    def close(self) -> None:
        self.sender.close()


def _record(decision: Decision, facts: Facts, sent: Try | None, now: float) -> Record:
    """A request as it is taken down; `sent` is its last attempt. Where no engine has counted tokens, an estimate."""
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
