"""Pieces of an answer on its way to the client: what each is worth, so that faults and books know where it has come."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

from .counting import Counted
from .refusals import Refusal
from .replies import Reply


class Frame(NamedTuple):
    """`tokens` are charged for once it is sent; `content` is what was asked for; `told` has the final usage in it."""

    data: bytes
    tokens: int = 0
    content: bool = False
    told: bool = False


class Serving(NamedTuple):
    """What a shape makes an answer of."""

    id: str
    """Of the request, as it stands in headers; answers are named after it."""
    created: int
    """Unix time in seconds."""
    model: str
    reply: Reply
    counted: Counted
    tell_usage: bool


class Shape(Protocol):
    """One answer in one API's form."""

    media: str
    """Content type of a stream."""

    def stream(self) -> list[Frame]: ...

    def whole(self) -> bytes: ...

    def error(self, refusal: Refusal) -> bytes:
        """An error within a stream."""

    def ping(self) -> bytes:
        """A sign of life within a stream."""

    def broken(self, frame: bytes) -> bytes:
        """A frame that came damaged."""


def event(data: object, name: str | None = None) -> bytes:
    """A server-sent event."""
    encoded = b"data: " + msgspec.json.encode(data) + b"\n\n"
    return encoded if name is None else b"event: " + name.encode() + b"\n" + encoded
