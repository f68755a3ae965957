"""Between a client and an endpoint that speak different APIs: the request as the endpoint takes it, and its answer as
the client does.

The answer is translated between the connection and the exchange. So all that is decided on an answer (when it is
committed, which attempt is let through, how a cut is told) is decided on the client's API alone; and what an error
means, and what tokens cost, on the words of the provider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import time
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from ..core.apis import CLIENTS
from ..core.attempts import Try
from ..core.learning import Usage
from ..core.reasons import Failure, of_status, status_of
from ..wire.failures import failure_of, message_of
from ..wire.faults import ErrorFacts, parse_error
from ..wire.translation.dialects import Answering, Api
from ..wire.translation.said import Began, Done, Event, Fault, Told
from ..wire.usage_chunk import wants_usage
from .relay import ERROR_BYTES, Exchange
from .upstream import RawHeaders

if TYPE_CHECKING:
    from .sending import Job

VERSION: Final = (b"anthropic-version", b"2023-06-01")
"""Of the API that is written: https://platform.claude.com/docs/en/api/versioning"""

_STREAM: Final = (b"content-type", b"text/event-stream; charset=utf-8")
_JSON: Final = (b"content-type", b"application/json")

_OF_AN_API: Final = (b"anthropic-", b"openai-", b"x-amzn-", b"x-amz-")
"""Prefixes of headers that are said in one API alone, in either direction."""

_OF_THE_BODY: Final = frozenset({b"content-type", b"content-encoding", b"content-length"})
_IDS: Final = frozenset({b"request-id", b"x-request-id", b"x-amzn-requestid"})
"""What providers call the number of a request; clients look for it by the name in their own API."""

_DONE: Final = b"data: [DONE]\n\n"


class Request(NamedTuple):
    """What goes to an endpoint instead of the client's own."""

    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


def request(step: Try, job: Job) -> Request:
    """The job's request for an endpoint that it has to be translated for."""
    assert step.into is not None
    asked = job.facts.asked_under(job.clamped)
    path, body = asked.body(step.into, step.pool.spec.provider, step.upstream_model)
    headers = [
        (name, value) for name, value in job.headers if name not in _OF_THE_BODY and not name.startswith(_OF_AN_API)
    ]
    headers.append(_JSON)
    if step.into == "messages":
        headers.append(VERSION)
    return Request(path, headers, body)


def _answering(api: Api) -> Answering:
    from ..wire.translation.pairs import ANSWERING  # a sidecar that translates nothing has none of it in memory

    return ANSWERING[api]


