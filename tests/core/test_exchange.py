"""Balancers that tell each other of their visits know as much as one that saw them all."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_balancer.core.load import Reported
from spillway_balancer.core.notes import Note
from spillway_balancer.core.pool import Pool

NOW = 1000.0


def speaking(pools, count: int):
    """Pools of as many balancers, each hearing all the others, and the notes that are on their way."""
    sisters = [pools.pool(3) for _ in range(count)]
    under_way: list[tuple[int, Note]] = []
    for number, pool in enumerate(sisters):
        pool.tell_sisters = lambda note, number=number: under_way.append((number, note))

    def deliver() -> None:
        for sender, note in under_way:
            for number, pool in enumerate(sisters):
                if number != sender:
                    pool.heard(f"balancer {sender}", note, NOW)
        under_way.clear()

    return sisters, deliver


def books(pool) -> list[tuple[object, ...]]:
    return [
        (each.load.in_flight, each.load.pending, round(each.load.pending_tokens), each.cache.pinned, each.cache.idle)
        for each in pool.endpoints.values()
    ]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.sampled_from(["go", "first", "end"])), max_size=30))
@settings(deadline=None)
def test_all_have_the_same_books_when_all_notes_have_come(pools, steps) -> None:
    sisters, deliver = speaking(pools, 3)
    dice = random.Random(1)
    visits: list[object] = []
    for who, number, what in steps:
        if what == "go":
            visits.append(pools.send(sisters[who], pools.prompt(("system", 3), (number, 5)), NOW, dice))
        elif visits:
            visit = visits[number % len(visits)]
            visit.first_token(NOW + 1) if what == "first" else visit.end(NOW + 2, (number + 1, number + 2))
        deliver()
        assert books(sisters[0]) == books(sisters[1]) == books(sisters[2])
    for visit in visits:
        visit.end(NOW + 3)
    deliver()
    assert all(row[:4] == (0, 0, 0, 0) for pool in sisters for row in books(pool))


def test_a_prompt_that_a_sister_has_sent_is_found(pools, dice) -> None:
    (one, other), deliver = speaking(pools, 2)
    prompt = pools.prompt(("session", 40))
    visit = pools.send(one, prompt, NOW, dice)
    deliver()
    again = pools.send(other, prompt, NOW, dice)
    assert again.endpoint.name == visit.endpoint.name


def test_notes_of_unknown_visits_and_endpoints_are_passed_over(pools, dice) -> None:
    (one, other), deliver = speaking(pools, 2)
    del other.endpoints[pools.send(one, pools.prompt(("a", 4)), NOW, dice).endpoint.name]
    deliver()
    before = books(other)
    for raw in (b'["ended",77,true,[1]]', b'["first",78]'):
        other.heard("nobody", msgspec.json.decode(raw, type=Note), NOW)
    assert books(other) == before


def test_nobody_is_told_where_nobody_listens(pools, dice) -> None:
    pool = pools.pool(2)
    visit = pools.send(pool, pools.prompt(("a", 4)), NOW, dice)
    visit.first_token(NOW)
    visit.end(NOW)
    assert pool.tell_sisters is None


def busy_elsewhere(pool, requests: float) -> None:
    """Every endpoint has so many requests that another balancer has sent."""
    for endpoint in pool.endpoints.values():
        endpoint.reported(Reported(NOW, 0.0, requests, 0.1, endpoint.load.in_flight, None, None))


def test_balancers_that_do_not_speak_guess_alike(pools, dice) -> None:
    """A prefix that neither has seen goes to the same place from both, or they would fill two caches with it."""
    one, other = pools.pool(8), pools.pool(8)
    busy_elsewhere(one, 4.0)
    busy_elsewhere(other, 4.0)
    for number in range(50):
        prompts = [pools.prompt((f"tenant {number}", 64), (f"question {number} {who}", 5)) for who in "ab"]
        first, second = (
            pools.send(pool, prompt, NOW, dice) for pool, prompt in zip((one, other), prompts, strict=True)
        )
        assert first.endpoint.name == second.endpoint.name
        first.end(NOW)
        second.end(NOW)


def test_a_balancer_that_sees_all_traffic_guesses_nothing(pools, dice) -> None:
    pool = pools.pool(8)
    prompt = pools.prompt(("system", 64))
    assert {pools.send(pools.pool(8), prompt, NOW, random.Random(seed)).endpoint.name for seed in range(80)} == set(
        pool.endpoints
    )


def test_what_is_known_counts_for_more_than_a_guess(pools, dice) -> None:
    for number in range(30):
        pool = pools.pool(8)
        prompt = pools.prompt((number, 64))
        pools.send(pool, prompt, NOW, dice, to=f"e{number % 8}").end(NOW)
        busy_elsewhere(pool, 4.0)
        assert pools.send(pool, prompt, NOW, dice).endpoint.name == f"e{number % 8}"


def test_a_turn_whose_last_one_somebody_else_has_served_goes_to_the_home_of_its_conversation(pools, dice) -> None:
    homes = set()
    for key in range(40):
        pool = pools.pool(8)
        busy_elsewhere(pool, 4.0)
        going = []
        for turn in (100, 150, 300):  # past 128 and 256 blocks, where a prefix has other homes
            prompt = pools.prompt((key, turn))._replace(history=(turn - 50) * 256)
            picked = pool.pick(pools.want(prompt, key=key << 56), (), NOW, dice)
            going.append(picked.endpoint.name)
        assert len(set(going)) == 1
        homes.add(going[0])
    assert len(homes) > 4


def test_a_turn_whose_last_one_is_known_stays_there(pools, dice) -> None:
    for key in range(16):
        pool = pools.pool(8)
        pools.send(pool, pools.prompt((key, 100)), NOW, dice, to=f"e{key % 8}").end(NOW)
        busy_elsewhere(pool, 4.0)
        prompt = pools.prompt((key, 150))._replace(history=100 * 256)
        assert pool.pick(pools.want(prompt, key=key << 56), (), NOW, dice).endpoint.name == f"e{key % 8}"


def test_homes_after_a_reload_are_those_of_a_balancer_that_starts_now(pools, dice) -> None:
    """Other `vnodes` make another ring: who kept the old one would agree with nobody."""
    kept, fresh = Pool(pools.spec(8, vnodes=64), pools.pool(8)), pools.pool(8, vnodes=64)
    for pool in (kept, fresh):
        busy_elsewhere(pool, 4.0)
    for number in range(50):
        one, other = (pools.send(pool, pools.prompt((number, 64)), NOW, dice) for pool in (kept, fresh))
        assert one.endpoint.name == other.endpoint.name
        one.end(NOW)
        other.end(NOW)
