"""The operator put together: watches, the stream to balancers, leadership, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import kopf
from aiohttp import web

from spillway_api.stream import AUDIENCE

from .authority import Authority
from .certificates import ServingTls
from .cluster import ApiError, Cluster
from .health import STUCK_SECONDS, Health
from .identity import Caller, Identity
from .injecting import Injecting
from .leadership import Leadership
from .metrics import Metrics
from .reconcile import Reconciler
from .relay import Relay
from .settings import Settings
from .showing import Showing
from .stream import StreamServer
from .treasury import Treasury
from .vouching import Vouching
from .watching import Watching, settings_for

log = logging.getLogger("spillway.operator")


class Unfit(Exception):
    """The operator cannot run as it is told to; the text says why."""


class Operator:
    """One operator in this process: `start`, wait until `ended`, then `stop`."""

    def __init__(self, settings: Settings, cluster: Cluster, dice: random.Random) -> None:
        self.settings = settings
        self.cluster = cluster
        self.metrics = Metrics()
        self.tls = ServingTls(lambda: cluster.get("v1", "secrets", settings.namespace, settings.tls_secret))
        self.leadership = Leadership(
            cluster,
            settings.namespace,
            settings.lease,
            settings.name,
            settings.stream_address,
            self._leader_changed,
            owners=lambda: self.authority.owners(),
        )
        self.streams = StreamServer(
            Identity(cluster, AUDIENCE),
            self._allowed,
            lambda _: self.reconciler.status_changed(),
            relays=self._is_own,
            sidecars=settings.sidecar_routes,
        )
        self.reconciler = Reconciler(settings, cluster, self.streams, lambda: self.leadership.leads, self.metrics, dice)
        self.watching = Watching(self._changed, self.reconciler.status_changed, settings.namespaces)
        self.injecting: Injecting | None = None
        if settings.sidecars is not None:
            leads, world = (lambda: self.leadership.leads), (lambda: self.reconciler.world)
            showing = Showing(settings, cluster, settings.sidecars, leads, world, self.metrics, dice)
            self.injecting = Injecting(
                settings, settings.sidecars, cluster, lambda: self.authority.secret(), self.metrics.injected, showing
            )
        self.authority = Authority(
            settings,
            cluster,
            lambda: self.leadership.leads,
            lambda: datetime.now(UTC),
            self.injecting.keep if self.injecting else None,
        )
        self.relay = Relay(
            self.streams, self._other_leader, lambda: self.tls.authority, settings.names[2], settings.token_file
        )
        self.treasury = Treasury(
            cluster,
            settings.namespace,
            settings.budgets_config_map,
            lambda: self.leadership.leads,
            lambda: self.reconciler.budgets,
            self.streams.grant,
            self.authority.owners,
        )
        self.streams.follow_books(self.treasury.hear)
        if settings.sidecar_routes != "None":
            self.streams.follow_questions(Vouching(cluster).hear)
        self.reconciler.totals = self.treasury.totals
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stop_watching = asyncio.Event()
        self._pages: web.AppRunner | None = None

    async def start(self) -> None:
        """Begin. The stream is served once there is a certificate; until then the operator is not ready."""
        health = Health(self.metrics, self._wrong, self._unready, self._refresh)
        try:
            self._pages = await health.start(self.settings.host, self.settings.admin_port)
        except OSError as error:
            raise Unfit(f"cannot listen on port {self.settings.admin_port}: {error.strerror}") from None
        settings = settings_for(self.settings.pod_selector, self.settings.silence)
        # With namespaces that are named nothing may be looked up in the whole cluster: neither which namespaces there
        # are nor, from time to time, which kinds. kopf would ask for a minute before it gives up and begins.
        settings.scanning.disabled = bool(self.settings.namespaces)
        watches = kopf.operator(
            registry=self.watching.registry(),
            settings=settings,
            standalone=True,
            clusterwide=not self.settings.namespaces,
            namespaces=self.settings.namespaces,
            stop_flag=self._stop_watching,
        )
        self._begin("watches", watches)
        self._begin("leadership", self.leadership.run())
        self._begin("certificate", self.tls.run())
        self._begin("authority", self.authority.run())
        self._begin("gateways", self.reconciler.gateways.follow(self.reconciler.config_changed))
        self._begin("secrets", self.reconciler.secrets.follow(self.reconciler.config_changed))
        self._begin("configmaps", self.reconciler.config_maps.follow(self.reconciler.config_changed))
        self._begin("relay", self.relay.run())
        self._begin("budgets", self.treasury.run())
        if self.injecting is not None:
            self._begin("webhook", self.injecting.run())
            self._begin("webhook's certificate", self.injecting.follow())
        self._begin("stream", self._serve_stream())
        self._begin("signals", self._signalled())

    async def ended(self) -> None:
        """Waits for SIGTERM or SIGINT. Raises Unfit when a part of the operator has ended, which is a bug."""
        lasting = [task for name, task in self._tasks.items() if name != "stream"]
        done, _ = await asyncio.wait(lasting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.get_name() != "signals":
                log.error("%s has ended: %r", task.get_name(), task.exception())
                raise Unfit(f"{task.get_name()} ended")

    async def stop(self) -> None:
        """Give up leadership, so that another replica takes over at once, and close all connections."""
        leading = self._tasks.pop("leadership", None)
        if leading is not None:
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
        # Its answers are waited for by Pods that are made meanwhile, whoever leads.
        webhook = asyncio.create_task(self.injecting.stop()) if self.injecting else None
        await self.streams.stop()
        await self.reconciler.queue.close()
        if webhook is not None:
            # Before kopf ends, which after five seconds cancels all that has begun since its start.
            await webhook
        self._stop_watching.set()
        watches = self._tasks.pop("watches", None)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if watches is not None:
            await asyncio.wait([watches], timeout=10.0)
        if self._pages is not None:
            await self._pages.cleanup()
        await self.cluster.close()

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = asyncio.get_running_loop().create_task(work, name=name)

    async def _signalled(self) -> None:
        """Ends with the first signal to stop. kopf would take its time, with the Lease still held."""
        await self.watching.started.wait()
        signalled = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, signalled.set)
        await signalled.wait()

    async def _serve_stream(self) -> None:
        await self.tls.loaded()
        await self.streams.start(self.settings.host, self.settings.port, self.tls.context)
        log.info("serving the config stream on port %d", self.streams.port)

    def _changed(self) -> None:
        self.reconciler.world = self.watching.world
        self.reconciler.config_changed()
        if self.injecting is not None:
            self.injecting.showing.world_changed()

    def _leader_changed(self) -> None:
        log.info("this replica %s", "leads" if self.leadership.leads else "follows")
        self.reconciler.leadership_changed()
        self.authority.leadership_changed()
        self.relay.leader_changed()
        self.treasury.leadership_changed()
        if self.injecting is not None:
            self.injecting.showing.changed()

    def _other_leader(self) -> str | None:
        return None if self.leadership.leads else self.leadership.leader_address

    def _allowed(self, caller: Caller, gateway: str) -> bool:
        """A gateway's snapshot goes to the ServiceAccount that its Deployment runs under, and to nobody else."""
        facts = self.reconciler.gateways.known.get(gateway)
        if facts is None or caller.namespace != self.settings.namespace:
            return False
        return caller.service_account == facts.service_account

    def _is_own(self, caller: Caller) -> bool:
        own = (self.settings.namespace, self.settings.service_account)
        return (caller.namespace, caller.service_account) == own

    def _wrong(self) -> str:
        """Why this process should be started anew; empty while it should not."""
        ended = [name for name, task in self._tasks.items() if task.done() and name not in ("stream", "signals")]
        if ended:
            return f"ended: {', '.join(ended)}"
        lost = self.watching.lost()
        if lost:
            return f"nobody watches {', '.join(lost)}"
        now = asyncio.get_running_loop().time()
        queues = [self.reconciler.queue, *((self.injecting.showing.queue,) if self.injecting else ())]
        stuck = [str(key) for queue in queues for key, began in queue.began.items() if now - began > STUCK_SECONDS]
        return f"stuck: {', '.join(stuck)}" if stuck else ""

    def _unready(self) -> str:
        """Why balancers should not come here; empty when they may."""
        if not self.watching.synced:
            return "the first listing is not done"
        if not self.tls.ready:
            return "no serving certificate yet"
        if self.injecting is not None and not self.injecting.ready:
            return "the webhook does not answer yet"
        return "" if self.streams.synced else "not everything is planned yet"

    def _refresh(self) -> None:
        self.metrics.refresh(self.leadership.leads, self.streams, list(self.reconciler.progress))
        self.metrics.budgeted(self.treasury.totals())


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises Unfit."""
    try:
        cluster = await Cluster.connect()
    except ApiError as error:
        raise Unfit(str(error)) from None
    operator = Operator(settings, cluster, random.Random())
    await operator.start()
    try:
        await operator.ended()
    finally:
        await operator.stop()
