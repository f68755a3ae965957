"""The key of a session: what keeps the requests of one conversation together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from xxhash import xxh3_64_intdigest

from spillway_api.types import KeySource


class KeyFacts(Protocol):
    """What a request has to tell. Each is asked only when its turn comes, for a prefix costs time to read."""

    def header(self, name: str) -> str | None: ...
    def body(self, name: str) -> str | None: ...
    @property
    def client_ip(self) -> str | None: ...
    def prefix(self, chars: int | None) -> bytes | None: ...


_SEEDS = {kind: xxh3_64_intdigest(kind.encode()) for kind in ("Header", "Body", "ClientIP", "Prefix")}
"""By type of source, so that equal text from different places makes different keys, without a copy of it."""


def key_of(sources: Sequence[KeySource], facts: KeyFacts) -> int | None:
    """The 64-bit hash (xxh3) of the first value that is not empty, of the sources in order; else None."""
    for source in sources:
        value = _value(source, facts)
        if value:
            # Header bytes that are no UTF-8 arrive as lone surrogates; they have to hash, not to raise.
            raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
            return xxh3_64_intdigest(raw, _SEEDS[source.type])
    return None


def _value(source: KeySource, facts: KeyFacts) -> str | bytes | None:
    match source.type:
        case "Header":
            return facts.header(source.name or "")
        case "Body":
            return facts.body(source.name or "")
        case "ClientIP":
            return facts.client_ip
        case "Prefix":
            return facts.prefix(source.chars)
