"""WebSockets of the config stream's server: how they begin, with which codes they end, and that no end lasts."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import sslproto
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import WSMsgType, web

from spillway_api import stream

CLOSE: Final = 1.0
"""Seconds for a peer to answer a close; then the connection is cut."""
BAD, FORBIDDEN, MISSING, LATE, REPLACED = 4400, 4403, 4404, 4408, 4409

TLS_BUFFER: Final = 32 << 10
"""Bytes that a connection with TLS has for what comes in; a record of TLS has half of that at the most."""


def lean() -> None:
    """Let connections with TLS take less memory, all of this process. asyncio gives each a buffer of 256 KiB, whatever
    comes in by it: with thousands of subscribers that is most of what the operator would need."""
    sslproto.SSLProtocol.max_size = TLS_BUFFER


class Rejected(Exception):
    """This connection cannot go on; `code` is the WebSocket's."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@contextlib.asynccontextmanager
async def upgraded(
    request: web.Request, largest: int, among: set[web.WebSocketResponse]
) -> AsyncIterator[web.WebSocketResponse]:
    """The WebSocket that a request becomes, which is `among` those that there are until it ends. `largest`: bytes of
    one message. A peer that has gone is no error: after a pause of this process they are many, and each of their pings
    is answered to nobody."""
    socket = web.WebSocketResponse(
        timeout=CLOSE,
        heartbeat=stream.HEARTBEAT,
        compress=False,  # it would cost every subscriber's copy anew
        max_msg_size=largest,
        protocols=(stream.LEASES,),
    )
    await socket.prepare(request)
    among.add(socket)
    try:
        with contextlib.suppress(ConnectionError):
            yield socket
    finally:
        among.discard(socket)


async def send(socket: web.WebSocketResponse, data: bytes) -> None:
    """Says something, or not: for what is said again."""
    with contextlib.suppress(TimeoutError, ConnectionError, RuntimeError):
        async with asyncio.timeout(2 * CLOSE):
            await socket.send_frame(data, WSMsgType.TEXT)


async def close(socket: web.WebSocketResponse, code: int, reason: str) -> None:
    """Closes with a code. A peer that takes nothing any more is cut off, when there is still something to take."""
    with contextlib.suppress(TimeoutError, ConnectionError, RuntimeError):
        async with asyncio.timeout(2 * CLOSE):
            await socket.close(code=code, message=reason.encode()[:120])
