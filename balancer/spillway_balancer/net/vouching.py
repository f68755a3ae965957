"""Whose tokens those are that sidecars show: the operator is asked over the config stream, and seldom.

A sidecar shows its token with each request that it sends on. A good answer counts for a minute and is renewed before
that is over, so that hardly any request waits for one; while nobody can be asked it counts for ten. Many requests with
one new token ask once. A token itself is kept for no longer than it is asked for: its SHA-256 stands for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple

from spillway_api.stream import FromBalancer, FromOperator, Vouched, Whose
from spillway_api.tokens import LONGEST, end_of

FRESH: Final = 60.0
"""Seconds for which a good answer is not asked for again, and wanted again before that after `SOON`."""
SOON: Final = 45.0
REFUSED: Final = 5.0
"""Seconds for which another answer counts, or that there was none."""
SILENT: Final = 0.1
"""Seconds for which a request does after a question that has had no answer at all, until there is one: the operator is
older than its gateway, or gone without a word."""
OUTAGE: Final = 600.0
"""Seconds for which a good answer counts as long as there is no other."""
PATIENCE: Final = 2.0
"""Seconds for which a question waits for its answer, and a request for that."""
BRIEFLY: Final = 0.5
"""Seconds for which the request of one that was known lately does."""
MOST: Final = 20_000
"""Good answers that are kept; beyond, the oldest go first. Of other answers it is a tenth."""
OPEN: Final = 50
"""Questions that are under way at a time; the others wait their turn."""
WAITING: Final = 5_000
"""Questions that do."""

State = Literal["Known", "Unknown", "Unavailable"]

Send = Callable[[FromBalancer], Awaitable[None]]


class _Answer(NamedTuple):
    state: State
    at: float
    """When it came, on our clock."""
    ends: float
    """When the token does, in seconds of Unix time."""


class _Question(NamedTuple):
    key: bytes
    token: str
    answered: asyncio.Future[State]


class Vouching:
    """Tokens by who vouches for them. `talk` on every connection to the operator, `hear` what it answers."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._good: dict[bytes, _Answer] = {}
        self._other: dict[bytes, _Answer] = {}
        self._asking: dict[bytes, _Question] = {}
        self._waiting: deque[_Question] = deque()
        self._open: dict[int, _Question] = {}
        self._numbers = 0
        self._listened = False
        """Whether there is somebody to ask."""
        self._silent = False
        """Whether the last question has had no answer."""
        self._news = asyncio.Event()

    async def state(self, token: str, patience: float = PATIENCE) -> State:
        """Whether the token is that of a Pod, as far as can be told within so many seconds."""
        if not token or len(token) > LONGEST or not token.isascii():
            return "Unknown"
        key = hashlib.sha256(token.encode()).digest()
        now = self._clock()
        good = self._good.get(key)
        if good is not None:
            if self._wall() >= good.ends:
                return "Unknown"
            age = now - good.at
            if age < FRESH:
                if age >= SOON and key not in self._asking and not self._lately(key, now):
                    self._ask(key, token)
                return "Known"
            if age >= OUTAGE:
                good = None
        state: State | None = None
        if (other := self._lately(key, now)) is not None:
            state = other.state
        elif (answered := self._ask(key, token)) is not None:
            longest = SILENT if self._silent else PATIENCE if good is None else BRIEFLY
            try:
                async with asyncio.timeout(min(patience, longest)):
                    state = await asyncio.shield(answered)
            except TimeoutError:
                state = None
        if state in ("Known", "Unknown"):
            return state
        return "Known" if good is not None else "Unavailable"

    async def talk(self, send: Send) -> None:
        """Ask the operator until cancelled. Raises ConnectionError."""
        loop = asyncio.get_running_loop()
        self._listened, self._silent = True, False
        try:
            while True:
                while self._waiting and len(self._open) < OPEN:
                    question = self._waiting.popleft()
                    self._numbers += 1
                    self._open[self._numbers] = question
                    loop.call_later(PATIENCE, self._unanswered, self._numbers)
                    await send(Whose(self._numbers, question.token))
                self._news.clear()
                await self._news.wait()
        finally:
            self._listened = False
            for question in (*self._open.values(), *self._waiting):
                self._answered(question, "Unavailable")
            self._open.clear()
            self._waiting.clear()

    def hear(self, said: FromOperator) -> None:
        """What the operator says."""
        if isinstance(said, Vouched):
            self._silent = False
            self._close(said.number, said.state)

    def _unanswered(self, number: int) -> None:
        """So much time has gone since it was asked. An older operator never answers."""
        if self._close(number, "Unavailable"):
            self._silent = True

    def _close(self, number: int, state: State) -> bool:
        """Whether the question was open."""
        question = self._open.pop(number, None)
        if question is None:
            return False
        self._answered(question, state)
        self._news.set()
        return True

    def _lately(self, key: bytes, now: float) -> _Answer | None:
        """What was answered just now, and was not good."""
        other = self._other.get(key)
        return other if other is not None and now - other.at < REFUSED else None

    def _ask(self, key: bytes, token: str) -> asyncio.Future[State] | None:
        """One question however many ask it; None when nobody can be asked."""
        question = self._asking.get(key)
        if question is None:
            if not self._listened or len(self._waiting) >= WAITING:
                return None
            question = _Question(key, token, asyncio.get_running_loop().create_future())
            self._asking[key] = question
            self._waiting.append(question)
            self._news.set()
        return question.answered

    def _answered(self, question: _Question, state: State) -> None:
        key, token, answered = question
        self._asking.pop(key, None)
        now = self._clock()
        if state == "Known":
            _keep(self._good, key, _Answer(state, now, end_of(token)), MOST)
            self._other.pop(key, None)
        else:
            if state == "Unknown":
                self._good.pop(key, None)
            _keep(self._other, key, _Answer(state, now, 0.0), MOST // 10)
        if not answered.done():
            answered.set_result(state)


def _keep(answers: dict[bytes, _Answer], key: bytes, answer: _Answer, most: int) -> None:
    answers.pop(key, None)  # so that the oldest is always the first
    answers[key] = answer
    while len(answers) > most:
        del answers[next(iter(answers))]
