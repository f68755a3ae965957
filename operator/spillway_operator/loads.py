"""How the endpoints of a gateway's pools are doing, of all that its balancers say: the newest of each endpoint.

Pure. What is told to a sidecar is what has changed since it was told last, so each change has a number, and who has
heard up to one is told those after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Final, NamedTuple

from msgspec.structs import replace

from spillway_api.stream import EndpointLoad, Loads, PoolLoad

SILENT: Final = 5.0
"""Seconds after which a balancer that says nothing, not even that all is as it was, is believed no more."""
REMEMBERED: Final = 4096
"""Endpoints of which it is remembered that nothing is known of them any more, for those who have not heard yet."""

_Key = tuple[str, str]
"""Names of pool and endpoint."""


class _Source:
    """What one balancer of the gateway says."""

    def __init__(self) -> None:
        self.at = float("-inf")
        """When it spoke last, and so confirmed all that it had said."""
        self.said: dict[_Key, EndpointLoad] = {}


class _Entry(NamedTuple):
    version: int
    pool: str
    load: EndpointLoad
    source: str
    """Whose reading that is."""


class SharedLoads:
    """Of one gateway. All times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.version = 0
        """Number of the last change."""
        self.urgent = 0
        """Number of the last one that cannot wait: an endpoint is unhealthy."""
        self._floor = 0
        """Who has not heard up to this one has to be told all."""
        self._sources: dict[str, _Source] = {}
        self._entries: dict[_Key, _Entry] = {}
        """In the order of their versions."""
        self._by_pool: dict[str, set[_Key]] = {}
        """Of which anything is known."""
        self._unknown: dict[_Key, None] = {}
        """The others."""

    @property
    def heard(self) -> float:
        """When any balancer spoke last."""
        return max((each.at for each in self._sources.values()), default=float("-inf"))

    def hear(self, balancer: str, loads: Loads, now: float) -> None:
        """A balancer of the gateway speaks."""
        source = self._sources.setdefault(balancer, _Source())
        source.at = now
        changed: set[_Key] = set()
        if loads.whole:
            changed.update(source.said)
            source.said.clear()
        for pool in loads.pools:
            for each in pool.endpoints:
                key = (pool.pool, each.endpoint)
                changed.add(key)
                if each == EndpointLoad(each.endpoint):
                    source.said.pop(key, None)
                else:
                    source.said[key] = each
        self._merge(changed, balancer)

    def fade(self, now: float) -> None:
        """Forgets balancers that are silent, as long as another one speaks. (Else nobody is told anything, and what
        sidecars know grows stale by itself.)"""
        silent = [name for name, each in self._sources.items() if now - each.at > SILENT]
        if len(silent) < len(self._sources):
            for name in silent:
                self._merge(set(self._sources.pop(name).said), "")

    def speaks(self, now: float) -> bool:
        """Whether any balancer does."""
        return now - self.heard <= SILENT

    def since(self, version: int, pools: Set[str], now: float) -> Loads:
        """What is new of these pools to who has heard up to a version; 0 has heard nothing."""
        if version < max(1, self._floor):
            known = (self._entries[key] for name in pools for key in sorted(self._by_pool.get(name, ())))
            return Loads(self._told(known, now), whole=True)
        news = []
        for (pool, _), entry in reversed(self._entries.items()):
            if entry.version <= version:
                break
            if pool in pools:
                news.append(entry)
        return Loads(self._told(news, now))

    def said(self, balancer: str, now: float) -> Loads | None:
        """All that one balancer has said, for another replica; None of one that is not known."""
        source = self._sources.get(balancer)
        if source is None:
            return None
        said = ((pool, _older(load, now - source.at)) for (pool, _), load in source.said.items())
        return Loads(_by_pool(said), whole=True)

    def _told(self, entries: Iterable[_Entry], now: float) -> tuple[PoolLoad, ...]:
        return _by_pool((each.pool, self._aged(each, now)) for each in entries)

    def _aged(self, entry: _Entry, now: float) -> EndpointLoad:
        source = self._sources.get(entry.source)
        return entry.load if source is None else _older(entry.load, now - source.at)

    def _merge(self, keys: Iterable[_Key], newest: str) -> None:
        """`newest`: the balancer whose readings of them are the newest; empty where none is."""
        for key in sorted(keys):
            before = self._entries.get(key)
            load, source = self._merged(key, newest, before.source if before else "")
            if before is None and load == EndpointLoad(key[1]):
                continue
            if before is not None and _plain(before.load) == _plain(load):
                self._entries[key] = before._replace(load=load, source=source)
                continue
            self.version += 1
            if load.healthy is False and (before is None or before.load.healthy is not False):
                self.urgent = self.version
            self._entries.pop(key, None)
            self._entries[key] = _Entry(self.version, key[0], load, source)
            self._unknown.pop(key, None)
            if load != EndpointLoad(key[1]):
                self._by_pool.setdefault(key[0], set()).add(key)
                continue
            self._unknown[key] = None
            if there := self._by_pool.get(key[0]):
                there.discard(key)
                if not there:
                    del self._by_pool[key[0]]
        while len(self._unknown) > REMEMBERED:
            key = next(iter(self._unknown))
            del self._unknown[key]
            self._floor = max(self._floor, self._entries.pop(key).version)

    def _merged(self, key: _Key, newest: str, before: str) -> tuple[EndpointLoad, str]:
        """Of several readings the newest that is one. An endpoint that one of them finds healthy is: another one's way
        there may be cut, and a sidecar that is not let try could not find out."""
        named = [name for name in dict.fromkeys((newest, before, *self._sources)) if name in self._sources]
        said = [(name, load) for name in named if (load := self._sources[name].said.get(key)) is not None]
        if not said:
            return EndpointLoad(key[1]), ""
        source, read = next(((name, load) for name, load in said if _reads(load)), said[0])
        healthy = {load.healthy for _, load in said}
        return EndpointLoad(
            key[1],
            read.ago,
            read.waiting,
            read.running,
            read.kv_usage,
            True if True in healthy else False if False in healthy else None,
            next((load.cache_tokens for _, load in said if load.cache_tokens is not None), None),
            next((load.engine for _, load in said if load.engine is not None), None),
        ), source


def _reads(load: EndpointLoad) -> bool:
    return load.waiting is not None or load.running is not None or load.kv_usage is not None


def _older(load: EndpointLoad, seconds: float) -> EndpointLoad:
    return replace(load, ago=round(load.ago + seconds, 2))


def _plain(load: EndpointLoad) -> EndpointLoad:
    """Without its age: one that has only been read again is no news."""
    return replace(load, ago=0.0) if load.ago else load


def _by_pool(loads: Iterable[tuple[str, EndpointLoad]]) -> tuple[PoolLoad, ...]:
    pools: dict[str, list[EndpointLoad]] = {}
    for name, load in loads:
        pools.setdefault(name, []).append(load)
    return tuple(PoolLoad(name, tuple(each)) for name, each in pools.items())
