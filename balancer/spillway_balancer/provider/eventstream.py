"""Frames of Amazon's event streams, from the side that writes them.

Source: Amazon's documentation of the `application/vnd.amazon.eventstream` encoding: lengths of the message and of its
headers and a CRC32 of the two, headers, payload, and a CRC32 of all before it; integers are big-endian. Headers that
are texts have the type 7.
"""

from __future__ import annotations

import struct
from binascii import crc32

_TEXT = 7


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    named = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", _TEXT, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(named) + len(payload), len(named))
    message = prelude + struct.pack("!I", crc32(prelude)) + named + payload
    return message + struct.pack("!I", crc32(message))


def event(type: str, payload: bytes) -> bytes:
    return frame({":event-type": type, ":content-type": "application/json", ":message-type": "event"}, payload)


def exception(type: str, payload: bytes) -> bytes:
    """An error within a stream."""
    return frame({":exception-type": type, ":content-type": "application/json", ":message-type": "exception"}, payload)


def spoiled(message: bytes) -> bytes:
    """The same frame with a checksum that does not hold."""
    return message[:-4] + bytes([message[-4] ^ 0xFF]) + message[-3:]
