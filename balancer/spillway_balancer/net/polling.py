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
from ..wire.engines import DIALECTS, Dialect, detect, read

log = logging.getLogger("spillway.endpoints")

MAX_PAGE_BYTES = 4 << 20
"""An engine's metrics page is tens of kilobytes; this bounds what a wrong path can cost."""

SCRAPE_TIMEOUT = 2.0
"""Seconds. A page that takes longer is older than what our own counts say."""


class Poller:
    """Keeps a probe and a scrape task for every self-hosted endpoint of the runtime."""

    def __init__(self, session: aiohttp.ClientSession, dice: random.Random) -> None:
        self._session = session
        self._dice = dice
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[tuple[EndpointState, str], asyncio.Task[None]] = {}
        self._pools: dict[str, Pool] = {}
        self.dialects: dict[EndpointState, str] = {}

    def follow(self, runtime: Runtime) -> None:
        """Start tasks for new endpoints, end those of endpoints that are gone; settings are read at every round."""
        self._pools = runtime.pools
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

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _repeat(
        self, endpoint: EndpointState, what: str, once: Callable[[EndpointState], Awaitable[None]]
    ) -> None:
        while True:
            spec = self._pools[endpoint.pool].spec
            interval = seconds(spec.health.active.interval if what == "probe" else spec.metrics.interval)
            try:
                await once(endpoint)
            except Exception as error:
                log.error("%s of %s/%s failed: %s", what, endpoint.pool, endpoint.name, type(error).__name__)
            # Jitter, so that a hundred endpoints, or ten balancers, do not ask in step.
            await asyncio.sleep(interval * self._dice.uniform(0.9, 1.1))

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
        own = endpoint.load.in_flight
        page: bytes | None = None
        try:
            async with self._session.get(
                metrics_url(endpoint.url, spec.metrics.path, spec.metrics.port),
                timeout=aiohttp.ClientTimeout(SCRAPE_TIMEOUT),
            ) as response:
                if response.status == 200:
                    page = await response.content.read(MAX_PAGE_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass
        if page is None:
            return  # what was reported last grows stale by itself
        if spec.engine == "Auto":
            found = detect(page)
            if found is not None:
                self.dialects[endpoint] = found
        reading = read(self._dialect(endpoint), page, spec.metrics.names)
        endpoint.load.reported(
            Reported(
                at=monotonic(),
                waiting=reading.waiting,
                running=reading.running,
                kv_usage=reading.kv_usage,
                own=own,
                prefix_queries=reading.prefix_queries,
                prefix_hits=reading.prefix_hits,
            )
        )

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
