"""One client's connection: aiohttp's request loop with the bounds that it leaves to its user.

Only public methods of `web.RequestHandler` are overridden. What is added: a deadline for the head of a request, a
client that reads slowly slows its endpoint, errors in OpenAI's shape, and no request bytes in a log.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import http_parser, web

from ..core.errors import ProtocolError
from .answer import Answer, Sent
from .relay import Exchange

log = logging.getLogger("spillway.http")

HEAD_SECONDS = 10.0
"""How long a client may take from the first byte of a request to the end of its headers."""

KEEP_ALIVE_SECONDS = 75.0
"""How long an idle client connection is kept; longer than the usual load balancer in front keeps its own (60 s)."""


def has_c_parser() -> bool:
    """Whether requests are read by llhttp. Where its extension does not load, aiohttp falls back without a word to a
    parser in Python, which is many times slower and reads some requests otherwise."""
    return http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy


class ClientConnection(web.RequestHandler):
    __slots__ = ("_busy", "_exchange", "_head_timer")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._busy = False
        self._exchange: Exchange | None = None
        self._head_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        if not self._busy and self._head_timer is None:
            loop = asyncio.get_running_loop()
            self._head_timer = loop.call_later(HEAD_SECONDS, self.force_close)
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def begun(self) -> None:
        """A request's head is here and its handler runs."""
        self._busy = True
        self._stop_head_timer()

    def done(self) -> None:
        self._busy = False

    def attach(self, exchange: Exchange | None) -> None:
        """The exchange that writes to this client now, so that back-pressure reaches its endpoint."""
        self._exchange = exchange

    def cut_short(self) -> None:
        """The balancer ends: a stream under way is told that it is cut."""
        if self._exchange is not None:
            self._exchange.cut_short()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._exchange is not None:
            self._exchange.resume()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A request that aiohttp's parser refused. Its message quotes the request, so ours does not."""
        self._stop_head_timer()
        answer = Answer(request.transport, keep_alive=False, old=False, head_only=False)
        error = ProtocolError("the request is not valid HTTP/1.1")
        error.status = status
        answer.error(error)
        return Sent(False)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        exc = kw.get("exc_info")
        log.error("request handling failed: %s", type(exc).__name__ if exc is not None else "unknown")

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Server(web.Server):
    """aiohttp's low-level server, making our connections."""

    def __init__(self, handler: Any, **kwargs: Any) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._connection_kwargs = kwargs

    def __call__(self) -> ClientConnection:
        return ClientConnection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=2.0,
            max_line_size=16 * 1024,
            max_field_size=32 * 1024,
            **self._connection_kwargs,
        )
