"""The Snapshot: all that a balancer serves from, immutable, the same on every machine.

It crosses the process boundary as deterministic JSON. Fields that a reader does not know are ignored, so a newer
operator may speak to an older balancer; inside guards they are an error. It holds references to credentials, never
their values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from spillway_api.types import (
    AccountLimits,
    AwsIdentity,
    AzureIdentity,
    Budget,
    Capacity,
    Clamp,
    ConsumerLimits,
    DataHandling,
    Dispatch,
    EndpointCost,
    Explain,
    GcpIdentity,
    Guard,
    Health,
    Hedge,
    Limits,
    Metrics,
    Model,
    Money,
    Overrides,
    Priority,
    Queue,
    Retry,
    Spill,
    Streams,
    Timeouts,
)


class Credential(Struct, frozen=True, rename="camel"):
    """Where the value of a request header is found; `header: prefix + value` goes to the endpoint."""

    secret: str
    """namespace/name of the Secret."""
    key: str
    header: str
    prefix: str


class Trust(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Whom TLS believes."""

    authorities: str | None = None
    """Certificates in PEM, which are public; None is the system's."""
    server_name: str | None = None
    """That certificates are for; None is the host of the URL."""
    insecure_skip_verify: bool = False


class Proxy(Struct, frozen=True, rename="camel", omit_defaults=True):
    """An HTTP proxy that makes tunnels."""

    url: str
    credential: Credential | None = None
    """Where user:password is found."""


