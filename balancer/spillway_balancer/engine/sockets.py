"""Rudeness below HTTP: connections that are reset or fall silent."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

_LINGER_0 = struct.pack("ii", 1, 0)


def reset(transport: asyncio.BaseTransport | None) -> None:
    """Close with a TCP RST instead of a FIN: lingering for 0 seconds throws away what is buffered."""
    if transport is None or transport.is_closing():
        return
    held = transport.get_extra_info("socket")
    held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    assert isinstance(transport, asyncio.WriteTransport)
    transport.abort()


async def hang(seconds: float | None) -> None:
    """Do nothing for so long, or until cancelled because the client has gone."""
    await asyncio.sleep(seconds if seconds is not None else 10**9)


class ResetOnAccept(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        reset(transport)


class SilentOnAccept(asyncio.Protocol):
    """Accepts and reads nothing; after `seconds`, if any, the connection is handed to the server proper."""

    def __init__(self, seconds: float | None, server: Callable[[], asyncio.Protocol]) -> None:
        self._seconds = seconds
        self._server = server
        self._wake: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        if self._seconds is not None:
            loop = asyncio.get_running_loop()
            self._wake = loop.call_later(self._seconds, self._hand_over, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._wake is not None:
            self._wake.cancel()

    def _hand_over(self, transport: asyncio.Transport) -> None:
        server = self._server()
        transport.set_protocol(server)
        server.connection_made(transport)
        transport.resume_reading()
