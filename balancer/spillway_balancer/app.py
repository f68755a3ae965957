"""The balancer put together: listener, sources, polling, and an orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from time import monotonic, time
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from spillway_api.snapshot import Snapshot
from spillway_api.stream import Report, Saved

from .core.errors import NotFound, SpillwayError
from .core.runtime import Runtime
from .net.accepting import Accepting
from .net.answer import Answer, Sent
from .net.client import ClientConnection, Server, has_c_parser
from .net.credentials import Credentials
from .net.dialling import Dialler, Resolver
from .net.identities import Identities
from .net.leasing import Leasing
from .net.operator_source import OperatorSource, Talker, Where
from .net.polling import Poller
from .net.proxy import Limits, Proxy
from .net.received import State, of_saved
from .net.recording import CannotRecord, Recorder
from .net.reporting import steps, steps_beside
from .net.saved import Saver, load
from .net.serving import Serving, summary
from .net.sharing import Listener, Teller
from .net.spending import Spending
from .net.telemetry import CONTENT_TYPE, Telemetry
from .net.vouching import Vouching
from .wire.headers import check_request

log = logging.getLogger("spillway")

BEGINNING = 0.02
"""Seconds within which a request begins whose bytes are here: the server's tasks take a few turns."""
READY = b"ready\n"
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
    """How one balancer process runs. What it serves stands in the files, or comes from the operator."""

    paths: tuple[Path, ...] = ()
    operator: Where | None = None
    """In place of files. With `sidecar` in it this is one."""
    state: Path | None = None
    """Folder for the last good state that the operator sent; with files, for what budgets have spent."""
    boot: Path | None = None
    """File to start from when there is nothing later in `state`."""
    host: str = "127.0.0.1"
    port: int = 8787
    admin_port: int | None = None
    """For our own pages; None serves them on `port`."""
    admin_host: str | None = None
    """For the same; None is `host`."""
    gateway: str = "default"
    secrets: Path | None = None
    prices: Path | None = None
    """File with prices of providers' models, over those that are known."""
    max_body: int = 32 << 20
    linger_seconds: float = 0.0
    drain_seconds: float = 30.0
    record: Path | None = None
    record_limit: int = 256 << 20
    seed: int | None = None


