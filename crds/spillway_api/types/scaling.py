"""The workload behind a pool, as far as it is woken from zero."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from spillway_api.markup import INT32, doc, pattern

FromZero = Literal["Disabled", "Wake"]


class ScaleTarget(Struct, frozen=True, rename="camel"):
    """An object of the pool's namespace that has a scale subresource."""

    api_version: Annotated[str, doc("Its apiVersion, such as apps/v1.", min_length=1, max_length=317)]
    kind: Annotated[str, doc("Its kind, such as Deployment.", min_length=1, max_length=63)]
    name: Annotated[
        str,
        doc("Its name.", min_length=1, max_length=253),
        pattern(r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"),
    ]


class Scaling(Struct, frozen=True, rename="camel"):
    """How the workload behind the pool is woken. It is never scaled down, and never when it has replicas."""

    target_ref: Annotated[ScaleTarget, doc("What has the pool's Pods; in the pool's namespace.")]
    from_zero: Annotated[
        FromZero,
        doc("Wake scales it up when a request wants the pool and it is at zero; Disabled leaves it alone."),
    ] = "Wake"
    wake_replicas: Annotated[int, doc("Replicas that it is woken to.", ge=1, le=1000), INT32] = 1
