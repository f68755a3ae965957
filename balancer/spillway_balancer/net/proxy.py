"""What clients ask under /v1: read whole, peeked into, and sent on its journey; the end of all of them."""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from aiohttp import web

from ..core.consumers import unknown
from ..core.errors import (
    BodyTooLarge,
    Draining,
    InvalidPodToken,
    LoopDetected,
    MethodNotAllowed,
    ModelNotFound,
    NoReadyEndpoint,
    NotFound,
    ProtocolError,
    RequestTimeout,
    SpillwayError,
    VersionNotSupported,
)
from ..core.forwarded import Forwarded
from ..core.runtime import Runtime
from ..wire import anthropic, openai
from ..wire.client_key import client_key
from ..wire.forwarded import FORWARDED
from ..wire.headers import check_request, request_headers
from ..wire.paths import MESSAGES, PATHS
from .accepting import LAST_WORD, Accepting
from .answer import Answer, Sent
from .client import ClientConnection
from .counting import estimated
from .credentials import Credentials
from .facts import Facts, digest_of
from .forwarding import Forwarder
from .journey import Journey, Shared
from .keyring import Keyring
from .listing import PATH, as_the_gateway_lists
from .mirroring import Copies
from .queueing import Queue
from .recording import Recorder
from .sending import Sender
from .serving import Serving
from .telemetry import Decision, Telemetry
from .token_file import TokenFile

log = logging.getLogger("spillway.proxy")

BODY_SECONDS = 300.0
"""How long a client may take to send its whole body."""

BODY_IDLE_SECONDS = 30.0
"""How long it may be silent within it."""


