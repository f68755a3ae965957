"""`spillway provider`: run one fake provider until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

from .books import Prices
from .families import FAMILIES
from .faults import parse
from .keys import Key
from .quotas import Limits
from .server import ProviderServer
from .state import Pace, Settings


def run_provider(
    *,
    type: str,
    host: str = "127.0.0.1",
    port: int = 9000,
    keys: Sequence[str] = (),
    models: Sequence[str] = (),
    prices: Sequence[str] = (),
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    first_token: float = 0.3,
    tokens_per_second: float = 80.0,
    context: int = 200_000,
    faults: str | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. `ready` is called with what a person wants to know, once it listens.

    Raises ValueError for a bad setting, OSError when the port is taken.
    """
    if type not in FAMILIES:
        raise ValueError(f"--type {type!r}: use one of {', '.join(FAMILIES)}")
    default = Settings(type)
    settings = Settings(
        type,
        tuple(Key.read(each) for each in keys) or default.keys,
        tuple(models),
        tuple(Prices.read(each) for each in prices),
        Limits(requests_per_minute, tokens_per_minute),
        Pace(first_token, 1 / tokens_per_second if tokens_per_second else 0.0),
        context,
        parse(faults) if faults else (),
    )
    asyncio.run(_serve(ProviderServer(settings, host=host, port=port), ready))


async def _serve(server: ProviderServer, ready: Callable[[str], None] | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    if ready is not None:
        ready(introduction(server))
    await stop.wait()
    await server.stop()


def introduction(server: ProviderServer) -> str:
    """What to type: the base URL, the keys, a request that works as printed, and where the bill is."""
    settings, family = server.settings, server.state.family
    key = settings.keys[0]
    model = settings.models[0] if settings.models else settings.prices[0][0] if settings.prices else "any-model"
    said = '{"role": "user", "content": "Hello"}'
    header = f"-H 'authorization: Bearer {key.secret}'"
    url, body = f"{server.base_url}/chat/completions", f'{{"model": "{model}", "messages": [{said}]}}'
    if family.auth == "api-key":
        header = f"-H 'api-key: {key.secret}'"
    if family.api == "messages":
        header = f"-H 'x-api-key: {key.secret}' -H 'anthropic-version: 2023-06-01'"
        url, body = f"{server.url}/v1/messages", f'{{"model": "{model}", "max_tokens": 64, "messages": [{said}]}}'
    elif family.api == "converse":
        url, body = (
            f"{server.url}/model/{model}/converse",
            '{"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}',
        )
        if ":" in key.secret:
            id, secret = key.secret.split(":")[:2]
            header = f"--aws-sigv4 aws:amz:us-east-1:bedrock --user {id}:{secret}"
    lines = [
        f"fake {family.type} on {server.base_url}, with the keys of {', '.join(each.name for each in settings.keys)}",
        f"curl {url} -H 'content-type: application/json' {header} -d '{body}'",
        f"books: {server.url}/books   faults: PUT {server.url}/sim/faults",
    ]
    return "\n".join(lines)
