"""Which namespaces ask for sidecars, and since when there is a webhook that adds them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from .cluster import Cluster
from .facts import namespace
from .settings import Settings
from .world import World

SECONDS: Final = 30.0
"""Between two looks at what is not watched."""


class Spaces:
    """What is asked for is remembered for a while. Every method raises ApiError."""

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        self._settings = settings
        self._cluster = cluster
        self._asking: tuple[float, Mapping[str, str]] = (float("-inf"), {})
        self._webhook: tuple[float, str | None] = (float("-inf"), None)

    async def asking(self, world: World) -> Mapping[str, str]:
        """Namespaces whose label asks, with the time since when.

        The watch of all namespaces tells; where the operator may know of some alone, these are asked for by name.
        """
        if not self._settings.namespaces:
            return world.asking()
        now = asyncio.get_running_loop().time()
        if now - self._asking[0] >= SECONDS:
            names = [name for name in self._settings.namespaces if name != self._settings.namespace]
            found = [await self._cluster.get("v1", "namespaces", "", name) for name in names]
            known = [namespace(each) for each in found if each is not None]
            self._asking = now, {each.name: each.asking for each in known if each.asking}
        return self._asking[1]

    async def webhook(self) -> str | None:
        """When it was installed; None while it is not."""
        now = asyncio.get_running_loop().time()
        if now - self._webhook[0] >= SECONDS:
            api, name = "admissionregistration.k8s.io/v1", self._settings.webhook
            found = await self._cluster.get(api, "mutatingwebhookconfigurations", "", name)
            self._webhook = now, None if found is None else str(found["metadata"]["creationTimestamp"])
        return self._webhook[1]
