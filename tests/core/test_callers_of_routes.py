"""Routes that know their callers: who is let in, what they may ask for, and what a reload leaves as it was."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from spillway_api import snapshot
from spillway_api.types import Capacity, ConsumerLimits, Dispatch, Health, Metrics, Model, Retry, Timeouts
from spillway_balancer.core.consumers import Callers, Consumer
from spillway_balancer.core.errors import InvalidKey
from spillway_balancer.core.runtime import Runtime


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def consumers(*names: str, requests: int | None = None) -> snapshot.Consumers:
    limits = None if requests is None else ConsumerLimits(requests)
    members = (snapshot.Consumer(name, f"default/{name}", "api-key", {"team": name}, limits) for name in names)
    return snapshot.Consumers({"app": "key"}, tuple(members), limits)


def runtime(previous: Runtime | None = None, **routes: snapshot.Consumers | None) -> Runtime:
    """Routes by name, each of a public name and a wildcard that are called like it; keys are the members' names."""
    models = tuple(Model(f"{name}-{size}") for name in routes for size in ("small", "large"))
    pool = snapshot.Pool("default/p", models, "Auto", None, (), Dispatch(), Capacity(), Metrics(), Health())
    tier = snapshot.RouteTier("t", (snapshot.Target(pool.name),), "Weighted", ())
    rules = (snapshot.RouteRule("all", (tier,)),)
    made = [
        snapshot.Route(f"default/{name}", (name, f"{name}-*"), rules, Timeouts(), Retry(), consumers=members)
        for name, members in routes.items()
    ]
    found = Runtime(snapshot.Snapshot("default", (pool,), tuple(made)), previous)
    for route in found.routes.all:
        if route.callers is not None and not route.callers.keyed:
            route.callers.tell({digest(each.name): each for each in route.callers.members})
    return found


def callers(of: Runtime, name: str) -> Any:
    return next(route.callers for route in of.routes.all if route.name == f"default/{name}")


def test_only_who_is_known_is_let_in():
    known = callers(runtime(chat=consumers("a", "b")), "chat")
    found = known.identify(digest("a"))
    assert isinstance(found, Consumer)
    assert (found.name, found.namespace, found.whole, found.labels) == ("a", "default", "default/a", {"team": "a"})
    for stranger in (None, digest("c"), digest(""), b""):
        assert isinstance(known.identify(stranger), InvalidKey)


def test_nobody_is_let_in_before_their_keys_are_told():
    known = Callers(consumers("a"), "default")
    assert not known.knows(digest("a"))
    assert isinstance(known.identify(digest("a")), InvalidKey)


@pytest.mark.parametrize(
    ("key", "seen"), [(None, ["free"]), ("c", ["free"]), ("a", ["free", "ours"]), ("b", ["both", "free", "ours"])]
)
def test_a_caller_sees_what_it_may_ask_for_behind_wildcards_as_well(key, seen):
    routes = runtime(free=None, ours=consumers("a", "b"), both=consumers("b")).routes
    names = [name + end for name in seen for end in ("", "-large", "-small")]
    assert routes.names(routes.open_to(None if key is None else digest(key))) == names


def test_what_did_not_change_is_the_same_object_after_a_reload():
    before = runtime(chat=consumers("a", "b", requests=5), other=consumers("a"))
    after = runtime(before, chat=consumers("a", "b", requests=5), other=consumers("a", "c"))
    assert callers(after, "chat") is callers(before, "chat")
    assert callers(after, "other") is not callers(before, "other")


def test_a_consumer_goes_on_as_it_was_while_others_come_and_go():
    before = runtime(chat=consumers("a", "b", requests=2))
    one = callers(before, "chat").identify(digest("a"))
    one.allowance.enter(0.0, 0.0, 1)
    one.results["ok"] += 1
    after = runtime(before, chat=consumers("a", "c", requests=4))
    again = callers(after, "chat").identify(digest("a"))
    assert again.allowance.used_percent(0.0, 0.0) == {"requestsPerMinute": 25}
    assert again.results["ok"] == 1
    assert isinstance(callers(after, "chat").identify(digest("b")), InvalidKey)
    assert callers(after, "chat").identify(digest("c")).results["ok"] == 0


def test_a_runtime_that_comes_to_nothing_leaves_the_limits_as_they_were():
    before = runtime(chat=consumers("a", requests=2))
    rules = before.spec.routes[0].rules
    routes = (
        snapshot.Route("default/chat", ("chat",), rules, Timeouts(), Retry(), consumers=consumers("a", requests=9)),
        snapshot.Route("default/z", ("z",), rules, Timeouts(connect="never"), Retry()),
    )
    with pytest.raises(ValueError, match="never"):
        Runtime(snapshot.Snapshot("default", before.spec.pools, routes), before)
    assert callers(before, "chat").members[0].allowance.requests.limit == 2
