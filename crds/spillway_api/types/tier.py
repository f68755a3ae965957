"""A tier: pools of equal preference, how one of them is chosen, what may enter and what leaves."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from spillway_api.markup import ATOMIC, INT32, SET, Cel, checked, doc
from spillway_api.types.fields import ObjectName
from spillway_api.types.hedge import Hedge
from spillway_api.types.limits import Limits
from spillway_api.types.poolname import PoolName
from spillway_api.types.price import Money
from spillway_api.types.spill import Spill

Select = Literal["Weighted", "Cheapest", "Fastest", "HighestThroughput", "Quality", "InOrder"]
EnterOn = Literal["Capacity", "Transient", "Auth", "Config", "ContextLength", "ContentPolicy", "Budget"]


class PoolRef(PoolName, frozen=True, rename="camel"):
    """A pool as a tier uses it."""

    weight: Annotated[
        int,
        doc("Share of the tier's requests, relative to its other pools. 0 takes none.", ge=0, le=1000),
        INT32,
    ] = 100


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
            "users; InOrder takes the first that has a ready endpoint. Cheapest goes by what the request is expected "
            "to cost, Fastest by when its answer is expected to end, HighestThroughput by tokens a second of an "
            "answer, Quality by qualityPercent; what is unknown comes last, or is tried first where it can be "
            "measured. Sessions stay unless another pool is clearly better."
        ),
    ] = "Weighted"
    min_quality_percent: (
        Annotated[
            int,
            doc(
                "Only models of at least this quality take part. One that declares no qualityPercent does not.",
                ge=0,
                le=100,
            ),
            INT32,
        ]
        | None
    ) = None
    max_cost: (
        Annotated[
            Money,
            doc(
                "Only models that are expected to serve the request for at most this take part, its whole prompt at "
                "the full price. One without a price, or with one in another currency, does not."
            ),
        ]
        | None
    ) = None
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
    hedge: (
        Annotated[
            Hedge,
            doc(
                "Streamed completions that are slow to begin are sent to a second endpoint of this tier, too; the one "
                "that loses is ended at once. Absent, none is."
            ),
        ]
        | None
    ) = None
    limits: Annotated[Limits, doc("What may enter this tier.")] | None = None
