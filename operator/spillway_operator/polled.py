"""What is asked for instead of being watched: Secrets and ConfigMaps that pools name, and gateways' Deployments.

A watch of Secrets would need the right to list them, which is the right to read all of them; by name only those are
read that somebody refers to. Consumers are found by their Secrets' labels, which does need that right: who wants them
gives it, and without it nothing is listed. Deployments are watched by nobody either, because kopf watches everything
in the same namespaces, and those of others are none of the operator's business.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import random
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from spillway_api.consumers import KEY
from spillway_api.labelled import Labelled, labelled

from .cluster import ApiError, Cluster
from .facts import GATEWAY_LABEL, GatewayFacts, gateway

log = logging.getLogger("spillway.polled")

SECONDS = 10.0
"""Between two looks at what is named: how late a rotation is seen, at most."""
GATEWAY_SECONDS = 3.0
AT_ONCE = 4
"""Objects that are asked for at a time."""

Data = Mapping[str, bytes]
Reader = Callable[[Mapping[str, str]], Data]
Selection = tuple[str, str]
"""A namespace, and labels as a list request takes them."""


class Listed(NamedTuple):
    """A Secret that was found by its labels; of its values only the key of a consumer is kept."""

    face: Labelled
    data: Data


class Named:
    """Objects that are referred to by name, as they were last seen. Values stay in this process's memory."""

    def __init__(self, cluster: Cluster, dice: random.Random, kind: str, plural: str, read: Reader) -> None:
        self._cluster = cluster
        self._dice = dice
        self._kind = kind
        self._plural = plural
        self._reader = read
        self._known: dict[str, Data | None] = {}
        self._wanted: frozenset[str] = frozenset()

    async def want_named(self, names: Collection[str]) -> None:
        """Keep these, as namespace/name, and no others. New ones are read before this returns. Raises ApiError."""
        self._wanted = frozenset(names)
        for gone in self._known.keys() - self._wanted:
            del self._known[gone]
        await self._read(sorted(self._wanted - self._known.keys()))

    def exists(self, name: str) -> bool:
        return self._known.get(name) is not None

    def value(self, name: str, key: str) -> bytes | None:
        named = self._known.get(name)
        return None if named is None else named.get(key)

    async def follow(self, changed: Callable[[], None]) -> None:
        """Look at them again and again until cancelled; while the API server is away, what was seen last counts."""
        while True:
            await asyncio.sleep(SECONDS * self._dice.uniform(0.8, 1.0))
            before = self._seen()
            try:
                await self._look()
            except ApiError as error:
                log.warning("%ss could not be read: %s", self._kind, error)
            if self._seen() != before:
                changed()

    def _seen(self) -> object:
        """What a change is told by."""
        return dict(self._known)

    async def _look(self) -> None:
        await self._read(sorted(self._wanted))

    async def _read(self, names: Collection[str]) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def read(name: str) -> None:
            async with slots:
                space, own = name.split("/", 1)
                try:
                    found = await self._cluster.get("v1", self._plural, space, own)
                except ApiError as error:
                    if error.status != 403:
                        raise
                    log.warning("the %s %s may not be read; its pool is told that it is not there", self._kind, name)
                    found = None
            if name in self._wanted:
                self._known[name] = None if found is None else self._reader(found.get("data") or {})

        # One that may not be read keeps none of the others from being read.
        results = await asyncio.gather(*map(read, names), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result


class ConfigMaps(Named):
    """The ConfigMaps that pools name: authorities that TLS is to believe."""

    def __init__(self, cluster: Cluster, dice: random.Random) -> None:
        super().__init__(cluster, dice, "ConfigMap", "configmaps", _encoded)

    def text(self, name: str, key: str) -> str | None:
        value = self.value(name, key)
        return None if value is None else value.decode()


class Secrets(Named):
    """The Secrets that are referred to, and those that are found by their labels."""

    def __init__(self, cluster: Cluster, dice: random.Random, may_list: bool = False) -> None:
        super().__init__(cluster, dice, "Secret", "secrets", _decoded)
        self._may_list = may_list
        self._listed: dict[Selection, dict[str, Listed] | None] = {}
        """None where they may not be listed. By namespace/name, as their order is nobody's."""
        self._selections: frozenset[Selection] = frozenset()

    async def want(self, names: Collection[str], selections: Collection[Selection] = ()) -> None:
        """Keep these, by their names or by what they are selected by, and no others. New ones are read before this
        returns. Raises ApiError."""
        self._selections = frozenset(selections)
        for left in self._listed.keys() - self._selections:
            del self._listed[left]
        await self.want_named(names)
        await self._list(sorted(self._selections - self._listed.keys()))

    def has(self, secret: str, key: str) -> bool:
        """Whether the Secret has the key, with something in it."""
        return bool(self.value(secret, key))

    def value(self, name: str, key: str) -> bytes | None:
        if self.exists(name):
            return super().value(name, key)
        found = (each[name] for each in self._listed.values() if each is not None and name in each)
        return next((each.data.get(key) for each in found), None)

    def selected(self, namespace: str, labels: str) -> Collection[Labelled] | None:
        """The Secrets of a namespace that have these labels; None where they may not be listed."""
        listed = self._listed.get((namespace, labels))
        return None if listed is None else [each.face for each in listed.values()]

    def _seen(self) -> object:
        return super()._seen(), dict(self._listed)

    async def _look(self) -> None:
        await super()._look()
        await self._list(sorted(self._selections))

    async def _list(self, selections: Collection[Selection]) -> None:
        for selection in selections:
            space, labels = selection
            found: dict[str, Listed] | None = None
            if self._may_list:
                try:
                    items = await self._cluster.list("v1", "secrets", space, labels)
                    found = {f"{space}/{each['metadata']['name']}": _face(each) for each in items}
                except ApiError as error:
                    if error.status not in (400, 403):
                        raise
                    log.warning("Secrets of namespace %s may not be listed; policies are told so", space)
            if selection in self._selections:
                self._listed[selection] = found


def _face(body: Mapping[str, Any]) -> Listed:
    data = _decoded(body.get("data") or {})
    return Listed(labelled(body["metadata"]), {KEY: data[KEY]} if KEY in data else {})


def _encoded(data: Mapping[str, str]) -> Data:
    return {key: text.encode() for key, text in data.items()}


def _decoded(data: Mapping[str, str]) -> Data:
    values = {}
    for key, text in data.items():
        try:
            values[key] = base64.b64decode(text, validate=True)
        except binascii.Error:
            continue
    return values


class Gateways:
    """The gateways of this installation, by name."""

    def __init__(self, cluster: Cluster, namespace: str, fullname: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._deployment = f"{fullname}-gateway"
        self.known: dict[str, GatewayFacts] = {}
        self.asked = False
        """Whether they have been asked for with success."""

    async def refresh(self) -> bool:
        """Ask for them; True when something has changed. Raises ApiError."""
        found = await self._cluster.list("apps/v1", "deployments", self._namespace, GATEWAY_LABEL)
        known = {facts.name: facts for each in found if (facts := gateway(each)) is not None and self._ours(facts)}
        changed, self.known = known != self.known or not self.asked, known
        self.asked = True
        return changed

    def _ours(self, facts: GatewayFacts) -> bool:
        """Whether it belongs to this installation; another one may live in the same namespace."""
        return facts.deployment == self._deployment or facts.deployment.startswith(f"{self._deployment}-")

    async def follow(self, changed: Callable[[], None]) -> None:
        """Look at them again and again until cancelled."""
        away = False
        while True:
            try:
                if await self.refresh():
                    changed()
                away = False
            except ApiError as error:
                if not away:
                    log.warning("gateways could not be listed: %s", error)
                away = True
            await asyncio.sleep(GATEWAY_SECONDS)