class Identity(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Whose credentials that end an account is shown: the gateway's, at the cloud that is given."""

    namespace: str
    """Of the ModelPool that asks for it: a gateway may lend its identity to some only."""
    own_tls: bool = False
    """Whether that pool says itself whom TLS believes, and so who may read what is shown."""
    aws: AwsIdentity | None = None
    gcp: GcpIdentity | None = None
    azure: AzureIdentity | None = None


class Endpoint(Struct, frozen=True, rename="camel"):
    """One address that serves, or one account of a provider (its url is then the provider's base URL)."""

    name: str
    url: str
    """Without a trailing slash."""
    weight: int = 100
    credential: Credential | None = None
    limits: AccountLimits | UnsetType = UNSET
    """Of an account that has any; left out elsewhere, so that other endpoints are written as they ever were."""
    identity: Identity | UnsetType = UNSET
    """Of an account that has one, in the place of a credential."""
    region: str | UnsetType = UNSET
    """Of an account in a cloud, where that is told."""


class Pool(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Interchangeable endpoints that serve the same models."""

    name: str
    """namespace/name of the ModelPool."""
    models: tuple[Model, ...]
    engine: str
    provider: str | None
    """Type of the provider; None for self-hosted endpoints."""
    endpoints: tuple[Endpoint, ...]
    dispatch: Dispatch
    capacity: Capacity
    metrics: Metrics
    health: Health
    data_handling: DataHandling | None = None
    """What it declares; None passes no guard."""
    wakes: bool = False
    """Without endpoints it is asleep: it is woken when a request wants it."""
    budget: Budget | None = None
    """Of all routes together."""
    trust: Trust | None = None
    """None: as the system does."""
    proxy: Proxy | None = None
    cost: EndpointCost | None = None
    """Of each endpoint of one's own, where it is said."""
    remote: bool = False
    """It is the gateway, which a sidecar sends to what it cannot send itself. The sidecar knows where that is."""

    def credentials(self) -> Iterator[Credential]:
        """All that a balancer needs to have to send anything to it."""
        yield from (each.credential for each in self.endpoints if each.credential is not None)
        if self.proxy is not None and self.proxy.credential is not None:
            yield self.proxy.credential


class Target(Struct, frozen=True, rename="camel"):
    """A pool as a tier uses it."""

    pool: str
    """namespace/name of the ModelPool; it is among the snapshot's pools."""
    model: str | None = None
    """Model of the pool; None is the one that serves the requested name, else the pool's only model."""
    weight: int = 100


class RouteTier(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Targets of equal preference."""

    name: str
    targets: tuple[Target, ...]
    select: str
    enter_on: tuple[str, ...]
    spill: Spill | None = None
    hedge: Hedge | None = None
    min_quality_percent: int | None = None
    max_cost: Money | None = None
    limits: Limits | None = None


class RouteRule(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A list of tiers, and for which requests they are."""

    name: str
    tiers: tuple[RouteTier, ...]
    """Empty when nothing of them can be served: the rule decides all the same."""
    when: str | None = None
    """An expression of `expressions`; None holds always."""
    set_: Clamp | None = field(default=None, name="set")


class Mirror(Struct, frozen=True, rename="camel"):
    """Where copies of a share of the requests go."""

    target: Target
    percent: int


class Consumer(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Somebody who may call, by a key of their own."""

    name: str
    """Of the Secret, in the route's namespace."""
    secret: str
    """namespace/name of the Secret that holds the key: a reference, never the value."""
    key: str
    labels: dict[str, str] = {}
    limits: ConsumerLimits | None = None


class Consumers(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Who may call. Empty `members` means nobody."""

    match_labels: dict[str, str]
    """By which they were found, for who has to look again."""
    members: tuple[Consumer, ...]
    defaults: ConsumerLimits | None = None
    """What their limits were made of, for the same."""


class Route(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Public model names and the rules that serve them."""

    name: str
    """namespace/name of the RoutePolicy."""
    models: tuple[str, ...]
    rules: tuple[RouteRule, ...]
    timeouts: Timeouts
    retry: Retry
    consumers: Consumers | None = None
    """None: everybody may call."""
    mirror: Mirror | None = None
    mode: str = "Enforce"
    """Shadow: it records what it would do with requests of its names, and serves none."""
    streams: Streams | None = None
    overrides: Overrides | None = None
    explain: Explain | None = None
    """None where nothing is set."""
    guards: tuple[Guard, ...] = ()
    """Those whose expression does not compile are here as well: they hold."""
    queue: Queue | None = None
    """None: as the defaults say."""
    priority: Priority | None = None
    """None: as the defaults say."""

    def targets(self) -> Iterator[Target]:
        """All that it leads to, that of its copies included."""
        yield from (target for rule in self.rules for tier in rule.tiers for target in tier.targets)
        if self.mirror is not None:
            yield self.mirror.target


class Snapshot(Struct, frozen=True, rename="camel"):
    """Everything that one gateway serves from."""

    gateway: str
    pools: tuple[Pool, ...]
    routes: tuple[Route, ...]


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Snapshot)


def encode(snapshot: Snapshot) -> bytes:
    """Deterministic JSON: equal snapshots give equal bytes."""
    return _encoder.encode(snapshot)


def decode(data: bytes) -> Snapshot:
    """The snapshot that `data` holds; unknown fields are ignored. Raises msgspec.DecodeError."""
    return decode_with(_decoder, data)


Decoded = TypeVar("Decoded")


def decode_with(decoder: msgspec.json.Decoder[Decoded], data: str | bytes) -> Decoded:
    """What `data` holds. Raises msgspec.DecodeError, and nothing else, on whatever a stranger may send."""
    try:
        return decoder.decode(data)
    except (RecursionError, UnicodeError) as error:  # nested too deep, even in a field to be ignored; not UTF-8
        raise msgspec.DecodeError(str(error)) from None


def digest(snapshot: Snapshot) -> str:
    """SHA-256 in hex; two snapshots are the same configuration iff it is equal."""
    return Digester()(snapshot)


def sealed(part: Pool | Route) -> bytes:
    """The SHA-256 of a part's encoding."""
    return hashlib.sha256(_encoder.encode(part)).digest()


def digest_of(gateway: str, pools: Iterable[bytes], routes: Iterable[bytes]) -> str:
    """The digest of a snapshot from those of its parts, each the SHA-256 of the part's encoding, in their order."""
    whole = hashlib.sha256(gateway.encode())
    whole.update(b"pools" + b"".join(pools))
    whole.update(b"routes" + b"".join(routes))
    return whole.hexdigest()


class Digester:
    """Digests snapshots one after the other, and only those of their parts that are new objects.

    A snapshot's digest is made of the digests of its pools and routes, so that a change of one endpoint among
    thousands costs the loop of a balancer microseconds and not the encoding of everything.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Pool | Route, bytes]] = {}

    def __call__(self, snapshot: Snapshot) -> str:
        before, self._known = self._known, {}
        parts: tuple[Pool | Route, ...] = (*snapshot.pools, *snapshot.routes)
        for part in parts:
            # An id is that of no other object as long as the entry holds the part.
            known = before.get(id(part)) or (part, sealed(part))
            self._known[id(part)] = known
        pools = [self._known[id(pool)][1] for pool in snapshot.pools]
        routes = [self._known[id(route)][1] for route in snapshot.routes]
        return digest_of(snapshot.gateway, pools, routes)
