"""When requests leave a tier for the next one: ramps over signals of load."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Struct, field

from spillway_api.markup import INT32, Cel, doc
from spillway_api.types.fields import Duration

SpillBy = Literal["Key", "Request"]
WhenCold = Literal["Hold", "Spill", "HoldThenSpill"]

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
    when_cold: Annotated[
        WhenCold,
        doc(
            "Tier scaled to zero - wake it and meanwhile hold requests, spill them, or hold up to holdFor and then "
            "spill."
        ),
    ] = "Spill"
    hold_for: Annotated[Duration, doc("How long HoldThenSpill holds a request.")] = "5s"
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
