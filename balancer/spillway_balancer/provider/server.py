"""A fake provider on a socket."""

from __future__ import annotations

import asyncio
from types import TracebackType

from aiohttp import web

from . import serving
from .families import Family
from .serving import PROVIDER, gate
from .state import ProviderState, Settings

MOST_BYTES = 32 << 20
"""Of a request, as Anthropic has it; the others allow more."""


class ProviderServer:
    """Port 0 takes a free one; `url` says which, after `start`. `async with` starts and stops it."""

    def __init__(self, settings: Settings, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.settings = settings
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self.state: ProviderState

    @property
    def url(self) -> str:
        """The server's address, without a path."""
        return f"http://{self._host}:{self._port}"

    @property
    def base_url(self) -> str:
        """What an SDK is given."""
        return self.url + self.state.family.base

    async def start(self) -> None:
        """Listen; OSError when the port is taken."""
        self.state = ProviderState(self.settings, asyncio.get_running_loop().time())
        app = web.Application(middlewares=[gate], client_max_size=MOST_BYTES)
        app[PROVIDER] = self.state
        app.add_routes(_routes(self.state.family))
        # A client that leaves cancels its handler, and the answer is made no further.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, backlog=1024)
        try:
            await site.start()
        except OSError:
            await self.stop()
            raise
        self._port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Idempotent."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> ProviderServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _routes(family: Family) -> list[web.RouteDef]:
    base = family.served
    routes = [
        web.get("/health", serving.health),
        web.get("/books", serving.books),
        web.post("/sim/reset", serving.reset),
        web.get("/sim/faults", serving.show_faults),
        web.put("/sim/faults", serving.set_faults),
        web.delete("/sim/faults", serving.clear_faults),
    ]
    if family.api == "chat":
        routes += [web.post(f"{base}/chat/completions", serving.chat), web.get(f"{base}/models", serving.models)]
        if family.embeds:
            routes.append(web.post(f"{base}/embeddings", serving.embeddings))
    elif family.api == "messages":
        routes += [
            web.post("/v1/messages", serving.messages),
            web.post("/v1/messages/count_tokens", serving.count_tokens),
            web.get("/v1/models", serving.models),
        ]
    else:
        routes += [
            web.post("/model/{model}/converse", serving.converse),
            web.post("/model/{model}/converse-stream", serving.converse),
        ]
    return routes
