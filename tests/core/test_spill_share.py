"""The share that is in force follows what is asked for: smoothed, downwards no faster than allowed, and calmly."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from math import exp
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.core.ring import hash_of
from spillway_balancer.core.spill import Smoothed, follow, leaves, ramp

KEYS = [hash_of(f"session-{number}") for number in range(400)]
aims = st.floats(0, 1)
spans = st.floats(0.001, 30)
readings = st.lists(st.tuples(spans, aims), min_size=1, max_size=40)


def followed(
    readings: Iterable[tuple[float, float]], smoothing: float, dwell: float, before: Smoothed | None = None
) -> Iterator[Smoothed]:
    """States after readings of (seconds since the last one, aim)."""
    now = before.at if before else 0.0
    for passed, aim in readings:
        now += passed
        before = follow(before, aim, now, smoothing, dwell)
        yield before


def steps(aim: float, seconds: float, step: float = 0.05) -> list[tuple[float, float]]:
    return [(step, aim)] * round(seconds / step)


def sides(shares: Iterable[float], key: int) -> list[bool]:
    return [leaves(share, key, "Key", random.Random(1)) for share in shares]


def changes(values: list[bool]) -> int:
    return sum(one != other for one, other in pairwise(values))


@given(readings, spans, spans)
def test_a_share_stays_within_what_was_asked_for(asked: list[tuple[float, float]], smoothing: float, dwell: float):
    lowest, highest = min(aim for _, aim in asked), max(aim for _, aim in asked)
    for state in followed(asked, smoothing, dwell):
        assert lowest - 1e-9 <= state.share <= highest + 1e-9


@given(aims, aims, st.floats(0.01, 5), st.floats(0, 30))
def test_it_comes_to_what_is_asked_for_and_stays(first: float, then: float, smoothing: float, dwell: float) -> None:
    start = follow(None, first, 0.0, smoothing, dwell)
    *_, last = followed([(smoothing / 10, then)] * 10 + [(smoothing * 10 + dwell, then)] * 2, smoothing, dwell, start)
    assert last.share == pytest.approx(then, abs=1e-9)
    assert follow(last, then, last.at + 1.0, smoothing, dwell).share == pytest.approx(then, abs=1e-9)


@pytest.mark.parametrize("step", [0.01, 0.1, 0.5])
def test_a_rise_has_the_time_constant_however_often_it_is_read(step: float) -> None:
    start = follow(None, 0.0, 0.0, 2.0, 10.0)
    *_, last = followed([(0.0, 1.0), *steps(1.0, 2.0, step)], 2.0, 10.0, start)
    assert last.share == pytest.approx(1 - exp(-1))


@given(aims, aims, st.floats(0, 30))
def test_without_smoothing_a_rise_is_at_once(first: float, then: float, dwell: float) -> None:
    state = follow(follow(None, first, 0.0, 0.0, dwell), then, 0.0, 0.0, dwell)
    assert state.share == (max(first, then) if dwell else then)


@given(readings, st.floats(0, 5), st.floats(0.1, 30))
def test_from_where_it_rose_to_it_falls_no_faster_than_allowed(
    asked: list[tuple[float, float]], smoothing: float, dwell: float
) -> None:
    peak = at = 0.0
    before: Smoothed | None = None
    for state in followed(asked, smoothing, dwell):
        if before is None or state.share > before.share:
            peak, at = state.share, state.at
        assert state.share >= peak * (1 - (state.at - at) / dwell) - 1e-9
        before = state


def test_a_burst_after_a_pause_is_not_taken_for_one_that_lasted() -> None:
    quiet = follow(None, 0.0, 0.0, 2.0, 10.0)
    assert follow(quiet, 1.0, 600.0, 2.0, 10.0).share == 0.0


def test_load_that_went_unseen_in_a_pause_is_forgotten() -> None:
    busy = follow(None, 1.0, 0.0, 2.0, 10.0)
    assert follow(busy, 0.0, 600.0, 2.0, 10.0).share == 0.0


def test_clocks_that_stand_or_go_back_change_nothing() -> None:
    state = follow(None, 0.5, 10.0, 2.0, 10.0)
    for now in (10.0, 9.0):
        after = follow(state, 1.0, now, 2.0, 10.0)
        assert (after.share, after.at) == (0.5, 10.0)


@pytest.mark.parametrize("period", [0.5, 1.0, 2.0])
def test_a_square_wave_makes_no_oscillation(period: float) -> None:
    """Load that is full and gone by turns: the share settles, and what is left of the wave is a small part of it."""
    wave = [*steps(1.0, period / 2), *steps(0.0, period / 2)]
    shares = [state.share for state in followed([*steps(0.0, 1.0), *wave * round(90 / period)], 2.0, 10.0)]
    settled = shares[len(shares) // 2 :]
    assert min(settled) > 0.4
    assert max(settled) - min(settled) <= max(settled) * period / 2 / 10.0 + 0.01
    bare = [state.share for state in followed(wave * 10, 0.0, 0.0)]
    assert max(bare) - min(bare) == 1.0  # what it would be without smoothing and dwell


@given(st.sampled_from(KEYS), st.lists(aims, min_size=2, max_size=20), st.booleans())
def test_while_the_share_moves_one_way_a_session_changes_side_at_most_once(
    key: int, asked: list[float], upwards: bool
) -> None:
    asked.sort(reverse=not upwards)
    states = followed([(1.0, aim) for aim in asked], 2.0, 10.0)
    assert changes(sides((state.share for state in states), key)) <= 1


class World(NamedTuple):
    queues: list[float]
    """Seconds of work that wait."""
    shares: list[float]


def closed_loop(load: Callable[[float], float], seconds: float, step: float = 0.05) -> World:
    """A pool that computes a second of work in a second, spills by what waits there (2 s to 6 s), under `load`."""
    queue, state, world = 0.0, None, World([], [])
    for number in range(round(seconds / step)):
        now = number * step
        state = follow(state, ramp(queue, (2.0, 6.0)), now, 2.0, 10.0)
        queue = max(0.0, queue + (load(now) * (1 - state.share) - 1.0) * step)
        world.queues.append(queue)
        world.shares.append(state.share)
    return world


def test_under_twice_the_capacity_it_finds_its_share_without_swinging_and_comes_home() -> None:
    world = closed_loop(lambda now: 2.0 if 10 <= now < 120 else 0.5, 150)
    assert max(world.queues) < 6.0  # never at `full`
    settled = world.shares[60 * 20 : 120 * 20]
    assert max(settled) - min(settled) < 0.01
    assert sum(settled) / len(settled) == pytest.approx(0.5, abs=0.01)
    assert world.shares[-1] == 0.0
    home = next(number for number in range(120 * 20, 150 * 20) if world.shares[number] == 0.0)
    assert home / 20 - 120 < 20
    assert max(changes(sides(world.shares, key)) for key in KEYS) <= 4
    calm = sum(changes(sides(world.shares, key)) <= 2 for key in KEYS)
    assert calm / len(KEYS) > 0.9  # left once and came back once
