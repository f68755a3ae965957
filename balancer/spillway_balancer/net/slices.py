"""Long work in small steps, so that requests have their turn in between."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from time import monotonic
from typing import Final, TypeVar, cast

SECONDS: Final = 0.001
"""For which it may hold the loop."""

Made = TypeVar("Made")


async def made(work: Generator[None, None, Made]) -> Made:
    """What comes of it, without holding up the loop while it is made."""
    begun = monotonic()
    while True:
        try:
            next(work)
        except StopIteration as done:
            return cast(Made, done.value)
        if monotonic() - begun > SECONDS:
            await asyncio.sleep(0)
            begun = monotonic()
