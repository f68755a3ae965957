"""What a sidecar knows of endpoints by others: loads and health that gateways have found, some time ago.

It neither scrapes nor probes. What it has in flight itself at the time of a scrape is taken off what the engine said
then; the rest is others'. All of it grows stale as a scrape of its own would, when nothing is heard any more.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Final

from spillway_api.stream import EndpointLoad, Loads

from .endpoint import EndpointState
from .load import Reported
from .past import Past
from .pool import Pool

STEP: Final = 50
"""Endpoints that are told of in one."""


class Hearsay:
    """Of one balancer, over all connections."""

    def __init__(self) -> None:
        self._said: dict[str, dict[str, EndpointLoad]] = {}
        self._at = float("-inf")
        self._stood: set[EndpointState] = set()
        """Those whose health is by hearsay."""

    def heard(self, loads: Loads, pools: Mapping[str, Pool], now: float) -> Generator[None, None, None]:
        """Takes what is said, and that all else is as it was: in small steps, for endpoints may be thousands, and one
        message after the other. `now`: when it came; seconds, monotonic."""
        self._at = now
        if loads.whole:
            for told in self._said.values():
                for name in told:
                    told[name] = EndpointLoad(name)
        for each in loads.pools:
            known = self._said.setdefault(each.pool, {})
            known.update((load.endpoint, load) for load in each.endpoints)
        for name, said in list(self._said.items()):
            pool = pools.get(name)  # None: in no snapshot yet, which comes on its own way
            for number, load in enumerate(list(said.values())):
                if number % STEP == 0:
                    yield
                endpoint = None if pool is None else pool.endpoints.get(load.endpoint)
                if endpoint is not None:
                    self._tell(endpoint, load, now)
                if load == EndpointLoad(load.endpoint):
                    del said[load.endpoint]
            if not said:
                del self._said[name]

    def lapse(self, pools: Mapping[str, Pool], now: float) -> None:
        """Where nothing has been heard for longer than readings keep, the health of endpoints is unknown again.
        (Loads grow stale by themselves.)"""
        for endpoint in list(self._stood):
            pool = pools.get(endpoint.pool)
            if pool is None or pool.endpoints.get(endpoint.name) is not endpoint:
                self._stood.discard(endpoint)
            elif now - self._at > pool.stale_after:
                self._stood.discard(endpoint)
                endpoint.told(None)

    def _tell(self, endpoint: EndpointState, load: EndpointLoad, now: float) -> None:
        if endpoint.past is None:
            endpoint.past = Past(endpoint.load)
        at = now - max(0.0, load.ago)
        own = endpoint.past.at(at)
        report = Reported(
            at=at,
            waiting=load.waiting,
            running=load.running,
            kv_usage=load.kv_usage,
            own=own.in_flight,
            prefix_queries=None,
            prefix_hits=None,
            own_pending=own.pending,
            own_context=own.context,
        )
        endpoint.reported(report, load.cache_tokens)
        if load.engine is not None:
            endpoint.dialect = load.engine
        if load.healthy is not None:
            self._stood.add(endpoint)
        elif endpoint not in self._stood:
            return
        else:
            self._stood.discard(endpoint)
        endpoint.told(load.healthy)
