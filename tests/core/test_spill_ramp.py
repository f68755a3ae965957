"""Spillover: a ramp and no cliff; whole sessions, the same ones every time, on every balancer."""

from __future__ import annotations

import random
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.types import DurationRamp, PercentRamp, Ramp, Spill
from spillway_balancer.core.ring import Ring, hash_of
from spillway_balancer.core.spill import Ramps, Signals, aim, leaves, ramp

KEYS = [hash_of(f"session-{number}") for number in range(4000)]
keys = st.integers(0, 2**64 - 1)
shares = st.floats(0, 1)


signals = st.one_of(st.none(), st.floats(0, 1e6))
ends = st.tuples(st.integers(0, 999), st.integers(0, 999)).map(lambda both: (float(both[0]), float(sum(both))))
ramps = st.builds(Ramps, *[st.one_of(st.none(), ends)] * 5)


@pytest.mark.parametrize(
    ("signal", "expected"),
    [(0, 0.0), (4, 0.0), (8, 0.5), (12, 1.0), (1000, 1.0), (inf, 1.0), (nan, 0.0), (None, 0.0)],
)
def test_share_rises_from_start_to_full(signal: float | None, expected: float) -> None:
    assert ramp(signal, (4.0, 12.0)) == expected


def test_equal_start_and_full_are_a_step() -> None:
    assert [ramp(load, (8.0, 8.0)) for load in (7, 7.99, 8, 9)] == [0.0, 0.0, 1.0, 1.0]


@given(st.tuples(*[signals] * 5), ramps, st.integers(0, 4), st.floats(0, 1e6))
def test_aim_never_falls_with_any_signal(known: tuple[float | None, ...], by: Ramps, which: int, more: float) -> None:
    less = Signals(*known)
    higher = [*known]
    higher[which] = (higher[which] or 0.0) + more
    assert 0.0 <= aim(less, by)[0] <= aim(Signals(*higher), by)[0] <= 1.0


@given(st.tuples(*[signals] * 5), ramps)
def test_aim_is_that_of_the_highest_signal(known: tuple[float | None, ...], by: Ramps) -> None:
    each = [ramp(signal, ends) for signal, ends in zip(known, by, strict=True) if ends is not None]
    share, highest = aim(Signals(*known), by)
    assert share == max([0.0, *each])
    assert bool(highest) == (share > 0.0)
    if highest:
        ends = getattr(by, highest)
        assert ramp(getattr(Signals(*known), highest), ends) == share


@given(ramps)
def test_what_nobody_knows_sends_nobody_away(by: Ramps) -> None:
    assert aim(Signals(), by) == (0.0, "")


def test_every_signal_has_its_ramp_in_the_units_of_the_policy() -> None:
    spec = Spill(
        queued_per_endpoint=Ramp(1, 2),
        in_flight_per_endpoint=Ramp(3, 4),
        predicted_ttft=DurationRamp("500ms", "1m"),
        kv_cache_percent=PercentRamp(5, 6),
        error_percent=PercentRamp(7, 8),
    )
    assert Ramps.of(spec) == Ramps((1.0, 2.0), (3.0, 4.0), (0.5, 60.0), (5.0, 6.0), (7.0, 8.0))
    assert Ramps.of(Spill()) == Ramps()


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
