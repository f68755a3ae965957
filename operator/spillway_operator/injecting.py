"""How Pods get sidecars, put together: the webhook, who believes it, whom sidecars believe, and who lacks one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from .authority_maps import AuthorityMaps
from .certificates import POLL, ServingTls
from .cluster import Cluster, Object
from .injection import Sidecar
from .settings import Settings
from .showing import Showing
from .webhook import Result, Webhook
from .webhook_trust import Bundle, Introduced

PATIENCE: Final = 20.0
"""Seconds after the start for which a replica whose webhook does not answer yet is not ready. No longer: balancers and
sidecars need it more than Pods that are made."""

log = logging.getLogger("spillway.webhook")


class Injecting:
    """Begins with `run` and `follow`, ends with `stop`."""

    def __init__(
        self,
        settings: Settings,
        sidecar: Sidecar,
        cluster: Cluster,
        secret: Callable[[], Awaitable[Object | None]],
        count: Callable[[Result], None],
        showing: Showing,
    ) -> None:
        """`secret` reads the Secret with the serving certificate."""
        self.showing = showing
        self._settings = settings
        self._bundle = Bundle(settings, cluster, lambda: datetime.now(UTC))
        self._tls = ServingTls(Introduced(secret, self._bundle.read).read, min(POLL, settings.refresh))
        self._maps = AuthorityMaps(settings, cluster, lambda: self._tls.authority, time.monotonic)
        self._begun = time.monotonic()
        self.webhook = Webhook(sidecar, self._maps.ensure, count)

    @property
    def ready(self) -> bool:
        return self.webhook.listening or time.monotonic() - self._begun > PATIENCE

    async def keep(self, authority: bytes) -> None:
        """The leader's part, from time to time and when the authority has changed. Raises ApiError."""
        await self._bundle.keep(authority)
        await self._maps.keep(authority)

    async def follow(self) -> None:
        """Follow the certificate until cancelled."""
        await self._tls.run()

    async def run(self) -> None:
        """Answer, as soon as API servers believe it; until cancelled. Raises OSError when it cannot listen."""
        await self._tls.loaded()
        await self.webhook.start(self._settings.host, self._settings.webhook_port, self._tls.context)
        log.info("serving the webhook on port %d", self.webhook.port)
        await asyncio.Event().wait()

    async def stop(self) -> None:
        await self.showing.close()
        await self.webhook.stop()
