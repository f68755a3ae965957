"""Asking endpoints how they are: active probes and scrapes of their metrics, one small task for each endpoint."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from spillway_api.durations import seconds

from ..core.endpoint import EndpointState
from ..core.load import Reported
from ..core.pool import Pool
from ..core.runtime import Runtime
from ..wire.engines import DIALECTS, Dialect, Layout, Page, detect, read
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


class Poller:
    """Keeps a probe and a scrape task for every self-hosted endpoint of the runtime."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        dice: random.Random,
        telemetry: Telemetry,
        quiet_after: float = QUIET_SECONDS,
    ) -> None:
        self._session = session
        self._dice = dice
        self._telemetry = telemetry
        self._quiet_after = quiet_after
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[tuple[EndpointState, str], asyncio.Task[None]] = {}
        self._pools: dict[str, Pool] = {}
        self._since: dict[str, float] = {}  # when a pool was first seen: a new one is about to be asked
        self._layouts: dict[EndpointState, Layout] = {}
        self.dialects: dict[EndpointState, str] = {}

    def follow(self, runtime: Runtime) -> None:
        """Start tasks for new endpoints, end those of endpoints that are gone; settings are read at every round."""
        self._pools = runtime.pools
        now = monotonic()
        self._since = {name: self._since.get(name, now) for name in runtime.pools}
        wanted: dict[tuple[EndpointState, str], Callable[[EndpointState], Awaitable[None]]] = {}
        for pool in runtime.pools.values():
            for endpoint in pool.endpoints.values():
                if pool.spec.health.active.mode == "HTTP" or (
                    pool.spec.health.active.mode == "Auto" and pool.spec.provider is None
                ):
                    wanted[endpoint, "probe"] = self._probe
                if pool.spec.metrics.mode == "Prometheus" or (
                    pool.spec.metrics.mode == "Auto" and pool.spec.provider is None and pool.spec.engine != "Generic"
                ):
                    wanted[endpoint, "scrape"] = self._scrape
        for key in self._tasks.keys() - wanted.keys():
            self._tasks.pop(key).cancel()
        for key in wanted.keys() - self._tasks.keys():
            endpoint, what = key
            self._tasks[key] = self._loop.create_task(self._repeat(endpoint, what, wanted[key]))
        known = {endpoint for endpoint, _ in wanted}
        self.dialects = {each: name for each, name in self.dialects.items() if each in known}
        self._layouts = {each: layout for each, layout in self._layouts.items() if each in known}

    async def close(self) -> None:
        tasks = list(self._tasks.values())
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

    def _quiet(self, endpoint: EndpointState) -> bool:
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
        try:
            async with self._session.get(
                endpoint.url + path, timeout=aiohttp.ClientTimeout(seconds(active.timeout))
            ) as response:
                # A server that has no such path is alive; where the path was named, only success counts.
                passed = response.status < 300 or (active.path is None and response.status < 500)
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass
        before = endpoint.probe
        after = before.passed(active) if passed else before.failed(active)
        endpoint.probe = after
        if before.usable != after.usable:
            level = logging.INFO if after.usable else logging.WARNING
            state = "healthy" if after.usable else "unhealthy"
            log.log(level, "endpoint %s/%s is %s", endpoint.pool, endpoint.name, state)

    async def _scrape(self, endpoint: EndpointState) -> None:
        spec = self._pools[endpoint.pool].spec
        book = endpoint.load
        own, pending, context = book.in_flight, book.pending, book.context
        begun = monotonic()
        result, data = await self._page(metrics_url(endpoint.url, spec.metrics.path, spec.metrics.port))
        now = monotonic()
        if result == "ok":
            page = Page(data, self._layouts.setdefault(endpoint, Layout()))
            if spec.engine == "Auto":
                found = detect(page, self.dialects.get(endpoint))
                if found is not None:
                    self.dialects[endpoint] = found
            reading = read(self._dialect(endpoint), page, spec.metrics.names)
            if reading.waiting is None and reading.running is None:
                result = "unreadable"
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
        self._telemetry.scraped(endpoint.pool, result, now - begun, len(data))

    async def _page(self, url: str) -> tuple[str, bytes]:
        """Result and page of one scrape. The page is read to its end: only then can its connection be used again."""
        data = bytearray()
        try:
            async with self._session.get(
                url, timeout=aiohttp.ClientTimeout(SCRAPE_TIMEOUT), headers=HEADERS
            ) as response:
                async for piece in response.content.iter_any():
                    data += piece
                    if len(data) > MAX_PAGE_BYTES:
                        return "too-large", bytes(data)
                return "ok" if response.status == 200 else "status", bytes(data)
        except TimeoutError:
            return "timeout", bytes(data)
        except (aiohttp.ClientError, OSError):
            return "connect", bytes(data)

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
