"""Where requests wait that no tier is open to: how many, how long, and in which order they are served."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from spillway_api.markup import INT32, INT64, doc, pattern
from spillway_api.types.fields import Duration

Fairness = Literal["None", "Consumer", "Session"]


class Queue(Struct, frozen=True, rename="camel"):
    """What may wait for a tier to open, on each balancer and for each rule."""

    max_requests: Annotated[
        int,
        doc("Requests that may wait at a time, for each rule. 0 turns waiting off.", ge=0, le=1000000),
        INT32,
    ] = 1000
    max_bytes: Annotated[
        int,
        doc("Bytes of the bodies of those that wait, for each rule.", ge=0),
        INT64,
    ] = 268435456
    max_wait: Annotated[Duration, doc("Longest time that a request waits.")] = "30s"
    cold_start_max_wait: Annotated[
        Duration, doc("Longest time that a request waits for a pool that is scaled to zero.")
    ] = "10m"
    fairness: Annotated[
        Fairness,
        doc(
            "Between whom turns are taken among requests of one priority - consumers (without any, those who hold the "
            "same credential, else come from the same address), sessions (by the key of the pool), or nobody, in the "
            "order they came."
        ),
    ] = "Consumer"


class Priority(Struct, frozen=True, rename="camel"):
    """Who is served first of those that wait. A higher number goes before a lower one, always."""

    default: Annotated[int, doc("Priority of a request that says nothing.", ge=-1000, le=1000), INT32] = 0
    header: (
        Annotated[
            str,
            doc(
                "Header that may lower the priority; raising it needs a consumer that is allowed to.",
                max_length=64,
            ),
            pattern(r"^[-A-Za-z0-9]+$"),
        ]
        | None
    ) = None
