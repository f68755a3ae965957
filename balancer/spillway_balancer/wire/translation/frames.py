"""The events of a stream as its bytes arrive: what each is called, and its data.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_EVENT: Final = 32 << 20
"""Bytes of an event beyond which a stream is none that is understood."""


class Frame(NamedTuple):
    """`data` is None for an event without any: a comment, an id, a time to wait."""

    name: str | None
    data: bytes | None


class Frames:
    """Cuts bytes into events; the result does not depend on how reads divide them."""

    __slots__ = ("_begun", "_cr", "_tail")

    def __init__(self) -> None:
        self._tail = bytearray()
        self._cr = False
        """A read has ended in the middle of what may be one line end."""
        self._begun = False

    def feed(self, data: bytes) -> list[Frame]:
        if self._cr or b"\r" in data:
            data = self._one_kind_of_line_end(data)
        tail = self._tail
        at = max(0, len(tail) - 1)
        tail += data
        frames: list[Frame] = []
        first = 0
        while (end := tail.find(b"\n\n", at)) >= 0:
            self._take(bytes(tail[first:end]), frames)
            first = at = end + 2
        del tail[:first]
        return frames

    def end(self) -> list[Frame]:
        """An event whose empty line is missing, as the stream is over."""
        frames: list[Frame] = []
        self._take(bytes(self._tail), frames)
        self._tail.clear()
        return frames

    @property
    def held(self) -> int:
        """Bytes of the event that has not ended."""
        return len(self._tail)

    def _take(self, event: bytes, frames: list[Frame]) -> None:
        if not self._begun and event:
            self._begun = True
            event = event.removeprefix(b"\xef\xbb\xbf")
        event = event.lstrip(b"\n")
        if event:
            frames.append(_frame(event))

    def _one_kind_of_line_end(self, data: bytes) -> bytes:
        if self._cr:
            data = b"\r" + data
        self._cr = data.endswith(b"\r")
        if self._cr:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _frame(event: bytes) -> Frame:
    if event.startswith(b"data: ") and b"\n" not in event:
        return Frame(None, event[6:])
    name: str | None = None
    data: list[bytes] = []
    for line in event.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ").decode("utf-8", "replace")
    return Frame(name, b"\n".join(data) if data else None)
