"""The reconcile: look, plan, then apply what differs. Level-triggered; a wake says that something may have changed.

Every replica plans and serves its plan to the balancers. Only the leader writes to Kubernetes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

from spillway_api.budgets import AnyBudget
from spillway_api.compile import Compiled, Problem
from spillway_api.faults import INTERNAL
from spillway_api.snapshot import Snapshot, digest
from spillway_api.types import API_VERSION

from .arbiter import Total
from .cluster import Cluster
from .events import about, tell
from .facts import GatewayFacts, Watched
from .metrics import Metrics
from .owned import Object
from .plan import (
    ConfigView,
    Gateway,
    StatusView,
    Written,
    boot_config_map,
    config_maps,
    credentials_secret,
    referenced,
    saved_in,
    selections,
    snapshot_of,
    statuses_of,
)
from .polled import ConfigMaps, Gateways, Secrets, Selection
from .progress import Progress, Subscriber
from .queue import WorkQueue
from .settings import Settings
from .statuses import Turn, turns, worth_writing
from .waking import EMPTY_SECONDS, LOOK_SECONDS, Waking
from .world import World

log = logging.getLogger("spillway.reconcile")

JOIN_SECONDS = 0.05
"""How long a change waits for others: a rollout changes several slices at once."""
STATUS_SECONDS = 0.5
CHILDREN_SECONDS = 1.0
SCALE_SECONDS = 0.5
BOOT_SECONDS = 15.0
"""Between two writes of a gateway's ConfigMap, however often its endpoints change."""
SETTLE_SECONDS = 20.0
"""After a new leader has begun, balancers that are not with it yet do not count as behind."""
WRITES_AT_ONCE = 4
UNTOLD = 2000
"""Events that wait to be written; beyond that the oldest are left out, as statuses say it all."""

PLURALS = {"ModelPool": "modelpools", "RoutePolicy": "routepolicies"}


class Key(NamedTuple):
    """What is reconciled: the snapshot of a gateway, its children, all statuses, what is to be told of them, or the
    workloads behind pools."""

    what: Literal["snapshot", "children", "status", "events", "scales"]
    gateway: str = ""

    def __str__(self) -> str:
        return f"{self.what} of gateway {self.gateway}" if self.gateway else self.what


class Referenced(NamedTuple):
    """What objects refer to that is asked for and not watched."""

    secrets: frozenset[str]
    selections: frozenset[Selection]
    config_maps: frozenset[str]


class Streams(Protocol):
    """The config stream, as the reconcile uses it."""

    synced: bool

    def publish(self, gateway: str, snapshot: Snapshot, digest: str, at: float) -> None: ...
    def withdraw(self, gateway: str) -> None: ...
    def subscribers(self, gateway: str) -> tuple[Subscriber, ...]: ...
    def wanted(self, gateway: str) -> Iterable[str]: ...


