"""What a client that has asked for a stream sees while it waits for it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Struct

from spillway_api.markup import Cel, doc
from spillway_api.types.fields import Duration


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

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.keepAlive) || duration(self.keepAlive) >= duration('100ms')",
            "keepAlive must be at least 100ms",
        ),
    )
