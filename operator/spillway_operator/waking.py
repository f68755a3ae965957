"""Workloads behind pools: how many replicas they have, and waking those from zero that requests want.

Only the leader looks and writes. A workload is scaled up from zero, never down and never when it has replicas; the
version that was read goes along with the write, so that of two who scale at once one is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from spillway_api.types import API_VERSION, ModelPool

from .cluster import ApiError, Cluster, Conflict, Object
from .events import about
from .facts import Watched

log = logging.getLogger("spillway.waking")

LOOK_SECONDS: Final = 30.0
"""Between two looks at a workload that nobody wants."""
EMPTY_SECONDS: Final = 5.0
"""Between two looks at one whose pool has no endpoint: it is at zero, or about to come."""
AGAIN_SECONDS: Final = 30.0
"""Until one that has been woken is woken again, if somebody has put it back to zero."""
AT_ONCE: Final = 4


class Target(NamedTuple):
    """A workload, by its name."""

    namespace: str
    api: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f'{self.kind} "{self.name}"'


class Scale(NamedTuple):
    """What a look at it found."""

    replicas: int | None
    """That it should have; None where it cannot be told."""
    why: str = ""
    """In words, then."""


def target_of(pool: ModelPool) -> Target | None:
    """What stands behind a pool."""
    if pool.spec.scaling is None:
        return None
    ref = pool.spec.scaling.target_ref
    return Target(pool.metadata.namespace, ref.api_version, ref.kind, ref.name)


class Waking:
    """The workloads that pools name, as they were last seen."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._seen: dict[Target, tuple[float, Scale]] = {}
        self._woken: dict[Target, float] = {}

    def scale(self, pool: ModelPool) -> Scale | None:
        """Of the workload behind it; None where it names none, or nobody has looked yet."""
        target = target_of(pool)
        seen = None if target is None else self._seen.get(target)
        return None if seen is None else seen[1]

    async def look(
        self, pools: Iterable[Watched[ModelPool]], wanted: Collection[str], empty: Collection[str], now: float
    ) -> list[Object]:
        """Look at the workloads of these pools, and wake those at zero whose pool is `wanted`. Returns references to
        the pools that were woken. One that cannot be asked keeps nobody from the others.

        `empty` are pools without endpoints, as namespace/name like `wanted`; `now`: seconds of a clock that only grows.
        """
        named: dict[Target, list[Watched[ModelPool]]] = {}
        for watched in pools:
            if watched.item is not None and (target := target_of(watched.item)) is not None:
                named.setdefault(target, []).append(watched)
        for gone in self._seen.keys() - named.keys():
            del self._seen[gone]
        self._woken = {target: at for target, at in self._woken.items() if now - at < AGAIN_SECONDS}
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(target: Target, behind: Sequence[Watched[ModelPool]]) -> Object | None:
            waker = next((each for each in behind if _name(each) in wanted and _wakes(each)), None)
            if target in self._woken:
                waker = None
            rest = EMPTY_SECONDS if any(_name(each) in empty for each in behind) else LOOK_SECONDS
            if waker is None and target in self._seen and now - self._seen[target][0] < rest:
                return None
            async with slots:
                return await self._one(target, waker, now)

        done = await asyncio.gather(*(one(target, behind) for target, behind in named.items()))
        return [each for each in done if each is not None]

    async def _one(self, target: Target, waker: Watched[ModelPool] | None, now: float) -> Object | None:
        try:
            found = await self._cluster.scale(target.api, target.kind, target.namespace, target.name)
            self._seen[target] = now, _scale(target, found)
            scaling = waker.item.spec.scaling if waker is not None and waker.item is not None else None
            if found is None or waker is None or scaling is None or self._seen[target][1].replicas != 0:
                return None
            self._woken[target] = now
            await self._cluster.rescale(target.api, target.kind, found, scaling.wake_replicas)
            self._seen[target] = now, Scale(scaling.wake_replicas)
        except Conflict:
            return None  # somebody else scales it: the next look shows to what
        except ApiError as error:
            why = "the operator may not scale it: see scaling.kinds of the chart" if error.status == 403 else str(error)
            self._seen[target] = now, Scale(None, f"{target}: {why}")
            log.warning("%s of namespace %s cannot be scaled: %s", target, target.namespace, error)
            return None
        log.info("woke %s of namespace %s to %d replicas", target, target.namespace, scaling.wake_replicas)
        return about(API_VERSION, waker.kind, waker)


def _name(watched: Watched[ModelPool]) -> str:
    return f"{watched.namespace}/{watched.name}"


def _wakes(watched: Watched[ModelPool]) -> bool:
    scaling = None if watched.item is None else watched.item.spec.scaling
    return scaling is not None and scaling.from_zero == "Wake"


def _scale(target: Target, found: Object | None) -> Scale:
    if found is None:
        return Scale(None, f"there is no {target} with a scale in namespace {target.namespace}")
    return Scale(int((found.get("spec") or {}).get("replicas") or 0))
