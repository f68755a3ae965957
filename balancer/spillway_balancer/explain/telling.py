"""Tells a runtime what is assumed of it: to the objects that serve, in the way in which life tells them.

Load comes by visits and scrapes, health by probes and circuits, speed by first tokens, caches by prompts that were
there, limits by what is taken of them. Nothing is put in their place.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from math import ceil
from typing import Any, Final

from spillway_api import snapshot
from spillway_api.durations import seconds

from ..core.allowance import Allowance
from ..core.consumers import Consumer
from ..core.endpoint import EndpointState
from ..core.health import HEALTHY, UNHEALTHY
from ..core.limits import TierLimits
from ..core.load import Reported
from ..core.meters import Spend
from ..core.pace import Pace
from ..core.pool import Picked, Pool
from ..core.progress import DEEP_QUEUE
from ..core.routing import Route
from ..core.runtime import Runtime
from ..core.shares import Share
from ..core.strategies import Choice
from ..core.visits import Forecast
from ..net.facts import Facts
from .given import ConsumerGiven, EndpointGiven, PoolGiven, State, UsedGiven

NOW: Final = 1_000_000.0
"""Seconds, monotonic: any moment will do that has something before it."""
KEY: Final = "the key of the consumer that is assumed"
"""What a request shows that is assumed to come from a consumer and shows no key."""
OUTPUT: Final = 256
"""Tokens that requests in flight may still generate."""
ATTEMPTS: Final = 100
"""Of which `errorPercent` have failed."""
REQUESTS: Final = 1000
"""That a tier with `maxSharePercent` has seen in the last minute."""


def whole(name: str) -> str:
    """namespace/name of a pool or policy that is named as in the namespace `default`."""
    return name if "/" in name else f"default/{name}"


def tell(runtime: Runtime, state: State, facts: Facts, unix: float) -> None:
    """All that is assumed, for this request to find."""
    for name, pool_given in state.pools.items():
        if (pool := runtime.pools.get(whole(name))) is not None:
            _tell_pool(pool, pool_given, facts)
            if pool.fund is not None and pool_given.budget is not None:
                _spend(pool.fund.money, pool_given.budget, unix)
    for route in runtime.routes.all:
        given = state.policies.get(route.name) or state.policies.get(route.name.removeprefix("default/"))
        for tier in {} if given is None else (each for tiers in route.rules for each in tiers):
            if given is not None and tier.limits is not None and (used := given.tiers.get(tier.spec.name)) is not None:
                _tell_limits(tier.limits, used, unix)
                if tier.limits.share is not None and used.max_share_percent is not None:
                    _tell_share(tier.limits.share, used.max_share_percent)
        if state.consumer is not None and route.callers is not None:
            _tell_caller(route, state.consumer, facts, unix)


def _tell_limits(limits: TierLimits | Allowance, used: UsedGiven, unix: float) -> None:
    """What both kinds of limits count."""
    if limits.requests is not None and used.requests_per_minute is not None:
        limits.requests.reserve(NOW, int(limits.requests.limit * used.requests_per_minute / 100))
    if limits.tokens is not None and used.tokens_per_minute is not None:
        limits.tokens.reserve(NOW, int(limits.tokens.limit * used.tokens_per_minute / 100))
    if limits.money is not None and used.budget is not None:
        _spend(limits.money, used.budget, unix)


def _spend(money: Spend, percent: float, unix: float) -> None:
    spent = money.limit * Decimal(str(percent)) / 100
    held = money.reserve(unix, spent)
    if held is not None:
        money.settle(held, unix, spent)


def _tell_share(share: Share, percent: float) -> None:
    for _ in range(REQUESTS):
        share.came(NOW)
    # This request itself counts as well, and what may come in is rounded up.
    for _ in range(ceil((REQUESTS + 1) * share.percent * percent / 10_000)):
        share.take(NOW)


def _tell_caller(route: Route, given: ConsumerGiven, facts: Facts, unix: float) -> None:
    """The key that the request shows is this consumer's."""
    callers = route.callers
    assert callers is not None
    own = route.name.partition("/")[0]
    namespace, slash, name = given.name.rpartition("/")
    if slash and namespace != own:
        return
    member = next((each for each in callers.members if each.name == name), None)
    if member is None or given.labels is not None:
        limits = callers.spec.defaults if member is None else member.spec.limits
        spec = snapshot.Consumer(name, f"{own}/{name}", "", given.labels or {}, limits)
        member = Consumer(spec, own)
    allowance = member.allowance
    if allowance is not None:
        _tell_limits(allowance, given.used, unix)
        if allowance.in_flight is not None and given.used.max_in_flight is not None:
            for _ in range(int(allowance.in_flight.limit * given.used.max_in_flight / 100)):
                allowance.in_flight.try_take()
    callers.tell({facts.key_digest or hashlib.sha256(KEY.encode()).digest(): member})