class Reconciler:
    """Keeps what is served and what is written equal to what should be."""

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        streams: Streams,
        leads: Callable[[], bool],
        metrics: Metrics,
        dice: random.Random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._streams = streams
        self._leads = leads
        self._metrics = metrics
        self._wall = wall
        self.world: World | None = None
        self.secrets = Secrets(cluster, dice, settings.consumers)
        self.config_maps = ConfigMaps(cluster, dice)
        self.gateways = Gateways(cluster, settings.namespace, settings.fullname)
        # Those that sidecars name are planned whether or not their Deployment is there: sidecars send to pools without.
        self._standing = frozenset(settings.sidecars.gateways) if settings.sidecars is not None else frozenset()
        self.waking = Waking(cluster)
        self.progress: dict[str, Progress] = {}
        self.queue: WorkQueue[Key] = WorkQueue(self._work, _rest, dice)
        self._applied: dict[tuple[str, str], Object] = {}
        self._booted: dict[str, tuple[GatewayFacts, str, tuple[str, ...]]] = {}
        """What the gateways' ConfigMaps hold."""
        self._boot_written: dict[str, float] = {}
        self._status_written: dict[str, float] = {}
        self._to_tell: deque[tuple[Watched[Any], Turn]] = deque(maxlen=UNTOLD)
        self._faults: dict[str, frozenset[Problem]] = {}
        """Of Spillway's own, by gateway."""
        self._refreshed = 0.0
        self._leading_since: float | None = None
        self.totals: Callable[[], Mapping[str, Total]] = dict
        """How budgets stand, as far as it is known who has spent what."""

    @property
    def budgets(self) -> dict[str, dict[str, AnyBudget]]:
        """By gateway. What a pool or a policy may spend, it may spend on all of them together."""
        return {name: progress.budgets for name, progress in self.progress.items()}

    def config_changed(self) -> None:
        """Something that is served may have changed."""
        for name in {*self.gateways.known, *self._standing, *self.progress}:
            self.queue.wake(Key("snapshot", name))
        self.queue.wake(Key("status"))
        self.queue.wake(Key("scales"))

    def status_changed(self) -> None:
        """A balancer has said something, or a status is another."""
        self.queue.wake(Key("status"))
        self.queue.wake(Key("scales"))

    def leadership_changed(self) -> None:
        """This replica begins or ends to write."""
        self._leading_since = time.monotonic() if self._leads() else None
        self._look_anew()
        self.queue.wake(Key("status"))
        self.queue.wake(Key("scales"))

    @property
    def serving(self) -> bool:
        """Whether every gateway that there is has been planned once."""
        planned = {*self.gateways.known, *self._standing}
        return self.gateways.asked and all(name in self.progress and self.progress[name].compiled for name in planned)

    async def _work(self, key: Key) -> float | None:
        if self.world is None or not self.gateways.asked:
            return 0.2  # nothing is known yet; the first listing wakes again
        began = time.perf_counter()
        try:
            match key.what:
                case "snapshot":
                    await self._snapshot(key.gateway, self.world)
                    return None
                case "children":
                    return await self._children(key.gateway)
                case "status":
                    return await self._status(self.world)
                case "events":
                    await self._events()
                    return None
                case "scales":
                    return await self._scales(self.world)
        finally:
            # Once and for all: a gateway that comes later keeps the balancers of the others waiting for nothing.
            self._streams.synced = self._streams.synced or self.serving
            self._metrics.reconciled(key.what, time.perf_counter() - began)

    async def _snapshot(self, name: str, world: World) -> None:
        facts = self.gateways.known.get(name)
        if facts is None and name not in self._standing:
            if self.progress.pop(name, None) is not None:
                self._streams.withdraw(name)
            return
        progress = self.progress.get(name)
        if progress is None:
            progress = Progress(name)
            if facts is not None:
                space = self._settings.namespace
                found = await self._cluster.get("v1", "configmaps", space, f"{facts.deployment}-boot")
                progress.seed(saved_in(found))
            self.progress[name] = progress
        wanted: Referenced | None = None
        while wanted != (now := self._referenced(world)):  # objects may change while Secrets are read
            wanted = now
            await self.secrets.want(wanted.secrets, wanted.selections)
            await self.config_maps.want_named(wanted.config_maps)
        # From here to the publishing nothing is awaited, so that the view is of one moment.
        view = ConfigView(
            name,
            list(world.pools()),
            list(world.policies()),
            world.found,
            world.labels,
            self.secrets.has,
            self.secrets.exists,
            progress.last_good,
            self.secrets.selected,
            self.config_maps.text,
            self._settings.prices,
        )
        compiled = snapshot_of(view)
        at = self._wall()
        mark = digest(compiled.snapshot)
        self._tell_faults(name, compiled)
        if progress.take(compiled, mark, at):
            self._streams.publish(name, compiled.snapshot, mark, at)
            self._metrics.published(name, compiled.snapshot)
            log.info("gateway %s: %d pools, %d routes, digest %s", name, *_sizes(compiled.snapshot), mark[:12])
        self.queue.wake(Key("children", name))
        self.queue.wake(Key("status"))

    def _tell_faults(self, gateway: str, compiled: Compiled) -> None:
        """In the log, once: the objects' conditions say so too."""
        faults = frozenset(each for each in compiled.problems if each.reason == INTERNAL)
        for each in sorted(faults - self._faults.get(gateway, frozenset())):
            log.error("%s: %s", each.object, each.message)
        self._faults[gateway] = faults

    def _referenced(self, world: World) -> Referenced:
        last = [progress.last_good for progress in self.progress.values()]
        return Referenced(
            referenced(world.pools(), last), selections(world.policies(), last), config_maps(world.pools())
        )

    async def _children(self, name: str) -> float | None:
        facts, progress = self.gateways.known.get(name), self.progress.get(name)
        if not self._leads() or facts is None or progress is None or progress.compiled is None:
            return None
        snapshot, space = progress.compiled.snapshot, self._settings.namespace
        try:
            await self._apply(credentials_secret(facts, space, snapshot, self.secrets.value))
        finally:  # one that cannot be written is no reason to leave the other unwritten
            again = await self._boot(facts, progress)
        return again

    async def _boot(self, facts: GatewayFacts, progress: Progress) -> float:
        """Write what a new balancer boots from, now or when it is time; seconds until then."""
        name, saved = facts.name, progress.saved
        if self._booted.get(name) == (facts, saved.digest, saved.partial):
            return self._settings.refresh
        now = time.monotonic()
        wait = self._boot_written.get(name, -BOOT_SECONDS) + BOOT_SECONDS - now
        if wait > 0:
            return wait
        boot = boot_config_map(facts, self._settings.namespace, saved)
        if boot is None:
            log.error("the snapshot of gateway %s is too large for a ConfigMap; new balancers need the operator", name)
            return self._settings.refresh
        self._boot_written[name] = now
        await self._apply(boot)
        self._booted[name] = (facts, saved.digest, saved.partial)
        return self._settings.refresh

    def _look_anew(self) -> None:
        """Write children as if they were not there."""
        self._applied.clear()
        self._booted.clear()
        for name in self.progress:
            self.queue.wake(Key("children", name))

    async def _apply(self, obj: Object) -> None:
        """Apply one child, unless it was and this process would know."""
        if self._applied.get((obj["kind"], obj["metadata"]["name"])) == obj:
            return
        await self._cluster.apply(obj)
        self._applied[obj["kind"], obj["metadata"]["name"]] = obj
        self._metrics.written(obj["kind"])

    async def _status(self, world: World) -> float | None:
        if not self._leads() or self._leading_since is None:
            return None
        if not self.serving:
            return 0.2  # else a gateway that is about to be planned would be called unknown
        now = time.monotonic()
        if now - self._refreshed >= self._settings.refresh:
            self._refreshed = now
            self._look_anew()
        settling = now - self._leading_since < SETTLE_SECONDS
        view = StatusView(
            list(world.pools()),
            list(world.policies()),
            world.found,
            {
                name: Gateway(self.gateways.known.get(name), progress, self._streams.subscribers(name))
                for name, progress in self.progress.items()
            },
            settling,
            self.waking.scale,
            self.totals(),
        )
        wanted = statuses_of(view, self._wall())
        due = [each for each in wanted if self._due(each, now)]
        slots = asyncio.Semaphore(WRITES_AT_ONCE)
        done = await asyncio.gather(*(self._write(each, now, slots) for each in due), return_exceptions=True)
        for failure in done:
            if isinstance(failure, BaseException):  # the others are written; it is tried again with a pause
                raise failure
        late = any(each.status != each.watched.status for each in wanted)
        return min(5.0 if late or settling else 30.0, self._settings.refresh)

    async def _scales(self, world: World) -> float | None:
        """Look at the workloads behind pools, and wake those from zero that a balancer says are wanted."""
        pools = [each for each in world.pools() if each.item is not None and each.item.spec.scaling is not None]
        if not self._leads() or not pools:
            return None
        wanted = {pool for gateway in self.progress for pool in self._streams.wanted(gateway)}
        before = [self.waking.scale(each.item) for each in pools if each.item is not None]
        empty = {
            f"{each.namespace}/{each.name}"
            for each in pools
            if each.item is not None and not world.found(each.item).discovered.endpoints
        }
        woken = await self.waking.look(pools, wanted, empty, time.monotonic())
        if before != [self.waking.scale(each.item) for each in pools if each.item is not None]:
            self.queue.wake(Key("status"))
        for regarding in woken:
            self._metrics.written("Scale")
            message = "a request wants it, and its workload was scaled to zero"
            await tell(self._cluster, regarding, True, "Woken", message, self._wall())
        return EMPTY_SECONDS if empty else LOOK_SECONDS

    def _due(self, written: Written, now: float) -> bool:
        since = now - self._status_written.get(written.watched.key, float("-inf"))
        return worth_writing(written.watched.status, written.status, since)

    async def _write(self, written: Written, now: float, slots: asyncio.Semaphore) -> None:
        watched = written.watched
        async with slots:
            if not self._leads():
                return
            self._status_written[watched.key] = now
            body = {"status": written.status}
            plural = PLURALS[watched.kind]
            await self._cluster.apply_status(API_VERSION, plural, watched.namespace, watched.name, body)
            self._metrics.written(f"{watched.kind}/status")
            self._to_tell.extend((watched, turn) for turn in turns(watched.status, written.status))
            if self._to_tell:
                self.queue.wake(Key("events"))

    async def _events(self) -> None:
        """They come after the statuses that they are about."""
        while self._to_tell and self._leads():
            watched, turn = self._to_tell.popleft()
            verdict = turn.verdict
            regarding = about(API_VERSION, watched.kind, watched)
            usual = verdict.status == "True" or turn.type == "Spilling" or verdict.reason == "ScaledToZero"
            await tell(self._cluster, regarding, usual, verdict.reason, verdict.message, self._wall())


def _rest(key: Key) -> float:
    return {
        "snapshot": JOIN_SECONDS,
        "children": CHILDREN_SECONDS,
        "status": STATUS_SECONDS,
        "events": 0.0,
        "scales": SCALE_SECONDS,
    }[key.what]


def _sizes(snapshot: Snapshot) -> tuple[int, int]:
    return len(snapshot.pools), len(snapshot.routes)
