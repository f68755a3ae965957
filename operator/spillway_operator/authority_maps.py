"""The operator's authority in every namespace whose Pods have sidecars: there they find whom to believe.

A Pod mounts a ConfigMap of its own namespace only. It is made before the first Pod is let in that mounts it, by
whichever replica is asked, and kept up by the leader.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from .cluster import ApiError, Cluster, Object
from .injection import CA_CONFIG_MAP
from .settings import Settings

KEY: Final = "ca.crt"
FRESH: Final = 60.0
"""Seconds for which a ConfigMap that was written is taken to be there."""
OUTAGE: Final = 3600.0
"""Seconds for which it is while the API server does not take a new one."""
_ANYWHERE: Final = frozenset({0, 401, 429})
"""Statuses that say nothing of a namespace; nor do those from 500."""

log = logging.getLogger("spillway.webhook")


class AuthorityMaps:
    """The ConfigMaps of one name, one for each namespace."""

    def __init__(
        self, settings: Settings, cluster: Cluster, authority: Callable[[], bytes], clock: Callable[[], float]
    ) -> None:
        """`authority`: PEM of what is to be believed now."""
        self._settings = settings
        self._cluster = cluster
        self._authority = authority
        self._clock = clock
        self._known: dict[str, tuple[bytes, float]] = {}
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._there: set[str] = set()
        """Namespaces that had one when the leader looked last."""

    async def ensure(self, namespace: str) -> None:
        """Returns when the namespace has it. Raises ApiError when it cannot be made."""
        authority, now = self._authority(), self._clock()
        known, at = self._known.get(namespace, (b"", -OUTAGE))
        if known == authority and now - at < FRESH:
            return
        try:
            await self._write(namespace, authority)
        except ApiError:
            if now - at >= OUTAGE:
                raise

    async def keep(self, authority: bytes) -> None:
        """Bring all that there are up to date, and put back what has been deleted. Raises ApiError.

        What is wrong with one namespace keeps it from no other: a tenant may have made it immutable, or a policy forbid
        it, and a namespace that ends takes none any more."""
        found = {each["metadata"]["namespace"]: each.get("data") or {} for each in await self._all()}
        gone = (self._there | self._known.keys()) - found.keys()
        gone = gone.intersection(self._settings.watched or gone)
        refused = {}
        for namespace in [*found, *sorted(gone)]:
            if _says(found.get(namespace, {}), authority):
                continue
            try:
                await self._apply(namespace, authority)
            except ApiError as error:
                if error.status in _ANYWHERE or error.status >= 500:
                    raise
                if namespace in found:
                    refused[namespace] = error
                else:  # it is gone itself, or about to be
                    gone.discard(namespace)
                    self._known.pop(namespace, None)
        self._there = found.keys() | gone
        if refused:
            namespace, why = next(iter(refused.items()))
            log.warning("%d namespaces do not take the authority, among them %s: %s", len(refused), namespace, why)

    async def _all(self) -> list[Object]:
        found = []
        for namespace in self._settings.watched or ("",):
            found += await self._cluster.list_named("v1", "configmaps", namespace, CA_CONFIG_MAP)
        return found

    async def _write(self, namespace: str, authority: bytes) -> None:
        """One at a time for a namespace, however many Pods wait for it; one that waits no more takes it from nobody."""
        task = self._writing.get(namespace)
        if task is None:
            task = asyncio.create_task(self._apply(namespace, authority))
            self._writing[namespace] = task
            task.add_done_callback(lambda done: self._written(namespace, done))
        await asyncio.shield(task)

    def _written(self, namespace: str, task: asyncio.Task[None]) -> None:
        del self._writing[namespace]
        if not task.cancelled():
            task.exception()  # told to those who wait, if anybody still does

    async def _apply(self, namespace: str, authority: bytes) -> None:
        labels = {"app.kubernetes.io/managed-by": "spillway-operator", "app.kubernetes.io/part-of": "spillway"}
        meta = {"name": CA_CONFIG_MAP, "namespace": namespace, "labels": labels}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {KEY: authority.decode("ascii")}}
        await self._cluster.apply(body)
        self._known[namespace] = authority, self._clock()


def _says(data: Mapping[str, str], authority: bytes) -> bool:
    """Whether sidecars find it; other keys are nobody's business."""
    return data.get(KEY) == authority.decode("ascii")
