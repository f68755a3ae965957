"""What models there are, as a sidecar says it: as its gateway does, which knows of more, and who asks."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from ..core.runtime import Runtime
from ..wire.headers import response_headers
from .dialling import origin_of, way_of
from .forwarding import SIGNED, Forwarder
from .upstream import ConnectionPool, RawHeaders

PATH: Final = "/v1/models"
PATIENCE: Final = 2.0
"""Seconds until the sidecar says what it knows itself."""
MOST: Final = 8 << 20
"""Bytes of a list."""


class Listing(NamedTuple):
    """A gateway's answer."""

    status: int
    headers: RawHeaders
    body: bytes


class _Whole:
    """Receives an answer that is small."""

    def __init__(self) -> None:
        self.come: asyncio.Future[Listing | None] = asyncio.get_running_loop().create_future()
        self._head: tuple[int, RawHeaders] = 0, []
        self._body = bytearray()

    def head(self, status: int, headers: RawHeaders, length: int | None) -> None:
        self._head = status, headers

    def data(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > MOST:
            self._done(None)

    def end(self) -> None:
        status, headers = self._head
        self._done(
            Listing(status, response_headers(headers, ours=True), bytes(self._body)) if SIGNED in headers else None
        )

    def lost(self, error: Exception | None) -> None:
        self._done(None)

    def _done(self, listing: Listing | None) -> None:
        if not self.come.done():
            self.come.set_result(listing)


async def as_the_gateway_lists(
    connections: ConnectionPool, forwarder: Forwarder, runtime: Runtime, target: str, headers: RawHeaders
) -> Listing | None:
    """What the gateway answers to `GET target` with a client's headers; None where it does not in time."""
    pool = next((each for each in runtime.pools.values() if each.remote), None)
    endpoint = None if pool is None else next(iter(pool.endpoints.values()), None)
    if pool is None or endpoint is None:
        return None
    origin = origin_of(endpoint.url, way_of(pool.spec))
    whole = _Whole()
    try:
        async with asyncio.timeout(PATIENCE):
            connection = await connections.dial(origin, PATIENCE)
            try:
                connection.send(forwarder.lookup(target, origin, headers, PATIENCE), whole)
                return await whole.come
            finally:
                connection.release()
    except (OSError, TimeoutError):
        return None
