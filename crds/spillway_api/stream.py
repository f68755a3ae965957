"""The config stream: what operator and balancers say to each other, and how a snapshot becomes the next one.

The wire is a WebSocket over TLS, `GET /v1/stream` with the balancer's ServiceAccount token as bearer; each text
message is one JSON document whose `type` says which of the classes below it is. The balancer says `hello` with
the digest of what it serves from, if anything. When that is not the current one it gets a `snapshot`; then a
`delta` for every change, built against the last thing sent, whatever happened in between. It acknowledges each
digest that is in force, or refuses it and goes on with what it has. Fields that a reader does not know are
ignored, so either side may be the newer one. To sidecars, of which there are thousands, long documents come compressed
(RFC 1950), as binary messages.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from typing import Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from spillway_api.ledger import Books, Grants
from spillway_api.snapshot import Pool, Route, Snapshot, decode_with
from spillway_api.types.status import TierState

PATH = "/v1/stream"
LEASES = "leases.spillway.dev"
"""WebSocket subprotocol that a balancer offers and the operator takes where both speak of leases. With an operator that
does not take it each balancer counts for itself."""
AUDIENCE = "spillway-operator"
"""Of the ServiceAccount tokens that balancers show."""
AT_GATEWAY = "spillway-gateway"
"""Of those that sidecars show to gateways."""
HEARTBEAT = 10.0
"""Seconds between pings of either side; a connection whose pong stays out for half of it is dead."""
MAX_BYTES = 64 << 20
"""Largest message, in one piece or as it is when it is unpacked."""
PACKED_FROM = 1024
"""Bytes; what is shorter is not worth it."""


class Hello(Struct, frozen=True, rename="camel", omit_defaults=True, tag="hello"):
    """The first message of a balancer."""

    gateway: str
    digest: str | None
    """Of the snapshot it serves from; None when it has none."""
    version: str
    """Of the balancer's program, for people."""
    sidecar: bool = False
    """Whether it runs beside a client, and so is given what `spillway_api.sidecars` leaves of the snapshot."""
    routes: tuple[str, ...] = ()
    """namespace/name of those that a sidecar asks for; none means all that it may have."""


class Ack(Struct, frozen=True, rename="camel", tag="ack"):
    """The snapshot of this digest is in force."""

    digest: str


class Refused(Struct, frozen=True, rename="camel", tag="refused"):
    """The snapshot of this digest cannot be served from; the last good one stays in force."""

    digest: str
    message: str


MetricsState = Literal["Ok", "Off", "Stale", "NotExposed", "UnknownNames", "AuthRequired"]


class PoolReport(Struct, frozen=True, rename="camel"):
    """How a pool is doing, as one balancer sees it."""

    pool: str
    engine: str | None = None
    """What was found behind the endpoints; None as long as nobody has said."""
    unhealthy: tuple[str, ...] = ()
    ejected: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    """Accounts or endpoints that refuse their credential (401, 403), or have none yet."""
    metrics: MetricsState = "Off"
    metrics_message: str = ""
    spent: str = ""
    """Money of its own budget spent in this period, as a decimal number; empty without a budget."""
    refused_message: str = ""
    """Why one of `refused` has no credential, where that is known."""


class TierReport(Struct, frozen=True, rename="camel"):
    """How a tier is doing, as one balancer sees it."""

    route: str
    rule: str
    tier: str
    state: TierState
    ready: int = 0
    share_percent: int = 0
    spent: str = ""
    """Money of its budget spent in this period, as a decimal number; empty without a budget."""


class Report(Struct, frozen=True, rename="camel", tag="report"):
    """All that one balancer has to say of its pools and tiers; each report replaces the one before."""

    pools: tuple[PoolReport, ...] = ()
    tiers: tuple[TierReport, ...] = ()
    wanted: tuple[str, ...] = ()
    """Pools without an endpoint that requests want: what they stand for is to be woken."""


class EndpointLoad(Struct, frozen=True, rename="camel", omit_defaults=True):
    """How one endpoint is doing, as its engine and its probes say. None is unknown."""

    endpoint: str
    ago: float = 0.0
    """Seconds between the scrape and this message."""
    waiting: float | None = None
    running: float | None = None
    kv_usage: float | None = None
    """Used part of the KV cache, 0 to 1."""
    healthy: bool | None = None
    """By active probes."""
    cache_tokens: float | None = None
    """Room of its KV cache, where the engine says so."""
    engine: str | None = None
    """What it is by its metrics."""


class PoolLoad(Struct, frozen=True, rename="camel", omit_defaults=True):
    """How the endpoints of a pool are doing."""

    pool: str
    endpoints: tuple[EndpointLoad, ...]


class Loads(Struct, frozen=True, rename="camel", omit_defaults=True, tag="loads"):
    """What gateways have scraped, for those that do not: from a gateway to the operator, and from there to sidecars.
    Endpoints that are not in it are as they were, and it says that they still are: it may be empty. All that is known
    of one that is in it stands there."""

    pools: tuple[PoolLoad, ...] = ()
    whole: bool = False
    """Nothing is known of endpoints that are not in it: the first one on a connection."""


