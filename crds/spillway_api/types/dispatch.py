"""How an endpoint of a pool is chosen."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Struct, field

from spillway_api.markup import ATOMIC, INT32, Cel, doc, pattern

StrategyName = Literal[
    "Adaptive",
    "CHWBL",
    "PrefixCache",
    "LeastLoad",
    "PowerOfTwo",
    "LowestLatency",
    "WeightedRoundRobin",
    "RoundRobin",
    "Random",
]
LoadUnit = Literal["Requests", "Tokens"]
Overflow = Literal["NextOnRing", "LeastLoaded"]
KeyType = Literal["Header", "Body", "ClientIP", "Prefix"]


class Chwbl(Struct, frozen=True, rename="camel"):
    """Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016)."""

    load_factor_percent: Annotated[
        int,
        doc(
            "How far above the mean load of the pool an endpoint may be before a request goes on to another. "
            "Low keeps the pool even, high keeps sessions where their cache is.",
            ge=100,
            le=1000,
        ),
        INT32,
    ] = 125
    vnodes: Annotated[
        int,
        doc("Points on the ring for an endpoint of weight 100.", ge=16, le=4096),
        INT32,
    ] = 256
    min_in_flight: Annotated[
        int,
        doc("An endpoint with fewer requests than this is never over its bound.", ge=0, le=10000),
        INT32,
    ] = 2
    overflow: Annotated[
        Overflow,
        doc(
            "Where a request goes when its endpoint is over the bound: the next one on the ring with room, "
            "or the least loaded of the pool."
        ),
    ] = "NextOnRing"


class KeySource(Struct, frozen=True, rename="camel"):
    """One place where the key of a session may be found."""

    type: Annotated[
        KeyType,
        doc(
            "Where the key is read: a request header, a field of the body, the address of the client, or the "
            "beginning of the conversation."
        ),
    ]
    name: (
        Annotated[
            str,
            doc(
                "Name of the header or of the body field; a body field may be a dotted path (metadata.session).",
                min_length=1,
                max_length=64,
            ),
            pattern(r"^[-A-Za-z0-9_.]+$"),
        ]
        | None
    ) = None
    chars: (
        Annotated[
            int,
            doc(
                "How many characters of the beginning are hashed. Absent means up to the end of the first "
                "message of the user.",
                ge=16,
                le=1048576,
            ),
            INT32,
        ]
        | None
    ) = None

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "(self.type in ['Header', 'Body']) == has(self.name)",
            "name is required for Header and Body and forbidden otherwise",
        ),
        Cel("self.type == 'Prefix' || !has(self.chars)", "chars applies to Prefix only"),
    )


class Dispatch(Struct, frozen=True, rename="camel"):
    """How an endpoint of the pool is chosen."""

    strategy: Annotated[
        StrategyName,
        doc(
            "How an endpoint is chosen. Adaptive weighs what each endpoint has cached of the prompt against what waits "
            "there. CHWBL keeps the requests of a session on one endpoint until that one has more than its share of "
            "the load. PrefixCache goes by the cache first, LowestLatency by times to the first token. The others do "
            "not look at the session."
        ),
    ] = "Adaptive"
    load: Annotated[
        LoadUnit,
        doc("What counts as load - requests, or prompt and output tokens still to compute."),
    ] = "Tokens"
    chwbl: Annotated[Chwbl, doc("Settings of the strategy CHWBL.")] = field(default_factory=Chwbl)
    key: Annotated[
        tuple[KeySource, ...],
        doc(
            "The first source that yields a value is hashed. Without any, LeastLoad decides.",
            min_length=1,
            max_length=8,
        ),
        ATOMIC,
    ] = (
        KeySource(type="Header", name="x-session-id"),
        KeySource(type="Body", name="prompt_cache_key"),
        KeySource(type="Prefix"),
    )


class Capacity(Struct, frozen=True, rename="camel"):
    """What one endpoint can take."""

    max_in_flight_per_endpoint: Annotated[
        int,
        doc("Requests that one endpoint of weight 100 may hold. 0 means no bound.", ge=0),
        INT32,
    ] = 0
