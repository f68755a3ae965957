"""Loads over the config stream: a gateway tells what it scrapes, and a sidecar hears it and scrapes nothing.

`core/sharing.py` says what is worth telling, `core/hearsay.py` what is made of it. Here it is told when it is time: as
often as the operator asks for it, which it does as long as there are sidecars; at once that an endpoint has gone or is
unhealthy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

from spillway_api.stream import FromBalancer, FromOperator, Loads, Share

from ..core.hearsay import Hearsay
from ..core.runtime import Runtime
from ..core.sharing import Sharing
from .slices import made

log = logging.getLogger("spillway.loads")

LOOK: Final = 0.2
"""Seconds between two looks at what cannot wait."""
LAPSE: Final = 1.0
"""Seconds between two looks whether what was heard still holds."""

Send = Callable[[FromBalancer], Awaitable[None]]


class Teller:
    """A gateway's: says what it scrapes, as long as somebody wants to know."""

    def __init__(self, runtime: Callable[[], Runtime], asked: Callable[[bool], None]) -> None:
        """`asked` is told whether somebody wants to know."""
        self._runtime = runtime
        self._asked = asked
        self._seconds = 0.0
        self._news = asyncio.Event()

    def hear(self, said: FromOperator) -> None:
        if isinstance(said, Share):
            self._seconds = said.seconds
            self._news.set()

    async def talk(self, send: Send) -> None:
        self._seconds = 0.0
        while True:
            self._news.clear()
            if self._seconds <= 0.0:
                await self._news.wait()
                continue
            self._asked(True)
            try:
                await self._tell(send)
            finally:
                self._asked(False)

    async def _tell(self, send: Send) -> None:
        """Until nobody wants to know."""
        sharing = Sharing()
        at = float("-inf")
        while self._seconds > 0.0:
            now = monotonic()
            due = now - at >= self._seconds
            try:
                news = await made(sharing.news(self._runtime().pools, now, due))
            except Exception as error:  # else nothing would be told any more, and nobody would know why
                log.error("bug: loads could not be told: %s", type(error).__name__)
                sharing = Sharing()
                news = None
            if news is not None:
                await send(news)
                at = now if due else at
            await asyncio.sleep(min(LOOK, self._seconds))


class Listener:
    """A sidecar's: what gateways have scraped is what it knows of loads."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime
        self._hearsay = Hearsay()
        self._said: deque[tuple[Loads, float]] = deque()
        self._news = asyncio.Event()

    def hear(self, said: FromOperator) -> None:
        if isinstance(said, Loads):
            self._said.append((said, monotonic()))
            self._news.set()

    async def talk(self, send: Send) -> None:
        """It has nothing to say."""

    async def watch(self) -> None:
        """Until cancelled: takes what is said, and what was heard too long ago does not hold any more."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAPSE):
                    await self._news.wait()
            self._news.clear()
            try:
                while self._said:
                    loads, at = self._said.popleft()
                    await made(self._hearsay.heard(loads, self._runtime().pools, at))
                self._hearsay.lapse(self._runtime().pools, monotonic())
            except Exception as error:  # else nothing would be heard any more, and nobody would know why
                log.error("bug: what was heard of loads could not be taken: %s", type(error).__name__)
