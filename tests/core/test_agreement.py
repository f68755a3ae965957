"""Balancers agree without a word: whoever of them has a request of a key sends it to the same endpoint while that has
room, whatever each has seen of other keys, and in whatever order it has come to know its endpoints.

What *room* is differs. For CHWBL it is the bound on load. For Adaptive that sees a part of the traffic it is what half
of the prompt costs: a home is taken to have so much of it, and more work than that before it is done sooner elsewhere.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from spillway_api.snapshot import Snapshot
from spillway_balancer.core.load import Reported
from spillway_balancer.core.pool import Picked, Pool
from spillway_balancer.core.runtime import Runtime

NOW = 1000.0
NAMES = st.integers(0, 9)
KEYS = st.integers(0, 2**64 - 1)

members = st.dictionaries(NAMES, st.sampled_from([100, 100, 130, 190]), min_size=1, max_size=8)
"""Numbers of endpoints, and their weights: on twice the weight Adaptive has a whole prompt for half."""


def made(pools: Any, strategy: str, histories: list[dict[int, int]], dice: random.Random, **chwbl: Any) -> Pool:
    """A pool that has had these members one after the other, each time in an order of its own."""
    pool: Pool | None = None
    for each in histories:
        spec = pools.spec(10, strategy=strategy, load="Requests", **chwbl)
        ends = [replace(spec.endpoints[number], weight=weight) for number, weight in each.items()]
        dice.shuffle(ends)
        pool = Pool(replace(spec, endpoints=tuple(ends)), pool)
        pool.partial = True
    assert pool is not None
    return pool


def goes(pools: Any, pool: Pool, key: int, prompt: Any = None) -> Picked:
    """By dice that nobody else throws: agreement must not be luck."""
    picked = pool.pick(pools.want(prompt, key=key), (), NOW, random.Random())
    assert isinstance(picked, Picked)
    return picked


@given(
    members,
    st.lists(st.lists(members, max_size=2), min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), KEYS), max_size=40),
    st.lists(KEYS, min_size=1, max_size=8),
    st.integers(100, 200),
    st.integers(0, 4),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_chwbl_agrees_where_every_balancer_sees_room_at_home(
    pools, now_there, befores, others, keys, factor, least, dice
) -> None:
    settings_ = {"load_factor_percent": factor, "min_in_flight": least, "vnodes": 32}
    sisters = [made(pools, "CHWBL", [*before, now_there], dice, **settings_) for before in befores]
    fresh = made(pools, "CHWBL", [now_there], dice, **settings_)
    for who, key in others:
        pool = sisters[who % len(sisters)]
        pool.visit(goes(pools, pool, key), NOW)
    for key in keys:
        home = goes(pools, fresh, key).endpoint.name
        for pool in sisters:
            load = {name: each.load.in_flight for name, each in pool.endpoints.items()}
            weights = {f"e{number}": weight for number, weight in now_there.items()}
            bound = factor * (sum(load.values()) + 1) * weights[home]
            room = load[home] * 100 * sum(weights.values()) < bound or load[home] < least
            picked = goes(pools, pool, key)
            assert (picked.endpoint.name == home) == room or len(load) == 1
            assert picked.choice.reason == ("ring" if room else "overflow") or len(load) == 1


@given(
    st.integers(1, 10),
    st.lists(st.lists(members, max_size=2), min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(1, 30)), max_size=25),
    st.lists(st.tuples(KEYS, st.integers(1, 60), st.booleans()), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_adaptive_of_a_part_agrees_while_half_a_prompt_is_worth_more_than_the_work_at_home(
    pools, size, befores, others, asked, dice
) -> None:
    now_there = dict.fromkeys(range(size), 100)
    sisters = [made(pools, "Adaptive", [*before, now_there], dice) for before in befores]
    for number, (who, where, blocks) in enumerate(others):
        pool = sisters[who % len(sisters)]
        pools.send(pool, pools.prompt((f"other {number}", blocks)), NOW, dice, to=f"e{where % size}")
    for number, (key, blocks, again) in enumerate(asked):
        prompt = pools.prompt((f"asked {number}", blocks))
        if again:  # a later turn, of which none of them has served the one before
            prompt = prompt._replace(history=prompt.size // 2)
        tokens = prompt.size / 4
        home = goes(pools, made(pools, "Adaptive", [now_there], dice), key, prompt).endpoint.name
        for pool in sisters:
            book = pool.endpoints[home].load
            waiting = sum(each.load.pending for each in pool.endpoints.values()) / size
            behind = min(waiting, 2 * book.pending + 1)
            price = book.pending_tokens + tokens / 2 * (1 + behind + 0.05 * book.in_flight) + 0.07 * book.context
            if price < tokens:  # anywhere else it costs at least the whole prompt
                assert goes(pools, pool, key, prompt).endpoint.name == home


@given(st.integers(2, 9), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=30))
@settings(deadline=None)
def test_the_turns_of_a_session_meet_at_one_endpoint_whoever_serves_them(pools, size, steps) -> None:
    dice = random.Random()
    sisters = [made(pools, "Adaptive", [dict.fromkeys(range(size), 100)], dice) for _ in range(5)]
    turns = dict.fromkeys(range(6), 0)
    homes: dict[int, str] = {}
    for who, session in steps:
        before, turns[session] = turns[session], turns[session] + 1
        prompt = pools.prompt(*((f"session {session} turn {turn}", 6) for turn in range(turns[session])))
        prompt = prompt._replace(history=before * 6 * 256)
        picked = goes(pools, sisters[who], session << 60, prompt)
        sisters[who].visit(picked, NOW).end(NOW)
        assert homes.setdefault(session, picked.endpoint.name) == picked.endpoint.name


@pytest.mark.parametrize("strategy", ["CHWBL", "Adaptive"])
@given(
    before=members, after=members, keys=st.lists(KEYS, min_size=1, max_size=10), dice=st.randoms(use_true_random=False)
)
@settings(deadline=None)
def test_who_comes_or_goes_moves_only_its_own_keys_and_alike_for_all(
    pools, strategy, before, after, keys, dice
) -> None:
    after = {number: before.get(number, weight) for number, weight in after.items()}  # no weight of one that stays
    assume(before.keys() & after.keys())
    first = made(pools, strategy, [before], dice)
    changed, started = made(pools, strategy, [before, after], dice), made(pools, strategy, [after], dice)
    for key in keys:
        prompt = pools.prompt((f"key {key}", 8))
        was, now, fresh = (int(goes(pools, pool, key, prompt).endpoint.name[1:]) for pool in (first, changed, started))
        assert now == fresh
        assert now == was or was not in after or now not in before


def test_a_conversation_begins_at_its_home_where_load_is_known_as_well(pools) -> None:
    """The next turn will come to another sidecar, which looks there."""
    for key in range(20):
        found = set()
        for load in (None, 4.0):
            pool = pools.pool(8)
            pool.partial = True
            for each in pool.endpoints.values() if load else ():
                each.reported(Reported(NOW, 0.0, load, 0.1, 0, None, None))
            prompt = pools.prompt(("system", 60), (f"question {key}", 5))
            found.add(goes(pools, pool, key << 58, prompt).endpoint.name)
        assert len(found) == 1


def test_one_that_is_alone_throws_dice(pools) -> None:
    prompt = pools.prompt(("system", 64))
    assert len({goes(pools, pools.pool(8), 7, prompt).endpoint.name for _ in range(100)}) == 8


def test_that_a_sidecar_sees_a_part_outlives_reloads_and_holds_for_new_pools(pools) -> None:
    def spec(*named: str) -> Snapshot:
        return Snapshot(gateway="default", pools=tuple(replace(pools.spec(2), name=name) for name in named), routes=())

    sidecar, gateway = (Runtime(spec("a"), partial=partial) for partial in (True, False))
    assert all(pool.partial for pool in Runtime(spec("a", "b"), sidecar).pools.values())
    assert not any(pool.partial for pool in Runtime(spec("a", "b"), gateway).pools.values())
    gateway.beside_others()
    assert all(pool.partial for pool in Runtime(spec("a", "b"), gateway).pools.values())
    pool = pools.pool(2)
    pool.partial = True
    assert Pool(pools.spec(3), pool).partial
