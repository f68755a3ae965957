"""What can be made to go wrong with a provider, as JSON; the simulated engine's faults, in the words of providers.

    {"kind": "error", "error": "rate-limited", "retry_after": 2, "percent": 20}
    {"kind": "error-event", "error": "overloaded", "chunks": 0, "count": 1}
    {"kind": "stall", "chunks": 0, "pings": true}

Every kind takes `percent` (share of the requests, default 100), `count` (only the next so many), `lasts` (seconds until
it switches itself off), `models` (only requests for these) and `keys` (only those of these accounts). `chunks` is
after how many pieces of the answer it strikes, where an answer that is shorter is struck before its end; an answer
that is no stream has no pieces, and fails as a whole.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from ..engine import faults as engine
from .refusals import Kind

Chunks = Annotated[int, msgspec.Meta(ge=0)]


class _Fault(engine.Base, frozen=True, kw_only=True, tag_field="kind"):
    models: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def covers(self, path: str) -> bool:
        """Of a request that is known by account and model, as `where` puts them."""
        key, _, model = path.partition("\0")
        return (not self.models or model in self.models) and (not self.keys or key in self.keys)


class Error(_Fault, frozen=True, kw_only=True, tag="error"):
    """Refuse, in the family's form. `retry_after`: seconds, told where the family tells it."""

    error: Kind
    retry_after: float | None = None
    message: str | None = None


class ErrorEvent(_Fault, frozen=True, kw_only=True, tag="error-event"):
    """An error inside the answer, whose status was 200."""

    error: Kind = "overloaded"
    chunks: Chunks = 1


class Stall(_Fault, frozen=True, kw_only=True, tag="stall"):
    """Nothing more for `seconds` (for ever by default), after `chunks` pieces; with `pings` signs of life go on."""

    chunks: Chunks = 1
    seconds: engine.Positive | None = None
    pings: bool = False


class Cut(_Fault, frozen=True, kw_only=True, tag="cut"):
    """The answer ends after `chunks` pieces: `close` at the end of a frame, `mid-frame` in one, or `no-end` with
    the body ended in order and only the provider's own terminator, and what goes with it, missing."""

    chunks: Chunks = 1
    how: Literal["close", "mid-frame", "no-end"] = "close"


class Broken(_Fault, frozen=True, kw_only=True, tag="broken"):
    """A frame that is none: JSON that ends in the middle, or, of a binary stream, a wrong checksum."""

    chunks: Chunks = 1


class Slow(_Fault, frozen=True, kw_only=True, tag="slow"):
    """The first byte comes after so many seconds."""

    seconds: engine.Positive


class Reset(_Fault, frozen=True, tag="reset"):
    """TCP RST once the request has been read."""


Fault = Error | ErrorEvent | Stall | Cut | Broken | Slow | Reset
KINDS = ("error", "error-event", "stall", "cut", "broken", "slow", "reset")

_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Fault | list[Fault])


def parse(data: bytes | str) -> tuple[Fault, ...]:
    """One fault or a list of them; ValueError that says what is wrong and where."""
    return engine.parsed(_decoder, data, KINDS)


def where(key: str, model: str) -> str:
    """What a fault is matched with: the account and the model."""
    return f"{key}\0{model}"
