"""How far a gateway has come: which balancers serve the present form of which part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.api.snapshots import POOLS, ROUTES, snapshots
from tests.operator.balancers import Balancer, serving

from spillway_api.compile import Compiled
from spillway_api.snapshot import Snapshot, digest
from spillway_api.stream import Saved
from spillway_operator.progress import REMEMBERED, Progress, refusal

A1, A2, *_ = (pool for pool in POOLS if pool.name == "default/a" and len(pool.endpoints) == 1)
B1 = next(pool for pool in POOLS if pool.name == "default/b")
A, B = "ModelPool/default/a", "ModelPool/default/b"
EMPTY = Snapshot("default", (), ())


def compiled(snapshot, memory=None):
    return Compiled(snapshot, (), frozenset(), memory or snapshot)


def of(*pools):
    return Snapshot("default", pools, ())


def take(progress, snapshot, at=0.0):
    return progress.take(compiled(snapshot), digest(snapshot), at)


@pytest.fixture
def progress():
    return Progress("default")


def test_the_same_again_is_no_change(progress):
    assert take(progress, of(A1), 1.0)
    assert not take(progress, of(A1), 2.0)
    assert progress.at == 1.0
    assert progress.digest == digest(of(A1))


def test_even_nothing_is_a_change_at_first(progress):
    assert take(progress, EMPTY)


def test_who_acknowledged_this_version_counts(progress):
    take(progress, of(A1))
    balancers = serving(digest(of(A1)), None, "of somebody else", digest(of(A1)))
    assert progress.programmed(A, balancers) == 2


def test_who_is_behind_counts_for_what_has_not_changed_since(progress):
    take(progress, of(A1, B1))
    take(progress, of(A2, B1))
    balancers = serving(digest(of(A1, B1)), digest(of(A2, B1)))
    assert progress.programmed(A, balancers) == 1
    assert progress.programmed(B, balancers) == 2


def test_from_one_form_to_another_and_back(progress):
    """A to B to A: who never left A serves what is wanted; who is at B does not."""
    for snapshot in (of(A1), of(A2), of(A1)):
        take(progress, snapshot)
    assert progress.programmed(A, serving(digest(of(A1)))) == 1
    assert progress.programmed(A, serving(digest(of(A2)))) == 0
    take(progress, of(A2))
    assert progress.programmed(A, serving(digest(of(A1)), digest(of(A2)))) == 1


def test_a_part_that_went_and_came_back_is_a_new_one(progress):
    for snapshot in (of(A1, B1), of(A1), of(A1, B1)):
        take(progress, snapshot)
    assert progress.programmed(B, serving(digest(of(A1)))) == 0
    assert progress.programmed(A, serving(digest(of(A1)))) == 1


def test_what_is_not_served_is_programmed_nowhere(progress):
    take(progress, of(A1))
    assert progress.programmed(B, serving(digest(of(A1)))) == 0
    assert progress.programmed("RoutePolicy/default/a", serving(digest(of(A1)))) == 0


def test_very_old_digests_are_forgotten(progress):
    take(progress, of(A1))
    for number in range(REMEMBERED):
        progress.take(compiled(of(A1)), f"digest {number}", 0.0)
    assert progress.programmed(A, serving(digest(of(A1)))) == 0
    assert progress.programmed(A, serving("digest 0", "digest 999")) == 2


def test_a_digest_that_came_back_is_remembered_from_then_on(progress):
    take(progress, of(A1))
    for number in range(REMEMBERED - 1):
        progress.take(compiled(of(A1)), f"digest {number}", 0.0)
    take(progress, of(A1))
    progress.take(compiled(of(A1)), "one more", 0.0)
    assert progress.programmed(A, serving(digest(of(A1)), "digest 0")) == 1


def test_a_pool_and_a_route_of_one_name_are_two_things(progress):
    take(progress, of(A1))
    assert progress.pool(A) == A1
    assert progress.route("RoutePolicy/default/a") is None
    assert progress.pool("RoutePolicy/default/a") is None


def test_what_another_operator_put_away_is_the_last_good_version_until_something_is_compiled(progress):
    assert progress.last_good is None
    progress.seed(Saved("d", 1.0, of(A1)))
    assert progress.last_good == of(A1)
    take(progress, of(A2))
    assert progress.last_good == of(A2)


@pytest.mark.parametrize("saved", [None, Saved("d", 1.0, Snapshot("edge", (A1,), ()))])
def test_nothing_and_the_snapshot_of_another_gateway_are_no_last_good_version(progress, saved):
    progress.seed(saved)
    assert progress.last_good is None


def test_the_first_refusal_of_this_digest_is_told():
    others = (Balancer(refused=None), Balancer(refused=("old", "long ago")))
    assert refusal(others, "new") == ""
    assert refusal((*others, Balancer(refused=("new", "no such strategy"))), "new") == "no such strategy"


parts = st.sampled_from([*(f"ModelPool/{pool.name}" for pool in POOLS), "RoutePolicy/default/a"])


@given(st.lists(snapshots(), min_size=1, max_size=8), st.lists(st.integers(0, 7), max_size=4), parts)
def test_who_counts_serves_the_present_form_and_who_is_up_to_date_counts(history, at, part):
    progress = Progress("default")
    for snapshot in history:
        take(progress, snapshot)
    for number in at:
        there = history[number % len(history)]
        counts = progress.programmed(part, serving(digest(there)))
        kind, name = part.split("/", 1)
        then, now = (
            {each.name: each for each in (snapshot.pools if kind == "ModelPool" else snapshot.routes)}.get(name)
            for snapshot in (there, history[-1])
        )
        if counts:
            assert then == now
            assert now is not None
        if there == history[-1] and now is not None:
            assert counts == 1


def test_what_serves_only_in_part_is_put_away_as_such_and_is_no_last_good_version(progress):
    whole = next(route for route in ROUTES if route.name == "default/a")
    half = next(route for route in ROUTES if route.name == "team/a")
    snapshot = Snapshot("default", (A1,), (whole, half))
    memory = Snapshot("default", (A1,), (whole,))
    progress.take(compiled(snapshot, memory), "d", 5.0)
    assert progress.last_good == memory
    assert progress.saved == Saved("d", 5.0, snapshot, ("team/a",))
    later = Progress("default")
    later.seed(progress.saved)
    assert later.last_good == memory
