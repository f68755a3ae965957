"""The last good state on disk, so that a balancer that starts while the operator is away serves at once.

Serving never waits for a disk and never fails for one: writing happens in a thread, at most once a second, and a disk
that is full or read-only is logged once, until it can be written again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from pathlib import Path

from spillway_api import stream
from spillway_api.stream import Saved

log = logging.getLogger("spillway.config")

FILE = "snapshot.json.gz"
PAUSE = 1.0
"""Seconds between two writings."""
RETRY = 10
"""Times as long until the next try after one that failed."""
PATIENCE = 2.0
"""Seconds that the end of the process waits for the last one."""


def load(folder: Path | None, boot: Path | None, gateway: str) -> Saved | None:
    """The later one of what lies in the state folder and in the boot file. What cannot be read is logged and passed
    over; what is not there is not missed."""
    places = [place for place in (folder and folder / FILE, boot) if place is not None]
    found = [saved for saved in (_read(place, gateway) for place in places) if saved is not None]
    return max(found, key=lambda saved: saved.at, default=None)  # of equal ones the first: our own


def _read(place: Path, gateway: str) -> Saved | None:
    try:
        saved = stream.unpack(place.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read and is passed over: %s", place, error)
        return None
    if saved.snapshot.gateway != gateway:
        log.warning("%s is of gateway %r and is passed over", place, saved.snapshot.gateway)
        return None
    return saved


def write(folder: Path, saved: Saved) -> None:
    """Replace what lies there: whole, or not at all. Raises OSError."""
    replace(folder, FILE, stream.pack(saved))


def replace(folder: Path, file: str, data: bytes) -> None:
    """Put `data` in the place of a file: whole, or not at all, and so that a power cut does not undo it. Raises
    OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file}.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as written:
            written.write(data)
            written.flush()
            os.fsync(written.fileno())
        os.replace(name, folder / file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # else a power cut may undo the rename
    finally:
        os.close(descriptor)


class Saver:
    """Writes what it is given last, sooner or later. `put` returns at once."""

    def __init__(self, folder: Path, pause: float = PAUSE) -> None:
        self._folder = folder
        self._pause = pause
        self._latest: Saved | None = None
        self._due = asyncio.Event()
        self._failing = False
        self._writing: asyncio.Future[None] | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())

    def put(self, saved: Saved) -> None:
        """Have this on disk soon, unless something later comes first."""
        self._latest = saved
        self._due.set()

    async def close(self) -> None:
        """Write what is still to be written, if the disk takes it in time."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(Exception):  # a disk that hangs must not keep the process
            async with asyncio.timeout(PATIENCE):
                if self._writing is not None:  # else an older state might be renamed over a later one
                    await asyncio.shield(self._writing)
                await self._write()

    async def _run(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            await self._write()
            if self._failing:
                self._due.set()
                await asyncio.sleep(self._pause * RETRY)
            else:
                await asyncio.sleep(self._pause)

    async def _write(self) -> None:
        saved = self._latest
        if saved is None:
            return
        try:
            self._writing = asyncio.ensure_future(asyncio.to_thread(write, self._folder, saved))
            await asyncio.shield(self._writing)
        except Exception as error:
            if not self._failing:
                why = error.strerror if isinstance(error, OSError) else type(error).__name__
                log.warning("the last good state cannot be kept in %s: %s", self._folder, why)
            self._failing = True
            return
        if self._failing:
            log.info("the last good state is kept in %s again", self._folder)
        self._failing = False
        if self._latest is saved:
            self._latest = None
