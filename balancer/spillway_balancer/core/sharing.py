"""What of the loads of endpoints has changed enough to be told to those that neither scrape nor probe.

A gauge moves with every request. Told is what moves a decision: small numbers exactly, large ones by an eighth, and at
once that an endpoint has gone or is unhealthy. What is believed by who heard it all is never further from the last
scrape than that.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Final

from spillway_api.stream import EndpointLoad, Loads, PoolLoad

from .endpoint import EndpointState
from .pool import Pool

EXACT: Final = 8
"""Requests up to which each one counts; beyond them a change of this part."""
KV_STEP: Final = 1 / 32
"""Part of a KV cache that is worth telling."""
_NONE: Final[Mapping[str, EndpointLoad]] = {}


def load_of(endpoint: EndpointState, stale_after: float, now: float) -> EndpointLoad:
    """What this balancer knows of an endpoint by scrapes and probes."""
    report = endpoint.load.report(now, stale_after)
    healthy, engine, room = endpoint.probe.healthy, endpoint.dialect, endpoint.learned.room_reported
    if report is None or (report.waiting is None and report.running is None and report.kv_usage is None):
        return EndpointLoad(endpoint.name, healthy=healthy, engine=engine, cache_tokens=room)
    ago = round(max(0.0, now - report.at), 2)
    return EndpointLoad(
        endpoint.name, ago, report.waiting, report.running, report.kv_usage, healthy, cache_tokens=room, engine=engine
    )


def differ(told: EndpointLoad, now: EndpointLoad) -> bool:
    """Whether the news is worth a message, how long ago they were read aside."""
    return (
        told.healthy is not now.healthy
        or told.engine != now.engine
        or told.cache_tokens != now.cache_tokens
        or _moved(told.waiting, now.waiting, 1.0)
        or _moved(told.running, now.running, 1.0)
        or _moved(told.kv_usage, now.kv_usage, KV_STEP)
    )


def _moved(told: float | None, now: float | None, step: float) -> bool:
    if told is None or now is None:
        return told is not now
    return told != now and (not told or not now or abs(now - told) >= max(step, told * step / EXACT))


def _changed(pool: Pool, before: Mapping[str, EndpointLoad], now: float, due: bool) -> Iterator[EndpointLoad]:
    for name, endpoint in pool.endpoints.items():
        if not due and endpoint.probe.usable:
            continue
        last = before.get(name) or EndpointLoad(name)
        if due or last.healthy is not False:
            load = load_of(endpoint, pool.stale_after, now)
            if differ(last, load):
                yield load


class Sharing:
    """What has been told on one connection, and so what is to be told next."""

    def __init__(self) -> None:
        self._told: dict[str, dict[str, EndpointLoad]] | None = None

    def news(self, pools: Mapping[str, Pool], now: float, due: bool) -> Generator[None, None, Loads | None]:
        """In small steps. What is to be said now, at the first time all there is; None when nothing has to be.

        `due`: that it is time for a message, which then says at least that all is as it was; else it is only what
        cannot wait. `now`: seconds, monotonic.
        """
        whole = self._told is None
        due = due or whole
        told = self._told = self._told or {}
        news: list[PoolLoad] = []
        for name in [*pools, *(told.keys() - pools.keys())]:
            pool = pools.get(name)
            before = told.get(name, _NONE)
            changed = [] if pool is None else list(_changed(pool, before, now, due))
            if before:
                gone = before.keys() if pool is None else before.keys() - pool.endpoints.keys()
                changed += (EndpointLoad(each) for each in sorted(gone))
            if changed:
                news.append(PoolLoad(name, tuple(changed)))
                self._keep(name, changed)
            yield
        return Loads(tuple(news), whole) if news or due else None

    def _keep(self, name: str, changed: Iterable[EndpointLoad]) -> None:
        assert self._told is not None  # it is asked for news before
        kept = self._told.setdefault(name, {})
        for each in changed:
            if differ(EndpointLoad(each.endpoint), each):
                kept[each.endpoint] = each
            else:
                kept.pop(each.endpoint, None)
        if not kept:
            del self._told[name]