class Balancer:
    """One balancer in this process. `start`, then `drain` and `stop`; `port` and `admin_port` are those it got."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sidecar = settings.operator.sidecar if settings.operator is not None else None
        self.serving = Serving(partial=self.sidecar is not None)
        self.telemetry = Telemetry()
        self.credentials = Credentials(settings.secrets)
        self.port = settings.port
        self.admin_port = settings.admin_port
        self._listeners: list[asyncio.Server] = []
        self._servers: list[Server] = []
        self._saver: Saver | None = None
        self._spending: Spending | None = None
        self._leasing: Leasing | None = None
        self._vouching = Vouching() if settings.operator is not None and self.sidecar is None else None
        """Of sidecars; without an operator there is nobody to ask."""
        self._tasks: list[asyncio.Task[None]] = []
        self._settled = False

    async def start(self) -> None:
        """Begin to serve. Raises ConfigRefused (files only), Unfit, or OSError when the port is taken."""
        if not has_c_parser():
            raise Unfit("aiohttp runs without its C parser; install it from a wheel, and unset AIOHTTP_NO_EXTENSIONS")
        settings = self.settings
        if self.sidecar is None:  # one loads what translates with the first request that needs it, if any does
            import_module(".wire.translation.pairs", __package__)
        dice = random.Random(settings.seed)
        begin = self._judged() if settings.operator is None else None
        try:
            self.recorder = Recorder(settings.record, settings.record_limit) if settings.record else None
        except CannotRecord as error:
            raise Unfit(str(error)) from None
        self._session = aiohttp.ClientSession(
            trust_env=False,
            auto_decompress=True,
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=4,
                resolver=Resolver(Dialler(asyncio.get_running_loop(), self.credentials)),
            ),
        )
        self.poller = Poller(self._session, self.credentials, dice, self.telemetry)
        limits = Limits(body=settings.max_body)
        accepting = None if self._vouching is None else Accepting(self._vouching, self.telemetry.registry)
        self.proxy = Proxy(self.serving, self.credentials, self.telemetry, limits, dice, self.recorder, accepting)
        if self.sidecar is not None:
            self.proxy.beside_a_client(self.sidecar.gateway_token_file, self.sidecar.address)
        self.identities = Identities(self.credentials, dice, self.telemetry.identity)
        if self.sidecar is None:  # one is told what gateways find: an engine would be asked by hundreds
            self.serving.follow(self.poller.follow)
        for follower in (self.telemetry.follow, self.identities.follow, self.proxy.follow):
            self.serving.follow(follower)
        try:
            self.port = await self._listen(self._handle, settings.host, settings.port)
            if settings.admin_port is not None:
                admin_host = settings.host if settings.admin_host is None else settings.admin_host
                self.admin_port = await self._listen(self._admin, admin_host, settings.admin_port)
        except OSError:
            self._close_listeners()
            await self._session.close()
            await self._end_record()
            raise
        if begin is not None:
            self._follow_files(begin)
        elif settings.operator is not None:
            await self._follow_operator(settings.operator, dice)

    def _judged(self) -> Snapshot:
        from .net.filesource import judge  # the compiler with all that it knows: nothing for a sidecar's memory

        judged = judge(self.settings.paths, self.settings.gateway, self.credentials, prices=self.settings.prices)
        for note in judged.notes:
            log.warning("%s", note)
        if judged.snapshot is None:
            raise ConfigRefused(judged.errors)
        self.credentials.give(judged.values)
        return judged.snapshot

    async def _listen(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], host: str, port: int
    ) -> int:
        """Returns the port that it got."""
        server = Server(handler)
        listener = await asyncio.get_running_loop().create_server(server, host, port, backlog=4096, reuse_address=True)
        self._servers.append(server)
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    def _follow_files(self, begin: Snapshot) -> None:
        from .net.filesource import FileSource

        settings = self.settings
        if settings.state is not None:
            self._spending = Spending(settings.state)
            self.serving.follow(self._spending.follow)
            self._spawn(self._spending.run())
        self.serving.swap(begin)
        source = FileSource(
            settings.paths,
            settings.gateway,
            self.credentials,
            settings.secrets,
            self.serving.swap,
            self.telemetry.reloaded,
            self.proxy.rekeyed,
            settings.prices,
        )
        self._spawn(source.watch())
        log.info("serving %s on http://%s:%d/v1", summary(begin), settings.host, self.port)

    async def _follow_operator(self, where: Where, dice: random.Random) -> None:
        settings = self.settings
        log.info("listening on http://%s:%d/v1, following %s", settings.host, self.port, where.url)
        if self.sidecar is None:  # one has no budgets: what costs money is the gateway's
            self._leasing = Leasing()
            self.serving.follow(self._leasing.follow)
            self.telemetry.endpoints.leased = self._leasing.leased
        saved = await asyncio.to_thread(load, settings.state, settings.boot, settings.gateway)
        state = None if saved is None else self._begin_with(saved)
        if state is None and self.sidecar is not None:
            self.serving.swap(self.sidecar.unknown(settings.gateway))
            log.info("nothing is known yet: all goes to the gateway at %s", self.sidecar.gateway_url)
        if settings.state is not None:
            self._saver = Saver(settings.state)
        name = urlsplit(where.url).netloc
        self.telemetry.connected(name, False)
        source = OperatorSource(
            where,
            state,
            self._take,
            self._saver.put if self._saver is not None else lambda saved: None,
            self.telemetry.reloaded,
            partial(self.telemetry.connected, name),
            self._report,
            dice,
            self._leasing,
            self._talkers(),
        )
        self._spawn(source.follow())
        self._spawn(self.credentials.watch(self.proxy.rekeyed))

    def _talkers(self) -> tuple[Talker, ...]:
        def runtime() -> Runtime:
            return self.serving.current

        if self.sidecar is not None:
            listener = Listener(runtime)
            self._spawn(listener.watch())
            return (listener,)
        teller = Teller(runtime, self._shares)
        return (teller,) if self._vouching is None else (teller, self._vouching)

    def _shares(self, asked: bool) -> None:
        """There are sidecars, or nobody asks any more, which says nothing of them: the operator may be away."""
        self.poller.share(asked)
        if asked:
            self.serving.current.beside_others()

    def _begin_with(self, saved: Saved) -> State | None:
        """Serve what was put away, whether or not the operator answers."""
        try:
            self._take(saved.snapshot)
        except Exception as error:
            log.warning("the saved state cannot be served from and is passed over: %s", type(error).__name__)
            return None
        log.info("serving the saved state: %s", summary(saved.snapshot))
        return of_saved(saved)

    def _take(self, snapshot: Snapshot) -> bool:
        return self.serving.swap(snapshot if self.sidecar is None else self.sidecar.reached(snapshot))

    def _report(self) -> Generator[None, None, Report]:
        if self.sidecar is not None:
            return steps_beside(self.serving.current, monotonic())
        poller = self.poller
        return steps(self.serving.current, poller.dialects, poller.scrapes, monotonic(), time())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.admin_port is None and _is_own(request):
            return await self._own(request)
        return await self.proxy.handle(request)

    async def _admin(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._own(request)

    async def _own(self, request: web.BaseRequest) -> web.StreamResponse:
        """Our own pages, for kubelet and Prometheus."""
        client = request.protocol
        assert isinstance(client, ClientConnection)
        client.begun()
        answer = Answer(
            request.transport,
            keep_alive=request.keep_alive and not self.proxy.draining,
            old=request.version < (1, 1),
            head_only=request.method == "HEAD",
        )
        plain = [(b"content-type", b"text/plain")]
        try:
            check_request(request.method, request.version, request.raw_headers)
            if not _is_own(request):
                raise NotFound("unknown path; here are /metrics, /healthz and /readyz")
            if request.path == "/metrics":
                page = await self.telemetry.page(self.serving.current, self.proxy.in_flight)
                answer.whole(200, [(b"content-type", CONTENT_TYPE.encode())], [page])
            elif request.path == "/healthz":
                answer.whole(200, plain, [b"ok\n"])
            else:
                text = self._readiness()
                answer.whole(200 if text == READY else 503, plain, [text])
        except SpillwayError as error:
            answer.keep_alive = False
            answer.error(error)
        finally:
            client.done()
        return Sent(answer.keep_alive)

    def _readiness(self) -> bytes:
        if self.proxy.draining:
            return b"draining\n"
        if not self.serving.ready:
            return b"no snapshot yet\n"
        # Once: an account that comes later must not take a fleet out of service while its cloud is asked.
        self._settled = self._settled or self.identities.settled
        return READY if self._settled else b"asking clouds for credentials\n"

    async def drain(self) -> bool:
        """Take leave: not ready, and every answer tells its client to go; still accepting for `linger_seconds`, since
        whoever sends traffic here hears of it late; then accept nothing new and let what is under way end.

        False when some had to be cut at the limit."""
        self.proxy.leave()
        await asyncio.sleep(self.settings.linger_seconds)
        self._listeners[0].close()  # our own pages stay until the end
        end = monotonic() + self.settings.drain_seconds
        if not await self.proxy.drain(self.settings.drain_seconds):
            return False
        self._servers[0].pre_shutdown()  # idle connections: from here on nothing comes by them
        await asyncio.sleep(BEGINNING)
        return await self.proxy.drain(max(0.0, end - monotonic()))

    async def stop(self) -> None:
        """Close everything now."""
        self._close_listeners()
        if self._leasing is not None:
            await self._leasing.leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(server.shutdown(timeout=0.5) for server in self._servers))
        self.proxy.close()
        await self.poller.close()
        await self.identities.close()
        await self._session.close()
        if self._saver is not None:
            await self._saver.close()
        if self._spending is not None:
            await self._spending.close()
        await self._end_record()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    async def _end_record(self) -> None:
        if self.recorder is not None:
            await self.recorder.close()


def _is_own(request: web.BaseRequest) -> bool:
    return request.path in OWN_PAGES and request.method in ("GET", "HEAD")


async def serve(settings: Settings) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; a second one ends at once. False when streams had to be cut."""
    loop = asyncio.get_running_loop()
    leave, now = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: (now if leave.is_set() else leave).set())
    balancer = Balancer(settings)
    await balancer.start()
    # What lives from the start lives to the end: keep it out of every later collection.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
    await leave.wait()
    log.info(
        "draining: %d requests under way; accepting for %g s more, then at most %g s",
        balancer.proxy.in_flight,
        settings.linger_seconds,
        settings.drain_seconds,
    )
    draining, hurry = loop.create_task(balancer.drain()), loop.create_task(now.wait())
    await asyncio.wait((draining, hurry), return_when=asyncio.FIRST_COMPLETED)
    whole = draining.done() and draining.result()
    for task in (draining, hurry):
        task.cancel()
    await asyncio.gather(draining, hurry, return_exceptions=True)
    if balancer.proxy.in_flight:
        log.warning("cut %d requests at the %s", balancer.proxy.in_flight, "second signal" if now.is_set() else "limit")
    await balancer.stop()
    return whole
