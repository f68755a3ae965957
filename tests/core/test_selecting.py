"""How a pool of a tier is chosen: shares by weight, scores and what is unknown, and sessions that stay."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from spillway_api import snapshot
from spillway_api.types import Capacity, Dispatch, Health, Metrics, Model, Money, Price, Retry, Timeouts
from spillway_balancer.core.capabilities import able
from spillway_balancer.core.narrowing import Cuts
from spillway_balancer.core.pool import Picked, Pool, Want
from spillway_balancer.core.prefix import Prompt
from spillway_balancer.core.routing import Tier
from spillway_balancer.core.runtime import Runtime
from spillway_balancer.core.selecting import MODES, SESSIONS, order

NOW = 1000.0
CUT = partial(Cuts().part, "all")


class Request:
    """As small as a choice needs it."""

    path, images, tools, json = "/v1/chat/completions", bool, bool, bool

    def __init__(self, tokens: int = 1000, limit: int = 0, blocks: Any = None, model: str = "chat") -> None:
        self.model, self.prompt_tokens, self._limit = model, tokens, limit
        self._prompt = None if blocks is None else Prompt(array("Q", blocks), len(blocks) * 256)

    def max_tokens(self) -> int:
        return self._limit

    def prompt(self, model: str) -> Prompt | None:
        return self._prompt


def model(name: str = "m", quality: int | None = None, **price: str) -> Model:
    return Model(name, quality_percent=quality, price=Price(**price) if price else None)


def runtime(select: str, *models: Any, previous: Runtime | None = None, **asks: Any) -> Runtime:
    """One tier of pools a, b, c, …; a model, or a weight, or both."""
    pools, targets = [], []
    for at, each in enumerate(models):
        made, weight = each if type(each) is tuple else (each, 100)
        if isinstance(made, int):
            made, weight = model(), made
        name = f"default/{'abcdefgh'[at]}"
        endpoints = (snapshot.Endpoint("e", "http://e:80"),)
        pools.append(snapshot.Pool(name, (made,), "Auto", None, endpoints, Dispatch(), Capacity(), Metrics(), Health()))
        targets.append(snapshot.Target(name, None, weight))
    tier = snapshot.RouteTier("t", tuple(targets), select, (), **asks)
    route = snapshot.Route("default/chat", ("chat",), (snapshot.RouteRule("all", (tier,)),), Timeouts(), Retry())
    return Runtime(snapshot.Snapshot("default", tuple(pools), (route,)), previous)


def tier(*args: Any, **settings: Any) -> Tier:
    return runtime(*args, **settings).routes.all[0].rules[0][0]


def name(pool: Pool) -> str:
    return pool.name.removeprefix("default/")


def first(made: Tier, key: int | None = None, asks: Any = None, now: float = NOW, dice: Any = None) -> str:
    return name(order(made, key, asks or Request(), now, dice or random.Random(1))[0].pool)


def ordered(made: Tier, key: int | None = None, asks: Any = None, now: float = NOW) -> str:
    return "".join(name(each.pool) for each in order(made, key, asks or Request(), now, random.Random(1)))


def session(number: int) -> int:
    return xxh3_64_intdigest(f"session-{number}".encode())


# ---- Weighted


@given(weights=st.lists(st.integers(0, 1000), min_size=2, max_size=6).filter(any), seed=st.integers(0, 2**32))
def test_ten_thousand_requests_without_a_session_are_shared_within_a_point(weights: list[int], seed: int) -> None:
    made, dice, request = tier("Weighted", *weights), random.Random(seed), Request()
    seen = Counter(name(order(made, None, request, NOW, dice)[0].pool) for _ in range(10_000))
    for at, weight in enumerate(weights):
        assert abs(seen["abcdef"[at]] / 100 - 100 * weight / sum(weights)) < 1.0


@pytest.mark.parametrize(
    "weights", [(95, 5), (80, 20), (50, 50), (1, 999), (100, 100, 100), (7, 11, 13, 17), (0, 1, 3)]
)
def test_ten_thousand_sessions_are_shared_within_a_point(weights: tuple[int, ...]) -> None:
    made = tier("Weighted", *weights)
    seen = Counter(first(made, session(number)) for number in range(10_000))
    for at, weight in enumerate(weights):
        assert abs(seen["abcdef"[at]] / 100 - 100 * weight / sum(weights)) < 1.0


@given(
    weights=st.lists(st.integers(0, 1000), min_size=2, max_size=6).filter(any),
    at=st.integers(0, 5),
    other=st.integers(0, 1000),
)
def test_a_new_weight_moves_only_the_sessions_that_it_must(weights: list[int], at: int, other: int) -> None:
    at %= len(weights)
    after = [*weights]
    after[at] = other
    if not any(after):
        return
    one, two = tier("Weighted", *weights), tier("Weighted", *after)
    changed = "abcdef"[at]
    for number in range(200):
        key = session(number)
        was, now = first(one, key), first(two, key)
        assert was == first(one, key, dice=random.Random(number))
        if was != now:
            assert (now if other > weights[at] else was) == changed


def test_the_turn_outlives_a_reload() -> None:
    """Else who edits a file every minute sends each first request to the same pool."""
    before = runtime("Weighted", 50, 50)
    seen = []
    for _ in range(100):
        seen.append(first(before.routes.all[0].rules[0][0]))
        before = runtime("Weighted", 50, 50, model(), previous=before)
        before = runtime("Weighted", 50, 50, previous=before)
    assert 45 <= seen.count("a") <= 55


# ---- all modes


@given(
    select=st.sampled_from(["Weighted", "InOrder", *MODES]),
    models=st.lists(
        st.tuples(
            st.builds(
                Model,
                st.just("m"),
                quality_percent=st.none() | st.integers(0, 100),
                price=st.none() | st.builds(Price, input=st.sampled_from([None, "0", "1.5"]),
                                            currency=st.sampled_from(["USD", "EUR"])),
            ),
            st.integers(0, 3),
        ),
        min_size=1, max_size=5,
    ).filter(lambda models: any(weight for _, weight in models)),
    key=st.none() | st.integers(0, 2**64 - 1),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_each_pool_with_a_weight_comes_once_and_no_other(select: str, models: Any, key: Any, seed: int) -> None:
    made = tier(select, *models)
    got = [each.pool.name for each in order(made, key, Request(), NOW, random.Random(seed))]
    wanted = [each.pool.name for each in made.targets if each.weight or select == "InOrder" or len(models) == 1]
    assert sorted(got) == sorted(wanted)
    again = tier(select, *models)
    assert got == [each.pool.name for each in order(again, key, Request(), NOW, random.Random(seed))]


def test_in_order_is_as_written() -> None:
    assert ordered(tier("InOrder", model(), model(), model())) == "abc"


@pytest.mark.parametrize("select", ["Cheapest", "Quality"])
def test_among_equals_weight_and_key_decide(select: str) -> None:
    same = model(quality=70, input="1", output="2")
    made = tier(select, (same, 300), (same, 100))
    seen = Counter(first(made, session(number)) for number in range(2000))
    assert 1400 <= seen["a"] <= 1600
    assert all(first(made, session(number)) == first(made, session(number)) for number in range(50))


# ---- Cheapest


def test_the_cheapest_of_all_is_first_and_the_unpriced_last() -> None:
    made = tier("Cheapest", model(), model(input="3", output="15"), model(input="0.25", output="2"), model(input="1"))
    assert ordered(made, asks=Request(tokens=1000, limit=10)) == "cdba"


def test_it_is_the_request_that_has_a_price_and_not_the_model() -> None:
    reads, writes = model(input="0.1", output="10"), model(input="2", output="1")
    made = tier("Cheapest", reads, writes)
    assert first(made, asks=Request(tokens=50_000, limit=10)) == "a"
    assert first(made, asks=Request(tokens=100, limit=5000)) == "b"


def test_long_answers_cost_more_when_they_have_been_seen() -> None:
    made = tier("Cheapest", model(output="1"), model(output="0.9"))
    assert first(made) == "b"
    made.targets[1].pool.learned.output_tokens = 900.0
    assert first(made) == "a"
    assert first(made, asks=Request(limit=20)) == "b"  # where the client lets neither be long


def test_what_is_cached_is_cheaper() -> None:
    """A dear model that has the session is cheaper than a cheap one that has to read all of it."""
    price = {"output": "1"}
    made = tier("Cheapest", model(input="2", cached_input="0.2", **price), model(input="1", **price))
    blocks = [session(number) for number in range(100)]
    request = Request(tokens=6400, limit=10, blocks=blocks)
    assert first(made, asks=request) == "b"
    dear = made.targets[0].pool
    picked = dear.pick(Want(None, 6400, 10, request.prompt("m")), (), NOW, random.Random(1))
    assert isinstance(picked, Picked)
    dear.visit(picked, NOW).end(NOW + 1)
    assert first(made, asks=request) == "a"
    assert first(made, asks=Request(tokens=6400, limit=10, blocks=blocks[::-1])) == "b"


def test_nothing_is_converted() -> None:
    made = tier("Cheapest", model(input="0.001", currency="EUR"), model(input="5"), model(input="7"))
    assert ordered(made) == "bca"


@pytest.mark.parametrize(("rises", "stays"), [(1.0, True), (1.08, True), (1.2, False)])
def test_a_session_stays_until_another_pool_is_clearly_cheaper(rises: float, stays: bool) -> None:
    made = tier("Cheapest", model(output="1"), model(output="1.05"))
    old, new = session(1), session(2)
    assert first(made, old) == "a"
    made.targets[0].pool.learned.output_tokens *= rises * 1.05
    assert (first(made, old) == "a") is stays
    if rises > 1.05:
        assert first(made, new) == "b"
        assert first(made) == "b"


def test_prices_that_change_a_little_all_the_time_move_nobody() -> None:
    made, dice = tier("Cheapest", model(output="1"), model(output="1")), random.Random(3)
    sides = {number: first(made, session(number)) for number in range(100)}
    assert 30 <= [*sides.values()].count("a") <= 70
    for _ in range(20):
        for target in made.targets:
            target.pool.learned.output_tokens = 200.0 * dice.uniform(0.96, 1.04)
        assert {number: first(made, session(number)) for number in range(100)} == sides


def test_a_session_whose_pool_cannot_serve_one_request_is_back_with_the_next() -> None:
    made = tier("Cheapest", model(input="1"), model(input="2"))
    key = session(1)
    assert first(made, key) == "a"
    without = made._replace(targets=made.targets[1:])
    assert first(without, key) == "b"
    assert first(made, key) == "a"


def test_no_more_sessions_are_remembered_than_there_is_room_for() -> None:
    made = tier("Cheapest", model(input="1"), model(input="2"))
    for number in range(SESSIONS + 500):
        first(made, number)
    chooser: Any = made.chooser
    assert len(chooser._placed) == SESSIONS
    assert 0 not in chooser._placed
    assert SESSIONS + 499 in chooser._placed


# ---- Quality, and what a tier asks for


def test_the_best_is_first_and_the_unknown_last() -> None:
    assert ordered(tier("Quality", model(), model(quality=40), model(quality=90), model(quality=41))) == "cdba"


def able_names(made: Tier, request: Request) -> str:
    return "".join(name(each.pool) for left in able((made,), request, CUT).tiers for each in left.targets)


@pytest.mark.parametrize("select", ["Weighted", "InOrder", *MODES])
def test_a_minimum_of_quality_is_for_every_mode(select: str) -> None:
    models = model(quality=70), model(), model(quality=69), model(quality=100)
    assert able_names(tier(select, *models, min_quality_percent=70), Request()) == "ad"
    nobody = able((tier(select, *models[1:3], min_quality_percent=70),), Request(), CUT)
    assert nobody.tiers == ()
    assert nobody.refused is not None
    assert nobody.refused.attempts == ("t default/a: quality unknown", "t default/b: quality 69 below 70")


def test_the_best_under_a_ceiling_of_cost() -> None:
    models = (
        model(quality=95, input="10", output="50"),
        model(quality=80, input="1", output="5"),
        model(quality=60, input="0.1", output="0.5"),
        model(quality=99),
        model(quality=99, input="0", currency="EUR"),
    )
    made = tier("Quality", *models, max_cost=Money("0.02"))

    def chosen(request: Request) -> str:
        return ordered(able((made,), request, CUT).tiers[0], asks=request)

    assert chosen(Request(tokens=500, limit=200)) == "abc"
    assert chosen(Request(tokens=5000, limit=200)) == "bc"
    assert chosen(Request(tokens=50_000, limit=200)) == "c"
    refused = able((made,), Request(tokens=500_000, limit=200), CUT).refused
    assert refused is not None
    assert refused.message.endswith("as little as its policy asks for")