LAST_SECONDS = 0.5
"""How long the last bytes may take of streams that are cut as the balancer ends."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take. Bytes."""

    body: int = 32 << 20


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
        accepting: Accepting | None = None,
    ) -> None:
        """`accepting`: for a gateway that sidecars may send requests on to; None pays no heed to what they say."""
        self._serving = serving
        self._telemetry = telemetry
        self._limits = limits
        self._accepting = accepting
        self.sender = Sender(credentials, telemetry)
        self.copies = Copies(self.sender, telemetry.copies, dice)
        self.queue = Queue(telemetry)
        self.sender.freed = self.queue.freed
        self._shared = Shared(self.sender, telemetry, dice, recorder, self.copies, self.queue)
        self.keyring = Keyring(credentials)
        self.in_flight = 0
        self._address: str | None = None
        """Where clients are, whatever they connect from; None: where they connect from."""
        self._forwards = False
        """Whether this is a sidecar, and so nobody else's gateway."""
        self.draining = False
        """Clients are told to leave: readiness is off, and answers say that their connection closes."""
        self._closing = False  # nothing new is accepted either
        self._answers: set[Answer] = set()
        self._clients: set[ClientConnection] = set()
        """Those with a request under way."""
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
        self._clients.add(client)
        try:
            for_us = check_request(request.method, request.version, request.raw_headers)
            if for_us and FORWARDED in request.headers:
                self._check_no_loop()
            await self._answer(request, client, answer, for_us)
        except SpillwayError as error:
            if answer.begun and not answer.opened:
                answer.abort()
            else:
                if isinstance(error, Draining | InvalidPodToken):
                    answer.marks = ()  # another replica may do better
                if isinstance(error, ProtocolError | VersionNotSupported):
                    answer.keep_alive = False  # where this request ends is in doubt, so nothing behind it is one
                answer.error(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # Never the exception's text: it may quote the request.
            log.error("bug: %s while answering; --log-level debug shows where", type(error).__name__)
            log.debug("%s", "".join(traceback.format_tb(error.__traceback__)))
            if answer.begun and not answer.opened:
                answer.abort()
            else:
                answer.error(SpillwayError("the balancer failed on this request"))
        finally:
            self._answers.discard(answer)
            self._clients.discard(client)
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()
            client.attach(None)
            client.done()
        if self._closing:
            answer.keep_alive = False
        return Sent(answer.keep_alive)

    async def _answer(self, request: web.BaseRequest, client: ClientConnection, answer: Answer, for_us: bool) -> None:
        """`for_us`: whether some header is said to the balancer itself."""
        path = PATHS.get(request.path)
        if path is None:
            await self._other(request, answer, for_us)
            return
        answer.path = path
        if request.method != "POST":
            raise MethodNotAllowed(f"{request.path} takes POST")
        decision = Decision(started=monotonic(), free=path.free)
        forwarded: Forwarded | None = None
        try:
            if for_us and FORWARDED in request.headers and self._serving.ready:
                answer.marks = LAST_WORD
                if self._accepting is not None:
                    forwarded = await self._accepting.heed(request.headers)
            body = await self._read(request, answer)
            peeked = openai.peek(path, request.headers.get("content-type", ""), body)
            self._check_ready()
            facts = Facts(request.headers, self._address or request.remote, peeked, for_us)
            headers = request_headers(request.raw_headers, path.messages)
            if path.free:
                told = estimated(self._serving.current, facts, peeked, decision, self._shared.dice)
                if told is not None:
                    answer.json(200, told)
                    return
            journey = Journey(self._shared, facts, peeked, headers, client, answer, decision, forwarded)
            await journey.run(self._serving.current)  # read once, held to the end of the request
        except SpillwayError as error:
            decision.code, decision.error = error.status, error.code
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
            if decision.audit is not None:
                decision.audit.write(decision)

    async def _other(self, request: web.BaseRequest, answer: Answer, for_us: bool) -> None:
        as_anthropic = anthropic.VERSION in request.headers
        if as_anthropic:
            answer.path = PATHS[MESSAGES]  # for the shape of errors
        listing = anthropic if as_anthropic else openai
        if request.method not in ("GET", "HEAD"):
            raise NotFound(f"unknown path; POST is served on {', '.join(PATHS)}")
        self._check_ready()
        if for_us and FORWARDED in request.headers:
            answer.marks = LAST_WORD
        routes = self._serving.current.routes
        if self._forwards and request.path.startswith(PATH):
            sender, raw = self.sender, list(request.raw_headers)
            told = await as_the_gateway_lists(
                sender.connections, sender.forwarder, self._serving.current, request.raw_path, raw
            )
            if told is not None:
                answer.whole(told.status, told.headers, [told.body])
                return
        digest = digest_of(client_key(request.headers))
        if request.path == "/v1/models":
            may = routes.open_to(digest)
            if routes.deciding and not may:
                raise unknown(digest)
            answer.json(200, listing.models_list(routes.names(may), self._serving.created))
        elif request.path.startswith("/v1/models/"):
            name = request.path.removeprefix("/v1/models/")
            found = routes.resolve(name)
            if found is None:
                raise ModelNotFound(f"the model {name[:100]!r} does not exist", param="model")
            if found[0].elsewhere:
                raise NoReadyEndpoint("the gateway, which knows of this model, does not answer", retry_after=1.0)
            if found[0].callers is not None and not found[0].callers.knows(digest):
                raise unknown(digest)
            answer.json(200, listing.model_object(name, self._serving.created))
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

    def _check_no_loop(self) -> None:
        if self._forwards:
            raise LoopDetected("what a sidecar forwards has come to a sidecar, and to no gateway")

    def _check_ready(self) -> None:
        if not self._serving.ready:
            raise NoReadyEndpoint("this balancer has no configuration yet", retry_after=1.0)

    def beside_a_client(self, token: Path | None, address: str | None = None) -> None:
        """This is a sidecar, which shows the gateway the token in this file. `address`: of its Pod, where the gateway
        sees its clients, too."""
        self._forwards = True
        self._address = address
        self.sender.forwarder = Forwarder(None if token is None else TokenFile(token))

    def follow(self, runtime: Runtime) -> None:
        """Look for the credentials that what is served now needs, and let those that wait try their new ways."""
        self.sender.follow(runtime)
        self.keyring.follow(runtime)
        self.queue.follow(runtime)

    def rekeyed(self) -> None:
        """Credentials have changed: those of endpoints, those of consumers, or both."""
        self.sender.rekeyed()
        self.keyring.refill()

    def leave(self) -> None:
        """Tell clients to leave with the next answer. One that began before said that its connection stays, and it does
        as long as new ones are accepted: to close it would reset a client that trusts that word."""
        self.draining = True
        for answer in self._answers:
            if not answer.begun:
                answer.keep_alive = False

    async def drain(self, limit: float) -> bool:
        """Close every connection with its answer; True when all have ended within `limit` seconds. Streams that have
        not are told that they are cut."""
        self.leave()
        self._closing = True
        self.queue.drain(limit)
        self.copies.close()
        if not await self._ended(limit):
            for client in tuple(self._clients):
                client.cut_short()
            await self._ended(LAST_SECONDS)
            return False
        return True

    async def _ended(self, limit: float) -> bool:
        """Whether no request is under way any more, within so many seconds. One that comes by a kept connection as the
        last one ends is under way like the others."""
        try:
            async with asyncio.timeout(limit):
                while self.in_flight:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self.copies.close()
        self.sender.close()
