"""kopf without an API server: its own indices and event processing, fed with watch events by hand."""

from __future__ import annotations

from typing import Any

import kopf
from kopf._cogs.structs.ephemera import Memo
from kopf._cogs.structs.references import Resource
from kopf._core.actions.lifecycles import all_at_once
from kopf._core.engines.activities import run_activity
from kopf._core.engines.indexing import OperatorIndexers
from kopf._core.intents.causes import Activity
from kopf._core.reactor.inventory import ResourceMemories
from kopf._core.reactor.processing import process_resource_event

from spillway_operator.watching import KINDS, Kind, Watching
from spillway_operator.world import World

OF: dict[str, Kind] = {
    "ModelPool": KINDS[0],
    "RoutePolicy": KINDS[1],
    "Pod": KINDS[2],
    "Service": KINDS[3],
    "EndpointSlice": KINDS[4],
    "InferencePool": KINDS[5],
    "Namespace": KINDS[6],
}


class Wakes:
    """A Watching that counts whom it wakes, fed as kopf feeds it."""

    def __init__(self, namespaces: tuple[str, ...] = ()) -> None:
        self.config = self.status = 0
        self.watching = Watching(self._config, self._status, namespaces)
        self.indexers = OperatorIndexers()
        self.registry = self.watching.registry()
        self.indexers.ensure(self.registry._indexing.get_all_handlers())
        self._memories = ResourceMemories()
        self._settings = kopf.OperatorSettings()

    def _config(self) -> None:
        self.config += 1

    def _status(self) -> None:
        self.status += 1

    @property
    def world(self) -> World:
        assert self.watching.world is not None
        return self.watching.world

    async def start(self) -> None:
        await run_activity(
            lifecycle=all_at_once,
            registry=self.registry,
            settings=self._settings,
            activity=Activity.STARTUP,
            indices=self.indexers.indices,
            memo=Memo(),
        )

    async def event(self, body: dict[str, Any], type: str | None = "MODIFIED") -> tuple[int, int]:
        """One watch event, handled as kopf does; how often it woke configuration and statuses."""
        before = self.config, self.status
        group, version, plural = OF[body["kind"]].resource
        await process_resource_event(
            lifecycle=all_at_once,
            indexers=self.indexers,
            registry=self.registry,
            settings=self._settings,
            memories=self._memories,
            memobase=Memo(),
            resource=Resource(group, version, plural),
            raw_event={"type": type, "object": body},
            event_queue=None,
            no_throttling=True,
        )
        return self.config - before[0], self.status - before[1]

    async def listed(self, *bodies: dict[str, Any]) -> tuple[int, int]:
        """The first listing: everything is in the indices before the first handler runs."""
        before = self.config, self.status
        for body in bodies:
            self.take(body)
        for body in bodies:
            self.hear(body)
        return self.config - before[0], self.status - before[1]

    # The two halves of an event, without kopf's execution of handlers between them.

    def take(self, body: dict[str, Any]) -> None:
        kind = OF[body["kind"]]
        there = self.watching._take(kind, body)
        self.indexers[kind.name].replace(self.indexers.make_key(body), {kind.key(there): there})

    def hear(self, body: dict[str, Any]) -> None:
        self.watching._heard(OF[body["kind"]], False, body)

    def change(self, body: dict[str, Any]) -> None:
        self.take(body)
        self.hear(body)

    def delete(self, body: dict[str, Any]) -> None:
        self.indexers.discard(body)
        self.watching._heard(OF[body["kind"]], True, body)
