"""The client's side of a request: the answer, written straight to the transport.

aiohttp's server parses requests, keeps connections alive and shuts down; its response classes are passed by, because
building a header object for every answer costs more than choosing the endpoint.
"""

from __future__ import annotations

import asyncio
import http
import time
from collections.abc import Iterable, Sequence

from aiohttp import web

from ..core.errors import SpillwayError
from ..wire.opened import as_events
from ..wire.paths import Path
from ..wire.replies import error_body, error_event

_PHRASES = {status.value: status.phrase for status in http.HTTPStatus}
_STATUS_LINES = {status: f"HTTP/1.1 {status} {phrase}\r\n".encode() for status, phrase in _PHRASES.items()}


class Sent(web.StreamResponse):
    """Tells aiohttp that the answer has been written already, and whether the connection may live on."""

    def __init__(self, keep_alive: bool) -> None:
        super().__init__()
        self._stays_open = keep_alive

    @property
    def keep_alive(self) -> bool:
        return self._stays_open

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class _Clock:
    """The Date header, made once a second (RFC 9110, 6.6.1)."""

    second = 0
    line = b""

    def date(self) -> bytes:
        now = int(time.time())
        if now != self.second:
            self.second = now
            self.line = time.strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime(now)).encode()
        return self.line


_clock = _Clock()


Told = tuple[tuple[bytes, bytes], ...]

QUOTA = b"x-ratelimit-"
"""Prefix of the headers in which APIs say what is left of a limit."""

_QUOTAS = (QUOTA, b"anthropic-ratelimit-")

_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class Answer:
    """One answer to one client. `whole` once, or `begin`, `more`… and `end`; before them `comment`s, as many as wanted,
    for a client that has asked for a stream and that is to see life."""

    __slots__ = (
        "_chunked",
        "_head_only",
        "_old",
        "_transport",
        "begun",
        "ended",
        "keep_alive",
        "marks",
        "opened",
        "path",
        "quota",
        "status",
        "told",
    )

    def __init__(self, transport: asyncio.Transport | None, *, keep_alive: bool, old: bool, head_only: bool) -> None:
        self._transport = transport
        self._old = old  # HTTP/1.0 knows no chunks: the close is the end
        self._head_only = head_only
        self._chunked = False
        self.keep_alive = keep_alive
        self.path: Path | None = None
        """That was asked; comments need it, for what comes after them are events."""
        self.begun = False
        self.opened = False
        """Begun by comments, as a 200, with nothing of an answer yet: every end is an event from now on."""
        self.ended = False
        self.status = 0
        """Of HTTP; of a stream that went wrong after its head, what it would have been: it is counted so."""
        self.quota: Told = ()
        """Headers that say what is left of the caller's limits, in the place of what an endpoint says of its own."""
        self.told: Told = ()
        """Headers of our own, which say what became of the request; none for who is not told."""
        self.marks: Told = ()
        """Such of every answer, whoever is told."""

    resumable = False
    """What has been written is not kept, so that nobody can go on with it."""

    def comment(self, text: bytes) -> None:
        """A line of the event stream that clients skip; the first begins the answer. Nothing once content has begun.

        `text` is one line. Only for requests that ask for a stream, on paths whose streams are events.
        """
        if self.ended or (self.begun and not self.opened):
            return
        line = b": %b\n\n" % text
        if self.opened:
            self.more(line)
        else:
            told, self.told = self.told, ()  # of an attempt that need not be the last
            self.begin(200, _EVENTS, None, line)
            self.told = told
            self.opened = True

    def whole(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: Sequence[bytes]) -> None:
        """A complete answer in one write."""
        if self.opened:
            assert self.path is not None
            self._close(status, as_events(status, b"".join(body), self.path))
            return
        size = sum(map(len, body))
        out = self._head(status, headers)
        out.append(b"content-length: %d\r\n\r\n" % size)
        if not self._head_only:
            out += body
        self.ended = True
        self._write(b"".join(out))

    def json(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.whole(status, [(b"content-type", b"application/json"), *headers], [body])

    def error(self, error: SpillwayError) -> None:
        """An error of our own, in the shape of the API that was asked."""
        if self.opened:
            assert self.path is not None
            self._close(error.status, error_event(error, self.path))
            return
        headers: list[tuple[bytes, bytes]] = []
        if error.retry_after is not None:
            # Whole seconds for every client, and OpenAI's own header for those that can wait more exactly.
            headers.append((b"retry-after", b"%d" % max(1, -int(-error.retry_after // 1))))
            headers.append((b"retry-after-ms", b"%d" % max(1, int(error.retry_after * 1000))))
        if error.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110, section 11.6.1
        self.json(error.status, error_body(error, self.path), headers)

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]], length: int | None, first: bytes) -> None:
        """Head and first bytes of a streamed answer in one write. After comments it is an event stream that begins."""
        if self.opened:
            self.opened = False
            self.status = status
            said = b"".join(b": %b: %b\n" % pair for pair in self.told)
            self.more(said + b"\n" + first if said else first)
            return
        out = self._head(status, headers)
        if length is not None:
            out += (b"content-length: %d\r\n\r\n" % length, first)
        elif self._old:
            out += (b"\r\n", first)
        else:
            self._chunked = True
            out.append(b"transfer-encoding: chunked\r\n\r\n")
            if first:
                out += (b"%x\r\n" % len(first), first, b"\r\n")
        self._write(b"".join(out))

    def more(self, data: bytes) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        self.ended = True
        if self._chunked:
            self._write(b"0\r\n\r\n")

    def _close(self, status: int, events: bytes) -> None:
        """The end of an answer that comments have begun. Its status is what it would have had, for the metrics."""
        self.opened = False
        self.status = status
        self.more(events)
        self.end()

    def abort(self) -> None:
        """Cut the connection: the only honest end when bytes of a known length are missing."""
        self.keep_alive = False
        if self._transport is not None:
            self._transport.abort()

    def _head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
        self.begun = True
        self.status = status
        if self._old:
            self.keep_alive = False
        out = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, _clock.date()]
        if self.quota:
            headers = (*(each for each in headers if not each[0].startswith(_QUOTAS)), *self.quota)
        if self.marks:
            headers = (*headers, *self.marks)
        for name, value in (*headers, *self.told) if self.told else headers:
            out += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            out.append(b"connection: close\r\n")
        return out

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(data)
