"""The hash ring: agreement without talking, few keys moved, and a walk that meets everybody."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uhashring import HashRing

from spillway_balancer.core.ring import Ring, hash_of, points_of, ring_of

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
members = st.dictionaries(names, st.integers(1, 300), min_size=1, max_size=10)
keys = st.integers(0, 2**64 - 1)
KEYS = [hash_of(f"session-{number}") for number in range(2000)]


@given(members, keys)
@settings(deadline=None)
def test_walk_meets_every_member_once_and_begins_at_home(members: dict[str, int], key: int) -> None:
    ring = Ring(members, 32)
    walked = list(ring.walk(key))
    assert sorted(walked) == sorted(members)
    assert walked[0] == ring.home(key)


@given(members, keys)
@settings(deadline=None)
def test_walk_is_that_of_the_sorted_points(members: dict[str, int], key: int) -> None:
    points = sorted(
        (hash_of(f"{name}-{number}"), name)
        for name, weight in members.items()
        for number in range(points_of(weight, 32))
    )
    after = [name for point, name in points if point > key] + [name for point, name in points if point <= key]
    assert list(Ring(members, 32).walk(key)) == list(dict.fromkeys(after))


@given(members, st.text())
@settings(deadline=None)
def test_home_is_where_uhashring_itself_would_look(members: dict[str, int], text: str) -> None:
    theirs = HashRing(nodes=dict.fromkeys(members, 1), vnodes=64, hash_fn=hash_of)
    assert Ring(dict.fromkeys(members, 100), 64).home(hash_of(text)) == theirs.get_node(text)


@given(members, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_of_members_changes_nothing(members: dict[str, int], dice: object) -> None:
    shuffled = list(members)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = Ring(members, 32), Ring({name: members[name] for name in shuffled}, 32)
    assert all(list(one.walk(key)) == list(other.walk(key)) for key in KEYS[:50])


@given(members, st.data())
@settings(deadline=None)
def test_who_leaves_is_only_skipped(members: dict[str, int], data: st.DataObject) -> None:
    """The order of all others stays, so a leave moves the keys of the one that left and no others."""
    gone = data.draw(st.sampled_from(sorted(members)))
    before, after = Ring(members, 32), Ring({n: w for n, w in members.items() if n != gone}, 32)
    for key in KEYS[:50]:
        assert list(after.walk(key)) == [name for name in before.walk(key) if name != gone]


@given(st.sets(names, min_size=2, max_size=12), st.data())
@settings(deadline=None, max_examples=30)
def test_a_join_and_a_leave_move_one_share_of_the_keys(pool: set[str], data: st.DataObject) -> None:
    changed = data.draw(st.sampled_from(sorted(pool)))
    larger = Ring(dict.fromkeys(pool, 100), 256)
    smaller = Ring(dict.fromkeys(pool - {changed}, 100), 256)
    moved = 0
    for key in KEYS:
        here, there = larger.home(key), smaller.home(key)
        if here != there:
            assert here == changed, "a key moved between two members that did not change"
            moved += 1
    assert 0.5 / len(pool) < moved / len(KEYS) < 1.5 / len(pool)


def test_keys_are_shared_out_by_weight() -> None:
    weights = {"a": 50, "b": 100, "c": 200, "d": 400}
    ring = Ring(weights, 256)
    homes = Counter(ring.home(hash_of(str(number))) for number in range(20_000))
    for name, weight in weights.items():
        assert homes[name] / 20_000 == pytest.approx(weight / 750, rel=0.2)


@pytest.mark.parametrize(
    ("weight", "vnodes", "points"), [(100, 256, 256), (50, 256, 128), (1, 16, 1), (1000, 16, 160), (3, 50, 2)]
)
def test_points_follow_weight_and_are_never_none(weight: int, vnodes: int, points: int) -> None:
    assert points_of(weight, vnodes) == points
    assert len(Ring({"a": weight}, vnodes)) == points


@given(st.permutations(["a", "b", "c", "d"]), st.integers(1, 9))
@settings(deadline=None)
def test_collisions_fall_alike_in_any_order_and_hide_nobody(order: list[str], places: int) -> None:
    def crowded(text: str) -> int:
        return hash_of(text) % places

    ring = Ring(dict.fromkeys(order, 100), 16, crowded)
    sorted_ring = Ring(dict.fromkeys(sorted(order), 100), 16, crowded)
    assert len(ring) <= places
    for key in range(places + 1):
        assert list(ring.walk(key)) == list(sorted_ring.walk(key))
        assert sorted(ring.walk(key)) == ["a", "b", "c", "d"]


def test_an_empty_ring_is_nobodys_home() -> None:
    assert Ring({}, 256).home(1) is None


def test_processes_agree_whatever_their_hash_seed() -> None:
    """Python's hash() is salted per process; nothing here may depend on it, nor on the order of members."""
    program = (
        "import sys; from spillway_balancer.core.ring import Ring, hash_of\n"
        "ring = Ring(dict.fromkeys(sys.argv[1:], 100), 64)\n"
        "print([ring.home(hash_of(str(n))) for n in range(200)])"
    )
    pool = [f"endpoint-{number}" for number in range(7)]
    said = {
        subprocess.run(
            [sys.executable, "-c", program, *order],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for order, seed in ((pool, "1"), (pool[::-1], "2"))
    }
    assert len(said) == 1


def test_all_uses_of_the_same_members_share_one_ring_for_as_long_as_there_are_any() -> None:
    one = ring_of({"a": 100, "b": 50}, 64)
    assert ring_of({"b": 50, "a": 100}, 64) is one
    assert ring_of({"a": 100, "b": 51}, 64) is not one
    assert ring_of({"a": 100, "b": 50}, 65) is not one
    before = {key: list(one.walk(key)) for key in KEYS[:50]}
    del one
    gc.collect()
    assert {key: list(ring_of({"a": 100, "b": 50}, 64).walk(key)) for key in KEYS[:50]} == before
