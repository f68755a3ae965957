"""The leader's part of budgets: it hears what balancers have spent, decides what they may, and forgets nothing.

What is granted stands in a ConfigMap before it is said to anybody, so whoever leads next counts it. The write names the
version that it replaces: of two replicas that both believe that they lead one is refused, and then reads anew what the
other has granted. Without an API server nothing is granted, and balancers go on with what they have.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, Protocol

import msgspec

from spillway_api.budgets import AnyBudget
from spillway_api.ledger import Books, Grants

from .arbiter import Arbiter, Total
from .cluster import ApiError, Conflict
from .owned import Object, owned

KEY: Final = "budgets.json.gz"
BYTES: Final = 900_000
"""A ConfigMap may hold 1 MiB, its base64 and metadata included in what etcd takes."""
JOIN: Final = 0.05
"""Seconds for which what comes at the same time is gathered."""
LOOK: Final = 1.0
"""Seconds after which it is decided anew without a word."""
PACE: Final = 1.0
"""Seconds between two writes, however many ask."""
KEEP: Final = 10.0
"""Seconds after which what is spent is put away, where nothing else calls for it."""
AGAIN: Final = 2.0
"""Seconds until the next try where the API server says no."""

_log = logging.getLogger("spillway.budgets")


class Objects(Protocol):
    """What is needed of a Cluster."""

    async def get(self, api: str, plural: str, namespace: str, name: str) -> Object | None: ...
    async def apply(self, obj: Object) -> Object: ...


class _Where(NamedTuple):
    """A balancer, and the way on which it has spoken last."""

    source: str
    gateway: str
    balancer: str
    holder: str
    """Its own name for the process that it is."""


class Treasury:
    """Grants as long as this replica leads."""

    def __init__(
        self,
        cluster: Objects,
        namespace: str,
        name: str,
        leads: Callable[[], bool],
        budgets: Callable[[], Mapping[str, Mapping[str, AnyBudget]]],
        grant: Callable[[str, str, str, Grants], None],
        owners: Callable[[], Awaitable[list[Object]]],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`namespace` and `name` are those of the ConfigMap, `budgets` those that there are, by gateway. `grant` says
        something to a balancer, by source, gateway and name."""
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._leads = leads
        self._budgets = budgets
        self._grant = grant
        self._owners = owners
        self._wall = wall
        self._arbiter: Arbiter | None = None
        self._version: str | None = None
        """Of the ConfigMap as it was read or written last; None while there is none."""
        self._inbox: dict[str, tuple[_Where, Books]] = {}
        self._where: dict[str, _Where] = {}
        self._news = asyncio.Event()
        self._written = -PACE
        self._owned_by: list[Object] = []
        self._said = ""

    def hear(self, source: str, gateway: str, balancer: str, books: Books) -> None:
        """What a balancer says. Another replica's business unless this one leads."""
        if self._leads():
            key = f"{gateway}/{balancer}/{books.holder}"
            self._inbox[key] = (_Where(source, gateway, balancer, books.holder), books)
            self._news.set()

    def leadership_changed(self) -> None:
        """What this replica knows may be old by now."""
        self._arbiter = None
        self._news.set()

    def totals(self) -> Mapping[str, Total]:
        """How budgets stand, by name; empty where this replica does not know."""
        return {} if self._arbiter is None or not self._leads() else self._arbiter.totals(self._wall())

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK):
                    await self._news.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(JOIN)
            self._news.clear()
            if not self._leads():
                self._arbiter = None
                self._inbox.clear()
                continue
            try:
                await self._work()
                self._trouble("")
            except Conflict:
                _log.info("budgets were granted by another replica; reading anew")
                self._arbiter = None
            except (ApiError, ValueError) as error:
                self._trouble(str(error))
                await asyncio.sleep(AGAIN)

    async def _work(self) -> None:
        """Hear, decide, put away, grant. Raises ApiError, or ValueError for what cannot be read or kept."""
        arbiter = self._arbiter
        if arbiter is None:
            if not self._inbox:
                return
            arbiter = await self._read()
        now, unix = asyncio.get_running_loop().time(), self._wall()
        there = self._budgets()
        arbiter.follow({name: budget for each in there.values() for name, budget in each.items()})
        inbox, self._inbox = self._inbox, {}
        for key, (where, books) in inbox.items():
            self._where[key] = where
            # What a gateway does not serve it does not spend, whatever it says.
            own = tuple(each for each in books.budgets if each.budget in there.get(where.gateway, {}))
            arbiter.hear(key, msgspec.structs.replace(books, budgets=own), now, unix)
        arbiter.decide(now, unix)
        if arbiter.urgent or (arbiter.changed and now - self._written >= KEEP):
            wait = self._written + PACE - now
            if wait > 0:
                await asyncio.sleep(wait)
            await self._write(arbiter)
        if not self._leads() or arbiter is not self._arbiter:
            return
        holders = arbiter.holders()
        for key, where in list(self._where.items()):
            if key not in holders:
                del self._where[key]
            elif grants := arbiter.grants(key, now):
                self._grant(where.source, where.gateway, where.balancer, Grants(where.holder, grants))

    async def _read(self) -> Arbiter:
        found = await self._cluster.get("v1", "configmaps", self._namespace, self._name)
        data = ((found or {}).get("binaryData") or {}).get(KEY)
        try:
            kept = None if data is None else gzip.decompress(base64.b64decode(data, validate=True))
            arbiter = Arbiter(kept)
        except (OSError, EOFError, zlib.error, msgspec.DecodeError, ValueError) as error:
            raise ValueError(f"ConfigMap {self._name} cannot be read, so nothing is granted: {error}") from None
        self._version = None if found is None else str(found["metadata"].get("resourceVersion", ""))
        self._arbiter = arbiter
        return arbiter

    async def _write(self, arbiter: Arbiter) -> None:
        data = base64.b64encode(gzip.compress(arbiter.dump(), 6, mtime=0)).decode("ascii")
        if len(data) > BYTES:
            raise ValueError(f"there are more leases of budgets than fit into ConfigMap {self._name}")
        self._owned_by = self._owned_by or await self._owners()
        body = owned("ConfigMap", self._namespace, self._name, self._owned_by) | {"binaryData": {KEY: data}}
        if self._version:
            body["metadata"]["resourceVersion"] = self._version
        arbiter.urgent = arbiter.changed = False
        try:
            written = await self._cluster.apply(body)
        except BaseException:
            arbiter.urgent = True  # nothing of it may be granted yet
            raise
        self._version = str(written["metadata"].get("resourceVersion", ""))
        self._written = asyncio.get_running_loop().time()

    def _trouble(self, said: str) -> None:
        """Once, not for every try."""
        if said and said != self._said:
            _log.warning("budgets cannot be granted, and balancers go on with what they have: %s", said)
        self._said = said
