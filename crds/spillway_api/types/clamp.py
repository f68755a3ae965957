"""Changes that a rule makes to its requests: they lower what a client asked for, and never raise it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from spillway_api.markup import INT32, doc

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high"]
"""Rising."""


class Clamp(Struct, frozen=True, rename="camel", omit_defaults=True):
    """The most that the requests of a rule may ask for."""

    max_output_tokens: (
        Annotated[
            int,
            doc(
                "The most tokens of an answer. A higher limit of the client is lowered; without one, this is it.", ge=1
            ),
            INT32,
        ]
        | None
    ) = None
    reasoning_effort: (
        Annotated[
            ReasoningEffort,
            doc("The most effort on reasoning. A request that names none counts as medium, which models default to."),
        ]
        | None
    ) = None
