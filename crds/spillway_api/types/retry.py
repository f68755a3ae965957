"""How long a request may take, and what of it is tried again."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from spillway_api.markup import INT32, SET, Cel, doc
from spillway_api.types.fields import Duration
from spillway_api.types.price import Money

RetryOn = Literal["ConnectError", "Reset", "FirstByteTimeout"]
Jitter = Literal["Full", "Equal", "None"]


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
    backoff_base: Annotated[
        Duration,
        doc(
            "Longest pause before the first retry at an endpoint that was overloaded or broke, when no other is left; "
            "doubles with every failure. To another endpoint a request goes at once."
        ),
    ] = "50ms"
    backoff_max: Annotated[Duration, doc("Longest pause, however many retries there were.")] = "2s"
    jitter: Annotated[
        Jitter,
        doc(
            "How much of the pause is left to chance, so that those who failed together do not return together - all "
            "of it, half of it, or nothing."
        ),
    ] = "Full"
    budget_percent: Annotated[
        int,
        doc(
            "Largest share of retries among the requests of the last seconds, against storms of retries.",
            ge=0,
            le=100,
        ),
        INT32,
    ] = 20
    max_retry_after: Annotated[
        Duration,
        doc(
            "A Retry-After up to this long is waited for, when no other account, pool or tier is left; a longer one "
            "goes to the client."
        ),
    ] = "1s"
    max_cost: (
        Annotated[
            Money,
            doc(
                "What all attempts of one request may cost together. Before each its cost is estimated, with an answer "
                "as long as it may be, and one that could bring the request above this is not sent. Models without a "
                "price cost nothing, those with one in another currency are not used."
            ),
        ]
        | None
    ) = None

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel("duration(self.backoffMax) >= duration(self.backoffBase)", "backoffMax must not be below backoffBase"),
    )
