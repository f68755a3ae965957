"""What a follower tells the leader: how the balancers do that are connected to it.

Every replica serves the stream, but only the leader writes a status, and for that it must know of all subscribers.
So each follower keeps one WebSocket to the leader: `GET /v1/relay` beside the stream, with the operator's own token.
It says all that it has when it connects, and from then on what is new, some times a second at the most. What comes back
is what the leader grants to balancers that have told it what they spend, which is passed on, and what gateways have
scraped that are elsewhere, for the sidecars that are here. When the connection ends, the leader forgets what it said.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import aiohttp
import msgspec
from msgspec import Struct

from spillway_api.ledger import Books, Grants
from spillway_api.snapshot import decode_with
from spillway_api.stream import HEARTBEAT, Loads, Report

from .certificates import trust_in
from .sharing import LEADER, Sharing
from .subscribers import OWN, Subscriber

PATH: Final = "/v1/relay"
PACE: Final = 0.2
"""Seconds between two messages."""
BATCH: Final = 200
"""Subscribers in one message at the most."""
CONNECT: Final = 10.0
"""Seconds for connection, handshake and upgrade."""
AGAIN: Final = (0.5, 10.0)
"""Seconds until the next try after a failure: first and longest; the wait doubles in between."""

_log = logging.getLogger(__name__)


class Seen(Struct, frozen=True, rename="camel"):
    """A Subscriber as a follower tells of it."""

    gateway: str
    balancer: str
    digest: str | None = None
    refused: tuple[str, str] | None = None
    report: Report | None = None
    sidecar: bool = False


class Gone(Struct, frozen=True, rename="camel"):
    """A balancer that is no longer connected."""

    gateway: str
    balancer: str


class Brought(Struct, frozen=True, rename="camel"):
    """What a balancer has spent, as it says."""

    gateway: str
    balancer: str
    books: Books


class Shared(Struct, frozen=True, rename="camel"):
    """What a gateway's balancer has scraped."""

    gateway: str
    balancer: str
    loads: Loads


