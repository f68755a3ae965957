"""Asking endpoints how they are: active probes and scrapes of their metrics, one small task for each endpoint."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from spillway_api.durations import seconds

from ..core.endpoint import EndpointState
from ..core.load import Reported
from ..core.pool import Pool
from ..core.runtime import Runtime
from ..wire.engines import DIALECTS, Dialect, Layout, Page, detect, read
from .credentials import Credentials
from .dialling import AskedBy, asked_by
from .telemetry import Telemetry

log = logging.getLogger("spillway.endpoints")

MAX_PAGE_BYTES = 4 << 20
"""An engine's metrics page is tens of kilobytes; this bounds what a wrong path can cost."""

SCRAPE_TIMEOUT = 2.0
"""Seconds. A page that takes longer is older than what our own counts say."""

QUIET_SECONDS = 30.0
"""A pool that nobody has asked for so long is scraped less often: nothing depends on what is read of it."""

QUIET_PACE = 10
"""By how much."""

WAKE_SECONDS = 0.5
"""How late it may be seen that a quiet pool is asked again; its endpoints are scraped at once then."""

HEADERS = {"accept-encoding": "identity"}
"""A page that the engine compresses costs its Python milliseconds, to save what a local network does not feel."""


class Scrape(NamedTuple):
    """How a scrape ended."""

    result: str
    """ok, unreadable, status, too-large, timeout or connect."""
    status: int = 0
    """Of HTTP; 0 when there was no answer."""
    refused: bool = False
    """Nobody listens there."""
    missing: tuple[str, ...] = ()
    """Names that the page should hold and does not."""


