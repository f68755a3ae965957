"""Simulated engines on loopback for the tests of this folder, and a raw client that sees every byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import openai
import pytest
import uvloop

from spillway_balancer.engine.faults import parse
from spillway_balancer.engine.server import EngineServer

Serve = Callable[..., Awaitable[EngineServer]]


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What goes down to the socket is tested on both event loops: their transports differ."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name == "test_engine_streams.py":
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts engines, `faults` given as JSON text or plain data; stops them after the test."""
    servers: list[EngineServer] = []

    async def start(**settings: Any) -> EngineServer:
        faults = settings.pop("faults", None)
        if faults is not None:
            settings["faults"] = parse(json.dumps(faults))
        server = EngineServer(**{"name": "e1", "speed": 100.0} | settings)
        servers.append(server)
        await server.start()
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def sdk() -> AsyncIterator[Callable[..., openai.AsyncOpenAI]]:
    """The official client, without retries of its own."""
    clients: list[openai.AsyncOpenAI] = []

    def client(server: EngineServer, key: str = "unused") -> openai.AsyncOpenAI:
        clients.append(openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0))
        return clients[-1]

    yield client
    for one in clients:
        await one.close()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits until something is so, on another side of a socket; at most ten seconds."""

    async def wait(so: Callable[[], bool]) -> None:
        for _ in range(5000):
            if so():
                return
            await asyncio.sleep(0.002)
        raise AssertionError("it never came to be so")

    return wait


class Raw:
    """One connection; what comes back is given as it came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def ask(self, method: str, path: str, body: Any = None, version: str = "1.1") -> None:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/{version}\r\nHost: engine\r\nContent-Length: {len(data)}\r\n\r\n"
        self.writer.write(head.encode() + data)

    def chat(self, **more: Any) -> None:
        body = {"model": "demo", "messages": [{"role": "user", "content": "hello"}]} | more
        self.ask("POST", "/v1/chat/completions", body)

    async def until(self, mark: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(mark), 10)

    async def everything(self, silence: float = 10) -> tuple[bytes, Exception | None]:
        """All there is until the end, and how it ended: a reset, silence for so many seconds, or None for a close."""
        got = b""
        try:
            while data := await asyncio.wait_for(self.reader.read(65536), silence):
                got += data
        except (ConnectionResetError, TimeoutError) as error:
            return got, error
        return got, None

    async def rest(self) -> bytes:
        """All there is until the server closes in order; ConnectionResetError when it does not."""
        return await asyncio.wait_for(self.reader.read(), 10)


@pytest.fixture
async def raw() -> AsyncIterator[Callable[[EngineServer], Awaitable[Raw]]]:
    writers: list[asyncio.StreamWriter] = []

    async def connect(server: EngineServer) -> Raw:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writers.append(writer)
        return Raw(reader, writer)

    yield connect
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)
