"""Frames of `application/vnd.amazon.eventstream`, in which Amazon Bedrock streams its answers.

A frame is its length, the length of its headers, a CRC-32 of these two, headers, a payload, and a CRC-32 of all that;
all numbers are big-endian. https://docs.aws.amazon.com/lexv2/latest/dg/event-stream-encoding.html and
https://smithy.io/2.0/aws/amazon-eventstream.html
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal, NamedTuple
from zlib import crc32

MEDIA_TYPE: Final = "application/vnd.amazon.eventstream"

MAX_HEADERS: Final = 128 * 1024
MAX_PAYLOAD: Final = 24 * 1024 * 1024
"""Bytes, as AWS's own SDKs have them. A frame that says to be longer is not waited for."""

_KNOWN: Final = 256
"""Bytes of headers up to which they are remembered."""

_PRELUDE: Final = 12
_OVERHEAD: Final = 16

Kind = Literal["true", "false", "byte", "short", "int", "long", "bytes", "string", "timestamp", "uuid"]
Value = bool | int | bytes | str


class Header(NamedTuple):
    """`value` is True or False, a signed number (a timestamp is milliseconds since 1970), text, or bytes (16 in a
    uuid), by its kind."""

    name: str
    kind: Kind
    value: Value


class Frame(NamedTuple):
    headers: tuple[Header, ...]
    payload: bytes

    def text(self, name: str) -> str | None:
        """A header that is text, such as `:event-type`."""
        for header in self.headers:
            if header.name == name and isinstance(header.value, str):
                return header.value
        return None


class Frames:
    """Bytes of one answer to frames, however reads divide them; never raises.

    What is no frame breaks the stream for good: behind it nobody knows where the next one would begin.
    """

    __slots__ = ("_data", "broken")

    def __init__(self) -> None:
        self._data = bytearray()
        self.broken: str | None = None
        """What is wrong with the bytes, in our words."""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now. Of one that was damaged nothing is handed out."""
        frames: list[Frame] = []
        if self.broken is not None:
            return frames
        held = self._data
        held += data
        at = 0
        while len(held) - at >= _PRELUDE:
            length, headers = self._lengths(held, at)
            if self.broken is not None or len(held) - at < length:
                break
            frame = self._frame(bytes(held[at : at + length]), headers)
            if frame is None:
                break
            frames.append(frame)
            at += length
        if self.broken is None:
            del held[:at]
        else:
            held.clear()
        return frames

    @property
    def amid(self) -> bool:
        """Whether a part of a frame is there: no stream ends so."""
        return bool(self._data)

    def _lengths(self, held: bytearray, at: int) -> tuple[int, int]:
        length, headers, checksum = struct.unpack_from("!III", held, at)
        if crc32(held[at : at + 8]) != checksum:
            self.broken = "a frame's lengths do not match their checksum"
        elif headers > MAX_HEADERS or not 0 <= length - headers - _OVERHEAD <= MAX_PAYLOAD:
            self.broken = "a frame says to be of a length that none has"
        return length, headers

    def _frame(self, data: bytes, headers: int) -> Frame | None:
        if crc32(data[:-4]) != struct.unpack("!I", data[-4:])[0]:
            self.broken = "a frame does not match its checksum"
            return None
        end = _PRELUDE + headers
        head = data[_PRELUDE:end]
        read = _known(head) if headers <= _KNOWN else _headers(head)
        if read is None:
            self.broken = "a frame's headers cannot be read"
            return None
        return Frame(read, data[end:-4])


_KINDS: Final[tuple[Kind, ...]] = (
    "true",
    "false",
    "byte",
    "short",
    "int",
    "long",
    "bytes",
    "string",
    "timestamp",
    "uuid",
)
_NUMBERS: Final[dict[Kind, str]] = {"byte": "!b", "short": "!h", "int": "!i", "long": "!q", "timestamp": "!q"}


def _headers(data: bytes) -> tuple[Header, ...] | None:
    """None where they are cut, of an unknown kind, named twice, or no text where text has to be."""
    headers: dict[str, Header] = {}
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        if at + size > len(data):
            raise ValueError
        at += size
        return data[at - size : at]

    try:
        while at < len(data):
            name = take(take(1)[0]).decode()
            kind = _KINDS[take(1)[0]]
            if not name or name in headers:
                return None
            headers[name] = Header(name, kind, _value(kind, take))
    except (ValueError, IndexError):  # UnicodeDecodeError is one of the first
        return None
    return tuple(headers.values())


@lru_cache(maxsize=64)
def _known(data: bytes) -> tuple[Header, ...] | None:
    """A stream's frames have one of a handful of heads: reading them anew would be half of what a frame costs."""
    return _headers(data)


def _value(kind: Kind, take: Callable[[int], bytes]) -> Value:
    if kind in ("true", "false"):
        return kind == "true"
    if kind == "uuid":
        return take(16)
    if (form := _NUMBERS.get(kind)) is not None:
        number: int = struct.unpack(form, take(struct.calcsize(form)))[0]
        return number
    data = take(int.from_bytes(take(2), "big"))
    return data.decode() if kind == "string" else data


def encode(frame: Frame) -> bytes:
    """The bytes of a frame. Raises ValueError or struct.error for a name or a value that has no room in one."""
    head = bytearray()
    for name, kind, value in frame.headers:
        head += struct.pack("!B", len(name.encode())) + name.encode() + bytes((_KINDS.index(kind),))
        if (form := _NUMBERS.get(kind)) is not None:
            head += struct.pack(form, value)
        elif kind not in ("true", "false"):
            data = value.encode() if isinstance(value, str) else value
            if not isinstance(data, bytes) or (kind == "uuid" and len(data) != 16):
                raise ValueError(f"header {name} is no {kind}")
            head += data if kind == "uuid" else struct.pack("!H", len(data)) + data
    prelude = struct.pack("!II", _OVERHEAD + len(head) + len(frame.payload), len(head))
    body = prelude + struct.pack("!I", crc32(prelude)) + bytes(head) + frame.payload
    return body + struct.pack("!I", crc32(body))
