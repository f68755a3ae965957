"""What callers may decide for themselves, by headers of their requests."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from spillway_api.markup import SET, doc

Override = Literal["Rule", "Pool", "NoFallback"]


class Overrides(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What callers may decide for themselves, and which callers."""

    allow: Annotated[
        tuple[Override, ...],
        doc(
            "Rule is the header x-spillway-rule, Pool is x-spillway-pool, NoFallback is x-spillway-no-fallback. Any "
            "other of them is answered with 403.",
            min_length=1,
            max_length=3,
        ),
        SET,
    ]
    when: (
        Annotated[
            str,
            doc(
                "CEL over the request: for which callers. Absent means all. One without a value allows nothing.",
                min_length=1,
                max_length=2048,
            ),
        ]
        | None
    ) = None
