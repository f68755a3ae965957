"""How a policy names a pool, and which of its models is meant."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from spillway_api.markup import doc
from spillway_api.types.fields import ObjectName


class PoolName(Struct, frozen=True, rename="camel"):
    """A pool, and one of its models."""

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
