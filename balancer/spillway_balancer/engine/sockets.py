"""Rudeness below HTTP: connections that are reset or fall silent.

Transports are cast, not checked: uvloop's have the methods of asyncio's and are none of their classes.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

_LINGER_0 = struct.pack("ii", 1, 0)


def reset(transport: asyncio.BaseTransport | None) -> None:
    """Close with a TCP RST instead of a FIN: lingering for 0 seconds throws away what is buffered."""
    if transport is None or transport.is_closing():
        return
    held = transport.get_extra_info("socket")
    held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    cast(asyncio.WriteTransport, transport).abort()


async def hang(seconds: float | None) -> None:
    """Do nothing for so long, or until cancelled because the client has gone."""
    await asyncio.sleep(seconds if seconds is not None else 10**9)


class ResetOnAccept(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        reset(transport)


class SilentOnAccept(asyncio.Protocol):
    """Accepts and says nothing; after `seconds`, if any, the connection is handed to the server proper.

    Reading is paused, but uvloop starts to read only after `connection_made`, so the first bytes may come here.
    """

    def __init__(self, seconds: float | None, server: Callable[[], asyncio.Protocol]) -> None:
        self._seconds = seconds
        self._server = server
        self._wake: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.pause_reading()
        if self._seconds is not None:
            loop = asyncio.get_running_loop()
            self._wake = loop.call_later(self._seconds, self._hand_over, self._transport)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if self._transport is not None:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._wake is not None:
            self._wake.cancel()

    def _hand_over(self, transport: asyncio.Transport) -> None:
        server = self._server()
        transport.set_protocol(server)
        server.connection_made(transport)
        if self._heard:
            server.data_received(self._heard)
        transport.resume_reading()
