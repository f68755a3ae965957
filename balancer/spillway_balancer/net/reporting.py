"""What a balancer tells the operator of its pools and tiers, for their status: a pure function of what it knows.

Only what has something to tell is in a report. A pool that is missing: no engine was found, all endpoints take
traffic, and its metrics are not read (or nobody has read them yet). A tier that is missing is Open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from typing import Final, cast

from spillway_api.stream import MetricsState, PoolReport, Report, TierReport
from spillway_api.types.status import TierState

from ..core.cold import is_cold, is_wanted
from ..core.endpoint import EndpointState
from ..core.pool import Pool
from ..core.routing import Tier
from ..core.runtime import Runtime
from .polling import Scrape


def report(
    runtime: Runtime,
    dialects: Mapping[EndpointState, str],
    scrapes: Mapping[EndpointState, Scrape],
    now: float,
    unix: float,
) -> Report:
    """`dialects` and `scrapes` are what the poller knows: engines by their metrics, and how the last scrapes ended.
    `now`: seconds, monotonic; `unix`: since 1970."""
    work = steps(runtime, dialects, scrapes, now, unix)
    while True:
        try:
            next(work)
        except StopIteration as done:
            return cast(Report, done.value)


def steps(
    runtime: Runtime,
    dialects: Mapping[EndpointState, str],
    scrapes: Mapping[EndpointState, Scrape],
    now: float,
    unix: float,
) -> Generator[None, None, Report]:
    """`report` in small steps: with thousands of endpoints, others want to use the thread in between."""
    pools = []
    ready: dict[str, int] = {}
    for name, pool in runtime.pools.items():
        told, ready[name] = _pool(pool, dialects, scrapes, now, unix)
        if told is not None:
            pools.append(told)
        yield
    tiers = []
    for route in runtime.routes.all:
        for rule, made in zip(route.spec.rules, route.rules, strict=True):
            for tier in made:
                told_tier = _tier(route.name, rule.name, tier, ready, now, unix)
                # A shadow sends nothing, so nothing spills from it.
                if told_tier is not None and not (told_tier.state == "Spilling" and route.spec.mode == "Shadow"):
                    tiers.append(told_tier)
        yield
    return Report(tuple(pools), tuple(tiers), _wanted(runtime, now))


def steps_beside(runtime: Runtime, now: float) -> Generator[None, None, Report]:
    """The report of a sidecar: how endpoints are doing is told by gateways, but what sleeps is woken for it as well."""
    yield
    return Report(wanted=_wanted(runtime, now))


def _wanted(runtime: Runtime, now: float) -> tuple[str, ...]:
    return tuple(name for name, pool in runtime.pools.items() if pool.asleep and is_wanted(pool, now))


def _pool(
    pool: Pool,
    dialects: Mapping[EndpointState, str],
    scrapes: Mapping[EndpointState, Scrape],
    now: float,
    unix: float,
) -> tuple[PoolReport | None, int]:
    unhealthy: list[str] = []
    ejected: list[str] = []
    refusing: list[str] = []
    up: list[EndpointState] = []
    ready = 0
    for name, endpoint in pool.endpoints.items():
        if endpoint.refused or not endpoint.keyed:
            refusing.append(name)
        if not endpoint.probe.usable:
            unhealthy.append(name)
            continue
        up.append(endpoint)
        circuit = endpoint.circuit
        if endpoint.keyed and circuit.admits(now):
            ready += 1
        elif circuit.ejected_until is not None:
            ejected.append(name)
    engine: str | None = None
    if dialects and (engines := Counter(dialects[each] for each in pool.endpoints.values() if each in dialects)):
        engine = min(engines, key=lambda each: (-engines[each], each))
    # Of an endpoint that is down its metrics are no news, unless all are.
    metrics, message = _metrics(pool, up or list(pool.endpoints.values()), scrapes, now)
    if engine is None and metrics == "Off" and not (unhealthy or ejected or refusing or pool.fund):
        return None, ready
    spent = "" if pool.fund is None else f"{pool.fund.money.spent_at(unix):f}"
    out = tuple(unhealthy), tuple(ejected), tuple(refusing)
    told = PoolReport(pool.name, engine, *out, metrics, message, spent, _unkeyed(pool, refusing))
    return told, ready


def _unkeyed(pool: Pool, refusing: list[str]) -> str:
    """Why the first of them that has no credential has none."""
    known = ((name, pool.endpoints[name].unkeyed) for name in refusing)
    return next((f"{name}: {why}" for name, why in known if why), "")


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
    return state, f"{which[0]}{more} ({len(which)} of {seen})"


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


def _tier(route: str, rule: str, tier: Tier, ready: Mapping[str, int], now: float, unix: float) -> TierReport | None:
    spec, targets, spilling = tier.spec, tier.targets, tier.spilling
    in_order = spec.select == "InOrder"  # a weight of 0 takes a pool out, unless the order alone decides
    pools = [each.pool for each in targets if (each.weight > 0 or in_order) and ready[each.pool.name]]
    if not pools:
        shut: TierState = "Cold" if tier.sleeps and is_cold(tier) else "Unavailable"
        return TierReport(route, rule, spec.name, shut, spent=_spent(tier, unix))
    share = 0.0 if spilling is None else spilling.share(now)
    spent = _spent(tier, unix)
    closed = tier.limits is not None and unix < tier.limits.spent_until
    closed = closed or all(pool.fund is not None and pool.fund.closed(unix) for pool in pools)
    full = all(pool.full(now) for pool in pools)
    if share <= 0.0 and not spent and not full and not closed:
        return None
    count = sum(ready[name] for name in {each.pool.name for each in targets if each.weight > 0})
    percent = max(1, int(share * 100)) if share > 0.0 else 0
    state: TierState = "Closed" if closed else "Spilling" if percent else "Saturated" if full else "Open"
    return TierReport(route, rule, spec.name, state, count, percent, spent)


def _spent(tier: Tier, unix: float) -> str:
    """Of its budget, in this period; empty without one."""
    money = None if tier.limits is None else tier.limits.money
    return "" if money is None else f"{money.spent_at(unix):f}"
