"""What goes out to one balancer: snapshots, one at a time and each acknowledged, and words beside them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, Literal, NamedTuple
from weakref import WeakValueDictionary

from aiohttp import WSMsgType, web

from spillway_api import stream
from spillway_api.sidecars import Asked, Offer
from spillway_api.snapshot import Snapshot

ACKNOWLEDGED: Final = 5.0
"""Seconds after which a message goes out though the last one was not acknowledged."""
MAX_WORDS: Final = 100
"""Of grants that a balancer does not take so many are kept; what is left out is granted again."""
SHARE: Final = 0.00025
"""Seconds between two snapshots to the same sidecar, for each sidecar that there is: of thousands, each gets what has
changed in half a second at once, so that a rollout does not take up the operator."""
AT_ONCE: Final = 100
"""Sidecars that are woken together; then others have their turn."""


class Version(NamedTuple):
    digest: str
    at: float
    snapshot: Snapshot


class Feed:
    """A snapshot as it changes, and what leads to it. Messages are kept, however many balancers want them."""

    def __init__(self, newest: Version) -> None:
        self._newest = newest
        self._messages: dict[str | None, bytes] = {}
        self._complained = ""

    @property
    def newest(self) -> Version:
        return self._newest

    def message(self, base: Version | None) -> bytes:
        """What leads from `base`, or from nothing, to the newest, as it goes over the wire."""
        digest, at, snapshot = self.newest
        known = self._messages.get(base and base.digest)
        if known is None:
            if base is None:
                known = stream.encode(stream.Full(digest, at, snapshot))
            else:
                known = stream.encode(stream.difference(base.snapshot, snapshot, base.digest, digest, at))
            self._messages[base and base.digest] = known = self._wrapped(known)
        return known

    def _wrapped(self, message: bytes) -> bytes:
        return message

    def complains(self, digest: str) -> bool:
        """Whether a refusal of this is the first one of the newest: of thousands, one is worth a line in the log."""
        news = digest == self.newest.digest != self._complained
        self._complained = self.newest.digest if news else self._complained
        return news

    def rest(self) -> float:
        """Seconds between two snapshots to the same balancer."""
        return 0.0

    def _put(self, version: Version) -> None:
        if version.digest != self._newest.digest:
            self._newest = version
            self._messages.clear()


class Gateway(Feed):
    """What a gateway's balancers shall serve from, and who they are."""

    def __init__(self, newest: Version) -> None:
        super().__init__(newest)
        self.connections: dict[str, Connection] = {}
        """Of the balancers that are the gateway, by their Pods' names."""
        self.sidecars: dict[str, Connection] = {}
        """By namespace/name of their Pods."""
        self._views: WeakValueDictionary[Asked, View] = WeakValueDictionary()
        self._offer: Offer | None = None
        self._offered: Version | None = None
        self._waking: Iterator[Connection] = iter(())

    def publish(self, version: Version) -> bool:
        if version.digest == self.newest.digest:
            return False
        self._put(version)
        for connection in self.connections.values():
            connection.wake.set()
        self._waking = iter(tuple(self.sidecars.values()))
        self._wake_some()
        return True

    def _wake_some(self) -> None:
        """Wakes all sidecars, as many at a time as do not hold up the others."""
        for connection in (some := tuple(islice(self._waking, AT_ONCE))):
            connection.wake.set()
        if some:
            asyncio.get_running_loop().call_soon(self._wake_some)

    @property
    def offer(self) -> Offer:
        """What of the newest snapshot is for sidecars."""
        if self._offer is None or self._offered is not self.newest:
            self._offer, self._offered = Offer(self.newest.snapshot, self._offer), self.newest
        return self._offer

    def view(self, asked: Asked) -> View:
        """Who asks for the same shares one; it is there as long as somebody holds it."""
        known = self._views.get(asked)
        if known is None:
            known = self._views[asked] = View(self, asked)
        return known

    @property
    def views(self) -> int:
        return len(self._views)


class View(Feed):
    """What sidecars with one question are given. It is made anew when somebody looks and the gateway's is another."""

    def __init__(self, gateway: Gateway, asked: Asked) -> None:
        self._gateway = gateway
        self._asked = asked
        self._source = gateway.newest
        super().__init__(self._made())

    @property
    def newest(self) -> Version:
        if self._source is not self._gateway.newest:
            self._source = self._gateway.newest
            self._put(self._made())
        return self._newest

    def rest(self) -> float:
        return SHARE * len(self._gateway.sidecars)

    def _wrapped(self, message: bytes) -> bytes:
        # TLS keeps a buffer of the largest message for each connection: a tenth of it a thousand times over is a lot.
        return stream.packed(message)

    def _made(self) -> Version:
        offer = self._gateway.offer
        snapshot = offer.view(self._asked)
        return Version(offer.digest(snapshot), self._source.at, snapshot)


class Connection:
    """One balancer's."""

    def __init__(self, socket: web.WebSocketResponse, balancer: str, feed: Feed, digest: str | None) -> None:
        self.socket = socket
        self.balancer = balancer
        self.feed = feed
        self.wake = asyncio.Event()
        self.wake.set()
        self._words = asyncio.Queue[bytes](MAX_WORDS)
        self._heard = asyncio.Event()
        self._heard.set()
        """Unset while the last message is not acknowledged."""
        newest = feed.newest
        self._base: Version | None = newest if digest == newest.digest else None
        self._sent = self._base.digest if self._base else None
        self._in_force = digest
        self._refused: str | None = None

    def heard(self, digest: str) -> None:
        """It has acknowledged a snapshot."""
        self._in_force, self._refused = digest, None
        if digest == self._sent:
            self._heard.set()

    def refuses(self, digest: str) -> None:
        """It cannot serve from a snapshot."""
        self._refused = digest
        self._base = None  # it may have thrown that away, or could not even read it: nothing may lean on it
        self._heard.set()

    @property
    def state(self) -> Literal["Current", "Behind", "Refused"]:
        """How what it serves from stands to what it should."""
        wanted = self.feed.newest.digest
        return "Current" if wanted == self._in_force else "Refused" if wanted == self._refused else "Behind"

    def say(self, data: bytes) -> None:
        """Something beside snapshots, soon."""
        with contextlib.suppress(asyncio.QueueFull):
            self._words.put_nowait(data)

    def share(self, data: bytes) -> bool:
        """The same, unless it has not taken yet what was said before: then it is told later what is new by then."""
        if not self._words.empty():
            return False
        self._words.put_nowait(data)
        return True

    async def send_words(self) -> None:
        """Sends what there is to say, for ever. Raises ConnectionError when the peer has gone."""
        while True:
            data = await self._words.get()
            await self.socket.send_frame(data, WSMsgType.BINARY if stream.is_packed(data) else WSMsgType.TEXT)

    async def send_all(self, count: Callable[[int], None]) -> None:
        """Sends what there is to send, for ever. Raises ConnectionError when the peer has gone."""
        while True:
            await self.wake.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ACKNOWLEDGED):
                    await self._heard.wait()
            self.wake.clear()
            newest = self.feed.newest
            if self._sent == newest.digest:
                continue
            data = self.feed.message(self._base)
            self._base, self._sent = newest, newest.digest
            self._heard.clear()
            count(len(data))
            await self.socket.send_frame(data, WSMsgType.BINARY if stream.is_packed(data) else WSMsgType.TEXT)
            if rest := self.feed.rest():
                await asyncio.sleep(rest)
