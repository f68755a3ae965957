"""What the operator has sent: from one message and the state before it to the next state, checked by its digest.

The digest is taken of the bytes that were sent, part by part, and not of what was understood of them: a newer operator
may have written fields that this balancer passes over, and still both speak of the same state. A part whose bytes are
known is not decoded again, so a whole snapshot after a short silence costs little more than a delta.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct

from spillway_api.snapshot import Pool, Route, Snapshot, digest_of
from spillway_api.stream import Saved

Part = TypeVar("Part", Pool, Route)
Parts = dict[str, tuple[bytes, Part]]
"""By name: the SHA-256 of the bytes, and what they say."""


class State(NamedTuple):
    """A snapshot as it came, with what the next delta is laid upon."""

    digest: str | None
    """The operator's name for it; None when it is not known to be exactly what the operator means by the name."""
    at: float
    snapshot: Snapshot
    pools: Parts[Pool]
    routes: Parts[Route]

    @property
    def saved(self) -> Saved:
        return Saved(self.digest or "", self.at, self.snapshot)


class Unreadable(Exception):
    """A message that no state can be made of. `digest` is that of the snapshot that it was to be, where it says so."""

    def __init__(self, message: str, digest: str = "") -> None:
        super().__init__(message)
        self.digest = digest


class OtherBase(Exception):
    """A delta to something that we do not have."""


class _Whole(Struct, rename="camel"):
    gateway: str
    pools: tuple[Raw, ...]
    routes: tuple[Raw, ...]


class _Full(Struct, rename="camel", tag="snapshot"):
    digest: str
    at: float
    snapshot: _Whole


class _Delta(Struct, rename="camel", tag="delta"):
    base: str
    digest: str
    at: float
    pools: tuple[Raw, ...] = ()
    routes: tuple[Raw, ...] = ()
    gone_pools: tuple[str, ...] = ()
    gone_routes: tuple[str, ...] = ()


class _Head(Struct):
    type: str = ""
    digest: str = ""


_message: msgspec.json.Decoder[_Full | _Delta] = msgspec.json.Decoder(_Full | _Delta)
_head = msgspec.json.Decoder(_Head)
_pool = msgspec.json.Decoder(Pool)
_route = msgspec.json.Decoder(Route)
_encoder = msgspec.json.Encoder(order="deterministic")


def of_saved(saved: Saved) -> State:
    """The state to go on from with what lay on disk. Its digest is None where a newer program has written it."""
    pools = {part.name: (_sha(_encoder.encode(part)), part) for part in saved.snapshot.pools}
    routes = {part.name: (_sha(_encoder.encode(part)), part) for part in saved.snapshot.routes}
    digest = _digest(saved.snapshot.gateway, pools, routes)
    return State(digest if digest == saved.digest else None, saved.at, saved.snapshot, pools, routes)


def after(last: State | None, data: str | bytes) -> State | None:
    """The state that a message of the operator's leads to; None for a kind of message that is not known.

    Raises Unreadable, and OtherBase for a delta to another state than `last`.
    """
    try:
        message = _message.decode(data)
    except msgspec.DecodeError as error:
        head = _head_of(data)
        if head.type in ("snapshot", "delta", ""):
            raise Unreadable(f"cannot be read: {error}", head.digest) from None
        return None
    known_pools, known_routes = (last.pools, last.routes) if last else ({}, {})
    try:
        if isinstance(message, _Full):
            gateway = message.snapshot.gateway
            pools = dict(_read(message.snapshot.pools, _pool, known_pools))
            routes = dict(_read(message.snapshot.routes, _route, known_routes))
        elif last is None or last.digest != message.base:
            raise OtherBase
        else:
            gateway = last.snapshot.gateway
            pools = _merged(known_pools, _read(message.pools, _pool, {}), message.gone_pools)
            routes = _merged(known_routes, _read(message.routes, _route, {}), message.gone_routes)
    except msgspec.DecodeError as error:
        raise Unreadable(f"cannot be read: {error}", message.digest) from None
    if _digest(gateway, pools, routes) != message.digest:
        raise Unreadable("its content has another digest", message.digest)
    snapshot = Snapshot(gateway, tuple(part for _, part in pools.values()), tuple(part for _, part in routes.values()))
    return State(message.digest, message.at, snapshot, pools, routes)


def _head_of(data: str | bytes) -> _Head:
    try:
        return _head.decode(data)
    except msgspec.DecodeError:
        return _Head()


def _read(
    raws: Iterable[Raw], decoder: msgspec.json.Decoder[Part], known: Mapping[str, tuple[bytes, Part]]
) -> Iterable[tuple[str, tuple[bytes, Part]]]:
    by_sha = dict(known.values())
    for raw in raws:
        sha = _sha(raw)
        part = by_sha.get(sha)
        if part is None:
            part = decoder.decode(raw)
        yield part.name, (sha, part)


def _merged(known: Parts[Part], changed: Iterable[tuple[str, tuple[bytes, Part]]], gone: Iterable[str]) -> Parts[Part]:
    parts = dict(known)
    for name in gone:
        parts.pop(name, None)
    parts.update(changed)
    return {name: parts[name] for name in sorted(parts)}


def _sha(data: bytes | Raw) -> bytes:
    return hashlib.sha256(data).digest()


def _digest(gateway: str, pools: Parts[Pool], routes: Parts[Route]) -> str:
    return digest_of(gateway, [sha for sha, _ in pools.values()], [sha for sha, _ in routes.values()])
