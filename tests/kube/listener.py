"""A balancer as far as the operator knows one: it follows the config stream and acknowledges what it gets."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import aiohttp
from tests.kube.background import Background

from spillway_api import stream
from spillway_api.snapshot import Endpoint, Pool, Route, Snapshot, digest

Part = TypeVar("Part", Pool, Route)


class Listener(Background):
    """Subscribed from the start of the `with` block; connects again to whoever answers."""

    def __init__(self, ports: Callable[[], Sequence[int]], authority: Callable[[], str], token: str, gateway: str):
        """`ports`: of the operators on loopback, the ones to try first in front; `authority`: PEM to trust."""
        super().__init__()
        self._ports = ports
        self._authority = authority
        self._token = token
        self.gateway = gateway
        self.snapshot: Snapshot | None = None
        self.digest: str | None = None
        self.history: list[tuple[float, Snapshot]] = []
        """Each snapshot with the moment (time.monotonic) at which it had come."""
        self.holding = False
        """Whether what comes is kept from being acknowledged."""
        self.refusing = ""
        """The message with which what comes is refused."""
        self.port: int | None = None
        """Of the operator that it is connected to."""
        self.faults: list[str] = []
        self._report: stream.Report | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    def pools(self, namespace: str) -> Mapping[str, Pool]:
        """The pools of a namespace by their names in it."""
        return _of(namespace, self.snapshot.pools if self.snapshot else ())

    def routes(self, namespace: str) -> Mapping[str, Route]:
        return _of(namespace, self.snapshot.routes if self.snapshot else ())

    def endpoints(self, namespace: str, pool: str) -> Mapping[str, Endpoint]:
        """The endpoints of a pool by name; none while the pool is not served."""
        found = self.pools(namespace).get(pool)
        return {each.name: each for each in found.endpoints} if found else {}

    def since(self, holds: Callable[[Snapshot], bool], after: float = 0.0) -> float | None:
        """When the first snapshot came, after a moment, of which something holds."""
        return next((at for at, snapshot in self.history if at >= after and holds(snapshot)), None)

    def report(self, report: stream.Report) -> None:
        """Says so now and whenever it has connected anew."""
        self._report = report
        self._send(report)

    def move(self, ports: Callable[[], Sequence[int]]) -> None:
        """Leaves the operator that it is connected to, and connects to another."""
        self._ports = ports

        async def leave() -> None:
            if self._socket is not None:
                await self._socket.close()

        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(leave(), self._loop).result(10)

    def acknowledge(self) -> None:
        """Says that what it has is in force, after a time of `holding`."""
        self.holding = False
        if self.digest is not None:
            self._send(stream.Ack(self.digest))

    async def _main(self) -> None:
        self._begun.set()
        async with aiohttp.ClientSession(trust_env=False) as session:
            while True:
                for port in self._ports():
                    try:
                        await self._follow(session, port)
                    except Exception as error:  # whatever it is, a balancer comes again
                        self.faults.append(f"{port}: {error!r}")
                    finally:
                        self._socket = self.port = None
                await asyncio.sleep(0.1)

    async def _follow(self, session: aiohttp.ClientSession, port: int) -> None:
        trusted = ssl.create_default_context(cadata=self._authority())
        async with session.ws_connect(
            f"wss://127.0.0.1:{port}{stream.PATH}",
            headers={"Authorization": f"Bearer {self._token}"},
            ssl=trusted,
            server_hostname="localhost",
            heartbeat=stream.HEARTBEAT,
            max_msg_size=stream.MAX_BYTES,
        ) as socket:
            await socket.send_str(stream.encode(stream.Hello(self.gateway, self.digest, "test")).decode())
            self._socket, self.port = socket, port
            if self._report is not None:
                await socket.send_str(stream.encode(self._report).decode())
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    await self._take(socket, stream.from_operator(message.data))

    async def _take(self, socket: aiohttp.ClientWebSocketResponse, said: stream.FromOperator) -> None:
        if not isinstance(said, stream.Full | stream.Delta):
            return  # of loads and budgets it knows nothing
        if self.refusing:
            await socket.send_str(stream.encode(stream.Refused(said.digest, self.refusing)).decode())
            return
        if isinstance(said, stream.Delta):
            assert self.snapshot is not None
            snapshot = stream.applied(self.snapshot, said)
        else:
            snapshot = said.snapshot
        if digest(snapshot) != said.digest:
            raise ValueError(f"a snapshot that is not what its digest {said.digest} says")
        self.snapshot, self.digest = snapshot, said.digest
        self.history.append((time.monotonic(), snapshot))
        if not self.holding:
            await socket.send_str(stream.encode(stream.Ack(said.digest)).decode())

    def _send(self, message: stream.FromBalancer) -> None:
        async def send() -> None:
            if self._socket is not None:
                await self._socket.send_str(stream.encode(message).decode())

        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(send(), self._loop).result(10)


def _of(namespace: str, parts: Sequence[Part]) -> Mapping[str, Part]:
    return {part.name.split("/")[1]: part for part in parts if part.name.startswith(f"{namespace}/")}
