"""Fake providers on loopback, and the official clients that they must satisfy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from spillway_balancer.provider.books import Prices
from spillway_balancer.provider.server import ProviderServer
from spillway_balancer.provider.state import Settings

Fake = Callable[..., Awaitable[ProviderServer]]
PRICES = Prices(Decimal(3), Decimal("0.3"), Decimal("3.75"), Decimal(15), Decimal(6))


@pytest.fixture
async def fake() -> AsyncIterator[Fake]:
    """Starts fakes, whose models m cost PRICES; stops them after the test."""
    servers: list[ProviderServer] = []

    async def start(type: str, **settings: Any) -> ProviderServer:
        server = ProviderServer(Settings(type, **{"prices": (("m", PRICES),)} | settings))
        servers.append(server)
        await server.start()
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def chats() -> AsyncIterator[Callable[..., openai.AsyncOpenAI]]:
    """OpenAI's client of a fake, without retries of its own."""
    clients: list[openai.AsyncOpenAI] = []

    def connect(server: ProviderServer, key: str = "fake-key") -> openai.AsyncOpenAI:
        clients.append(openai.AsyncOpenAI(base_url=server.base_url, api_key=key, max_retries=0))
        return clients[-1]

    yield connect
    for client in clients:
        await client.close()


@pytest.fixture
async def claudes() -> AsyncIterator[Callable[..., anthropic.AsyncAnthropic]]:
    """Anthropic's client of a fake, without retries of its own."""
    clients: list[anthropic.AsyncAnthropic] = []

    def connect(server: ProviderServer, key: str = "fake-key") -> anthropic.AsyncAnthropic:
        clients.append(anthropic.AsyncAnthropic(base_url=server.base_url, api_key=key, max_retries=0))
        return clients[-1]

    yield connect
    for client in clients:
        await client.close()


async def bill(session: aiohttp.ClientSession, server: ProviderServer) -> dict[str, Any]:
    """The books, as anybody reads them."""
    async with session.get(f"{server.url}/books") as response:
        books: dict[str, Any] = await response.json()
        return books
