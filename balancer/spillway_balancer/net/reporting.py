"""What a balancer tells the operator of its pools and tiers, for their status: a pure function of what it knows.

Only what has something to tell is in a report. A pool that is missing: no engine was found, all endpoints take
traffic, and its metrics are not read (or nobody has read them yet). A tier that is missing is Open.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from spillway_api.stream import MetricsState, PoolReport, Report, TierReport

from ..core import spill
from ..core.endpoint import EndpointState
from ..core.pool import Pool
from ..core.routing import Tier
from ..core.runtime import Runtime
from .polling import Scrape


def report(
    runtime: Runtime,
    dialects: Mapping[EndpointState, str],
    scrapes: Mapping[EndpointState, Scrape],
    refused: Collection[EndpointState],
    now: float,
) -> Report:
    """`dialects` and `scrapes` are what the poller knows: engines by their metrics, and how the last scrapes ended.
    `refused` are endpoints that do not take their credential. `now`: seconds, monotonic."""
    pools = []
    ready: dict[str, int] = {}
    for name, pool in runtime.pools.items():
        told, ready[name] = _pool(pool, dialects, scrapes, refused, now)
        if told is not None:
            pools.append(told)
    tiers = []
    for route in runtime.routes.all:
        for rule, made in zip(route.spec.rules, route.rules, strict=True):
            for tier in made:
                told_tier = _tier(route.name, rule.name, tier, ready, now)
                if told_tier is not None:
                    tiers.append(told_tier)
    return Report(tuple(pools), tuple(tiers))


def _pool(
    pool: Pool,
    dialects: Mapping[EndpointState, str],
    scrapes: Mapping[EndpointState, Scrape],
    refused: Collection[EndpointState],
    now: float,
) -> tuple[PoolReport | None, int]:
    unhealthy: list[str] = []
    ejected: list[str] = []
    refusing: list[str] = []
    up: list[EndpointState] = []
    ready = 0
    for name, endpoint in pool.endpoints.items():
        if not endpoint.probe.usable:
            unhealthy.append(name)
        else:
            up.append(endpoint)
            if endpoint.circuit.admits(now):
                ready += 1
            elif endpoint.circuit.ejected_until is not None:
                ejected.append(name)
        if endpoint in refused:
            refusing.append(name)
    engines = Counter(dialects[each] for each in pool.endpoints.values() if each in dialects) if dialects else None
    engine = min(engines, key=lambda each: (-engines[each], each)) if engines else None
    # Of an endpoint that is down its metrics are no news, unless all are.
    metrics, message = _metrics(pool, up or list(pool.endpoints.values()), scrapes, now)
    if engine is None and metrics == "Off" and not (unhealthy or ejected or refusing):
        return None, ready
    told = PoolReport(pool.name, engine, tuple(unhealthy), tuple(ejected), tuple(refusing), metrics, message)
    return told, ready


WORST_FIRST: Final[tuple[MetricsState, ...]] = ("AuthRequired", "NotExposed", "UnknownNames", "Stale")


def _metrics(
    pool: Pool, endpoints: list[EndpointState], scrapes: Mapping[EndpointState, Scrape], now: float
) -> tuple[MetricsState, str]:
    if not scrapes:
        return "Off", ""
    found: dict[MetricsState, list[str]] = {}
    seen = 0
    for endpoint in endpoints:
        scrape = scrapes.get(endpoint)
        if scrape is not None:
            seen += 1
            state, why = _scraped(scrape, endpoint.load.report(now, pool.stale_after) is not None)
            if state != "Ok":
                found.setdefault(state, []).append(f"{endpoint.name}: {why}")
    if not found:
        return ("Ok" if seen else "Off"), ""
    state = next(each for each in WORST_FIRST if each in found)
    which = found[state]
    more = f", and {len(which) - 1} more like it" if len(which) > 1 else ""
    return state, f"{which[0]}{more} (of {seen})"


def _scraped(scrape: Scrape, fresh: bool) -> tuple[MetricsState, str]:
    """What a scrape that ended so says of an endpoint; `fresh`: whether what was read last is young enough to use."""
    if scrape.status in (401, 403):
        return "AuthRequired", f"the metrics page answers {scrape.status}"
    if scrape.status == 404:
        return "NotExposed", "the metrics page answers 404"
    if scrape.refused:
        return "NotExposed", "nobody listens on the port of the metrics"
    if scrape.missing:
        return "UnknownNames", f"the metrics page lacks {', '.join(scrape.missing)}"
    if scrape.result == "unreadable":
        return "UnknownNames", "the metrics page is of no engine that is known"
    if scrape.result == "ok" or fresh:
        return "Ok", ""
    return "Stale", _STALE.get(scrape.result, f"the metrics page answers {scrape.status}")


_STALE: Final = {
    "timeout": "the metrics page does not answer in time",
    "connect": "the connection to the metrics page breaks",
    "too-large": "the metrics page is too large",
}


def _tier(route: str, rule: str, tier: Tier, ready: Mapping[str, int], now: float) -> TierReport | None:
    in_order = tier.spec.select == "InOrder"
    pools = {each.pool.name: each.pool for each in tier.targets if each.weight > 0 or in_order}
    count = sum(ready[name] for name in pools)
    if not count:
        return TierReport(route, rule, tier.spec.name, "Unavailable")
    settings = tier.spec.spill
    if settings is None or settings.in_flight_per_endpoint is None:
        return None
    ramp = settings.in_flight_per_endpoint
    # As core.attempts asks: pools of weight 0 add nothing to a ramp, not even in order.
    weighted = {each.pool.name: each.pool for each in tier.targets if each.weight > 0}
    on = sum(ready[name] for name in weighted)
    if not on:
        return None
    share = spill.share(sum(pool.requests(now) for pool in weighted.values()), on, ramp.start, ramp.full)
    if share <= 0.0:
        return None
    return TierReport(route, rule, tier.spec.name, "Spilling", count, max(1, math.floor(share * 100)))
