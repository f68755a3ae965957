"""What a client that has asked for a stream sees while it waits for it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Struct

from spillway_api.markup import Cel, doc
from spillway_api.types.fields import Duration

Resume = Literal["Never", "SameModel"]


class Streams(Struct, frozen=True, rename="camel"):
    """Streamed answers."""

    keep_alive: (
        Annotated[
            Duration,
            doc(
                "After so much silence before the first token the answer is begun with status 200 and a comment, and "
                "another comment follows each time, while attempts go on; a failure is then told by an error event. "
                "Absent, nothing is sent before the first token."
            ),
        ]
        | None
    ) = None

    resume: Annotated[
        Resume,
        doc(
            "What becomes of a chat completion that its engine cuts off after the first token. SameModel goes on "
            "with it at another endpoint of the pool, where that is exact in form and the engine is known to be vLLM "
            "or SGLang; Never ends it with an error event."
        ),
    ] = "Never"

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.keepAlive) || duration(self.keepAlive) >= duration('100ms')",
            "keepAlive must be at least 100ms",
        ),
    )
