"""Signs of life for clients that wait for the first token of a stream, and for the proxies between."""

from __future__ import annotations

import asyncio

from .answer import Answer


class KeepAlive:
    """Comments on an answer after every `interval` seconds of silence until content comes. `stop` it on every path.

    The first comment goes out only after such a silence, so that what fails sooner has its own HTTP status still.
    """

    __slots__ = ("_answer", "_interval", "_loop", "_timer")

    def __init__(self, answer: Answer, interval: float) -> None:
        self._answer = answer
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(interval, self._tick)

    def _tick(self) -> None:
        answer = self._answer
        if answer.begun and not answer.opened:
            return  # content has come, and no comment will any more
        answer.comment(b"keep-alive")
        self._timer = self._loop.call_later(self._interval, self._tick)

    def stop(self) -> None:
        self._timer.cancel()
