"""From message to message: what a balancer holds is what the operator means; and how long it waits between tries."""

from __future__ import annotations

import contextlib
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.net.operators import pool, route, saved, state

from spillway_api import snapshot, stream
from spillway_api.snapshot import Snapshot
from spillway_balancer.net import received
from spillway_balancer.net.operator_source import Backoff
from spillway_balancer.net.received import OtherBase, State, Unreadable


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    names = draw(st.lists(st.sampled_from("abcd"), unique=True))
    pools = [pool(name, *draw(st.lists(st.sampled_from(("http://x:1", "http://y:1")), max_size=2))) for name in names]
    routes = [route(name, name=name, models=(draw(st.sampled_from(("m", "n"))) + name,)) for name in names]
    return state(*pools, *routes[: draw(st.integers(0, len(routes)))])


def full(of: Snapshot, at: float = 0.0) -> bytes:
    return stream.encode(stream.Full(snapshot.digest(of), at, of))


@given(st.lists(st.tuples(snapshots(), st.sampled_from(("delta", "full", "disk"))), min_size=1, max_size=6))
def test_by_whatever_messages_it_came_about_the_state_is_the_operators(steps: list[tuple[Snapshot, str]]) -> None:
    held: State | None = None
    for at, (now, way) in enumerate(steps):
        digest = snapshot.digest(now)
        if way == "disk":
            held = received.of_saved(stream.unpack(stream.pack(saved(now, float(at)))))
        elif way == "delta" and held is not None and held.digest is not None:
            delta = stream.difference(held.snapshot, now, held.digest, digest, float(at))
            held = received.after(held, stream.encode(delta))
        else:
            held = received.after(held, full(now, float(at)))
        assert held is not None
        assert (held.digest, held.at, held.snapshot) == (digest, float(at), now)
        assert held.saved == saved(now, float(at))


def test_parts_whose_bytes_are_known_stay_the_same_objects() -> None:
    first = received.after(None, full(state(pool("a", "http://x:1"), pool("b", "http://x:1"), route("a"))))
    assert first is not None
    second = received.after(first, full(state(pool("a", "http://x:1"), pool("b", "http://y:1"), route("a"))))
    assert second is not None
    assert second.snapshot.pools[0] is first.snapshot.pools[0]
    assert second.snapshot.pools[1] is not first.snapshot.pools[1]
    assert second.snapshot.routes[0] is first.snapshot.routes[0]


def test_a_delta_is_laid_upon_its_base_and_nothing_else() -> None:
    before, now = state(pool("a", "http://x:1")), state(pool("a", "http://y:1"))
    delta = stream.encode(stream.difference(before, now, "its-base", snapshot.digest(now), 1.0))
    for held in (None, received.after(None, full(before))):
        with pytest.raises(OtherBase):
            received.after(held, delta)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_whatever_comes_is_read_or_refused(data: bytes | str) -> None:
    with contextlib.suppress(Unreadable, OtherBase):
        received.after(None, data)


@given(snapshots(), st.data())
def test_a_message_that_was_cut_is_refused(now: Snapshot, data: st.DataObject) -> None:
    whole = full(now)
    with pytest.raises(Unreadable):
        received.after(None, whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_a_saved_state_with_another_digest_is_no_base() -> None:
    known = state(pool("a", "http://x:1"))
    held = received.of_saved(msgspec.structs.replace(saved(known, 1.0), digest="of-a-newer-program"))
    assert held.digest is None
    assert held.snapshot == known


@given(st.integers(0, 2**32), st.lists(st.sampled_from((0.0, 1.0, 10.0, 11.0)), min_size=1, max_size=100))
def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_connection_that_lived(seed, lives) -> None:
    backoff, dice, most = Backoff(), random.Random(seed), Backoff.LEAST
    for lived in lives:
        if lived > Backoff.MOST:
            most = Backoff.LEAST
        assert 0.0 <= backoff.pause(lived, dice) <= most
        most = min(Backoff.MOST, most * 2)


def test_a_fleet_does_not_come_back_in_step() -> None:
    dice = random.Random(1)
    pauses = []
    for _ in range(1000):
        backoff = Backoff()
        for _ in range(10):
            last = backoff.pause(0.0, dice)
        pauses.append(last)
    assert min(pauses) < 0.5  # full jitter: from nothing
    assert max(pauses) > 9.5  # to the longest
    assert 4.5 < sum(pauses) / len(pauses) < 5.5
