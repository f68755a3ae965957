"""examples/fakes.yaml with the servers that its comment starts: where requests go, and what that costs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any

import pytest
from tests.net.staging import EXAMPLES

from spillway_balancer.engine.faults import Status
from spillway_balancer.engine.server import EngineServer
from spillway_balancer.provider.books import Prices
from spillway_balancer.provider.faults import parse
from spillway_balancer.provider.keys import Key
from spillway_balancer.provider.server import ProviderServer
from spillway_balancer.provider.state import Settings

TEXT = (EXAMPLES / "fakes.yaml").read_text()
STARTED = re.findall(r"#   spillway provider --type (\w+) --port (\d+) --key (\S+) --price (\S+)", TEXT)


@pytest.fixture
async def place(serve: Any) -> AsyncIterator[tuple[Any, EngineServer, dict[str, ProviderServer]]]:
    """The balancer, the engine, and the fakes by type, with keys and prices as the comment has them."""
    async with AsyncExitStack() as stack:
        engine = EngineServer(models=["meta-llama/Llama-3.1-8B-Instruct"], speed=100.0)
        await stack.enter_async_context(engine)
        text = TEXT.replace("127.0.0.1:18001", f"127.0.0.1:{engine.port}")
        fakes = {}
        for type, port, key, price in STARTED:
            fake = ProviderServer(Settings(type, (Key.read(key),), prices=(Prices.read(price),)))
            fakes[type] = await stack.enter_async_context(fake)
            text = text.replace(f"127.0.0.1:{port}", fake.url.removeprefix("http://"))
        yield await serve(docs=[text], secrets=EXAMPLES / "secrets"), engine, fakes


async def test_own_engines_first_then_the_cheaper_provider_then_the_other(place: Any, dial: Any) -> None:
    lb, engine, fakes = place
    client = await dial(lb)

    async def pool() -> str:
        reply = await client.chat([("x-spillway-explain", "1")], max_tokens=20)
        assert reply.status == 200
        return str(reply.header("x-spillway-pool"))

    assert await pool() == "default/llama-8b"
    await engine.set_faults([Status(status=503)])
    assert await pool() == "default/openai"
    fakes["openai"].state.set_faults(parse('{"kind": "error", "error": "quota-exhausted"}'), 0.0)
    assert await pool() == "default/claude"
    await lb.until(lambda: lb.in_flight == 0)
    books = {type: Decimal(fake.state.books.shown()["amount"]) for type, fake in fakes.items()}
    assert min(books.values()) > 0
    for type, name in (("openai", "openai"), ("anthropic", "claude")):
        assert round(Decimal(lb.sample("spillway_cost_total", pool=f"default/{name}")), 12) == books[type]


def test_the_comment_starts_what_the_pools_name() -> None:
    assert [type for type, *_ in STARTED] == ["anthropic", "openai"]
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", TEXT)) == {"18001", *(port for _, port, *_ in STARTED)}
