"""Public names: exact, the longest prefix, everything; and suffixes that say how pools are selected."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.asked import Asked

from spillway_api import snapshot
from spillway_api.types import Capacity, Dispatch, Health, Metrics, Model, Price, Retry, Timeouts
from spillway_balancer.core.conditions import Moment
from spillway_balancer.core.errors import ModelNotFound
from spillway_balancer.core.planning import plan
from spillway_balancer.core.routing import Routes
from spillway_balancer.core.runtime import Runtime
from spillway_balancer.core.selecting import order


def runtime(previous: Runtime | None = None, **policies: Any) -> Runtime:
    """Policies by name: their public names, and pools as lists of models, in as many tiers as there are lists."""
    pools, routes = {}, []
    for policy, (names, *tiers) in policies.items():
        made = []
        for at, models in enumerate(tiers):
            targets = []
            for number, each in enumerate(models):
                pool = f"default/{policy}-{at}-{number}"
                several = each if type(each) is tuple else (each,)
                listed = tuple(Model(one) if isinstance(one, str) else one for one in several)
                endpoints = (snapshot.Endpoint("e", "http://e:80"),)
                facts = Dispatch(), Capacity(), Metrics(), Health()
                pools[pool] = snapshot.Pool(pool, listed, "Auto", None, endpoints, *facts)
                targets.append(snapshot.Target(pool))
            made.append(snapshot.RouteTier(f"t{at}", tuple(targets), "Weighted", ()))
        rule = snapshot.RouteRule("all", tuple(made))
        routes.append(snapshot.Route(f"default/{policy}", tuple(names), (rule,), Timeouts(), Retry()))
    return Runtime(snapshot.Snapshot("default", tuple(pools.values()), tuple(routes)), previous)


def found(routes: Routes, model: str) -> Any:
    one = routes.resolve(model)
    return None if one is None else (one.route.name.removeprefix("default/"), one.declared, one.name, one.select)


POLICIES: dict[str, Any] = {
    "chat": (["chat", "chat:turbo"], ["m"]),
    "ollama": (["llama:floor"], ["m"]),
    "wide": (["llama*"], ["m"]),
    "wider": (["llama-3*"], ["m"]),
    "all": (["*"], [("qwen", "qwen:nitro", "mistral", "gemma:2b")]),
}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("chat", ("chat", "chat", "chat", None)),
        ("chat:floor", ("chat", "chat", "chat", "Cheapest")),
        ("chat:nitro", ("chat", "chat", "chat", "HighestThroughput")),
        ("chat:turbo", ("chat", "chat:turbo", "chat:turbo", None)),
        ("chat:turbo:floor", ("chat", "chat:turbo", "chat:turbo", "Cheapest")),
        ("chat:Floor", None),
        ("chat:", None),
        ("llama:floor", ("ollama", "llama:floor", "llama:floor", None)),  # exact names that hold a colon win
        ("llama:nitro", ("wide", "llama*", "llama", "HighestThroughput")),
        ("llama-3.1:floor", ("wider", "llama-3*", "llama-3.1", "Cheapest")),  # the longest prefix of the head
        ("llama-2:8b", ("wide", "llama*", "llama-2:8b", None)),
        ("mistral:floor", ("all", "*", "mistral", "Cheapest")),
        ("qwen:nitro", ("all", "*", "qwen:nitro", None)),  # a model of a pool is called so
        ("qwen:floor", ("all", "*", "qwen", "Cheapest")),
        ("gemma:2b", ("all", "*", "gemma:2b", None)),
        ("gemma:2b:nitro", ("all", "*", "gemma:2b", "HighestThroughput")),
        ("gemma:floor", None),  # the pool has four models and none of this name
        (":floor", None),
        ("mistral:floor:nitro", None),
    ],
)
def test_a_name_is_exact_or_a_prefix_or_the_head_of_a_suffix(model: str, expected: Any) -> None:
    assert found(runtime(**POLICIES).routes, model) == expected


def test_a_prefix_that_ends_in_a_colon_keeps_what_no_head_has() -> None:
    routes = runtime(ollama=(["llama:*"], ["m"])).routes
    assert found(routes, "llama:floor") == ("ollama", "llama:*", "llama:floor", None)
    assert found(routes, "llama:8b:floor") == ("ollama", "llama:*", "llama:8b", "Cheapest")


NAMES = st.text("ab:", min_size=1, max_size=5)


@given(
    policies=st.lists(st.lists(NAMES | NAMES.map("{}*".format) | st.just("*"), min_size=1), min_size=1, max_size=4),
    model=NAMES | NAMES.map("{}:floor".format),
)
def test_who_declares_a_name_has_it_and_longer_prefixes_go_before_shorter(policies: Any, model: str) -> None:
    taken: set[str] = set()
    mine = []
    for names in policies:  # a name has one policy: who compiles a snapshot sees to it
        mine.append([name for name in dict.fromkeys(names) if name not in taken])
        taken.update(names)
    routes = runtime(**{f"p{at}": (names, ["m"]) for at, names in enumerate(mine)}).routes
    got = routes.resolve(model)

    def best(name: str) -> str | None:
        wild = [each for each in taken if each.endswith("*") and name.startswith(each[:-1])]
        return name if name in taken else max(wild, key=len, default=None)

    head = model.removesuffix(":floor")
    by_head = None if model in taken or head == model or not head else best(head)
    expected = by_head or best(model)
    assert (got and got.declared) == expected
    if got is not None:
        assert got.declared in got.route.spec.models
        assert (got.select, got.name) == (("Cheapest", head) if by_head else (None, model))


# ---- what becomes of it

DEAR, CHEAP = Model("m", price=Price(input="9")), Model("m", price=Price(input="1"))


def asked(made: Runtime, model: str, times: int = 50) -> set[str]:
    """Pools that are first in the first tier, over as many requests."""
    dice, seen = random.Random(1), set()
    for _ in range(times):
        request = Asked(model=model)
        tier = plan(made.routes, request, Moment(1000.0, 1.8e9, dice)).tiers[0]
        seen.add(order(tier, None, request, 1000.0, dice)[0].pool.name.removeprefix("default/chat-"))
    return seen


def test_floor_is_the_cheapest_in_every_tier_whatever_the_policy_says() -> None:
    made = runtime(chat=(["chat"], [DEAR, CHEAP], [CHEAP, DEAR]))
    request = Asked(model="chat:floor")
    decided = plan(made.routes, request, Moment(1000.0, 1.8e9, random.Random(1)))
    assert request.model == "chat"  # what rules, keys and endpoints see
    assert decided.model == "chat"  # what metrics see
    names = [order(tier, None, request, 1000.0, random.Random(1))[0].pool.name for tier in decided.tiers]
    assert names == ["default/chat-0-1", "default/chat-1-0"]
    assert asked(made, "chat") == {"0-0", "0-1"}
    assert asked(made, "chat:floor") == {"0-1"}


def test_nitro_is_the_one_with_most_tokens_a_second() -> None:
    made = runtime(chat=(["chat"], ["m", "m"]))
    for name, rate in (("default/chat-0-0", 20.0), ("default/chat-0-1", 90.0)):
        made.pools[name].learned.pace("m").rate = rate
    assert asked(made, "chat:nitro", 20) == {"0-1"}


def test_what_a_suffix_has_learned_of_sessions_outlives_a_reload_and_goes_with_its_tier() -> None:
    made = runtime(chat=(["chat"], [DEAR, CHEAP], [CHEAP, DEAR]))
    asked(made, "chat:floor")
    keys = {("all", tier, select) for tier in ("t0", "t1") for select in ("Weighted", "Cheapest")}
    assert made.routes.all[0].choosers.keys() == keys
    after = runtime(made, chat=(["chat", "more"], [DEAR, CHEAP]))
    before = made.routes.all[0].choosers["all", "t0", "Cheapest"]
    assert after.routes.all[0].choosers == {
        at: each for at, each in made.routes.all[0].choosers.items() if at[1] == "t0"
    }
    assert after.routes.all[0].choosers["all", "t0", "Cheapest"] is before


def test_a_head_that_nobody_has_is_not_found_under_the_name_that_was_asked_for() -> None:
    request = Asked(model="gpt:floor")
    with pytest.raises(ModelNotFound, match="gpt:floor"):
        plan(runtime(chat=(["chat"], ["m"])).routes, request, Moment(1000.0, 1.8e9, random.Random(1)))
