"""One attempt's answer on its way from the endpoint to the client.

Until the first content-bearing byte everything is held: an answer that fails by then is a `Failure`, and the client
has seen nothing of it. With that byte the answer is committed; from there on bytes are pushed from the endpoint's
socket to the client's in the same callback, with back-pressure, and a cut is said to be a cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from time import monotonic, time
from typing import Protocol

from ..core.errors import DeadlineExceeded, Interrupted
from ..core.reasons import Failure, Reason, of_status, status_of
from ..core.routing import Deadlines
from ..wire.failures import failure_of
from ..wire.headers import response_headers
from ..wire.paths import Path
from ..wire.replies import error_event
from ..wire.sse import StreamWatch
from .upstream import Connection, RawHeaders

HOLD_BYTES = 1 << 20
"""An answer that is no event stream is held whole up to this size, so that a cut in it can be retried."""

ERROR_BYTES = 64 * 1024
"""How much of an error's body is read: enough for any message, bounded against a body without end."""


class Gate(Protocol):
    """Stands before an answer that several exchanges want to write."""

    @property
    def outrun(self) -> bool: ...
    def claim(self, exchange: Exchange) -> bool:
        """Whether this exchange may write; asked before its first byte, and for ever what was said first."""
        ...


class Writer(Protocol):
    """Where an exchange writes what the client is to have."""

    status: int

    @property
    def opened(self) -> bool: ...
    @property
    def resumable(self) -> bool:
        """Whether a cut is not to be said yet, since the rest may come from elsewhere."""
        ...

    def whole(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: Sequence[bytes]) -> None: ...
    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]], length: int | None, first: bytes) -> None: ...
    def more(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def abort(self) -> None: ...


class Exchange:
    """Receives one endpoint's answer and relays it. Await `finished`."""

    final = False
    """Whether it is the client's as it is: an error as well, and with what a gateway of ours says to clients."""

    __slots__ = (
        "_active",
        "_answer",
        "_connection",
        "_deadlines",
        "_error_body",
        "_first_byte",
        "_gate",
        "_headers",
        "_held",
        "_held_size",
        "_length",
        "_loop",
        "_on_first_byte",
        "_overhear",
        "_path",
        "_paused",
        "_status",
        "_streaming",
        "_strip",
        "_timer",
        "_told",
        "_total",
        "_watch",
        "committed",
        "failure",
        "finished",
        "interrupted",
        "withheld",
    )

    def __init__(
        self,
        connection: Connection,
        answer: Writer,
        path: Path,
        deadlines: Deadlines,
        total: float,
        on_first_byte: Callable[[], None],
        overhear: Callable[[bytes], None] | None = None,
        gate: Gate | None = None,
        strip: Callable[[bytes], bytes] | None = None,
        told: Callable[[int, RawHeaders], None] | None = None,
    ) -> None:
        """`overhear` is told what comes; `strip` leaves out of a stream's whole events what is not for the client;
        `told` gets status and headers."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._connection = connection
        self._answer = answer
        self._path = path
        self._deadlines = deadlines
        self._on_first_byte = on_first_byte
        self._overhear = overhear
        self._gate = gate
        self._strip = strip
        self._told = told
        now = monotonic()
        self._total = total
        self._first_byte = now + deadlines.first_byte
        self._active = now
        self._paused = False
        self._status = 0
        self._headers: RawHeaders = []
        self._length: int | None = None
        self._held: list[bytes] = []
        self._held_size = 0
        self._error_body = b""
        self._watch: StreamWatch | None = None
        self._streaming = False  # body bytes have come, committed or not
        self.committed = False
        self.failure: Failure | None = None
        self.interrupted: Failure | None = None
        self.withheld = False
        """Cut, and the client has not been told: `say_cut` tells it."""
        self.finished: asyncio.Future[None] = loop.create_future()
        self._timer = loop.call_later(min(self._first_byte, total) - now, self._tick)

    # -- what the endpoint says

    def head(self, status: int, headers: RawHeaders, length: int | None) -> None:
        self._status = status
        self._headers = headers
        self._length = length
        if self._told is not None:
            self._told(status, headers)
        kind = encoding = b""
        for name, value in headers:
            if name == b"content-type":
                kind = value.lower()
            elif name == b"content-encoding":
                encoding = value.lower()
        if status >= 400 or encoding not in (b"", b"identity"):
            self._overhear = None  # what it says cannot be read, or says nothing of tokens
        elif kind.startswith(b"text/event-stream"):
            self._watch = StreamWatch(self._path.stream_end)

    def data(self, data: bytes) -> None:
        if self.finished.done():
            return
        self._active = monotonic()
        self._streaming = True
        if self._overhear is not None:
            self._overhear(data)
        watch = self._watch
        if watch is not None:
            out = watch.feed(data)
            if self._strip is not None and out:
                out = self._strip(out)
            if self.committed:
                if out:
                    self._answer.more(out)
            elif watch.error is not None and not self.final:
                error = watch.error
                status = error.status or status_of(error.code, error.type)
                self._error_body = (out or watch.held()).rstrip(b"\r\n") + b"\n\n"
                self._fail(Failure(of_status(status, error.code, error.type), status, error.wait))
            elif out and watch.committed:
                self._commit(out)
        elif self.committed:
            self._answer.more(data)
        else:
            self._held.append(data)
            self._held_size += len(data)
            if self._status >= 400 and not self.final:
                if self._held_size > ERROR_BYTES:
                    self._error_answer()
            elif self._held_size > HOLD_BYTES:
                if self._answer.opened:  # a stream of events was begun, which this is none of
                    self._fail(Failure("server-error", self._status))
                else:
                    self._commit(b"".join(self._held))

    def end(self) -> None:
        if self.finished.done():
            return
        watch = self._watch
        if watch is not None:
            rest = watch.ended()
            whole = watch.finished or (self.final and watch.error is not None)  # a gateway says itself what is cut
            if self._strip is not None:
                rest = self._strip(rest)
        else:
            rest, whole = b"", True
        if self.committed:
            if not whole:
                self._cut()
                return
            if rest:
                self._answer.more(rest)
            self._answer.end()
            if watch is not None and watch.error is not None:  # the endpoint has said so itself, in the stream
                self.interrupted = Failure("interrupted", self._status)
                self._answer.status = watch.error.status or Interrupted.status
            self._finish()
        elif self._status >= 400 and not self.final:
            self._error_answer()
        elif not whole:
            # A stream that ends before it has said anything; nobody saw it, so another endpoint may be asked.
            self._fail(Failure("connect", self._status, retry_on="Reset"))
        elif self._gate is None or self._gate.claim(self):
            body = [rest, watch.held()] if watch is not None else self._held
            self._on_first_byte()
            self._answer.whole(self._status, response_headers(self._headers, self.final), body)
            self._finish()

    def lost(self, error: Exception | None) -> None:
        if self.finished.done():
            return
        if self.committed:
            self._cut()
        elif self._status >= 400 and not self.final:
            self._error_answer()
        else:
            self._fail(Failure("connect", retry_on="Reset"))

    # -- what the client's connection says

    def pause(self) -> None:
        """The client reads slower than the endpoint writes."""
        self._paused = True
        self._connection.pause()

    def resume(self) -> None:
        self._paused = False
        self._active = monotonic()
        self._connection.resume()

    @property
    def broke_silently(self) -> bool:
        """The connection was lost before a single byte of an answer."""
        return self.failure is not None and self.failure.retry_on == "Reset" and not self._connection.heard

    @property
    def said(self) -> bool:
        """Whether the client has been sent all of a stream that says itself that it was whole."""
        watch = self._watch
        return self.committed and watch is not None and watch.finished and not watch.mid_event and watch.error is None

    def close(self) -> None:
        """The attempt is over for its caller, however it went."""
        self._timer.cancel()

    # -- what follows

    def _commit(self, first: bytes) -> None:
        if self._gate is not None and not self._gate.claim(self):
            return  # and the attempt is being ended
        self.committed = True
        self._on_first_byte()
        # An event stream may yet need room for an error event, so its length is not promised to the client.
        length = self._length if self._watch is None else None
        self._answer.begin(self._status, response_headers(self._headers, self.final), length, first)
        self._held.clear()
        if self._active + self._deadlines.stream_idle < self._first_byte:  # what the timer was set for is not it
            self._timer.cancel()
            self._timer = self._loop.call_later(self._deadlines.stream_idle, self._tick)

    def _error_answer(self) -> None:
        """An HTTP error: what it means, with the answer kept in case it is the client's to see."""
        body = b"".join(self._held)[:ERROR_BYTES]
        self._error_body = body
        self._fail(failure_of(self._status, self._headers, body, time()))

    def pass_on(self) -> None:
        """Give the client the endpoint's own error answer."""
        answer = self._answer
        if answer.opened and self._watch is not None:  # it has said so in an event, and can do so still
            answer.begin(self._status, (), None, self._error_body)
            answer.end()
        else:
            answer.whole(self._status, response_headers(self._headers, self.final), [self._error_body])
        if self.failure is not None and self.failure.status:
            answer.status = self.failure.status

    def _fail(self, failure: Failure) -> None:
        if self.failure is None and not self.committed:
            self.failure = failure
            self._finish()

    def _cut(self, reason: Reason = "interrupted") -> None:
        """The stream broke after its first content byte."""
        if self.said:  # what breaks behind that takes nothing away
            self._answer.end()
            self._finish()
            return
        whole_events = self._watch is not None and not self._watch.mid_event
        self.interrupted = Failure(reason, self._status)
        if reason == "interrupted" and whole_events and self._answer.resumable:
            self.withheld = True
            self._finish()
        else:
            self.say_cut()

    def cut_short(self) -> None:
        """The balancer ends, and with it what has begun."""
        if self.committed and not self.said and not self.finished.done():
            self.interrupted = Failure("interrupted", self._status)
            self.say_cut()

    def say_cut(self) -> None:
        """Say so, and end the answer so that no client takes it for whole."""
        over = self.interrupted is not None and self.interrupted.reason == "deadline"
        self._answer.status = DeadlineExceeded.status if over else Interrupted.status
        if self._watch is not None and not self._watch.mid_event:
            # What is held is half an event: it is dropped, so that the error event stands on a line of its own.
            error = Interrupted("the endpoint's answer broke off")
            self._answer.more(error_event(error, self._path))
            self._answer.end()
            self._finish()
        else:
            self._finish()  # before the client's connection goes: else it would seem that the client has left
            self._answer.abort()

    def _finish(self) -> None:
        self._timer.cancel()
        if not self.finished.done():
            self.finished.set_result(None)

    def _tick(self) -> None:
        """One timer for the three deadlines, armed again lazily instead of at every chunk."""
        now = monotonic()
        if not self.committed and now >= self._first_byte:
            reason: Reason = "stall" if self._streaming else "first-byte-timeout"
            self._fail(Failure(reason, retry_on="FirstByteTimeout"))
        elif now >= self._total:
            if self.committed:
                self._cut("deadline")
            else:
                self._fail(Failure("deadline"))
        else:
            due = self._first_byte
            if self.committed:
                due = (now if self._paused else self._active) + self._deadlines.stream_idle
                if now >= due:
                    self._cut()
                    return
            self._timer = self._loop.call_later(min(due, self._total) - now, self._tick)
