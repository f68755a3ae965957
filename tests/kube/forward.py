"""Carries connections between two places: forward.py LISTEN CONNECT, each tcp:HOST:PORT or unix:PATH.

A Unix socket is reached by its path from any network namespace, which is how a server in a namespace without a way
out is reached from this machine's loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carries one direction; its end is told to the other side, which may go on."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def main(listen: str, connect: str) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind, _, rest = connect.partition(":")
        try:
            if kind == "unix":
                far_reader, far_writer = await asyncio.open_unix_connection(rest)
            else:
                host, _, port = rest.rpartition(":")
                far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        far_writer.close()
        writer.close()

    kind, _, rest = listen.partition(":")
    if kind == "unix":
        server = await asyncio.start_unix_server(carry, rest)
    else:
        host, _, port = rest.rpartition(":")
        server = await asyncio.start_server(carry, host, int(port))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
