"""The processes of the city: started as children, waited for until they are ready, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp

from .layout import Engine, Layout, Trouble

READY_SECONDS: Final = 30.0
"""A child that is not ready by then has failed. Starting takes below a second; a busy machine takes its time."""

STOP_SECONDS: Final = 1.5
"""What a child may take to end when asked to, before it is killed."""

LOG_LINES: Final = 8
"""How many lines of a child's log are shown when it fails."""

PROGRAM: Final = (sys.executable, "-m", "spillway_balancer.cli")

_PR_SET_PDEATHSIG: Final = 1


class Child:
    """One process: what it is called, how it was started, where its log is."""

    def __init__(self, name: str, port: int, arguments: Sequence[str], ready: str, log: Path) -> None:
        self.name = name
        self.port = port
        self.arguments = tuple(arguments)
        self.log = log
        self._ready = f"http://127.0.0.1:{port}{ready}"
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [*PROGRAM, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                # Ctrl-C in the terminal goes to the city alone, which ends its children in order.
                start_new_session=True,
                preexec_fn=_end_with_parent(),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> str | None:
        """How the process ended, in words; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    async def ready(self, client: aiohttp.ClientSession, deadline: float) -> None:
        """Returns when it answers 200; Trouble when it has ended or `deadline` (the loop's clock) has passed."""
        while True:
            if (ended := self.ended) is not None:
                raise Trouble(f"{self.name} {ended}\n{self.tail()}")
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with client.get(self._ready, timeout=aiohttp.ClientTimeout(1.0)) as response:
                    if response.status == 200:
                        return
            if asyncio.get_running_loop().time() > deadline:
                raise Trouble(f"{self.name} was not ready within {READY_SECONDS:g} s\n{self.tail()}")
            await asyncio.sleep(0.05)

    def tail(self) -> str:
        """The end of its log and where the rest is."""
        lines = self.log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
        return "\n".join([*(f"  {line}" for line in lines), f"its log: {self.log}"])

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def wait(self, seconds: float | None = None) -> None:
        """Blocks until it has ended or `seconds` are over."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)


class Town:
    """All children of one city. Leaving the context ends them, also after an error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engines: list[Child] = []
        self.balancers: list[Child] = []

    @property
    def children(self) -> list[Child]:
        return [*self.engines, *self.balancers]

    def start_engine(self, engine: Engine) -> None:
        if engine.fake is not None:
            arguments = ["provider", "--type", engine.fake.type, "--port", str(engine.port), "--model", engine.model]
            for name, file in engine.fake.keys:
                arguments += ["--key", f"{name}={_key(file)}"]
            if engine.fake.price is not None:
                arguments += ["--price", f"{engine.model}={engine.fake.price}"]
        else:
            arguments = ["engine", "--name", engine.name, "--port", str(engine.port), "--model", engine.model]
            arguments += ["--profile", engine.profile, "--drain", "0"]
            if engine.block_size is not None:
                arguments += ["--block-size", str(engine.block_size)]
        self.engines.append(self._start(engine.name, engine.port, arguments, "/health"))

    def start_balancer(self, name: str, layout: Layout, port: int) -> Child:
        arguments = ["run", "-f", str(layout.file), "--secrets", str(layout.secrets), "--port", str(port)]
        # What is still under way when the city ends is of no interest to anybody.
        child = self._start(name, port, [*arguments, "--drain", "0.5"], "/readyz")
        self.balancers.append(child)
        return child

    def _start(self, name: str, port: int, arguments: Sequence[str], ready: str) -> Child:
        return Child(name, port, arguments, ready, self.folder / f"{name}.log")

    async def ready(self, client: aiohttp.ClientSession, children: Sequence[Child]) -> None:
        """Returns when all of them answer. Trouble names the first that does not, with the end of its log."""
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        for child in children:
            await child.ready(client, deadline)

    async def stop(self, child: Child) -> None:
        """End one child, and forget it."""
        for group in (self.engines, self.balancers):
            if child in group:
                group.remove(child)
        await _end([child])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await _end(self.children)


async def _end(children: Sequence[Child]) -> None:
    """Ask all to end, kill those that do not, and leave no zombie."""
    try:
        for child in children:
            child.signal(signal.SIGTERM)
        await asyncio.to_thread(_wait, children, time.monotonic() + STOP_SECONDS)
    finally:
        for child in children:
            child.signal(signal.SIGKILL)
            child.wait()


def _wait(children: Sequence[Child], deadline: float) -> None:
    """Blocks until all have ended, or until `deadline` on the monotonic clock."""
    for child in children:
        child.wait(max(0.0, deadline - time.monotonic()))


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def check_ports(layout: Layout, port: int) -> None:
    """Trouble, in one line, when a port that the city needs is taken."""
    wanted = [(engine.port, engine.name, "--base-port 28001") for engine in layout.engines]
    for number, name, remedy in [(port, "the balancer", f"--port {port + 1}"), *wanted]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", number))
            except OSError as error:
                raise Trouble(
                    f"port {number} for {name} cannot be had ({error.strerror}): end what listens there, or use "
                    f'others with `spillway city {remedy}` (`make run ARGS="{remedy}"`)'
                ) from None


def _key(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except OSError as error:
        raise Trouble(f"{file}, the key of the simulated provider, cannot be read: {error.strerror}") from None


def _end_with_parent() -> Callable[[], None] | None:
    """What a child does before it becomes the program: on Linux, ask the kernel to end it when its parent dies.

    Elsewhere there is no such thing, and a kill -9 of the city leaves its children to be ended by hand.
    """
    if not sys.platform.startswith("linux"):
        return None
    # Loaded here, in the parent: between fork and exec as little as possible may happen.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask
