"""The balancer put together: listener, sources, polling, and an orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from .core.errors import SpillwayError
from .net.answer import Answer, Sent
from .net.client import ClientConnection, Server, has_c_parser
from .net.credentials import Credentials
from .net.filesource import FileSource, judge, summary
from .net.polling import Poller
from .net.proxy import Limits, Proxy
from .net.recording import CannotRecord, Recorder
from .net.serving import Serving
from .net.telemetry import CONTENT_TYPE, Telemetry
from .wire.headers import check_request

log = logging.getLogger("spillway")

OWN_PAGES = frozenset({"/metrics", "/healthz", "/readyz"})


class ConfigRefused(Exception):
    """The files cannot be served from; `errors` are lines for a person."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


class Unfit(Exception):
    """This installation cannot serve as it is told to; the text says why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How one balancer process runs. What it serves stands in the files."""

    paths: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int = 8787
    gateway: str = "default"
    secrets: Path | None = None
    max_body: int = 32 << 20
    drain_seconds: float = 30.0
    record: Path | None = None
    record_limit: int = 256 << 20
    seed: int | None = None


class Balancer:
    """One balancer in this process. `start`, then `drain` and `stop`; `port` is the one it got."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.serving = Serving()
        self.telemetry = Telemetry()
        self.credentials = Credentials(settings.secrets)
        self.port = settings.port
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the files and begin to serve. Raises ConfigRefused, Unfit, or OSError when the port is taken."""
        if not has_c_parser():
            raise Unfit("aiohttp runs without its C parser; install it from a wheel, and unset AIOHTTP_NO_EXTENSIONS")
        settings = self.settings
        dice = random.Random(settings.seed)
        judged = judge(settings.paths, settings.gateway, self.credentials)
        for note in judged.notes:
            log.warning("%s", note)
        if judged.snapshot is None:
            raise ConfigRefused(judged.errors)
        try:
            self.recorder = Recorder(settings.record, settings.record_limit) if settings.record else None
        except CannotRecord as error:
            raise Unfit(str(error)) from None
        self._session = aiohttp.ClientSession(
            trust_env=False,
            auto_decompress=True,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
        )
        self.poller = Poller(self._session, dice, self.telemetry)
        self.serving.follow(self.poller.follow)
        self.serving.follow(self.telemetry.follow)
        limits = Limits(body=settings.max_body)
        self.proxy = Proxy(self.serving, self.credentials, self.telemetry, limits, dice, self.recorder)
        self._server = Server(self._handle)
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                self._server, settings.host, settings.port, backlog=4096, reuse_address=True
            )
        except OSError:
            await self._session.close()
            await self._end_record()
            raise
        self.port = self._listener.sockets[0].getsockname()[1]
        self.serving.swap(judged.snapshot)
        source = FileSource(
            settings.paths,
            settings.gateway,
            self.credentials,
            settings.secrets,
            self.serving.swap,
            self.telemetry.reloaded,
        )
        self._tasks.append(loop.create_task(source.watch()))
        log.info("serving %s on http://%s:%d/v1", summary(judged.snapshot), settings.host, self.port)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path in OWN_PAGES and request.method in ("GET", "HEAD"):
            return await self._own(request)
        return await self.proxy.handle(request)

    async def _own(self, request: web.BaseRequest) -> web.StreamResponse:
        """Our own pages, for kubelet and Prometheus."""
        client = request.protocol
        assert isinstance(client, ClientConnection)
        client.begun()
        answer = Answer(
            request.transport,
            keep_alive=request.keep_alive,
            old=request.version < (1, 1),
            head_only=request.method == "HEAD",
        )
        plain = [(b"content-type", b"text/plain")]
        try:
            check_request(request.method, request.version, request.raw_headers)
            if request.path == "/metrics":
                page = await self.telemetry.page(self.serving.current, self.proxy.in_flight)
                answer.whole(200, [(b"content-type", CONTENT_TYPE.encode())], [page])
            elif request.path == "/healthz":
                answer.whole(200, plain, [b"ok\n"])
            else:
                ready = self.serving.ready and not self.proxy.draining
                text = b"ready\n" if ready else b"draining\n" if self.proxy.draining else b"no snapshot yet\n"
                answer.whole(200 if ready else 503, plain, [text])
        except SpillwayError as error:
            answer.keep_alive = False
            answer.error(error)
        finally:
            client.done()
        return Sent(answer.keep_alive)

    async def drain(self) -> bool:
        """Accept nothing new and let what is under way end. False when some had to be cut at the limit."""
        self._listener.close()
        return await self.proxy.drain(self.settings.drain_seconds)

    async def stop(self) -> None:
        """Close everything now."""
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.shutdown(timeout=0.5)
        self.proxy.close()
        await self.poller.close()
        await self._session.close()
        await self._end_record()

    async def _end_record(self) -> None:
        if self.recorder is not None:
            await self.recorder.close()


async def serve(settings: Settings) -> bool:
    """Serve until SIGTERM or SIGINT, then drain. False when streams had to be cut."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    balancer = Balancer(settings)
    await balancer.start()
    # What lives from the start lives to the end: keep it out of every later collection.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
    await stopping.wait()
    log.info("draining: %d requests under way, at most %g s", balancer.proxy.in_flight, settings.drain_seconds)
    whole = await balancer.drain()
    if not whole:
        log.warning("cut %d requests at the drain limit", balancer.proxy.in_flight)
    await balancer.stop()
    return whole


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    try:
        infos = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(info[4][0] == "::1" or str(info[4][0]).startswith("127.") for info in infos)
