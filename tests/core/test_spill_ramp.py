"""Spillover: a ramp and no cliff; whole sessions, the same ones every time, on every balancer."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_balancer.core.ring import Ring, hash_of
from spillway_balancer.core.spill import leaves, share

KEYS = [hash_of(f"session-{number}") for number in range(4000)]
keys = st.integers(0, 2**64 - 1)
shares = st.floats(0, 1)


@pytest.mark.parametrize(
    ("in_flight", "ready", "expected"),
    [(0, 4, 0.0), (16, 4, 0.0), (32, 4, 0.5), (48, 4, 1.0), (1000, 4, 1.0), (0, 0, 1.0), (8, 1, 0.5)],
)
def test_share_rises_from_start_to_full(in_flight: float, ready: int, expected: float) -> None:
    assert share(in_flight, ready, 4, 12) == expected


def test_equal_start_and_full_are_a_step() -> None:
    assert [share(load, 1, 8, 8) for load in (7, 7.99, 8, 9)] == [0.0, 0.0, 1.0, 1.0]


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 9), st.integers(0, 999), st.integers(0, 999))
@settings(deadline=None)
def test_share_never_falls_with_load(less: float, more: float, ready: int, start: int, width: int) -> None:
    less, more = sorted((less, more))
    low, high = share(less, ready, start, start + width), share(more, ready, start, start + width)
    assert 0.0 <= low <= high <= 1.0


@given(keys, shares, shares, st.integers(0, 7))
@settings(deadline=None)
def test_the_same_keys_leave_first_and_return_last(key: int, less: float, more: float, salt: int) -> None:
    less, more = sorted((less, more))
    if leaves(less, key, "Key", random.Random(), salt):
        assert leaves(more, key, "Key", random.Random(), salt)


@given(keys, shares, st.integers(0, 99), st.integers(0, 99))
@settings(deadline=None)
def test_two_balancers_move_the_same_sessions(key: int, part: float, seed: int, other: int) -> None:
    assert leaves(part, key, "Key", random.Random(seed)) == leaves(part, key, "Key", random.Random(other))


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_as_many_keys_leave_as_the_share_says(part: float) -> None:
    gone = sum(leaves(part, key, "Key", random.Random()) for key in KEYS)
    assert gone / len(KEYS) == pytest.approx(part, abs=0.03)


def test_leaving_keys_come_from_all_endpoints_alike() -> None:
    """By the bare key the arcs of one endpoint would leave first, and it alone would cool down."""
    ring = Ring(dict.fromkeys("abcd", 100), 256)
    for name in "abcd":
        at_home = [key for key in KEYS if ring.home(key) == name]
        gone = sum(leaves(0.3, key, "Key", random.Random()) for key in at_home)
        assert gone / len(at_home) == pytest.approx(0.3, abs=0.06)


def test_each_tier_moves_keys_of_its_own() -> None:
    """Of those that left the first tier, the second sends on its own share, and not all of them."""
    came = [key for key in KEYS if leaves(0.4, key, "Key", random.Random(), salt=0)]
    went_on = sum(leaves(0.4, key, "Key", random.Random(), salt=1) for key in came)
    assert went_on / len(came) == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize(("key", "by"), [(None, "Key"), (7, "Request")])
def test_without_a_key_and_by_request_the_dice_decide(key: int | None, by: str) -> None:
    dice = random.Random(3)
    gone = sum(leaves(0.3, key, by, dice) for _ in range(4000))  # type: ignore[arg-type]
    assert gone / 4000 == pytest.approx(0.3, abs=0.03)
    assert not any(leaves(0.0, key, by, dice) for _ in range(100))  # type: ignore[arg-type]
    assert all(leaves(1.0, key, by, dice) for _ in range(100))  # type: ignore[arg-type]