class Told(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One message of a follower."""

    here: tuple[Seen, ...] = ()
    gone: tuple[Gone, ...] = ()
    books: tuple[Brought, ...] = ()
    loads: tuple[Shared, ...] = ()
    sidecars: dict[str, int] | None = None
    """By gateway; None as before."""


class Passed(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One message of the leader's: for a balancer of the follower's, or what one has said that is elsewhere."""

    gateway: str = ""
    balancer: str = ""
    grants: Grants | None = None
    loads: Loads | None = None
    sidecars: dict[str, int] | None = None
    """By gateway, those of all other replicas; None as before."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Told)
_passed = msgspec.json.Decoder(Passed)


def encode(message: Told | Passed) -> bytes:
    """One text message."""
    return _encoder.encode(message)


def decode(data: str | bytes) -> Told:
    """What a follower says. Raises msgspec.DecodeError."""
    return decode_with(_decoder, data)


def seen(subscriber: Subscriber) -> Seen:
    """As it goes over the wire."""
    return Seen(
        subscriber.gateway,
        subscriber.balancer,
        subscriber.digest,
        subscriber.refused,
        subscriber.report,
        subscriber.sidecar,
    )


def subscriber(one: Seen) -> Subscriber:
    """As the leader keeps it."""
    return Subscriber(one.balancer, one.gateway, one.digest, one.refused, one.report, one.sidecar)


class Local(Protocol):
    """What is needed of the StreamServer."""

    def follow_local(self, follower: Callable[[str, str], None]) -> None: ...
    def local_keys(self) -> Collection[tuple[str, str]]: ...
    def local(self, gateway: str, balancer: str) -> Subscriber | None: ...
    def follow_books(self, reader: Callable[[str, str, str, Books], None]) -> None: ...
    def grant(self, source: str, gateway: str, balancer: str, grants: Grants) -> None: ...
    @property
    def sharing(self) -> Sharing: ...


class Relay:
    """A follower's connection to whoever leads."""

    def __init__(
        self,
        server: Local,
        leader: Callable[[], str | None],
        authority: Callable[[], bytes],
        service: str,
        token_file: Path,
    ) -> None:
        """`leader`: host:port of the one that leads, None when nobody is known to or when it is this replica.

        `authority`: PEM of what its certificate is checked against; `service`: the name that must stand in it.
        `token_file`: a token of our own ServiceAccount for the stream's audience, read for each connection.
        """
        self._server = server
        self._leader = leader
        self._authority = authority
        self._service = service
        self._token_file = token_file
        self._dirty: set[tuple[str, str]] = set()
        self._news = asyncio.Event()
        self._moved = asyncio.Event()
        self.connected = False
        """Whether a leader is being told."""
        self.connections = 0
        self._books: dict[tuple[str, str], Books] = {}
        server.follow_local(self._note)
        server.follow_books(self._note_books)
        self._loads: list[Shared] = []
        self._counted = False
        server.sharing.follow(self._note_loads, self._note_counts)

    def leader_changed(self) -> None:
        """To be called when `leader` may say something else than before."""
        self._moved.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        pause, said = AGAIN[0], ""
        async with aiohttp.ClientSession(trust_env=False) as session:
            while True:
                self._moved.clear()
                address = self._leader()
                if address is None or not self._authority():
                    await self._until_moved(AGAIN[1] if address is None else AGAIN[0])
                    continue
                before = self.connections
                try:
                    await self._tell(session, address)
                    pause, said = AGAIN[0], ""
                except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as error:
                    if self.connections > before:
                        pause, said = AGAIN[0], ""
                    told = f"cannot tell the leader at {address} of our subscribers: {_why(error)}"
                    if told != said:  # once, not for every try
                        _log.warning("%s; trying again", told)
                    said = told
                    await self._until_moved(random.uniform(pause / 2, pause))
                    pause = min(2 * pause, AGAIN[1])

    async def _tell(self, session: aiohttp.ClientSession, address: str) -> None:
        """One connection, until the leader is another. Raises when it ends before that."""
        async with contextlib.AsyncExitStack() as stack:
            moved = asyncio.create_task(self._until_elsewhere(address))
            connecting = asyncio.create_task(self._connect(session, address))
            stack.push_async_callback(_end, (moved, connecting))
            await asyncio.wait((moved, connecting), return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                return  # the address of a Pod that is gone swallows all that is sent there
            socket = connecting.result()
            stack.push_async_callback(socket.close)
            # Whatever is told from now on is either in the whole state or dirty.
            self._dirty = set(self._server.local_keys())
            self._loads = [Shared(*each) for each in self._server.sharing.known(lambda way: way == OWN)]
            self._counted = True
            stack.callback(self._server.sharing.count, LEADER, {})
            self._news.set()
            self.connected = True
            self.connections += 1
            stack.callback(setattr, self, "connected", False)
            speaker = asyncio.create_task(self._speak(socket))
            ears = asyncio.create_task(self._listen(socket))
            stack.push_async_callback(_end, (speaker, ears))
            done, _ = await asyncio.wait((speaker, ears, moved), return_when=asyncio.FIRST_COMPLETED)
            if moved in done:
                return
            if speaker in done:
                await speaker
            raise aiohttp.ClientConnectionError(f"the leader closed the connection ({socket.close_code})")

    async def _connect(self, session: aiohttp.ClientSession, address: str) -> aiohttp.ClientWebSocketResponse:
        headers = {"Authorization": f"Bearer {_read(self._token_file)}"}
        async with asyncio.timeout(CONNECT):
            return await session.ws_connect(
                f"wss://{address}{PATH}",
                headers=headers,
                ssl=trust_in(self._authority()),
                server_hostname=self._service,
                heartbeat=HEARTBEAT,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )

    async def _speak(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            await self._news.wait()
            for told in self._news_so_far():
                await socket.send_frame(encode(told), aiohttp.WSMsgType.TEXT)
            await asyncio.sleep(PACE)

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Until the other has gone."""
        async for message in socket:
            with contextlib.suppress(msgspec.DecodeError, TypeError):  # of a newer leader
                passed = decode_with(_passed, message.data)
                if passed.grants is not None:
                    self._server.grant(OWN, passed.gateway, passed.balancer, passed.grants)
                if passed.loads is not None:
                    self._server.sharing.hear(LEADER, passed.gateway, passed.balancer, passed.loads)
                if passed.sidecars is not None:
                    self._server.sharing.count(LEADER, passed.sidecars)

    def _news_so_far(self) -> Iterator[Told]:
        self._news.clear()
        books, self._books = self._books, {}
        if books:
            yield Told(books=tuple(Brought(*key, each) for key, each in books.items()))
        loads, self._loads = self._loads, []
        counted, self._counted = self._counted, False
        if loads or counted:
            yield Told(loads=tuple(loads), sidecars=self._server.sharing.own() if counted else None)
        keys, self._dirty = iter(self._dirty), set()
        while batch := list(islice(keys, BATCH)):
            here, gone = [], []
            for gateway, balancer in batch:
                one = self._server.local(gateway, balancer)
                if one is None:
                    gone.append(Gone(gateway, balancer))
                else:
                    here.append(seen(one))
            yield Told(tuple(here), tuple(gone))

    def _note(self, gateway: str, balancer: str) -> None:
        self._dirty.add((gateway, balancer))
        self._news.set()

    def _note_books(self, source: str, gateway: str, balancer: str, books: Books) -> None:
        if source == OWN and self.connected:
            self._books[gateway, balancer] = books
            self._news.set()

    def _note_loads(self, way: str, gateway: str, balancer: str, loads: Loads) -> None:
        if way == OWN and self.connected:
            self._loads.append(Shared(gateway, balancer, loads))
            self._news.set()

    def _note_counts(self) -> None:
        self._counted = True
        self._news.set()

    async def _until_elsewhere(self, address: str) -> None:
        while self._leader() == address:
            self._moved.clear()
            await self._moved.wait()

    async def _until_moved(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._moved.wait()


def _why(error: Exception) -> str:
    """In short, and the same for the same. Of a connection that fails, aiohttp's text has an object's address."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error)
    return str(error) or type(error).__name__  # aiohttp's say address and status, no header


async def _end(tasks: Collection[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _read(token_file: Path) -> str:
    token = token_file.read_text("ascii").strip()
    if not token or any(character.isspace() for character in token):
        raise ValueError(f"{token_file} holds no token")
    return token
