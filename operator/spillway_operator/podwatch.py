"""A watch of Pods by labels, beside kopf's: that one is for engines and may be narrowed to them, this one for clients.

Few of the Pods that pass through here are kept: those that lack a sidecar. The others are read and let go, one at a
time, so that the memory that this takes does not grow with the number of Pods.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Collection
from typing import Final, Literal, NamedTuple

import msgspec

from .cluster import ApiError, Cluster, Object
from .injection import LABEL
from .lacking import Seen, Shown
from .queue import retry_after

log = logging.getLogger("spillway.sidecars")

CHUNK: Final = 500
"""Pods of one page of a listing."""
WATCH_SECONDS: Final = 290
"""After so long the server ends a watch, which then goes on from where it was."""
MANY: Final = 16
"""Namespaces that ask for sidecars, beyond which one watch of the whole cluster is cheaper than one of each."""


class Scope(NamedTuple):
    """Which Pods are watched. Those of two scopes are never the same."""

    namespace: str
    """Empty for all."""
    labels: str
    """As a list request takes them."""
    only: frozenset[str] = frozenset()
    """The namespaces that matter, where not all do; empty for all."""


def scopes(asking: Collection[str], namespaces: Collection[str], spared: Collection[str]) -> frozenset[Scope]:
    """What is to be watched: Pods that ask themselves, and those that say nothing in namespaces that ask.

    `namespaces`: the only ones that may be watched; empty for all. `spared`: without sidecars.
    """
    themselves = (each for each in namespaces if each not in spared) if namespaces else ("",)
    found = {Scope(each, f"{LABEL}=true") for each in themselves}
    spaces = frozenset(each for each in asking if each not in spared and (not namespaces or each in namespaces))
    if len(spaces) > MANY and not namespaces:
        found.add(Scope("", f"!{LABEL}", spaces))
    else:
        found.update(Scope(each, f"!{LABEL}") for each in spaces)
    return frozenset(found)


class PodWatch:
    """The Pods of a scope that lack something, as long as `run` runs."""

    def __init__(
        self,
        cluster: Cluster,
        scope: Scope,
        seen: Callable[[Object], Seen | None],
        changed: Callable[[], None],
        dice: random.Random,
        silence: float,
    ) -> None:
        """`silence`: seconds after which a watch that brings nothing, not even a bookmark, is opened anew."""
        self._cluster = cluster
        self._scope = scope
        self._seen = seen
        self._changed = changed
        self._dice = dice
        self._silence = silence
        self._version = ""
        self._failures = 0
        self.pods: dict[str, Seen] = {}
        """By uid."""
        self.listed = False
        """Whether `pods` are all of them."""
        self.left: dict[str, Seen] = {}
        """Pods that lacked a sidecar and have left the scope: gone, or their labels say something else now."""

    async def run(self) -> None:
        """List and watch until cancelled, whatever the API server does."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except ApiError as error:
                # 410: it does not remember so far back. Only where nobody answered it goes on from what was seen last.
                self._version = self._version if error.status == 0 else ""
                pause = retry_after(self._failures, self._dice)
                self._failures += 1
                if error.status != 410:
                    log.warning("Pods could not be watched, again in %.1f s: %s", pause, error)
                await asyncio.sleep(pause)

    async def _list(self) -> None:
        """All of them, and the version to go on from."""
        found: dict[str, Seen] = {}
        follow = ""
        while True:
            query = {"labelSelector": self._scope.labels, "limit": str(CHUNK), "continue": follow}
            page = _Page.decode(await self._cluster.page("v1", "pods", self._scope.namespace, query))
            for item in page.items:
                pod = self._kept(_object(item))
                if pod is not None:
                    found[pod.uid] = pod
            follow = page.metadata.follow
            if not follow:
                break
        self.left.update({uid: pod for uid, pod in self.pods.items() if uid not in found})
        self.pods = found
        self._version, self.listed = page.metadata.version, True
        self._changed()

    async def _watch(self) -> None:
        """What changes, until the server ends the watch."""
        query = {
            "watch": "true",
            "labelSelector": self._scope.labels,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        events = self._cluster.watch("v1", "pods", self._scope.namespace, query, self._silence)
        async with contextlib.aclosing(events):
            async for line in events:
                event = _Event.decode(line)
                body = _object(event.object)
                if event.type == "ERROR":
                    raise ApiError(body.get("code", 0), str(body.get("reason")), str(body.get("message")))
                self._version, self._failures = body["metadata"]["resourceVersion"], 0
                if event.type != "BOOKMARK":
                    self._heard(event.type == "DELETED", body)

    def told(self, pod: Seen, shown: Shown | None) -> None:
        """The condition of a Pod has been written; the watch will say so too, in a moment."""
        if self.pods.get(pod.uid) is pod:
            self.pods[pod.uid] = pod._replace(shown=shown)

    def _kept(self, body: Object) -> Seen | None:
        meta = body["metadata"]
        if self._scope.only and meta["namespace"] not in self._scope.only:
            return None
        try:
            return self._seen(body)
        except Exception as error:  # one Pod keeps nobody from seeing the others
            log.error("Pod %s/%s could not be understood: %s", meta["namespace"], meta["name"], type(error).__name__)
            return None

    def _heard(self, deleted: bool, body: Object) -> None:
        uid = body["metadata"]["uid"]
        before, there = self.pods.pop(uid, None), self._kept(body)
        if there is not None and not deleted:
            self.pods[uid] = there
        elif before is not None and there is not None:  # neither finished nor about to end
            self.left[uid] = there
        if before != self.pods.get(uid):
            self._changed()


class _ListMeta(msgspec.Struct):
    version: str = msgspec.field(name="resourceVersion")
    follow: str = msgspec.field(name="continue", default="")


class _PodList(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw]


class _WatchEvent(msgspec.Struct):
    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: msgspec.Raw


_Page: Final = msgspec.json.Decoder(_PodList)
_Event: Final = msgspec.json.Decoder(_WatchEvent)


def _object(raw: msgspec.Raw) -> Object:
    value: Object = msgspec.json.decode(raw)
    return value