class Share(Struct, frozen=True, rename="camel", tag="share"):
    """To a gateway: say what is scraped so often."""

    seconds: float
    """0: not at all, for there is no sidecar."""


class Whose(Struct, frozen=True, rename="camel", tag="whose"):
    """A gateway asks whose token it has been shown."""

    number: int
    """Of the question, in the answer too."""
    token: str


class Vouched(Struct, frozen=True, rename="camel", tag="vouched"):
    """Whose it is."""

    number: int
    state: Literal["Known", "Unknown", "Unavailable"]
    """Unavailable: nobody can say now."""
    namespace: str = ""
    pod: str = ""


class Full(Struct, frozen=True, rename="camel", tag="snapshot"):
    """A whole snapshot."""

    digest: str
    at: float
    """When it was compiled, in seconds of Unix time: of two saved states the later one is the better one."""
    snapshot: Snapshot


class Delta(Struct, frozen=True, rename="camel", tag="delta"):
    """What to change in the snapshot `base` to have the snapshot `digest`."""

    base: str
    digest: str
    at: float
    pools: tuple[Pool, ...] = ()
    routes: tuple[Route, ...] = ()
    gone_pools: tuple[str, ...] = ()
    gone_routes: tuple[str, ...] = ()


class Saved(Struct, frozen=True, rename="camel"):
    """A snapshot put away: on a balancer's disk, and in the ConfigMap that a new balancer boots from."""

    digest: str
    at: float
    snapshot: Snapshot
    partial: tuple[str, ...] = ()
    """Routes of policies that were never good as a whole: a new operator does not take them for a last good version."""


FromBalancer: TypeAlias = Hello | Ack | Refused | Report | Books | Loads | Whose
FromOperator: TypeAlias = Full | Delta | Grants | Loads | Share | Vouched

_from_balancer: msgspec.json.Decoder[FromBalancer] = msgspec.json.Decoder(FromBalancer)
_from_operator: msgspec.json.Decoder[FromOperator] = msgspec.json.Decoder(FromOperator)
_saved = msgspec.json.Decoder(Saved)
_encoder = msgspec.json.Encoder(order="deterministic")


def encode(message: FromBalancer | FromOperator) -> bytes:
    """One text message."""
    return _encoder.encode(message)


def from_balancer(data: str | bytes) -> FromBalancer:
    """What a balancer says. Raises msgspec.DecodeError."""
    return decode_with(_from_balancer, data)


def from_operator(data: str | bytes) -> FromOperator:
    """What the operator says. Raises msgspec.DecodeError."""
    return decode_with(_from_operator, data)


def packed(message: bytes) -> bytes:
    """A message as it goes to a sidecar: compressed once for all of them, if it is long."""
    return message if len(message) < PACKED_FROM else zlib.compress(message, level=1)


def is_packed(message: bytes) -> bool:
    """Whether it is a binary message. JSON is none that begins like one."""
    return message[:1] == b"\x78"


def unpacked(data: bytes) -> bytes:
    """The message that a binary one holds. Raises ValueError on what holds none, or a larger one than there are."""
    inflating = zlib.decompressobj()
    try:
        message = inflating.decompress(data, MAX_BYTES)
    except zlib.error as error:
        raise ValueError(f"not a packed message: {error}") from None
    if not inflating.eof:
        raise ValueError("not a packed message: it has no end, or is too large")
    return message


def pack(saved: Saved) -> bytes:
    """A file's content: gzip of JSON, equal for equal states."""
    return gzip.compress(_encoder.encode(saved), compresslevel=6, mtime=0)


def unpack(data: bytes) -> Saved:
    """The state that a file holds. Raises ValueError (msgspec.DecodeError is one) on anything else."""
    try:
        plain = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"not a saved snapshot: {error}") from None
    return decode_with(_saved, plain)


def difference(old: Snapshot, new: Snapshot, base: str, digest: str, at: float) -> Delta:
    """What leads from one snapshot of a gateway, with the digest `base`, to another."""
    pools, gone_pools = _changed(old.pools, new.pools)
    routes, gone_routes = _changed(old.routes, new.routes)
    return Delta(base, digest, at, pools, routes, gone_pools, gone_routes)


def applied(snapshot: Snapshot, delta: Delta) -> Snapshot:
    """The snapshot after a delta. What did not change stays the same object."""
    return Snapshot(
        snapshot.gateway,
        _merged(snapshot.pools, delta.pools, delta.gone_pools),
        _merged(snapshot.routes, delta.routes, delta.gone_routes),
    )


Part = TypeVar("Part", Pool, Route)


def _changed(old: Iterable[Part], new: Iterable[Part]) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    before = {part.name: part for part in old}
    changed = []
    for part in new:
        known = before.pop(part.name, None)
        if known is not part and known != part:
            changed.append(part)
    return tuple(changed), tuple(before)


def _merged(old: Iterable[Part], changed: Iterable[Part], gone: Iterable[str]) -> tuple[Part, ...]:
    by_name = {part.name: part for part in old}
    for name in gone:
        by_name.pop(name, None)
    by_name.update((part.name, part) for part in changed)
    return tuple(by_name[name] for name in sorted(by_name))
