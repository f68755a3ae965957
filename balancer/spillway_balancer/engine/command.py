"""`spillway engine`: run one simulated engine until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from .faults import parse
from .profiles import Profile
from .profiles import profile as profile_of
from .server import EngineServer, log


def run_engine(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str = "engine",
    models: Sequence[str] = ("demo",),
    profile: str = "laptop-demo",
    speed: float = 1.0,
    block_size: int | None = None,
    api_key: str | Sequence[str] | None = None,
    faults: str | None = None,
    control_port: int | None = None,
    drain: float = 30.0,
    log_requests: bool = False,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then let what is under way end within `drain` seconds and return.

    `block_size`, in tokens, is that of its prefix cache, the profile's unless told. `faults` is the JSON of faults.py.
    `ready` is called with the URL once it listens. Raises ValueError for a bad setting, OSError when the port is taken.
    """
    if log_requests and not logging.getLogger().handlers:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    server = EngineServer(
        name=name,
        models=models,
        profile=_sized(profile, block_size),
        host=host,
        port=port,
        control_port=control_port,
        speed=speed,
        api_key=api_key,
        faults=parse(faults) if faults else (),
        log_requests=log_requests,
    )
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(server, drain, ready))


def _sized(name: str, block_size: int | None) -> Profile:
    found = profile_of(name)
    return found if block_size is None else replace(found, block_tokens=block_size)


async def _serve(server: EngineServer, drain: float, ready: Callable[[str], None] | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    log.info("%s listens on %s", server.engine.name, server.url)
    if ready is not None:
        ready(server.url)
    await stop.wait()
    await server.stop(drain)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one: it makes a stream's tokens cheaper."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
