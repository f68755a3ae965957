"""A loop whose clock stands still while something is to do and jumps to the next timer when nothing is."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Jumping(asyncio.SelectorEventLoop):
    """For code that waits and has no sockets: a day passes in no time, and always alike."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__()

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready:
            due = [timer.when() for timer in self._scheduled if not timer.cancelled()]
            assert due, "everybody waits and nobody will wake them"
            self.now = max(self.now, min(due))
        super()._run_once()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=Jumping) as runner:
        return runner.run(coroutine)
