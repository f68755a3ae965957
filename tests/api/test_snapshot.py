"""The snapshot on the wire: deterministic, readable by its neighbours in age, known by its digest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.compile import compile_snapshot
from spillway_api.snapshot import Endpoint, Snapshot, decode, digest, encode

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
@given(st.from_type(Endpoint))
def test_any_endpoint_comes_back_as_it_was(endpoint):
    assert msgspec.json.decode(msgspec.json.encode(endpoint), type=Endpoint) == endpoint


def test_a_newer_operator_may_say_more_than_this_balancer_knows(snapshot):
    wide = json.loads(encode(snapshot))
    wide["tenants"] = [{"name": "x"}]
    wide["pools"][0]["colour"] = "blue"
    wide["pools"][0]["dispatch"]["prefixCache"] = {"blocks": 5}
    wide["routes"][0]["rules"][0]["tiers"][0]["spill"]["queuedPerEndpoint"] = {"start": 1, "full": 2}
    assert decode(json.dumps(wide).encode()) == snapshot


def test_what_is_no_snapshot_is_refused():
    for text in (b"", b"{}", b"[]", b'{"gateway": 5, "pools": [], "routes": []}'):
        with pytest.raises(msgspec.DecodeError):
            decode(text)


def test_the_digest_is_that_of_the_bytes_and_changes_with_them(snapshot):
    assert digest(snapshot) == hashlib.sha256(GOLDEN.read_bytes()).hexdigest()
    assert digest(snapshot) == digest(decode(encode(snapshot)))
    assert digest(snapshot) != digest(msgspec.structs.replace(snapshot, gateway="edge"))
    assert digest(Snapshot("a", (), ())) != digest(Snapshot("b", (), ()))
