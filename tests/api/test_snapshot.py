"""The snapshot on the wire: deterministic, readable by its neighbours in age, known by its digest."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace
from tests.api.snapshots import POOLS, snapshots

from spillway_api.compile import compile_snapshot
from spillway_api.snapshot import Digester, Endpoint, Snapshot, decode, digest, encode
from spillway_api.types import AccountLimits

MOST = st.none() | st.integers(1, 2**31)
GOLDEN = Path(__file__).parent / "golden" / "snapshot.json"


@pytest.fixture
def snapshot(built):
    objects = [built("pool"), built("provider"), built("policy")]
    return compile_snapshot(objects, "default", lambda _secret, _key: True).snapshot


def test_the_form_on_the_wire_is_the_golden_one(snapshot):
    assert encode(snapshot) == GOLDEN.read_bytes()


def test_reading_what_was_written_gives_the_same(snapshot):
    assert decode(encode(snapshot)) == snapshot
    assert encode(decode(encode(snapshot))) == encode(snapshot)


@settings(max_examples=50, deadline=None)
@given(st.builds(Endpoint, limits=st.just(UNSET) | st.builds(AccountLimits, MOST, MOST, MOST)))
def test_any_endpoint_comes_back_as_it_was(endpoint):
    assert msgspec.json.decode(msgspec.json.encode(endpoint), type=Endpoint) == endpoint


@pytest.mark.parametrize("inside", ["guard", "require"])
def test_a_guard_that_is_not_understood_whole_is_not_taken_in_part(built, inside):
    objects = [built("pool"), built("provider"), built("guarded")]
    wide = json.loads(encode(compile_snapshot(objects, "default", lambda _secret, _key: True).snapshot))
    (guard,) = wide["routes"][0]["guards"]
    (guard if inside == "guard" else guard["require"])["subprocessors"] = ["none"]
    with pytest.raises(msgspec.DecodeError):
        decode(json.dumps(wide).encode())


def test_a_newer_operator_may_say_more_than_this_balancer_knows(snapshot):
    wide = json.loads(encode(snapshot))
    wide["tenants"] = [{"name": "x"}]
    wide["pools"][0]["colour"] = "blue"
    wide["pools"][0]["dispatch"]["prefixCache"] = {"blocks": 5}
    wide["routes"][0]["rules"][0]["tiers"][0]["spill"]["moonPhase"] = {"start": 1, "full": 2}
    assert decode(json.dumps(wide).encode()) == snapshot


def test_what_is_no_snapshot_is_refused():
    for text in (b"", b"{}", b"[]", b'{"gateway": 5, "pools": [], "routes": []}'):
        with pytest.raises(msgspec.DecodeError):
            decode(text)


def test_a_deeply_nested_field_is_no_way_to_harm_the_reader():
    text = b'{"gateway": "a", "pools": [], "routes": [], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(msgspec.DecodeError):
        decode(text)


def test_the_digest_is_the_same_on_every_machine(snapshot):
    """A balancer and an operator of the next version must agree on it, or every balancer is sent everything."""
    assert digest(snapshot) == "a7de571046a16c005eee8452341e69165f69a31abce4245b264102446251528f"
    assert digest(decode(GOLDEN.read_bytes())) == digest(snapshot)


@given(snapshots(), snapshots())
def test_equal_snapshots_have_equal_digests_and_others_have_others(first, second):
    assert digest(decode(encode(first))) == digest(first)
    assert (digest(first) == digest(second)) == (first == second)


CHANGES = [
    ("gateway", lambda snapshot: replace(snapshot, gateway="edge")),
    ("a pool is gone", lambda snapshot: replace(snapshot, pools=snapshot.pools[1:])),
    ("a route is gone", lambda snapshot: replace(snapshot, routes=())),
    ("the order of pools", lambda snapshot: replace(snapshot, pools=snapshot.pools[::-1])),
    ("a pool", lambda snapshot: replace(snapshot, pools=(replace(snapshot.pools[0], engine="vLLM"),))),
    ("a route", lambda snapshot: replace(snapshot, routes=(replace(snapshot.routes[0], models=("other",)),))),
    (
        "one endpoint",
        lambda snapshot: replace(
            snapshot,
            pools=(replace(snapshot.pools[0], endpoints=(Endpoint("a", "http://elsewhere"),)), snapshot.pools[1]),
        ),
    ),
]


@pytest.mark.parametrize("change", [change for _, change in CHANGES], ids=[name for name, _ in CHANGES])
def test_any_change_changes_the_digest(change, snapshot):
    assert digest(change(snapshot)) != digest(snapshot)


@given(st.lists(snapshots(), max_size=6))
def test_what_was_digested_before_never_matters(history):
    digester = Digester()
    for each in history:
        assert digester(each) == digest(each)


@given(st.lists(st.lists(st.sampled_from(POOLS), unique_by=lambda pool: pool.name, max_size=4), max_size=6))
def test_parts_that_come_again_are_the_same_parts(history):
    """The same objects in one snapshot after the other, as a balancer has them after each delta."""
    digester = Digester()
    for pools in history:
        each = Snapshot("default", tuple(pools), ())
        assert digester(each) == digest(each)


def test_a_new_object_at_the_place_of_an_old_one_is_a_new_object():
    """Python gives an id again once its object is gone; the digester must not take one for the other."""
    digester = Digester()
    for weight in range(300):
        each = Snapshot("default", (replace(POOLS[0], endpoints=(Endpoint("a", "http://a", weight),)),), ())
        assert digester(each) == digest(each)
        del each
