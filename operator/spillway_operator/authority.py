"""The leader's part of TLS: it makes what is needed, and publishes the authority that balancers are to trust."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from .certificates import data_of, needed
from .cluster import ApiError, Cluster, Object
from .owned import owned, reference
from .settings import Settings

log = logging.getLogger("spillway.tls")

LOOK_SECONDS = 60.0
HURRY_SECONDS = 1.0


class Authority:
    """Keeps the Secret with the serving certificate and the ConfigMap with its authority."""

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        leads: Callable[[], bool],
        now: Callable[[], datetime],
        tell: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        """`tell(authority)` is called at every look, as PEM; it may raise ApiError."""
        self._settings = settings
        self._cluster = cluster
        self._leads = leads
        self._now = now
        self._tell = tell
        self._look = asyncio.Event()

    def leadership_changed(self) -> None:
        self._look.set()

    async def secret(self) -> Object | None:
        """The Secret as it stands. Raises ApiError."""
        return await self._cluster.get("v1", "secrets", self._settings.namespace, self._settings.tls_secret)

    async def run(self) -> None:
        """Follow until cancelled; failures are logged and tried again."""
        while True:
            wait = min(LOOK_SECONDS, self._settings.refresh)
            self._look.clear()
            if self._leads():
                try:
                    await self._keep()
                except (ApiError, ValueError) as error:
                    log.warning("the serving certificate could not be kept: %s", error)
                    wait = HURRY_SECONDS
            try:
                async with asyncio.timeout(wait):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def _keep(self) -> None:
        secret = await self.secret()
        if not self._settings.given_tls:
            made = needed(secret, self._settings.names, self._now())
            if made is not None:
                body = await self._owned("Secret", self._settings.tls_secret)
                secret = await self._cluster.apply(body | {"type": "kubernetes.io/tls", "data": made.data()})
                log.info("made a serving certificate")
        authority = data_of(secret).get("ca.crt", b"")
        if not authority:
            return
        # Looked at each time: somebody may have deleted or edited it, and without it no balancer begins.
        name, data = self._settings.ca_config_map, {"ca.crt": authority.decode("ascii")}
        published = await self._cluster.get("v1", "configmaps", self._settings.namespace, name)
        if published is None or published.get("data") != data:
            await self._cluster.apply(await self._owned("ConfigMap", name) | {"data": data})
        if self._tell is not None:
            await self._tell(authority)

    async def owners(self) -> list[Object]:
        """References to the operator's Deployment: what it owns goes when the operator is uninstalled."""
        space, own = self._settings.namespace, self._settings.deployment
        deployments = await self._cluster.list("apps/v1", "deployments", space, "app.kubernetes.io/component=operator")
        return [reference(own, each["metadata"]["uid"]) for each in deployments if each["metadata"]["name"] == own]

    async def _owned(self, kind: str, name: str) -> Object:
        return owned(kind, self._settings.namespace, name, await self.owners())
