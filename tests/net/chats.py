"""A server of chat completions on a real socket, for tests in which a provider does as it pleases."""

from __future__ import annotations

from abc import ABC, abstractmethod

from aiohttp import web


class Chats(ABC):
    """Answers as `_chat` of who inherits it does."""

    def __init__(self) -> None:
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @abstractmethod
    async def _chat(self, request: web.Request) -> web.StreamResponse: ...
