"""Operators that lease budgets: the real config stream, relay and treasury over an API server in memory."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.operator.rig import SERVICE, Rig, token_file

from spillway_api.budgets import AnyBudget
from spillway_operator.cluster import ApiError, Conflict
from spillway_operator.relay import Relay
from spillway_operator.treasury import Treasury

NAME = "spillway-operator-budgets"


class Shelf:
    """The ConfigMap of budgets, with versions as the API server keeps them."""

    def __init__(self) -> None:
        self.found: dict[str, Any] | None = None
        self.writes = 0
        self.away = False

    async def get(self, api: str, plural: str, namespace: str, name: str) -> dict[str, Any] | None:
        assert (api, plural, namespace, name) == ("v1", "configmaps", "infra", NAME)
        await self._round_trip()
        return copy.deepcopy(self.found)

    async def apply(self, obj: dict[str, Any]) -> dict[str, Any]:
        await self._round_trip()
        named = obj["metadata"].get("resourceVersion")
        if named is not None and (self.found is None or self.found["metadata"]["resourceVersion"] != named):
            raise Conflict(409, "Conflict", "the object has been modified")
        self.writes += 1
        self.found = copy.deepcopy(obj)
        self.found["metadata"]["resourceVersion"] = str(self.writes)
        return copy.deepcopy(self.found)

    async def _round_trip(self) -> None:
        await asyncio.sleep(0.002)
        if self.away:
            raise ApiError(0, "Unreachable", "refused")


class Replica:
    """One operator. `lead` and `follow` say whose turn it is, as its Leadership would."""

    def __init__(self, rig: Rig, folder: Path, shelf: Shelf, budgets: Mapping[str, AnyBudget]) -> None:
        self.rig = rig
        self.leads = False
        self.leader: str | None = None
        file = token_file(folder, "operator", rig.name)
        self.relay = Relay(rig.server, lambda: self.leader, lambda: rig.tls.authority, SERVICE, file)
        self.budgets = budgets
        self.treasury = Treasury(
            shelf, "infra", NAME, lambda: self.leads, lambda: {"chat": self.budgets}, rig.server.grant, self._owners
        )
        rig.server.follow_books(self.treasury.hear)
        self._tasks: list[asyncio.Task[None]] = []

    @staticmethod
    async def _owners() -> list[dict[str, Any]]:
        return []

    async def start(self) -> None:
        await self.rig.start()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self.relay.run()), loop.create_task(self.treasury.run())]

    async def stop(self) -> None:
        """As a process that is killed: nothing more is decided or written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.rig.stop()

    def turn(self, leader: Replica) -> None:
        self.leads = leader is self
        self.leader = None if self.leads else leader.rig.address
        self.relay.leader_changed()
        self.treasury.leadership_changed()