class Poller:
    """Keeps a probe and a scrape task for every self-hosted endpoint of the runtime."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        credentials: Credentials,
        dice: random.Random,
        telemetry: Telemetry,
        quiet_after: float = QUIET_SECONDS,
    ) -> None:
        self._session = session
        self._credentials = credentials
        self._dice = dice
        self._telemetry = telemetry
        self._quiet_after = quiet_after
        self._shared = False
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[EndpointState, dict[str, asyncio.Task[None]]] = {}
        self._pools: dict[str, Pool] = {}
        self._since: dict[str, float] = {}  # when a pool was first seen: a new one is about to be asked
        self._layouts: dict[EndpointState, Layout] = {}
        self.dialects: dict[EndpointState, str] = {}
        self.scrapes: dict[EndpointState, Scrape] = {}
        """How the last scrape of each endpoint ended."""

    def follow(self, runtime: Runtime) -> None:
        """Start tasks for new endpoints, end those of endpoints that are gone; settings are read at every round."""
        before, self._pools = self._pools, runtime.pools
        for name in before.keys() - runtime.pools.keys():
            self._since.pop(name)
            self._forget(before[name].endpoints.values())
        now = monotonic()
        for name, pool in runtime.pools.items():
            old = before.get(name)
            if old is pool:
                continue  # of thousands of pools a change leaves all but one as they are
            self._since.setdefault(name, now)
            if old is not None:
                stay = set(pool.endpoints.values())
                self._forget(each for each in old.endpoints.values() if each not in stay)
            for endpoint in () if pool.remote else pool.endpoints.values():
                self._tend(pool, endpoint)

    def _tend(self, pool: Pool, endpoint: EndpointState) -> None:
        active, metrics = pool.spec.health.active, pool.spec.metrics
        wanted: dict[str, Callable[[EndpointState], Awaitable[None]]] = {}
        if active.mode == "HTTP" or (active.mode == "Auto" and pool.spec.provider is None):
            wanted["probe"] = self._probe
        if metrics.mode == "Prometheus" or (
            metrics.mode == "Auto" and pool.spec.provider is None and pool.spec.engine != "Generic"
        ):
            wanted["scrape"] = self._scrape
        tasks = self._tasks.setdefault(endpoint, {})
        for what in tasks.keys() - wanted.keys():
            tasks.pop(what).cancel()
            if what == "scrape":
                self.scrapes.pop(endpoint, None)
            else:
                endpoint.unprobed()
        for what in wanted.keys() - tasks.keys():
            tasks[what] = self._loop.create_task(self._repeat(endpoint, what, wanted[what]))

    def _forget(self, endpoints: Iterable[EndpointState]) -> None:
        for endpoint in endpoints:
            for task in self._tasks.pop(endpoint, {}).values():
                task.cancel()
            self.dialects.pop(endpoint, None)
            self._layouts.pop(endpoint, None)
            self.scrapes.pop(endpoint, None)

    async def close(self) -> None:
        tasks = [task for each in self._tasks.values() for task in each.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _repeat(
        self, endpoint: EndpointState, what: str, once: Callable[[EndpointState], Awaitable[None]]
    ) -> None:
        # Jitter, so that a hundred endpoints, or ten balancers, do not ask in step. A probe is not put off: an endpoint
        # counts as usable until one has failed.
        if what == "scrape":
            await asyncio.sleep(self._interval(endpoint, what) * self._dice.random())
        while True:
            try:
                await once(endpoint)
            except Exception as error:
                log.error("%s of %s/%s failed: %s", what, endpoint.pool, endpoint.name, type(error).__name__)
            pause = self._interval(endpoint, what) * self._dice.uniform(0.9, 1.1)
            if what == "scrape" and self._quiet(endpoint):
                await self._pause_while_quiet(endpoint, pause)
            else:
                await asyncio.sleep(pause)

    def _interval(self, endpoint: EndpointState, what: str) -> float:
        spec = self._pools[endpoint.pool].spec
        return seconds(spec.health.active.interval if what == "probe" else spec.metrics.interval)

    def share(self, wanted: bool) -> None:
        """Whether others go by what is scraped here: then no pool is quiet, for whoever asks it is not seen here."""
        self._shared = wanted

    def _quiet(self, endpoint: EndpointState) -> bool:
        if self._shared:
            return False
        pool = self._pools[endpoint.pool]
        return monotonic() - max(pool.last_asked, self._since[endpoint.pool]) > self._quiet_after

    async def _pause_while_quiet(self, endpoint: EndpointState, pause: float) -> None:
        end = monotonic() + pause * QUIET_PACE
        while self._quiet(endpoint) and monotonic() < end:  # noqa: ASYNC110 - a pool is the core's and wakes nobody
            await asyncio.sleep(min(pause, WAKE_SECONDS))

    async def _probe(self, endpoint: EndpointState) -> None:
        active = self._pools[endpoint.pool].spec.health.active
        path = active.path or self._dialect(endpoint).health_path
        passed = False
        before, ejected_until = endpoint.probe, endpoint.circuit.ejected_until
        try:
            async with self._session.get(
                endpoint.url + path,
                timeout=aiohttp.ClientTimeout(seconds(active.timeout)),
                **self._way(endpoint),
            ) as response:
                # A server that has no such path is alive; where the path was named, only success counts. A redirect is
                # one, as it is to kubelet, and is not followed: it may lead anywhere.
                passed = response.status < (500 if active.path is None else 400)
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass
        endpoint.probed(passed, active, ejected_until)
        after = endpoint.probe
        if before.usable != after.usable:
            level = logging.INFO if after.usable else logging.WARNING
            state = "healthy" if after.usable else "unhealthy"
            log.log(level, "endpoint %s/%s is %s", endpoint.pool, endpoint.name, state)

    async def _scrape(self, endpoint: EndpointState) -> None:
        spec = self._pools[endpoint.pool].spec
        book = endpoint.load
        own, pending, context = book.in_flight, book.pending, book.context
        begun = monotonic()
        url = metrics_url(endpoint.url, spec.metrics.path, spec.metrics.port)
        done, data = await self._page(url, self._way(endpoint))
        now = monotonic()
        if done.result == "ok":
            page = Page(data, self._layouts.setdefault(endpoint, Layout()))
            if spec.engine == "Auto":
                found = detect(page, self.dialects.get(endpoint))
                if found is not None:
                    self.dialects[endpoint] = endpoint.dialect = found
            reading = read(self._dialect(endpoint), page, spec.metrics.names)
            unreadable = reading.waiting is None and reading.running is None
            done = Scrape("unreadable" if unreadable else "ok", 200, missing=reading.missing)
            report = Reported(
                at=now,
                waiting=reading.waiting,
                running=reading.running,
                kv_usage=reading.kv_usage,
                own=own,
                prefix_queries=reading.prefix_queries,
                prefix_hits=reading.prefix_hits,
                own_pending=pending,
                own_context=context,
            )
            endpoint.reported(report, reading.cache_tokens)
        # Where a scrape has failed, what was reported last grows stale by itself.
        self.scrapes[endpoint] = done
        self._telemetry.scraped(endpoint.pool, done.result, now - begun, len(data))

    def _way(self, endpoint: EndpointState) -> AskedBy:
        return asked_by(self._pools[endpoint.pool].spec, self._credentials)

    async def _page(self, url: str, way: AskedBy) -> tuple[Scrape, bytes]:
        """End and page of one scrape. The page is read to its end: only then can its connection be used again."""
        data = bytearray()
        status = 0
        try:
            async with self._session.get(
                url, timeout=aiohttp.ClientTimeout(SCRAPE_TIMEOUT), headers=HEADERS, **way
            ) as response:
                status = response.status
                async for piece in response.content.iter_any():
                    data += piece
                    if len(data) > MAX_PAGE_BYTES:
                        return Scrape("too-large", status), bytes(data)
                return Scrape("ok" if status == 200 else "status", status), bytes(data)
        except TimeoutError:
            return Scrape("timeout", status), bytes(data)
        except (aiohttp.ClientError, OSError) as error:
            cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
            return Scrape("connect", status, refused=isinstance(cause, ConnectionRefusedError)), bytes(data)

    def _dialect(self, endpoint: EndpointState) -> Dialect:
        engine = self._pools[endpoint.pool].spec.engine
        return DIALECTS[self.dialects.get(endpoint, "Generic") if engine == "Auto" else engine]


def metrics_url(url: str, path: str, port: int | None) -> str:
    """Where an endpoint's metrics are: its own host, another port where the pool says so."""
    if port is None:
        return url + path
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return urlunsplit((parts.scheme, f"{host}:{port}", path, "", ""))
