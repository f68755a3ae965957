"""Who is calling: a ServiceAccount token becomes a Caller by the API server's TokenReview, which is asked rarely.

Thousands of balancers that come back at once must not become thousands of reviews, and an outage of the API server
must not cut off those that were known before it. A token itself is nowhere kept: its SHA-256 stands for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol

from spillway_api.tokens import LONGEST, end_of

from .cluster import ApiError, Object

FRESH: Final = 60.0
"""Seconds for which a good answer is not asked for again."""
REFUSED: Final = 5.0
"""Seconds for which a bad one is not."""
OUTAGE: Final = 600.0
"""Seconds for which a good answer counts as long as the API server gives none."""
PATIENCE: Final = 2.0
"""Seconds for which one that was known well waits to be known again, so that an API server that does not answer at
all holds up only strangers."""
MOST: Final = 20_000
"""Tokens that are known at a time; beyond, the oldest answers go first."""

_POD: Final = "authentication.kubernetes.io/pod-name"
_ACCOUNT: Final = "system:serviceaccount:"


class Caller(NamedTuple):
    """A Pod that runs as a ServiceAccount."""

    namespace: str
    service_account: str
    pod: str
    """Name of the Pod that the token is bound to; empty for a token that is bound to none."""
    uid: str
    """Of the ServiceAccount."""


class Unknown(Exception):
    """The token is nobody's, or for another audience: 401."""


class Unavailable(Exception):
    """The API server cannot say whose token it is, and has not said lately: 503."""


class Reviewer(Protocol):
    """What is needed of a Cluster."""

    async def review_token(self, token: str, audience: str) -> Object: ...


class _Answer(NamedTuple):
    caller: Caller | None
    at: float
    """When it was asked, on our clock."""
    ends: float
    """When the token does, in seconds of Unix time."""


class Identity:
    """Callers by their tokens. `await identity(token)` raises Unknown or Unavailable."""

    def __init__(
        self,
        cluster: Reviewer,
        audience: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._audience = audience
        self._clock = clock
        self._wall = wall
        self._known: dict[bytes, _Answer] = {}
        self._asking: dict[bytes, asyncio.Task[_Answer]] = {}

    async def __call__(self, token: str) -> Caller:
        """The caller that a token is of."""
        if not token or len(token) > LONGEST or not token.isascii():
            raise Unknown
        key = hashlib.sha256(token.encode()).digest()
        known = self._known.get(key)
        if known is None or not self._fresh(known):
            trusted = known is not None and known.caller is not None and self._clock() - known.at < OUTAGE
            try:
                async with asyncio.timeout(PATIENCE if trusted else None):
                    known = await self._ask(key, token)
            except (ApiError, TimeoutError):
                if known is None or not trusted:
                    raise Unavailable from None
        if known.caller is None or self._wall() >= known.ends:
            raise Unknown
        return known.caller

    def _fresh(self, answer: _Answer) -> bool:
        return self._clock() - answer.at < (REFUSED if answer.caller is None else FRESH)

    def _ask(self, key: bytes, token: str) -> Awaitable[_Answer]:
        """One review however many ask for it; one of them that goes away takes it from nobody."""
        task = self._asking.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._review(key, token))
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        return asyncio.shield(task)

    def _asked(self, key: bytes, task: asyncio.Task[_Answer]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # told to those who wait, if anybody still does

    async def _review(self, key: bytes, token: str) -> _Answer:
        at = self._clock()
        caller = caller_of(await self._cluster.review_token(token, self._audience), self._audience)
        answer = _Answer(caller, at, end_of(token) if caller is not None else float("inf"))
        self._known.pop(key, None)  # so that the oldest answer is always the first
        self._known[key] = answer
        while len(self._known) > MOST or self._clock() - self._known[next(iter(self._known))].at >= OUTAGE:
            del self._known[next(iter(self._known))]
        return answer


def caller_of(status: Object, audience: str) -> Caller | None:
    """Whom a TokenReview's status tells of; None unless it is a ServiceAccount with a token for the audience."""
    if status.get("authenticated") is not True or audience not in (status.get("audiences") or ()):
        return None
    user: dict[str, Any] = status.get("user") or {}
    namespace, _, account = str(user.get("username", "")).removeprefix(_ACCOUNT).partition(":")
    if not str(user.get("username", "")).startswith(_ACCOUNT) or not namespace or not account:
        return None
    pods = (user.get("extra") or {}).get(_POD) or [""]
    return Caller(namespace, account, str(pods[0]), str(user.get("uid", "")))


Authenticate = Callable[[str], Awaitable[Caller]]
"""What a server asks; raises Unknown or Unavailable."""
