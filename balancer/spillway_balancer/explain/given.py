"""What people may assume of the world when they ask why: the fields of a state, and of a request."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Struct, field

from spillway_api.markup import Cel, doc
from spillway_api.types.fields import Duration

Health = Literal["Passing", "Failing"]
CircuitGiven = Literal["Closed", "Open", "HalfOpen"]
CredentialGiven = Literal["Valid", "Missing", "Refused"]
Fails = Literal[
    "rate-limited",
    "quota-exhausted",
    "overloaded",
    "server-error",
    "connect",
    "first-byte-timeout",
    "stall",
    "auth",
    "model-not-found",
    "context-length",
    "content-policy",
    "bad-request",
]

Count = Annotated[int, doc("Requests.", ge=0, le=100_000)]
Percent = Annotated[float, doc("Percent.", ge=0, le=100)]

_SOON = Cel(
    "!has(self.predictedTTFT) || duration(self.predictedTTFT) <= duration('50s')",
    "predictedTTFT must be at most 50s",
)
_SPEED = Cel("has(self.firstToken) == has(self.tokensPerSecond)", "firstToken and tokensPerSecond go together")
_QUEUE = Cel("!has(self.queued) || !has(self.inFlight) || self.queued <= self.inFlight", "queued is a part of inFlight")


class EndpointGiven(Struct, frozen=True, rename="camel", kw_only=True):
    """What is assumed of one endpoint."""

    in_flight: Annotated[Count, doc("Requests that this balancer has there.")] | None = None
    queued: Annotated[Count, doc("Of those, how many wait in the engine, without a first token.")] | None = None
    kv_cache_percent: Annotated[Percent, doc("Used part of the KV cache, as its metrics say.")] | None = None
    error_percent: Annotated[Percent, doc("Failed attempts of the last hundred there.")] | None = None
    predicted_ttft: Annotated[Duration, doc("Predicted time to the first token of a typical request there.")] | None = (
        field(default=None, name="predictedTTFT")
    )
    cached_percent: (
        Annotated[Percent, doc("How much of this very prompt is in its prefix cache, from the beginning on.")] | None
    ) = None
    health: Annotated[Health, doc("What active probes say.")] | None = None
    circuit: Annotated[CircuitGiven, doc("Open: ejected for its failures. HalfOpen: due for a trial.")] | None = None
    limited_for: Annotated[Duration, doc("Off for so long by its own word, a Retry-After.")] | None = None
    credential: Annotated[CredentialGiven, doc("Whether its credential is there and taken.")] | None = None
    fails: Annotated[Fails, doc("How an attempt there ends; without it, well.")] | None = None

    RULES: ClassVar[tuple[Cel, ...]] = (_SOON, _QUEUE)


class PoolGiven(EndpointGiven, frozen=True, rename="camel", kw_only=True):
    """What is assumed of a pool: of each of its endpoints, where they are not named."""

    RULES: ClassVar[tuple[Cel, ...]] = (*EndpointGiven.RULES, _SPEED)

    first_token: Annotated[Duration, doc("Time to the first token of late, for tiers that choose by speed.")] | None = (
        None
    )
    tokens_per_second: (
        Annotated[float, doc("Tokens a second of an answer of late, for the same.", ge=0.1, le=100_000)] | None
    ) = None
    budget: Annotated[Percent, doc("Of the money of the period that the pool's own budget allows.")] | None = None
    ready: Annotated[Count, doc("How many endpoints take requests, the first by name order of the pool.")] | None = None
    endpoints: Annotated[
        dict[str, EndpointGiven], doc("By name, what differs from the other endpoints of the pool.")
    ] = field(default_factory=dict)


class UsedGiven(Struct, frozen=True, rename="camel", kw_only=True):
    """How much of limits is used, in percent of each."""

    budget: Annotated[Percent, doc("Of the money of the period.")] | None = None
    requests_per_minute: Annotated[Percent, doc("Of the requests of the last minute.")] | None = None
    tokens_per_minute: Annotated[Percent, doc("Of the tokens of the last minute.")] | None = None
    max_in_flight: Annotated[Percent, doc("Of the requests that a consumer may have under way.")] | None = None
    max_share_percent: Annotated[Percent, doc("Of the share of the requests that a tier may take.")] | None = None


class PolicyGiven(Struct, frozen=True, rename="camel", kw_only=True):
    """What is assumed of a policy."""

    tiers: Annotated[dict[str, UsedGiven], doc("What is used of the limits of a tier, in percent of each.")] = field(
        default_factory=dict
    )


class ConsumerGiven(Struct, frozen=True, rename="camel", kw_only=True):
    """Who is assumed to ask. A key need not be shown."""

    name: Annotated[str, doc("Of the Secret; namespace/name where it is not in that of the policy.", min_length=1)]
    labels: (
        Annotated[dict[str, str], doc("Of the Secret, where it is not in the files or should have others.")] | None
    ) = None
    used: Annotated[UsedGiven, doc("What is used of its limits, in percent of each.")] = field(
        default_factory=UsedGiven
    )


class State(Struct, frozen=True, rename="camel", kw_only=True):
    """What is assumed of the world: without it all endpoints are ready and idle."""

    now: (
        Annotated[str, doc("The time that expressions see, such as 2026-05-01T21:30:00Z; else that of the clock.")]
        | None
    ) = None
    pools: Annotated[dict[str, PoolGiven], doc("By name; namespace/name where it is not in `default`.")] = field(
        default_factory=dict
    )
    policies: Annotated[dict[str, PolicyGiven], doc("By name; namespace/name where it is not in `default`.")] = field(
        default_factory=dict
    )
    consumer: Annotated[ConsumerGiven, doc("Who asks, for policies that know their callers.")] | None = None


class RequestGiven(Struct, frozen=True, rename="camel", kw_only=True):
    """A request: its body, or what a body is made of."""

    path: Annotated[str, doc("Where it is sent.")] = "/v1/chat/completions"
    headers: Annotated[dict[str, str], doc("Of the request.")] = field(default_factory=dict)
    client_ip: Annotated[str, doc("Where it comes from.")] | None = field(default=None, name="clientIP")
    body: Annotated[Any, doc("The JSON body. `model`, `prompt` and `tokens` fill in what it lacks.")] | None = None
    model: Annotated[str, doc("Model that is asked for.")] | None = None
    prompt: Annotated[str, doc("What the user says.")] | None = None
    tokens: (
        Annotated[int, doc("Length of the prompt; what is said is filled up to it.", ge=1, le=10_000_000)] | None
    ) = None
