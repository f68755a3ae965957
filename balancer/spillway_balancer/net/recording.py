"""`spillway run --record FILE`: one line of JSON for every request, from which `spillway simulate` plays traffic again.

There is no text in it. A prompt is the hashes of its blocks, so that requests with a common beginning can be told, and
each hash is hashed once more with a random number that is never written down: who guesses at a prompt cannot check
the guess against the file.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from typing import BinaryIO, Final, NamedTuple

import msgspec
from xxhash import xxh3_64_hexdigest

log = logging.getLogger("spillway.recording")

FLUSH_SECONDS: Final = 0.5
BUFFER_BYTES: Final = 32 << 20
"""What may wait for the disk. Beyond it requests are left out, for none may wait for its record."""

_TAIL_BYTES: Final = 8 << 20
"""The last line of a file is looked for in so many bytes; the longest prompt that is taken makes a third of it."""


class CannotRecord(Exception):
    """The file cannot be written, or holds something else and is left as it is; the text says which."""


class Record(NamedTuple):
    """One request, finished or refused. Times are seconds of the monotonic clock; None is unknown."""

    started: float
    ended: float
    pool: str | None
    endpoint: str | None
    model: str
    """The declared name or pattern that matched, never what the client wrote."""
    prompt_tokens: int
    output_tokens: int | None
    cached_tokens: int | None
    size: int
    """Bytes of the prompt's canonical text."""
    blocks: Sequence[int]
    key: int | None
    streams: bool
    ttft: float | None
    status: str
    """`ok`, the reason why the last attempt failed, or the code of the error that refused the request."""


class Line(msgspec.Struct):
    """A record as it is written. `at` and `duration` are seconds, `at` since the file began."""

    at: float
    pool: str | None
    endpoint: str | None
    model: str
    prompt_tokens: int
    output_tokens: int | None
    cached_tokens: int | None
    bytes: int
    blocks: list[str]
    key: str | None
    streams: bool
    ttft: float | None
    duration: float
    status: str


_line = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode


class Recorder:
    """Appends to one file. `record` never waits: lines are buffered, and written half a second later in a thread.

    A file from before is gone on with, its clock with it: the time in which nobody recorded is left out. Its hashes
    cannot be compared with the new ones.
    """

    def __init__(self, path: Path, limit: int, buffer: int = BUFFER_BYTES) -> None:
        """`limit` and `buffer` are bytes. Raises CannotRecord."""
        self._path = path
        self._limit = limit
        self._buffer = buffer
        self._salt = secrets.randbits(64)
        self._lines: list[bytes] = []
        self._waiting = 0  # bytes in the buffer and on their way to the disk
        self._dropped = 0
        self._closing = asyncio.Event()
        self._file, past = _open(path)
        self._size = self._file.tell()
        self._stopped = False
        self._began = monotonic() - past
        self._task = asyncio.get_running_loop().create_task(self._run())

    def record(self, made: Record) -> None:
        """Take one request down: 3 microseconds, and half of one for every kilobyte of its prompt."""
        if self._stopped:
            return
        salt = self._salt
        line = _encode(
            Line(
                round(max(0.0, made.started - self._began), 6),
                made.pool,
                made.endpoint,
                made.model,
                made.prompt_tokens,
                made.output_tokens,
                made.cached_tokens,
                made.size,
                [xxh3_64_hexdigest(each.to_bytes(8, "little"), salt) for each in made.blocks],
                None if made.key is None else xxh3_64_hexdigest(made.key.to_bytes(8, "little"), salt),
                made.streams,
                None if made.ttft is None else round(made.ttft, 6),
                round(made.ended - made.started, 6),
                made.status,
            )
        )
        size = len(line) + 1
        if self._size + size > self._limit:
            self._stop(f"has reached its limit of {self._limit / 2**20:g} MiB")
        elif self._waiting + size > self._buffer:
            self._dropped += 1
        else:
            self._lines += (line, b"\n")
            self._waiting += size
            self._size += size

    async def close(self) -> None:
        """Write what is left."""
        self._closing.set()
        await self._task
        with suppress(OSError):  # what could not be written has been said
            self._file.close()

    async def _run(self) -> None:
        while not self._closing.is_set():
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._closing.wait()
            except TimeoutError:
                await self._flush()
        await self._flush()

    async def _flush(self) -> None:
        data = b"".join(self._lines)
        self._lines.clear()
        if data:
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._append, data)
            except OSError as error:
                self._stop(f"cannot be written ({error.strerror or type(error).__name__})")
            self._waiting -= len(data)
        if self._dropped:
            log.warning("%d requests are not in %s: the disk is slower than they come", self._dropped, self._path)
            self._dropped = 0

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    def _stop(self, why: str) -> None:
        if not self._stopped:
            self._stopped = True
            log.warning("recording has stopped: %s %s", self._path, why)


def _open(path: Path) -> tuple[BinaryIO, float]:
    """The file, ready to be gone on with, and how many seconds it holds already. Raises CannotRecord.

    A last line that was cut, because a balancer was killed in the middle of it, is removed.
    """
    other = CannotRecord(f"{path} holds something else than records; choose another file")
    try:
        path.touch()
        if not path.is_file():  # a device or a pipe has no last line to be read
            raise CannotRecord(f"cannot record to {path}: not a regular file")
        with ExitStack() as stack:
            file = stack.enter_context(path.open("r+b"))
            start = max(0, file.seek(0, 2) - _TAIL_BYTES)
            file.seek(start)
            tail = file.read()
            whole = tail.rfind(b"\n") + 1
            past = 0.0
            if whole:
                last = _line(tail[tail.rfind(b"\n", 0, whole - 1) + 1 : whole])
                past = last.at + last.duration
            elif tail and not tail.startswith(b'{"at":'):
                raise other
            file.seek(start + whole)
            file.truncate()
            stack.pop_all()
            return file, past
    except msgspec.DecodeError:
        raise other from None
    except OSError as error:
        raise CannotRecord(f"cannot record to {path}: {error.strerror or error}") from None
