"""What budgets have spent, on disk, so that a process that starts anew does not begin with full ones.

Written at most once a second, in a thread, and only when something has changed; at the end of the process once more.
What is under way counts as it was estimated: should the process be killed, it is not known what it came to. So a crash
forgets at most what was let in within its last second. A disk that is full stops nothing, as with `saved.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from decimal import Decimal, InvalidOperation
from pathlib import Path
from time import time
from typing import Final, NamedTuple

import msgspec

from ..core.meters import Spend
from ..core.prices import EXACT, NOTHING
from ..core.runtime import Runtime
from ..core.spends import counted
from .saved import replace

log = logging.getLogger("spillway.config")

FILE: Final = "spent.json"
PAUSE: Final = 1.0
"""Seconds between two looks."""
MOST: Final = Decimal(10) ** 12
"""No budget has spent so much: what says so is no file of ours."""


class Spent(msgspec.Struct, frozen=True):
    """Money spent in one period."""

    ends: float
    """When that is over, in seconds since 1970."""
    amount: str


class _Book(NamedTuple):
    ends: float
    amount: Decimal


def read(folder: Path) -> dict[str, Spent]:
    """By the names of budgets. What cannot be read is logged, and nothing is spent then."""
    try:
        found = msgspec.json.decode((folder / FILE).read_bytes(), type=dict[str, Spent])
        for each in found.values():
            amount = Decimal(each.amount)
            if not (amount.is_finite() and 0 <= amount < MOST):
                raise ValueError("an amount is none")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, InvalidOperation) as error:
        log.warning("%s cannot be read, and budgets begin anew: %s", folder / FILE, error)
        return {}
    return found


class Spending:
    """Keeps the money of a runtime in a folder. `follow` every runtime; `run` until the end, then `close`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found = read(folder)
        """Of budgets that have not come up yet: one may be in a file that is not there just now."""
        self._spends: dict[str, Spend] = {}
        self._written: dict[str, Spent] = dict(self._found)
        self._failing = False

    def follow(self, runtime: Runtime) -> None:
        """The budgets of this runtime count from now on, with what was spent before in the same period."""
        now = time()
        gone = {name: _book(spend, now) for name, spend in self._spends.items()}
        self._spends = counted(runtime)
        for name, book in gone.items():
            if name not in self._spends:
                self._found[name] = Spent(book.ends, f"{book.amount:f}")
        for name, spend in self._spends.items():
            known = self._found.pop(name, None)
            if known is not None:
                spend.restore(now, known.ends, Decimal(known.amount))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(PAUSE)
            await self._keep()

    async def close(self) -> None:
        """Write what it has come to."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * PAUSE):
                await self._keep()

    def now(self) -> dict[str, Spent]:
        """What is spent of each budget that has spent something."""
        now = time()
        books = {name: _book(spend, now) for name, spend in self._spends.items()}
        told = {name: Spent(book.ends, f"{book.amount:f}") for name, book in books.items() if book.amount > NOTHING}
        return {name: each for name, each in self._found.items() if each.ends > now} | told

    async def _keep(self) -> None:
        spent = self.now()
        if spent == self._written:
            return
        data = msgspec.json.encode(spent, order="deterministic")
        try:
            await asyncio.to_thread(replace, self._folder, FILE, data)
        except OSError as error:
            if not self._failing:
                log.warning("what budgets have spent cannot be kept in %s: %s", self._folder, error.strerror)
            self._failing = True
            return
        if self._failing:
            log.info("what budgets have spent is kept in %s again", self._folder)
        self._failing = False
        self._written = spent


def _book(spend: Spend, now: float) -> _Book:
    ends = spend.ends(now)
    return _Book(ends, EXACT.add(spend.spent, spend.reserved))
