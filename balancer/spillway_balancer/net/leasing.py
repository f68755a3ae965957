"""Leases of budgets, over the config stream: what this balancer tells of its spending, and what it is granted.

`core/leases.py` keeps the books. Here they are told: when something has changed, twice a second at most; at once when a
request has needed more than there was; else every few seconds, since an operator that has just begun to lead knows of
nobody. On leaving what is not used is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from decimal import Decimal
from time import monotonic, time
from typing import Final

from spillway_api import stream
from spillway_api.ledger import Books, Grants

from ..core.leases import Ledger
from ..core.runtime import Runtime
from ..core.spends import shared

log = logging.getLogger("spillway.budgets")

LOOK: Final = 0.1
"""Seconds between two looks at the books."""
PACE: Final = 0.5
"""Between two messages, where nobody has been kept out."""
STILL: Final = 1.0
"""Between two that say the same, as long as somebody is."""
ANYWAY: Final = 5.0
"""Between two that say the same, else."""
GOODBYE: Final = 1.0
"""For the last one."""

Send = Callable[[Books], Awaitable[None]]


class Leasing:
    """The leases of this process. `follow` every runtime; `talk` on every connection."""

    def __init__(self) -> None:
        # A process is somebody new each time: what the one before was granted is its own.
        self._ledger = Ledger(secrets.token_hex(8))
        self._send: Send | None = None

    def follow(self, runtime: Runtime) -> None:
        self._ledger.follow(shared(runtime), time())

    def leased(self) -> dict[str, tuple[Decimal, Decimal]]:
        """What is spent, and what may be, by budget."""
        return self._ledger.leased(time())

    async def talk(self, spoken: bool, send: Send) -> None:
        """Tell the operator until cancelled, if leases are spoken there. Raises ConnectionError."""
        if spoken != self._ledger.leasing:
            log.warning("budgets are %s", "leased" if spoken else "counted by each balancer: this operator leases none")
        self._ledger.lease(spoken, time())
        if not spoken:
            return
        self._send = send
        told: Books | None = None
        at = -ANYWAY
        try:
            while True:
                now = monotonic()
                try:
                    books = self._ledger.books(now, time())
                except Exception as error:  # else nothing would be granted any more, and nobody would know why
                    log.error("bug: the books of budgets could not be made: %s", type(error).__name__)
                    await asyncio.sleep(ANYWAY)
                    continue
                fresh, short = books != told, self._ledger.short
                wait = (0.0 if short else PACE) if fresh else STILL if short else ANYWAY
                if books.budgets and now - at >= wait:
                    await send(books)
                    told, at = books, now
                await asyncio.sleep(LOOK)
        finally:
            self._send = None

    def hear(self, said: stream.FromOperator) -> None:
        """A message of the operator's."""
        if isinstance(said, Grants):
            self._ledger.take(said, time())

    async def leave(self) -> None:
        """Nobody is let in any more: give back what is not used, if somebody listens."""
        self._ledger.leave(time())
        books = self._ledger.books(monotonic(), time())
        if self._send is not None and books.budgets:
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(GOODBYE):
                    await self._send(books)
