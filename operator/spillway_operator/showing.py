"""Shows Pods that lack the sidecar that they asked for: by a condition of each, an event, a metric and a log line.

Only the leader looks. It watches the Pods that ask, writes to those that lack a sidecar, and to no other: what a Pod's
condition says already is not written again, by this leader or the next. However many there are, so many are written in
a second and no more, each with one patch and one event. A Pod whose writing fails is left alone for a while, so that it
keeps nobody from the others.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from .cluster import ApiError, Cluster
from .events import about, tell
from .injection import Sidecar
from .lacking import NEVER, Lack, Seen, Shown, condition, differs, lack, seen
from .metrics import Metrics
from .podwatch import PodWatch, Scope, scopes
from .queue import WorkQueue
from .settings import Settings
from .spaces import Spaces
from .world import World

log = logging.getLogger("spillway.sidecars")

REST_SECONDS: Final = 1.0
"""How long a change waits for others, and between two rounds of writes."""
AT_A_TIME: Final = 20
"""Pods that are written in a round."""
WRITES_AT_ONCE: Final = 4
AGAIN_SECONDS: Final = 60.0
"""Until a Pod that could not be written is tried again, and between two looks without a reason."""
NAMED: Final = 3
"""Pods that a line of the log names."""


class Due(NamedTuple):
    """What is to be written to a Pod; without a lack its condition is taken away."""

    pod: Seen
    lack: Lack | None


class Showing:
    """The Pods without sidecars, in everybody's sight as long as this replica leads."""

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        sidecar: Sidecar,
        leads: Callable[[], bool],
        world: Callable[[], World | None],
        metrics: Metrics,
        dice: random.Random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._sidecar = sidecar
        self._leads = leads
        self._world = world
        self._metrics = metrics
        self._dice = dice
        self._wall = wall
        self._spared = NEVER | {settings.namespace}
        self._spaces = Spaces(settings, cluster)
        self._asked: Mapping[str, str] | None = None
        """Namespaces that ask, as the watch of all namespaces told last."""
        self._watches: dict[Scope, tuple[PodWatch, asyncio.Task[None]]] = {}
        self._left: dict[str, Seen] = {}
        """Pods that are watched no more, though their condition may still stand there."""
        self._failed: dict[str, float] = {}
        """Pods that could not be written, by uid, with the time until which they are left alone."""
        self.queue: WorkQueue[str] = WorkQueue(self._look, lambda _: REST_SECONDS, dice)

    def changed(self) -> None:
        """A Pod or the leader may be another."""
        self.queue.wake("sidecars")

    def world_changed(self) -> None:
        """Something in the cluster is another; most of it is nothing to this."""
        world = self._world()
        asking = None if world is None else world.asking()
        if asking != self._asked:
            self._asked = asking
            self.changed()

    async def close(self) -> None:
        """End all watches."""
        await self.queue.close()
        self._end(self._watches)

    async def _look(self, _: str) -> float | None:
        world = self._world()
        if not self._leads() or world is None:
            self._end(self._watches)
            self._left.clear()
            self._metrics.lacking({})
            return None if world is not None else REST_SECONDS
        asking, webhook = await self._spaces.asking(world), await self._spaces.webhook()
        self._follow(scopes(asking, self._settings.namespaces, self._spared))
        pods = {uid: pod for watch, _ in self._watches.values() for uid, pod in watch.pods.items()}
        lacking = [Due(pod, lack(pod, asking, webhook)) for pod in pods.values()]
        self._metrics.lacking(Counter((pod.namespace, why.reason) for pod, why in lacking if why is not None))
        self._left = {uid: pod for uid, pod in self._left.items() if uid not in pods and pod.shown is not None}
        lacking += [Due(pod, None) for pod in self._left.values()]
        now = asyncio.get_running_loop().time()
        self._failed = {uid: until for uid, until in self._failed.items() if until > now}
        due = [each for each in lacking if differs(each.lack, each.pod.shown) and each.pod.uid not in self._failed]
        await self._write(due[:AT_A_TIME], now)
        return AGAIN_SECONDS if len(due) <= AT_A_TIME else REST_SECONDS

    def _follow(self, wanted: Collection[Scope]) -> None:
        """Watch these. What is watched beside them ends once these have been listed, so that nothing is missed."""
        for scope, (watch, task) in list(self._watches.items()):
            if task.done():
                log.error("a watch of Pods has ended: %r", task.exception())
                del self._watches[scope]
            self._left |= watch.left
            watch.left.clear()
        for scope in set(wanted) - self._watches.keys():
            watch = PodWatch(
                self._cluster,
                scope,
                lambda pod: seen(pod, self._spared, self._sidecar),
                self.changed,
                self._dice,
                self._settings.silence,
            )
            self._watches[scope] = watch, asyncio.get_running_loop().create_task(watch.run())
        if all(self._watches[scope][0].listed for scope in wanted):
            self._end(self._watches.keys() - set(wanted))

    def _end(self, unwanted: Collection[Scope]) -> None:
        for scope in list(unwanted):
            watch, task = self._watches.pop(scope)
            task.cancel()
            self._left |= watch.left | watch.pods

    async def _write(self, due: Sequence[Due], now: float) -> None:
        """To each Pod what is due. Raises no ApiError: one that fails has its turn later."""
        slots = asyncio.Semaphore(WRITES_AT_ONCE)

        async def one(each: Due) -> bool:
            async with slots:
                if not self._leads():
                    return False
                try:
                    await self._one(each)
                except ApiError as error:
                    self._failed[each.pod.uid] = now + AGAIN_SECONDS
                    if error.status != 422:  # the uid is not to be changed: there is another Pod by that name now
                        log.warning("the condition of a Pod could not be written: %s", error)
                    return False
            return True

        done = await asyncio.gather(*map(one, due))
        _log([each for each, written in zip(due, done, strict=True) if written])

    async def _one(self, due: Due) -> None:
        pod, why = due
        at = self._wall()
        now = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = [] if why is None else [condition(why, pod.shown, now)]
        # With the uid, so that a Pod that came in its place is not the one that is told.
        body = {"metadata": {"uid": pod.uid}, "status": {"conditions": conditions}}
        await self._cluster.apply_status("v1", "pods", pod.namespace, pod.name, body)
        self._metrics.written("Pod/status")
        self._left.pop(pod.uid, None)
        shown = None if why is None else Shown(why.reason, why.message, conditions[0]["lastTransitionTime"])
        for watch, _ in self._watches.values():
            watch.told(pod, shown)
        if why is None or (pod.shown is not None and pod.shown.reason == why.reason):
            return
        usual, message = why.reason == "CreatedBefore", f"{why.reason}: {why.message}"
        await tell(self._cluster, about("v1", "Pod", pod), usual, "NoSidecar", message, at)


def _log(told: Sequence[Due]) -> None:
    groups: dict[tuple[str, str], list[str]] = {}
    for pod, why in told:
        if why is not None and (pod.shown is None or pod.shown.reason != why.reason):
            groups.setdefault((pod.namespace, why.reason), []).append(pod.name)
    for (space, reason), names in groups.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        log.warning("Pods of namespace %s lack a sidecar (%s): %s%s", space, reason, ", ".join(names[:NAMED]), more)
