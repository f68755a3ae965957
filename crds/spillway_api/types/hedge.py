"""A second attempt beside a slow first one."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Struct

from spillway_api.markup import INT32, Cel, doc
from spillway_api.types.fields import Duration


class Hedge(Struct, frozen=True, rename="camel"):
    """When a stream is asked for at a second endpoint, too. The first that has content is the answer."""

    after: Annotated[Duration, doc("Silence before the first token after which the second endpoint is asked.")]
    max_percent: Annotated[
        int,
        doc("Largest share of the tier's requests that are sent a second time.", ge=1, le=100),
        INT32,
    ] = 5

    RULES: ClassVar[tuple[Cel, ...]] = (Cel("duration(self.after) >= duration('10ms')", "after must be at least 10ms"),)
