"""What is asked for instead of being watched: Secrets that pools name, and the Deployments of gateways.

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

SECRET_SECONDS = 10.0
"""Between two looks at the Secrets: how late a rotation is seen, at most."""
GATEWAY_SECONDS = 3.0
AT_ONCE = 4
"""Secrets that are asked for at a time."""

Data = Mapping[str, bytes]
Selection = tuple[str, str]
"""A namespace, and labels as a list request takes them."""


class Listed(NamedTuple):
    """A Secret that was found by its labels; of its values only the key of a consumer is kept."""

    face: Labelled
    data: Data


class Secrets:
    """The Secrets that are referred to, as they were last seen. Values stay in this process's memory."""

    def __init__(self, cluster: Cluster, dice: random.Random, may_list: bool = False) -> None:
        self._cluster = cluster
        self._dice = dice
        self._may_list = may_list
        self._known: dict[str, Data | None] = {}
        self._wanted: frozenset[str] = frozenset()
        self._listed: dict[Selection, dict[str, Listed] | None] = {}
        """None where they may not be listed. By namespace/name, as their order is nobody's."""
        self._selections: frozenset[Selection] = frozenset()

    async def want(self, names: Collection[str], selections: Collection[Selection] = ()) -> None:
        """Keep these, as namespace/name or as what they are selected by, and no others. New ones are read before this
        returns. Raises ApiError."""
        self._wanted, self._selections = frozenset(names), frozenset(selections)
        for gone in self._known.keys() - self._wanted:
            del self._known[gone]
        for left in self._listed.keys() - self._selections:
            del self._listed[left]
        await self._read(sorted(self._wanted - self._known.keys()))
        await self._list(sorted(self._selections - self._listed.keys()))

    def has(self, secret: str, key: str) -> bool:
        """Whether the Secret has the key, with something in it."""
        return bool(self.value(secret, key))

    def exists(self, secret: str) -> bool:
        return self._known.get(secret) is not None

    def value(self, secret: str, key: str) -> bytes | None:
        if (named := self._known.get(secret)) is not None:
            return named.get(key)
        found = (each[secret] for each in self._listed.values() if each is not None and secret in each)
        return next((each.data.get(key) for each in found), None)

    def selected(self, namespace: str, labels: str) -> Collection[Labelled] | None:
        """The Secrets of a namespace that have these labels; None where they may not be listed."""
        listed = self._listed.get((namespace, labels))
        return None if listed is None else [each.face for each in listed.values()]

    async def follow(self, changed: Callable[[], None]) -> None:
        """Look at them again and again until cancelled; while the API server is away, what was seen last counts."""
        while True:
            await asyncio.sleep(SECRET_SECONDS * self._dice.uniform(0.8, 1.0))
            before = dict(self._known), dict(self._listed)
            try:
                await self._read(sorted(self._wanted))
                await self._list(sorted(self._selections))
            except ApiError as error:
                log.warning("Secrets could not be read: %s", error)
            if (self._known, self._listed) != before:
                changed()

    async def _read(self, names: Collection[str]) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def read(name: str) -> None:
            async with slots:
                space, own = name.split("/", 1)
                try:
                    found = await self._cluster.get("v1", "secrets", space, own)
                except ApiError as error:
                    if error.status != 403:
                        raise
                    log.warning("the Secret %s may not be read; its pool is told that it is not there", name)
                    found = None
            if name in self._wanted:
                self._known[name] = None if found is None else _decoded(found.get("data") or {})

        # One that may not be read keeps none of the others from being read.
        results = await asyncio.gather(*map(read, names), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

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
