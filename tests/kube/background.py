"""Work beside a test: a coroutine on a thread of its own, and a TCP line that a test may cut or hush."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

Address = tuple[str, int]


class Background:
    """Runs `_main` on an event loop of its own for the time of the `with` block."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._thread.is_alive():
            self._soon(lambda: self._task.cancel() if self._task else None)
            self._thread.join(timeout=10)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        with contextlib.suppress(asyncio.CancelledError):
            await self._main()
        await asyncio.sleep(0.1)  # transports over TLS are closed in a later turn of the loop

    async def _main(self) -> None:
        """To be overridden; calls `_begun.set()` once it is of use."""
        raise NotImplementedError

    def _soon(self, what: Callable[[], object]) -> None:
        """To be called on the loop, from another thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(what)


class Junction(Background):
    """A TCP port of loopback that leads to the first of its backends that accepts: a Service, or a line to be cut."""

    def __init__(self, *backends: Address) -> None:
        super().__init__()
        self.backends: Sequence[Address] = backends
        self.port = 0
        self.accepted = 0
        self._pairs: set[asyncio.Task[None]] = set()
        self._hushed: set[asyncio.Task[None]] = set()

    def hush(self) -> None:
        """The connections that there are stay open, and nothing comes through them any more; new ones are well."""
        self._soon(lambda: self._hushed.update(self._pairs))

    def cut(self) -> None:
        """Ends the connections that there are."""
        self._soon(lambda: [pair.cancel() for pair in self._pairs])

    async def _main(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for pair in self._pairs:
                pair.cancel()
            await asyncio.gather(*self._pairs, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs.add(task)
        try:
            await self._join(task, reader, writer)
        except asyncio.CancelledError:
            return  # asyncio's own callback would call it an error
        finally:
            self._pairs.discard(task)
            self._hushed.discard(task)
            writer.transport.abort()

    async def _join(self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for host, port in list(self.backends):
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(host, port)
                break
        else:
            return
        self.accepted += 1
        ways = [
            asyncio.ensure_future(self._carry(task, reader, far_writer)),
            asyncio.ensure_future(self._carry(task, far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far_writer.transport.abort()

    async def _carry(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Until one side has ended. What comes on a hushed connection, its end included, is not told to the other."""
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if task not in self._hushed:
                    writer.write(data)
                    await writer.drain()
        if task in self._hushed:
            await asyncio.Event().wait()
