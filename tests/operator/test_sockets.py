"""Ends of WebSockets at the operator."""

from __future__ import annotations

import asyncio
import socket
import struct

from aiohttp import web

from spillway_operator.sockets import upgraded

PING = bytes((0x89, 0x80, 0, 0, 0, 0))
"""Of a client, with a mask (RFC 6455, section 5.5.2)."""
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nhost: it\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


async def test_who_has_asked_for_an_answer_and_gone_is_no_error(caplog) -> None:
    """As thousands may have while this process was paused."""
    among: set[web.WebSocketResponse] = set()
    ended = asyncio.Event()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        async with upgraded(request, 1000, among) as one:  # type: ignore[arg-type]
            async for _ in one:
                pass
        ended.set()
        return one

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        assert len(among) == 1
        own = writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset in place of an end
        writer.write(PING * 3)
        writer.transport.abort()
        async with asyncio.timeout(10):
            await ended.wait()
        assert not among
        assert not [each for each in caplog.records if each.name == "aiohttp.server"]
    finally:
        await runner.cleanup()
