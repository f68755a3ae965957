"""Watches an event stream go by: what may be handed to the client, when it is committed, how it ended.

Before the first content-bearing event nothing is handed out, so that another endpoint can still be tried. After it
whole events are handed out as they come: half an event is held back, so that a stream that is cut can be ended with
an error event that stands on lines of its own. Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re
from typing import Final

from .events import Verdict, judge, judge_head
from .faults import ErrorFacts
from .paths import StreamEnd

MAX_EVENT_BYTES: Final = 1 << 20
"""An event that grows beyond this is let through as it comes; a beginning beyond it counts as content."""

_HEAD_BYTES: Final = 1024
"""As much of such an event is looked at: its name and type stand at its beginning."""

_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))[\r\n]*")
"""An empty line, and all that follow it: the next event begins with a byte that is no line end."""

_MARKS: Final[dict[StreamEnd, tuple[bytes, ...]]] = {
    "done-sentinel": (b"[DONE]", b'"error"', b"event: error"),
    "responses-event": (
        b"response.completed",
        b"response.failed",
        b"response.incomplete",
        b'"error"',
        b"event: error",
    ),
    "message-stop": (b"message_stop", b'"error"', b"event: error"),
    "message-end": (b'"error"', b"event: error"),
}
"""Bytes without which no event ends a stream or is an error: most reads are cleared by their absence."""


class StreamWatch:
    """One stream of one attempt: `feed` it what arrives and send on what it returns.

    `committed`: content has been handed out. `finished`: the stream's terminator was seen. `error`: an error event
    was seen; before commit it is kept from the client, and nothing after it is looked at.
    The result depends on the bytes alone, not on how reads divide them; sizes are therefore counted without the line
    ends that a read may have divided.
    """

    __slots__ = (
        "_held",
        "_held_bytes",
        "_kind",
        "_limit",
        "_marks",
        "_tail",
        "_through",
        "committed",
        "error",
        "finished",
    )

    def __init__(self, kind: StreamEnd, limit: int = MAX_EVENT_BYTES) -> None:
        self._kind = kind
        self._limit = limit
        self._marks = _MARKS[kind]
        self._held: list[bytes] = []  # whole events, before commit
        self._held_bytes = 0
        self._tail = bytearray()  # the beginning of an event
        self._through: Verdict | None = None  # on the event whose beginning has been let through
        self.committed = False
        self.finished = False
        self.error: ErrorFacts | None = None

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they arrived; returns those that may be sent on now, perhaps none."""
        if self.committed and not self._tail and self._through is None and data.endswith((b"\n\n", b"\r\n\r\n")):
            # The common case, a read that ends where an event ends: no byte is copied.
            for mark in self._marks:
                if data.find(mark) >= 0:  # half the price of `in`, which tries a number first
                    self._look_into(data)
                    break
            return data
        if self.error is not None and not self.committed:
            return b""
        return self._take(data)

    def held(self) -> bytes:
        """What arrived and was not handed out: before commit everything, after it the beginning of an event.

        With an error before commit: all up to the last line of the error event.
        """
        return b"".join((*self._held, self._tail))

    @property
    def mid_event(self) -> bool:
        """Whether the client has the beginning of an event and not its end, since it was too large to be held back."""
        return self._through is not None

    def ended(self) -> bytes:
        """The endpoint has ended its message as HTTP has it; returns the last bytes to send on.

        A last event without its empty line is completed, for a client would ignore it. Where streams have no
        terminator (`message-end`), this is what finishes one. Where they have, one of which a part has been let
        through stays `mid_event` unless it is the terminator: it was cut.
        """
        out = b""
        cut = self._through is not None and not self._through.end and self._kind != "message-end"
        open_event = bool(self._tail) or self._through is not None
        if open_event and not cut and (self.committed or self.error is None):
            out = self._take(b"\n" if self._tail.endswith(b"\n") else b"\n\n")
        if self._kind == "message-end":
            self.finished = True
        return out

    def _take(self, data: bytes) -> bytes:
        tail = self._tail
        blank = b""
        if not tail and self._through is None and data[:1] in (b"\r", b"\n"):
            # More of the empty line that ended the event before, such as the LF of a CRLF that a read has divided.
            rest = data.lstrip(b"\r\n")
            blank = data[: len(data) - len(rest)]
            data = rest
            if not self.committed:
                self._hold(blank)
                blank = b""
        begin = max(0, len(tail) - 3)  # a read may divide an event's end, of at most four bytes
        tail += data
        cut = _last_event_end(tail, begin)
        out = blank
        if cut:
            whole = bytes(tail[:cut])
            del tail[:cut]
            out += self._hand_out(whole)
        if self.error is not None and not self.committed:
            tail.clear()
            return b""
        end = tail[-3:]
        size = len(tail) - len(end) + len(end.rstrip(b"\r\n"))
        if not self.committed and self._held_bytes + size > self._limit:
            out += self._commit()
        if self._through is not None or size > self._limit:
            out += self._let_through()
        return out

    def _hand_out(self, events: bytes) -> bytes:
        """What of these whole events may be sent on."""
        begin = 0
        if self._through is not None:
            end = _EVENT_END.search(events)
            assert end is not None
            begin = end.end()
            self._note(self._through)
            self._through = None
        if not self.committed:
            for found in _EVENT_END.finditer(events):
                event = events[begin : found.end()]
                if self._held_bytes + len(event.rstrip(b"\r\n")) > self._limit:
                    return self._commit() + self._hand_out(events[begin:])
                verdict = judge(event, self._kind)
                self._note(verdict)
                begin = found.end()
                if verdict.error is not None:
                    self._hold(event.rstrip(b"\r\n"))
                    return b""
                self._hold(event)
                if verdict.content:
                    return self._commit() + self._hand_out(events[begin:])
            return b""
        for mark in self._marks:
            if events.find(mark, begin) >= 0:
                self._look_into(events, begin)
                break
        return events

    def _let_through(self) -> bytes:
        """Hand out an event's beginning, but for line ends that may turn out to be part of its end."""
        tail = self._tail
        if self._through is None:
            self._through = judge_head(bytes(tail[: min(self._limit, _HEAD_BYTES)]), self._kind)
        out = bytes(tail.rstrip(b"\r\n"))
        del tail[: len(out)]
        return out

    def _look_into(self, events: bytes, begin: int = 0) -> None:
        """Note how whole events that have been committed end the stream, or fail it."""
        for found in _EVENT_END.finditer(events, begin):
            event = events[begin : found.end()]
            begin = found.end()
            if len(event.rstrip(b"\r\n")) > self._limit:
                self._note(judge_head(event[: min(self._limit, _HEAD_BYTES)], self._kind))
            else:
                self._note(judge(event, self._kind))

    def _note(self, verdict: Verdict) -> None:
        self.finished = self.finished or verdict.end
        if self.error is None:
            self.error = verdict.error

    def _hold(self, event: bytes) -> None:
        self._held.append(event)
        self._held_bytes += len(event)

    def _commit(self) -> bytes:
        self.committed = True
        out = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        return out


def _last_event_end(data: bytearray, begin: int) -> int:
    """The index after the last event that is complete; 0 when none is."""
    if data.find(b"\r", begin) < 0:
        last = data.rfind(b"\n\n", begin)
        return last + 2 if last >= 0 else 0
    end = 0
    for found in _EVENT_END.finditer(data, begin):
        end = found.end()
    return end