def of(given: PoolGiven, endpoint: str) -> EndpointGiven:
    """What is assumed of one endpoint: its own, else what holds for the pool."""
    own = given.endpoints.get(endpoint)
    if own is None:
        return given
    said: dict[str, Any] = {
        name: value
        for name in EndpointGiven.__struct_fields__
        if (value := getattr(own, name)) is not None or (value := getattr(given, name)) is not None
    }
    return EndpointGiven(**said)


def _tell_pool(pool: Pool, given: PoolGiven, facts: Facts) -> None:
    if given.first_token is not None and given.tokens_per_second is not None:
        for model in dict.fromkeys(pool.models.values()):
            _tell_pace(pool.learned.pace(model), seconds(given.first_token), given.tokens_per_second)
    for number, endpoint in enumerate(pool.endpoints.values()):
        _tell(pool, endpoint, of(given, endpoint.name), facts)
        if given.ready is not None and number >= given.ready:
            endpoint.probe = UNHEALTHY


def _tell(pool: Pool, endpoint: EndpointState, given: EndpointGiven, facts: Facts) -> None:
    _tell_load(pool, endpoint, given)
    if given.predicted_ttft is not None:
        # A first token that came so late, behind so much, teaches the rate at which a typical one will.
        tokens = pool.work_ahead(endpoint, NOW) + pool.learned.miss_tokens
        backlog = max(DEEP_QUEUE, tokens)
        endpoint.learned.first_token(seconds(given.predicted_ttft) * backlog / tokens, backlog, NOW)
    if given.cached_percent is not None:
        for model in dict.fromkeys(pool.models.values()):
            if (prompt := facts.prompt(model)) is not None:
                there = prompt.blocks[: round(len(prompt.blocks) * given.cached_percent / 100)]
                endpoint.cache.pin(there).unpin()
    if given.error_percent is not None:
        number = max(ATTEMPTS, pool.circuits.min_requests)
        failed = round(number * given.error_percent / 100)
        for _ in range(failed):
            endpoint.circuit = endpoint.circuit.failed(NOW, pool.circuits, may_open=False)
        for _ in range(number - failed):
            endpoint.circuit = endpoint.circuit.succeeded(NOW, pool.circuits)
    _tell_health(pool, endpoint, given)


def _tell_pace(pace: Pace, ttft: float, rate: float) -> None:
    """One answer of a hundred tokens has just ended."""
    tokens = 100
    first = NOW - (tokens - 1) / rate
    mark = pace.sent(first - ttft, streams=True)
    pace.first_token(mark, first)
    pace.ended(mark, first, NOW, tokens, ok=True)


def _tell_load(pool: Pool, endpoint: EndpointState, given: EndpointGiven) -> None:
    """Requests in flight of a typical length, some of them in the engine's queue, and a scrape that says the same."""
    queued = given.queued or 0
    in_flight = queued if given.in_flight is None else given.in_flight
    typical = Forecast(pool.learned.miss_tokens, 0.0, OUTPUT)
    for number in range(in_flight):
        visit = pool.visit(Picked(endpoint, Choice(endpoint.name, "assumed"), typical), NOW)
        if number < in_flight - queued:  # those that run came before those that wait
            visit.first_token(NOW)
    if given.in_flight is None and given.queued is None and given.kv_cache_percent is None:
        return
    book = endpoint.load
    usage = None if given.kv_cache_percent is None else given.kv_cache_percent / 100
    running = float(in_flight - queued)
    endpoint.reported(
        Reported(NOW, float(queued), running, usage, in_flight, None, None, book.pending, float(book.context))
    )


def _tell_health(pool: Pool, endpoint: EndpointState, given: EndpointGiven) -> None:
    if given.health is not None:
        endpoint.probe = HEALTHY if given.health == "Passing" else UNHEALTHY
    if given.circuit in ("Open", "HalfOpen"):
        once = pool.circuits._replace(consecutive_failures=1)
        since = NOW if given.circuit == "Open" else NOW - once.base_ejection
        endpoint.circuit = endpoint.circuit.failed(since, once)
    if given.limited_for is not None:
        endpoint.circuit = endpoint.circuit.shut(NOW, NOW + seconds(given.limited_for))
    if given.credential is not None:
        endpoint.keyed = given.credential != "Missing"
        endpoint.refused = given.credential == "Refused"
