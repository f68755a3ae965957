"""The operator's own pages: is it alive, is it ready, how is it doing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from .metrics import CONTENT_TYPE, Metrics

STUCK_SECONDS = 120.0
"""A reconcile that takes longer will not end: every call in it has a time limit far below."""


class Health:
    """Answers /healthz, /readyz and /metrics.

    A watch that the API server has forgotten is not looked for here: a quiet one gets a bookmark every minute, and
    kopf opens one anew that gets nothing at all for `settings.silence`. What no reconnect mends is a task of
    the operator that has ended or hangs; that is what `alive` tells.
    """

    def __init__(
        self, metrics: Metrics, alive: Callable[[], str], ready: Callable[[], str], refresh: Callable[[], None]
    ) -> None:
        """`alive` and `ready` give what is wrong, or nothing; `refresh` sets gauges before a scrape."""
        self._metrics = metrics
        self._alive = alive
        self._ready = ready
        self._refresh = refresh

    async def start(self, host: str, port: int) -> web.AppRunner:
        """Serve until the runner is cleaned up."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._page)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        return runner

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer(self._alive())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self._ready())

    async def _page(self, _: web.Request) -> web.Response:
        self._refresh()
        page = await asyncio.get_running_loop().run_in_executor(None, self._metrics.page)
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE})


def _answer(wrong: str) -> web.Response:
    return web.Response(text=f"{wrong}\n" if wrong else "ok\n", status=503 if wrong else 200)
