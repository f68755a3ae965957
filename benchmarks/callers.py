"""What it costs to know who asks, and to hold them to their limits."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Final

from multidict import CIMultiDict

from spillway_api import snapshot
from spillway_api.types import (
    Capacity,
    ConsumerBudget,
    ConsumerLimits,
    Dispatch,
    Health,
    Metrics,
    Model,
    Price,
    Retry,
    Timeouts,
)
from spillway_balancer.core.admitting import admit
from spillway_balancer.core.conditions import Moment
from spillway_balancer.core.planning import plan
from spillway_balancer.core.prices import Used
from spillway_balancer.core.runtime import Runtime
from spillway_balancer.net.facts import Facts
from spillway_balancer.net.quotas import quota
from spillway_balancer.wire.peeked import Peeked

CONSUMERS: Final = 1000
EVERY: Final = ConsumerLimits(10**9, 10**12, 1000, ConsumerBudget("999999999"))


def asked_by_consumer(peeked: Peeked, limits: ConsumerLimits | None) -> Callable[[], None]:
    """A request of one consumer of a thousand, from its facts to its plan, and out of the limits again."""
    names = [f"team-{number:04}" for number in range(CONSUMERS)]
    members = (snapshot.Consumer(name, f"bench/{name}", "api-key", {}, limits) for name in names)
    consumers = snapshot.Consumers({"app": "bench"}, tuple(members), limits)
    model = Model("bench", price=Price(input="1", output="4"))
    pool = snapshot.Pool("bench/p", (model,), "Auto", None, (), Dispatch(), Capacity(), Metrics(), Health())
    tier = snapshot.RouteTier("t", (snapshot.Target(pool.name),), "Weighted", ())
    rules = (snapshot.RouteRule("all", (tier,)),)
    route = snapshot.Route("bench/bench", (peeked.model,), rules, Timeouts(), Retry(), consumers)
    routes = Runtime(snapshot.Snapshot("bench", (pool,), (route,))).routes
    callers = routes.all[0].callers
    assert callers is not None
    callers.tell({hashlib.sha256(each.name.encode()).digest(): each for each in callers.members})
    headers = CIMultiDict({"authorization": f"Bearer {names[CONSUMERS // 2]}"})
    moment = Moment(1e6, 1.8e9, random.Random(1))

    def ask() -> None:
        facts = Facts(headers, "127.0.0.1", peeked)
        made = plan(routes, facts, moment)
        assert facts.consumer is not None
        made, passed = admit(made, facts.consumer, facts, moment)
        if passed is not None:
            assert facts.consumer.allowance is not None
            quota(facts.consumer.allowance, moment.now)
            passed.charge(model.price, Used(20, 0, 20))
            passed.leave(moment.now, moment.unix)

    return ask
