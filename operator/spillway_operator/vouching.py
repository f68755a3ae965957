"""The operator's word for sidecars: gateways ask whose the tokens are that they have been shown.

The API server is asked by a TokenReview, with the audience that only gateways are of. Any Pod may show a gateway
whatever it likes, so neither how many are asked at a time nor how many in a minute is left to gateways.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from spillway_api.stream import AT_GATEWAY, Vouched, Whose

from .cluster import ApiError, Object
from .identity import Identity, Reviewer, Unavailable, Unknown

AT_ONCE: Final = 16
"""Reviews under way."""
PER_SECOND: Final = 200.0
"""Reviews in the long run: so many new Pods a second, or ten thousand that are looked at anew each minute."""
BURST: Final = 5_000.0
"""And at once, as all sidecars are new to an operator that has just begun."""
OPEN: Final = 100
"""Questions of one gateway's balancer that are under way at a time; beyond, nobody can be asked."""

_log = logging.getLogger(__name__)


class Vouching:
    """Answers questions. `hear` each one."""

    def __init__(self, cluster: Reviewer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._identity = Identity(Bounded(cluster, clock), AT_GATEWAY)
        self._open: dict[tuple[str, str], int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def hear(self, gateway: str, balancer: str, asked: Whose, say: Callable[[Vouched], None]) -> None:
        """A balancer asks, and is answered by `say`, now or soon."""
        who = gateway, balancer
        if self._open.get(who, 0) >= OPEN:
            say(Vouched(asked.number, "Unavailable"))
            return
        self._open[who] = self._open.get(who, 0) + 1
        task = asyncio.get_running_loop().create_task(self._answer(who, asked, say))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, who: tuple[str, str], asked: Whose, say: Callable[[Vouched], None]) -> None:
        try:
            say(await self._vouched(asked))
        finally:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]

    async def _vouched(self, asked: Whose) -> Vouched:
        try:
            caller = await self._identity(asked.token)
        except Unavailable:
            return Vouched(asked.number, "Unavailable")
        except Unknown:
            return Vouched(asked.number, "Unknown")
        except Exception as error:
            _log.error("bug: a token could not be looked at: %s", type(error).__name__)  # its text may hold the token
            return Vouched(asked.number, "Unavailable")
        if not caller.pod:
            return Vouched(asked.number, "Unknown")  # a sidecar's token is bound to its Pod, and ends with it
        return Vouched(asked.number, "Known", caller.namespace, caller.pod)


class Bounded:
    """A reviewer that is asked no more than it can take."""

    def __init__(self, cluster: Reviewer, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._left = BURST
        self._at = clock()

    async def review_token(self, token: str, audience: str) -> Object:
        """Raises ApiError, as the reviewer does, where that would be one too many."""
        now = self._clock()
        self._left = min(BURST, self._left + (now - self._at) * PER_SECOND)
        self._at = now
        if self._left < 1.0:
            raise ApiError(429, "TooManyRequests", "more tokens are new than may be asked for")
        self._left -= 1.0
        async with self._at_once:
            return await self._cluster.review_token(token, audience)