class Translated:
    """Hears an endpoint's answer in its API, and hands it to an exchange in the client's."""

    __slots__ = (
        "_body",
        "_client",
        "_done",
        "_exchange",
        "_fault",
        "_headers",
        "_heard",
        "_id",
        "_model",
        "_provider",
        "_reader",
        "_sentinel",
        "_size",
        "_status",
        "_streams",
        "_told",
        "_usage",
        "_wants_usage",
        "_writer",
    )

    def __init__(
        self,
        exchange: Exchange,
        step: Try,
        job: Job,
        heard: Callable[[Usage], None] | None,
        told: Callable[[int, RawHeaders], None] | None,
    ) -> None:
        """`heard` is told what the provider says of its tokens, `told` status and headers as they came."""
        assert step.into is not None
        api = CLIENTS[job.path.path]
        self._exchange = exchange
        self._client: Answering = _answering(api)
        self._provider: Answering = _answering(step.into)
        self._model = job.peeked.model
        self._streams = job.peeked.stream
        self._wants_usage = wants_usage(job.peeked.values())
        self._id = b"x-request-id" if api == "chat" else b"request-id"
        self._sentinel = api == "chat"
        self._heard = heard
        self._told = told
        self._usage = Usage()
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0
        self._fault: Fault | None = None
        self._done = False

    # -- what the endpoint says

    def head(self, status: int, headers: RawHeaders, length: int | None) -> None:
        self._status = status
        self._headers = headers
        if self._told is not None:
            self._told(status, headers)
        if status >= 400:
            return
        if self._heard is not None:
            self._heard(self._usage)  # nothing yet: what is written for the client may say 0 where nothing is known
        kind = next((value for name, value in headers if name == b"content-type"), b"")
        self._reader = self._provider.reader(kind.decode("latin-1"))
        make_stream, make_whole = self._client.stream, self._client.whole
        assert make_stream is not None
        assert make_whole is not None
        self._writer = make_stream(self._model, self._wants_usage) if self._streams else make_whole(self._model)
        if self._streams:
            self._exchange.head(status, self._kept(_STREAM), None)

    def data(self, data: bytes) -> None:
        if self._exchange.finished.done():
            return
        if self._status >= 400:
            self._body.append(data)
            self._size += len(data)
            if self._size > ERROR_BYTES:
                self._refused()
        else:
            self._hand_on(self._reader.feed(data))

    def end(self) -> None:
        if self._exchange.finished.done():
            return
        if self._status >= 400:
            self._refused()
            return
        self._hand_on(self._reader.end())
        if self._exchange.finished.done():
            return
        if self._streams:
            self._exchange.end()
        elif self._done:
            self._whole(self._status, self._writer.end())
        else:
            self._exchange.lost(None)

    def lost(self, error: Exception | None) -> None:
        if self._status >= 400:
            self._refused()
        self._exchange.lost(error)

    # -- what follows

    def _hand_on(self, events: Iterable[Event]) -> None:
        events = [_dated(event) if isinstance(event, Began) else event for event in events]
        for event in events:
            if isinstance(event, Told):
                self._counted(event.usage)
            elif isinstance(event, Began) and event.usage is not None:
                # What a stream has said of its answer when it begins is no count of what it says before it is cut.
                self._counted(event.usage._replace(output_tokens=None))
            elif isinstance(event, Fault):
                self._fault = event
            elif isinstance(event, Done):
                self._done = True
        out = self._writer.write(events)
        if self._fault is None:
            self._exchange.data(out if self._streams else b"")  # nothing to say is a sign of life, too
            return
        facts = self._fault.facts
        status = facts.status or status_of(facts.code, facts.type)
        if not self._streams:
            self._whole(status, self._error(status, self._fault.message, facts))
        else:
            if self._exchange.committed and self._sentinel:
                out += _DONE  # the stream is over, and has said so itself
            self._exchange.data(out)
            if not self._exchange.finished.done():
                self._exchange.end()
        self._failed(Failure(of_status(status, facts.code, facts.type), status, facts.wait))

    def _counted(self, usage: Usage) -> None:
        self._usage = Usage(*(old if new is None else new for old, new in zip(self._usage, usage, strict=True)))
        if self._heard is not None:
            self._heard(self._usage)

    def _refused(self) -> None:
        """An HTTP error: what it means is what the provider has said, and what the client may see is in its own API."""
        if self._exchange.finished.done():
            return
        body = b"".join(self._body)[:ERROR_BYTES]
        facts = parse_error(self._status, self._headers, body)
        message = message_of(body) or "the endpoint has refused the request"
        self._whole(self._status, self._error(self._status, message, facts))
        self._failed(failure_of(self._status, self._headers, body, time()))

    def _whole(self, status: int, body: bytes) -> None:
        self._exchange.head(status, self._kept(_JSON), len(body))
        self._exchange.data(body)
        self._exchange.end()

    def _failed(self, failure: Failure) -> None:
        """An attempt has failed, for what its provider has said, whatever is left of that in another API's words."""
        if self._exchange.failure is not None:
            self._exchange.failure = failure

    def _error(self, status: int, message: str, facts: ErrorFacts) -> bytes:
        render = self._client.error
        assert render is not None
        return render(status, message, facts.type, facts.code)

    def _kept(self, kind: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """The answer's headers, without those of a body and an API that it has no more."""
        kept = [kind]
        for name, value in self._headers:
            if name in _IDS:
                kept.append((self._id, value))
            elif name not in _OF_THE_BODY and not name.startswith(_OF_AN_API):
                kept.append((name, value))
        return kept


def _dated(began: Began) -> Began:
    """Chats say when an answer was begun; not every provider does."""
    return began if began.created is not None else replace(began, created=int(time()))
