"""The kind RoutePolicy: intent, that is which requests go where and in which order."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct, field

from spillway_api.markup import ATOMIC, INT32, SET, Cel, checked, doc, map_list, pattern
from spillway_api.types.fields import API_VERSION, Duration, ObjectMeta, ObjectName

Select = Literal["Weighted", "InOrder"]
EnterOn = Literal["Capacity", "Transient", "Auth", "Config", "ContextLength", "ContentPolicy"]
SpillBy = Literal["Key", "Request"]
RetryOn = Literal["ConnectError", "Reset", "FirstByteTimeout"]


class PoolRef(Struct, frozen=True, rename="camel"):
    """A pool as a tier uses it."""

    name: Annotated[ObjectName, doc("Name of a ModelPool.")]
    namespace: (
        Annotated[
            ObjectName,
            doc(
                "Namespace of the ModelPool, where it is not that of the route. The pool must allow it "
                "(`allowedRoutes`)."
            ),
        ]
        | None
    ) = None
    model: (
        Annotated[
            str,
            doc(
                "Model of the pool to use. Defaults to the one that serves the requested name.",
                min_length=1,
                max_length=253,
            ),
        ]
        | None
    ) = None
    weight: Annotated[
        int,
        doc("Share of the tier's requests, relative to its other pools. 0 takes none.", ge=0, le=1000),
        INT32,
    ] = 100


_ENDS = Cel("self.full >= self.start", "full must not be below start")


class Ramp(Struct, frozen=True, rename="camel"):
    """Requests of each ready endpoint: nothing leaves at `start`, everything at `full`."""

    start: Annotated[
        int, doc("Requests per ready endpoint from which requests begin to leave.", ge=0, le=100000), INT32
    ]
    full: Annotated[int, doc("Requests per ready endpoint at which all requests leave.", ge=1, le=100000), INT32]

    RULES: ClassVar[tuple[Cel, ...]] = (_ENDS,)


class PercentRamp(Struct, frozen=True, rename="camel"):
    """A percentage: nothing leaves at `start`, everything at `full`."""

    start: Annotated[int, doc("Percent from which requests begin to leave.", ge=0, le=100), INT32]
    full: Annotated[int, doc("Percent at which all requests leave.", ge=1, le=100), INT32]

    RULES: ClassVar[tuple[Cel, ...]] = (_ENDS,)


class DurationRamp(Struct, frozen=True, rename="camel"):
    """A time: nothing leaves at `start`, everything at `full`."""

    start: Annotated[Duration, doc("Time from which requests begin to leave.")]
    full: Annotated[Duration, doc("Time at which all requests leave.")]

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel("duration(self.full) >= duration(self.start)", "full must not be below start"),
    )


class Spill(Struct, frozen=True, rename="camel"):
    """When requests leave a tier. Of several signals the highest decides; one that is unknown sends nobody away."""

    queued_per_endpoint: (
        Annotated[
            Ramp,
            doc("Requests leave by the number that wait in an engine, as its metrics say; the mean of this tier."),
        ]
        | None
    ) = None
    in_flight_per_endpoint: (
        Annotated[
            Ramp,
            doc("Requests leave by the number in flight per ready endpoint of this tier."),
        ]
        | None
    ) = None
    predicted_ttft: (
        Annotated[
            DurationRamp,
            doc(
                "Requests leave by the time to the first token that is predicted of a typical one: what is queued, "
                "and what is not cached of it, at the learned rate."
            ),
        ]
        | None
    ) = field(default=None, name="predictedTTFT")
    kv_cache_percent: (
        Annotated[
            PercentRamp,
            doc("Requests leave by the used part of the KV cache, as the metrics of the engines say."),
        ]
        | None
    ) = None
    error_percent: (
        Annotated[
            PercentRamp,
            doc(
                "Requests leave by the share of failed attempts in the window of `health.passive`, once there are "
                "`minRequests`."
            ),
        ]
        | None
    ) = None
    when_unavailable: Annotated[bool, doc("Requests leave when no endpoint of this tier is ready.")] = True
    smoothing: Annotated[
        Duration,
        doc("Time constant with which the share follows the signals. 0s follows them at once."),
    ] = "2s"
    min_dwell: Annotated[Duration, doc("Shortest time that a change of share downwards takes, against flapping.")] = (
        "10s"
    )
    by: Annotated[
        SpillBy,
        doc("Which requests leave first - whole sessions by their key, or single requests at random."),
    ] = "Key"

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "has(self.queuedPerEndpoint) || has(self.inFlightPerEndpoint) || has(self.predictedTTFT) || "
            "has(self.kvCachePercent) || has(self.errorPercent) || self.whenUnavailable",
            "at least one signal must be set",
        ),
    )


class Tier(Struct, frozen=True, rename="camel"):
    """Pools of equal preference."""

    name: Annotated[ObjectName, doc("Name of the tier, unique in the rule.")]
    pools: Annotated[
        tuple[PoolRef, ...],
        doc("The pools of this tier.", min_length=1, max_length=16),
        ATOMIC,
        checked(Cel("self.exists(p, p.weight > 0)", "at least one pool must have a weight above 0")),
    ]
    select: Annotated[
        Select,
        doc(
            "How one pool of several is chosen. Weighted is sticky by key, so that canary and A/B keep their "
            "users; InOrder takes the first that has a ready endpoint."
        ),
    ] = "Weighted"
    enter_on: Annotated[
        tuple[EnterOn, ...],
        doc(
            "Reasons that may bring a request here from the tier before. Ignored for the first tier.",
            min_length=1,
            max_length=8,
        ),
        SET,
    ] = ("Capacity", "Transient")
    spill: (
        Annotated[
            Spill,
            doc(
                "When requests leave this tier for the next one. The share that leaves rises from 0 at start "
                "to all at full."
            ),
        ]
        | None
    ) = None


class Rule(Struct, frozen=True, rename="camel"):
    """A list of tiers, and for which requests they are."""

    name: Annotated[ObjectName, doc("Name of the rule, unique in the policy.")]
    tiers: Annotated[
        tuple[Tier, ...],
        doc("Ordered. A request goes to the first tier that is open to it.", min_length=1, max_length=8),
        map_list("name"),
    ]
    when: (
        Annotated[
            str,
            doc(
                "CEL over the request, true or false. Absent means always; only the last rule may leave it out. "
                "Compiled by the operator, never by the API server.",
                min_length=1,
                max_length=2048,
            ),
        ]
        | None
    ) = None

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "size(self.tiers) == 0 || !has(self.tiers[size(self.tiers) - 1].spill)",
            "the last tier has no tier to spill to",
            ".tiers",
        ),
    )


class Timeouts(Struct, frozen=True, rename="camel"):
    """How long a request may take, step by step."""

    connect: Annotated[Duration, doc("Longest time to reach an endpoint.")] = "2s"
    first_byte: Annotated[
        Duration, doc("Longest time of one attempt until its first byte; includes waiting in the engine.")
    ] = "2m"
    stream_idle: Annotated[Duration, doc("Longest silence within an answer that has begun.")] = "1m"
    total: Annotated[Duration, doc("Longest time of the request with all its attempts.")] = "30m"

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "duration(self.total) >= duration(self.firstByte) && duration(self.firstByte) >= duration(self.connect)",
            "connect, firstByte and total must not decrease",
        ),
    )


class Retry(Struct, frozen=True, rename="camel"):
    """What is tried again, before the first byte of the answer."""

    attempts: Annotated[int, doc("Attempts of one request in all, the first one included.", ge=1, le=10), INT32] = 3
    retry_on: Annotated[
        tuple[RetryOn, ...],
        doc("Failures of the connection after which another endpoint is tried.", max_length=8),
        SET,
    ] = ("ConnectError", "Reset")
    retry_status_codes: Annotated[
        tuple[Annotated[int, Meta(ge=400, le=599), INT32], ...],
        doc("Status codes of an endpoint after which another one is tried.", max_length=32),
        SET,
    ] = (429, 500, 502, 503, 504, 529)
    budget_percent: Annotated[
        int,
        doc(
            "Largest share of retries among the requests of the last seconds, against storms of retries.",
            ge=0,
            le=100,
        ),
        INT32,
    ] = 20


class RoutePolicySpec(Struct, frozen=True, rename="camel"):
    """Intent: which requests go where, in which order."""

    models: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=253), pattern(r"^[^\s*?]*\*?$")], ...],
        doc(
            "Public names that clients put into the model field; a trailing * matches any rest. Exact beats "
            "longer prefix beats shorter. A name belongs to the oldest RoutePolicy that claims it on a "
            "gateway; a later claim is Accepted=False, reason ModelNameConflict.",
            min_length=1,
            max_length=64,
        ),
        SET,
    ]
    rules: Annotated[
        tuple[Rule, ...],
        doc(
            "The first rule whose condition holds decides. An expression that fails counts as not holding, and is "
            "counted.",
            min_length=1,
            max_length=16,
        ),
        map_list("name"),
    ]
    gateways: Annotated[
        tuple[ObjectName, ...],
        doc("Balancers (by their name) that serve this route.", min_length=1, max_length=16),
        SET,
    ] = ("default",)
    timeouts: Annotated[Timeouts, doc("How long a request may take, step by step.")] = field(default_factory=Timeouts)
    retry: Annotated[
        Retry,
        doc(
            "Applies until the first byte of the answer is sent on. A failed endpoint is not tried again by "
            "the same request."
        ),
    ] = field(default_factory=Retry)

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "size(self.rules) == 0 || self.rules.filter(r, !has(r.when)).size() == 0 || "
            "(self.rules.filter(r, !has(r.when)).size() == 1 && !has(self.rules[size(self.rules) - 1].when))",
            "only the last rule may leave out when",
            ".rules",
        ),
    )


class RoutePolicy(Struct, frozen=True, rename="camel", tag="RoutePolicy", tag_field="kind"):
    """Public model names and the tiers of pools that serve them."""

    metadata: ObjectMeta
    spec: Annotated[RoutePolicySpec, doc("Intent: which requests go where, in which order.")]
    api_version: str = API_VERSION

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "size(self.metadata.name) <= 63",
            "name must be at most 63 characters, so that it fits metric labels",
        ),
    )
