"""What gateways have scraped comes to the sidecars: from the balancers of a gateway, by way of every replica.

A gateway is asked to share as long as it has sidecars, here or at another replica. What its balancers say goes to all
replicas by the relay, and each tells its own sidecars what is new of the pools in their view: at once that an endpoint
is unhealthy, else at most once a second, and less often where there are thousands. Each waits a little longer or
shorter than the others, so that neither this process nor an engine sees them all at one moment.

They are also told that all is as it was, as long as a balancer of the gateway says so. When none does they are told
nothing, and what they know grows stale.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from spillway_api import stream
from spillway_api.stream import Loads

from .connections import Connection, Feed, Gateway, Version
from .loads import SharedLoads

TICK: Final = 0.1
"""Seconds between two looks at who is due."""
PACE: Final = 1.0
"""Seconds between two messages to the same sidecar, at the least."""
A_SECOND: Final = 2000
"""Messages in one second that this replica sends at the most, urgent ones aside."""
SPREAD: Final = 0.2
"""Part of the pace by which a sidecar is told earlier or later."""
AT_ONCE: Final = 50
"""Messages after which others have their turn."""
LEADER: Final = "@leader"
"""The source of what the leader passes on; no Pod is called so."""

_log = logging.getLogger("spillway.loads")


class _Told(NamedTuple):
    """What a sidecar has been told."""

    version: int
    confirmed: float
    """When the last was heard that it knows of."""
    pools: frozenset[str]
    due: float


class Sharing:
    """Of one replica. `hear` what balancers say, here and elsewhere; `run` tells sidecars."""

    def __init__(
        self,
        gateways: Callable[[], Mapping[str, Gateway]],
        clock: Callable[[], float] = monotonic,
        dice: random.Random | None = None,
    ) -> None:
        """`gateways`: those that are published, by name, with who is connected here."""
        self._gateways = gateways
        self._clock = clock
        self._dice = dice or random.Random()
        self._loads: dict[str, SharedLoads] = {}
        self._ways: dict[tuple[str, str], str] = {}
        """From where each gateway's balancer is heard."""
        self._elsewhere: dict[str, Mapping[str, int]] = {}
        """Sidecars by gateway, of other replicas."""
        self._counted: dict[str, int] = {}
        self._asked: WeakKeyDictionary[Connection, bool] = WeakKeyDictionary()
        self._told: WeakKeyDictionary[Connection, _Told] = WeakKeyDictionary()
        self._names: WeakKeyDictionary[Feed, tuple[Version, frozenset[str]]] = WeakKeyDictionary()
        self._readers: list[Callable[[str, str, str, Loads], None]] = []
        self._counters: list[Callable[[], None]] = []
        self.messages_sent = 0
        self.bytes_sent = 0

    # ---- other replicas

    def follow(self, reader: Callable[[str, str, str, Loads], None], counted: Callable[[], None]) -> None:
        """Call `reader(way, gateway, balancer, loads)` whenever a balancer is heard, and `counted` when there are more
        or fewer sidecars here or elsewhere."""
        self._readers.append(reader)
        self._counters.append(counted)

    def hear(self, way: str, gateway: str, balancer: str, loads: Loads) -> None:
        """A balancer of the gateway speaks: to this replica, to a follower, or to the leader."""
        if gateway not in self._gateways():
            return
        known = self._loads.get(gateway)
        if known is None:
            known = self._loads[gateway] = SharedLoads()
        self._ways[gateway, balancer] = way
        known.hear(balancer, loads, self._clock())
        for reader in self._readers:
            reader(way, gateway, balancer, loads)

    def count(self, replica: str, sidecars: Mapping[str, int]) -> None:
        """How many sidecars, by gateway, another replica has, or all others have."""
        if self._elsewhere.get(replica, {}) != sidecars:
            self._elsewhere[replica] = dict(sidecars)
            self._tell_counts()

    def sidecars(self, without: str = "") -> dict[str, int]:
        """By gateway, those that are here and elsewhere, but for one replica's. Without any it is not in it."""
        counts = dict(self._counted)
        for replica, there in self._elsewhere.items():
            if replica != without:
                for gateway, number in there.items():
                    counts[gateway] = counts.get(gateway, 0) + number
        return {gateway: number for gateway, number in counts.items() if number}

    def age(self, gateway: str) -> float | None:
        """Seconds since any balancer of the gateway has shared; None while none is asked to, or none ever has."""
        loads = self._loads.get(gateway)
        return None if loads is None or gateway not in self.sidecars() else self._clock() - loads.heard

    def own(self) -> dict[str, int]:
        """Those that are here alone."""
        return dict(self._counted)

    def known(self, which: Callable[[str], bool]) -> Iterator[tuple[str, str, Loads]]:
        """Gateway, balancer and all that it has said, of those that still speak and are heard by such a way."""
        now = self._clock()
        for (gateway, balancer), way in self._ways.items():
            loads = self._loads[gateway]
            if which(way) and loads.speaks(now):
                said = loads.said(balancer, now)
                if said is not None:
                    yield gateway, balancer, said

    # ---- own subscribers

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await self.tick()
            except Exception as error:
                _log.error("bug: loads could not be shared: %s", type(error).__name__)
            await asyncio.sleep(TICK)

    async def tick(self) -> None:
        """Asks gateways and tells sidecars, as far as it is time."""
        gateways = self._gateways()
        counted = {name: len(each.sidecars) for name, each in gateways.items() if each.sidecars}
        if counted != self._counted:
            self._counted = counted
            self._tell_counts()
        everywhere = self.sidecars()
        for name, gateway in gateways.items():
            self._ask(gateway, name in everywhere)
        for name in self._loads.keys() - gateways.keys():
            del self._loads[name]
        self._ways = {key: way for key, way in self._ways.items() if key[0] in self._loads}
        pace = max(PACE, sum(counted.values()) / A_SECOND)
        for name, loads in list(self._loads.items()):
            now = self._clock()
            loads.fade(now)
            if loads.speaks(now) and gateways[name].sidecars:
                await self._share(loads, tuple(gateways[name].sidecars.values()), pace)

    async def _share(self, loads: SharedLoads, sidecars: tuple[Connection, ...], pace: float) -> None:
        messages: dict[tuple[int, int, frozenset[str]], bytes] = {}
        sent = 0
        for each in sidecars:
            now, version, heard = self._clock(), loads.version, loads.heard
            told = self._told.get(each)
            if told is not None and (heard <= told.confirmed or (now < told.due and told.version >= loads.urgent)):
                continue
            pools = self._pools(each.feed)
            since = told.version if told is not None and pools <= told.pools else 0
            data = messages.get((version, since, pools))
            if data is None:
                data = messages[version, since, pools] = stream.packed(stream.encode(loads.since(since, pools, now)))
            if not each.share(data):
                continue  # it has not taken the last one yet
            wait = pace * self._dice.uniform(1 - SPREAD, 1 + SPREAD)
            self._told[each] = _Told(version, heard, pools, now + wait)
            self.messages_sent += 1
            self.bytes_sent += len(data)
            sent += 1
            if sent % AT_ONCE == 0:
                await asyncio.sleep(0)

    def _pools(self, feed: Feed) -> frozenset[str]:
        newest = feed.newest
        known = self._names.get(feed)
        if known is None or known[0] is not newest:
            known = self._names[feed] = newest, frozenset(each.name for each in newest.snapshot.pools)
        return known[1]

    def _ask(self, gateway: Gateway, wanted: bool) -> None:
        for each in gateway.connections.values():
            if self._asked.get(each, False) is wanted:
                continue
            if each.share(stream.encode(stream.Share(PACE if wanted else 0.0))):
                self._asked[each] = wanted

    def _tell_counts(self) -> None:
        for counted in self._counters:
            counted()
