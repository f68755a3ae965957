"""What goes out to one balancer: snapshots, one at a time and each acknowledged, and words beside them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, NamedTuple

from aiohttp import WSMsgType, web

from spillway_api import stream
from spillway_api.snapshot import Snapshot

ACKNOWLEDGED: Final = 5.0
"""Seconds after which a message goes out though the last one was not acknowledged."""
MAX_WORDS: Final = 100
"""Of grants that a balancer does not take so many are kept; what is left out is granted again."""


class Version(NamedTuple):
    digest: str
    at: float
    snapshot: Snapshot


class Gateway:
    """What a gateway's balancers shall serve from, and who they are."""

    def __init__(self, newest: Version) -> None:
        self.newest = newest
        self.connections: dict[str, Connection] = {}
        self._messages: dict[str | None, bytes] = {}

    def publish(self, version: Version) -> bool:
        if version.digest == self.newest.digest:
            return False
        self.newest = version
        self._messages.clear()
        for connection in self.connections.values():
            connection.wake.set()
        return True

    def message(self, base: Version | None) -> bytes:
        """What leads from `base`, or from nothing, to the newest."""
        digest, at, snapshot = self.newest
        known = self._messages.get(base and base.digest)
        if known is None:
            if base is None:
                known = stream.encode(stream.Full(digest, at, snapshot))
            else:
                known = stream.encode(stream.difference(base.snapshot, snapshot, base.digest, digest, at))
            self._messages[base and base.digest] = known
        return known


class Connection:
    """One balancer's."""

    def __init__(self, socket: web.WebSocketResponse, balancer: str, gateway: Gateway, digest: str | None) -> None:
        self.socket = socket
        self.balancer = balancer
        self.gateway = gateway
        self.wake = asyncio.Event()
        self.wake.set()
        self._words = asyncio.Queue[bytes](MAX_WORDS)
        self._heard = asyncio.Event()
        self._heard.set()
        """Unset while the last message is not acknowledged."""
        self._base: Version | None = gateway.newest if digest == gateway.newest.digest else None
        self._sent = self._base.digest if self._base else None

    def heard(self, digest: str, *, refused: bool) -> None:
        """It has acknowledged a snapshot or refused it."""
        if refused:
            self._base = None  # it may have thrown that away, or could not even read it: nothing may lean on it
        if refused or digest == self._sent:
            self._heard.set()

    def say(self, data: bytes) -> None:
        """Something beside snapshots, soon."""
        with contextlib.suppress(asyncio.QueueFull):
            self._words.put_nowait(data)

    async def send_words(self) -> None:
        """Sends what there is to say, for ever. Raises ConnectionError when the peer has gone."""
        while True:
            await self.socket.send_frame(await self._words.get(), WSMsgType.TEXT)

    async def send_all(self, count: Callable[[int], None]) -> None:
        """Sends what there is to send, for ever. Raises ConnectionError when the peer has gone."""
        while True:
            await self.wake.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ACKNOWLEDGED):
                    await self._heard.wait()
            self.wake.clear()
            newest = self.gateway.newest
            if self._sent == newest.digest:
                continue
            data = self.gateway.message(self._base)
            self._base, self._sent = newest, newest.digest
            self._heard.clear()
            count(len(data))
            await self.socket.send_frame(data, WSMsgType.TEXT)
