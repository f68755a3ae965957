"""The config stream: each message on the wire, what either side may send, and deltas as laws."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.api.snapshots import POOLS, ROUTES, snapshots

from spillway_api.ledger import Books, Grant, Grants, Spent, amount
from spillway_api.snapshot import Digester, Snapshot, digest
from spillway_api.stream import (
    Ack,
    Delta,
    Full,
    Hello,
    PoolReport,
    Refused,
    Report,
    Saved,
    TierReport,
    applied,
    difference,
    encode,
    from_balancer,
    from_operator,
    is_packed,
    pack,
    packed,
    unpack,
    unpacked,
)

GOLDEN = Path(__file__).parent / "golden" / "stream"
OLD, NEW = "0" * 64, "f" * 64
SNAPSHOT = Snapshot("default", (POOLS[3],), (ROUTES[0],))
FROM_BALANCER = {
    "hello": Hello("default", OLD, "0.4.0"),
    "hello_of_one_that_has_nothing": Hello("default", None, "0.4.0"),
    "hello_of_a_sidecar": Hello("default", OLD, "0.4.0", True, ("chat", "team/agents")),
    "ack": Ack(NEW),
    "refused": Refused(NEW, 'strategy "Adaptive" of pool default/a is not known here'),
    "report_of_nothing": Report(),
    "report": Report(
        (
            PoolReport("default/a", "vLLM", ("x",), ("y",), (), "UnknownNames", "no vllm:num_requests_running"),
            PoolReport("default/openai", refused=("main",), spent="7.5"),
        ),
        (
            TierReport("default/chat", "default", "local", "Spilling", 3, 18),
            TierReport("default/chat", "r", "t", "Open"),
            TierReport("default/chat", "r", "u", "Closed", 1, 0, "49.9999"),
            TierReport("default/chat", "r", "t", "Cold"),
        ),
        ("default/asleep",),
    ),
    "books": Books(
        "6f1c",
        (
            Spent("pool/default/openai/USD/Day", 1735776000.0, "1.5", "0.25", "2", 7, "0.1"),
            Spent("tier/default/chat/default/cloud/EUR/Hour", 1735693200.0),
        ),
    ),
    "books_of_one_that_leaves": Books("6f1c", leaving=True),
}
FROM_OPERATOR = {
    "snapshot": Full(NEW, 1735689600.25, SNAPSHOT),
    "delta": Delta(OLD, NEW, 1735689600.25, (POOLS[3],), (ROUTES[0],), ("default/b",), ("team/a",)),
    "delta_of_one_pool": Delta(OLD, NEW, 1735689600.25, (POOLS[1],)),
    "grants": Grants(
        "6f1c",
        (
            Grant("pool/default/openai/USD/Day", 1735776000.0, "2.75", 8),
            Grant("tier/default/chat/default/cloud/EUR/Hour", 1735693200.0, "0", 1, dry=True),
        ),
    ),
}
MESSAGES = FROM_BALANCER | FROM_OPERATOR


def test_every_message_is_here():
    assert {type(message) for message in FROM_BALANCER.values()} == {Hello, Ack, Refused, Report, Books}
    assert {type(message) for message in FROM_OPERATOR.values()} == {Full, Delta, Grants}
    assert {path.stem for path in GOLDEN.iterdir()} == set(MESSAGES)


@pytest.mark.parametrize("name", list(MESSAGES))
def test_the_form_on_the_wire_is_the_golden_one(name):
    assert encode(MESSAGES[name]) == (GOLDEN / f"{name}.json").read_bytes()


def reader_of(name):
    return from_balancer if name in FROM_BALANCER else from_operator


@pytest.mark.parametrize("name", list(MESSAGES))
def test_what_was_sent_is_what_is_read_as_text_and_as_bytes(name):
    sent = encode(MESSAGES[name])
    assert reader_of(name)(sent) == reader_of(name)(sent.decode()) == MESSAGES[name]


def widened(value):
    """The same, with a field that nobody knows in every object."""
    if isinstance(value, dict):
        return {name: widened(inner) for name, inner in value.items()} | {"xNext": {"version": [1, None]}}
    return [widened(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", list(MESSAGES))
def test_fields_of_a_newer_side_are_ignored(name):
    wide = json.dumps(widened(json.loads(encode(MESSAGES[name]))))
    assert reader_of(name)(wide) == MESSAGES[name]


@pytest.mark.parametrize("reader", [from_balancer, from_operator])
def test_a_message_of_a_type_that_is_not_known_is_refused(reader):
    for text in ('{"type": "goodbye"}', '{"digest": "x"}', '{"type": null}', '{"type": 5}'):
        with pytest.raises(msgspec.DecodeError):
            reader(text)


def test_neither_side_takes_its_own_words_for_those_of_the_other():
    for name, message in MESSAGES.items():
        other = from_operator if name in FROM_BALANCER else from_balancer
        with pytest.raises(msgspec.DecodeError):
            other(encode(message))


STRANGE = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff",
    b'{"type":"ack","digest":"\xff"}',
    b'{"type":"ack"}',
    b'{"type":"hello"}',
]


@pytest.mark.parametrize("reader", [from_balancer, from_operator])
@pytest.mark.parametrize(
    "data", [*STRANGE, b'{"type":"ack","digest":"","x":' + b"[" * 100_000], ids=lambda data: data[:30]
)
def test_nothing_that_is_sent_raises_anything_else(reader, data):
    with pytest.raises(msgspec.DecodeError):
        reader(data)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_noise_is_an_error_of_decoding(data):
    for reader in (from_balancer, from_operator):
        with pytest.raises(msgspec.DecodeError):
            reader(data)


def test_no_message_can_hold_a_credential():
    """There is a place for where one is kept, and none for its value."""
    held = json.loads(encode(MESSAGES["snapshot"]))["snapshot"]["pools"][0]["endpoints"][0]["credential"]
    assert set(held) == {"secret", "key", "header", "prefix"}


# Deltas.


def delta_of(old, new):
    return difference(old, new, digest(old), digest(new), 1.0)


@given(snapshots(), snapshots())
def test_a_delta_leads_from_any_snapshot_to_any_other(old, new):
    delta = from_operator(encode(delta_of(old, new)))
    assert applied(old, delta) == new
    assert digest(applied(old, delta)) == delta.digest


@given(snapshots(), snapshots())
def test_what_does_not_change_is_not_sent_and_stays_the_same_object(old, new):
    delta = delta_of(old, new)
    after = applied(old, delta)
    for before, sent, gone, now in (
        (old.pools, delta.pools, delta.gone_pools, after.pools),
        (old.routes, delta.routes, delta.gone_routes, after.routes),
    ):
        by_name = {part.name: part for part in before}
        assert not set(sent) & set(before)
        assert set(gone) == set(by_name) - {part.name for part in now}
        for part in now:
            assert part in sent or part is by_name[part.name]


@given(snapshots())
def test_between_equals_there_is_nothing_to_say(snapshot):
    copy = msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot)
    delta = delta_of(snapshot, copy)
    assert (delta.pools, delta.routes, delta.gone_pools, delta.gone_routes) == ((), (), (), ())
    assert applied(snapshot, delta) == snapshot


@given(st.lists(snapshots(), min_size=1, max_size=6))
def test_a_balancer_that_is_told_every_change_ends_where_the_operator_is(history):
    held, digester = history[0], Digester()
    for state in history:
        delta = from_operator(encode(delta_of(held, state)))
        assert delta.base == digester(held)
        held = applied(held, delta)
        assert digester(held) == delta.digest == digest(state)
    assert held == history[-1]


@given(snapshots(), snapshots(), snapshots())
def test_what_was_in_between_never_matters(first, between, last):
    assert applied(first, delta_of(first, last)) == applied(
        applied(first, delta_of(first, between)), delta_of(between, last)
    )


def test_a_delta_names_no_parts_twice_and_in_a_steady_order():
    old, new = Snapshot("default", POOLS[::4], ()), Snapshot("default", POOLS[1::4], ROUTES[::4])
    delta = delta_of(old, new)
    assert delta.pools == new.pools
    assert encode(delta) == encode(delta_of(old, new))


# Files.


@given(snapshots(), st.floats(0, 1e11))
def test_a_state_that_was_put_away_comes_back(snapshot, at):
    saved = Saved(digest(snapshot), at, snapshot)
    assert unpack(pack(saved)) == saved


@given(snapshots())
def test_equal_states_give_equal_files(snapshot):
    """A ConfigMap whose bytes are the same need not be written again."""
    copy = msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot)
    assert pack(Saved("d", 1.0, snapshot)) == pack(Saved("d", 1.0, copy))
    assert pack(Saved("d", 1.0, snapshot))[4:8] == bytes(4)  # where gzip else writes the time of day (RFC 1952)


def test_a_file_is_gzip_of_json_so_that_a_person_can_read_it():
    saved = Saved(NEW, 2.5, SNAPSHOT)
    plain = json.loads(gzip.decompress(pack(saved)))
    assert (plain["digest"], plain["at"]) == (NEW, 2.5)
    assert json.loads(encode(FROM_OPERATOR["snapshot"]))["snapshot"] == plain["snapshot"]


def test_a_newer_program_may_have_put_it_away():
    plain = widened(json.loads(gzip.decompress(pack(Saved(NEW, 2.5, SNAPSHOT)))))
    assert unpack(gzip.compress(json.dumps(plain).encode())) == Saved(NEW, 2.5, SNAPSHOT)


def test_what_is_no_saved_state_is_a_value_error():
    packed = pack(Saved(NEW, 2.5, SNAPSHOT))
    bad = [b"", b"{}", b"not gzip", gzip.compress(b""), gzip.compress(b"{}"), gzip.compress(b"\xff"), packed * 2]
    for data in [*bad, *(packed[:at] for at in range(0, len(packed), 7))]:
        with pytest.raises(ValueError, match=r".+"):
            unpack(data)


def test_a_damaged_file_never_gives_another_state_and_raises_nothing_else():
    saved = Saved(NEW, 2.5, SNAPSHOT)
    packed = pack(saved)
    refused = 0
    for at in range(len(packed)):
        damaged = packed[:at] + bytes([packed[at] ^ 0x10]) + packed[at + 1 :]
        try:
            assert unpack(damaged) == saved  # some bits mean nothing, such as the time in the file's head
        except ValueError:
            refused += 1
    assert refused > 0.9 * len(packed)


@pytest.mark.parametrize(
    ("text", "money"),
    [
        ("1.50", "1.50"),
        ("0", "0"),
        ("-1", "0"),
        ("NaN", "0"),
        ("-Infinity", "0"),
        ("1e12", "0"),
        ("1e-99999", "0"),
        ("x", "0"),
        ("", "0"),
    ],
)
def test_what_is_no_amount_of_money_is_none(text, money):
    assert amount(text) == Decimal(money)


@given(snapshots())
def test_a_long_message_is_told_from_a_short_one_and_unpacked(whole: Snapshot) -> None:
    message = encode(Full(digest(whole), 1.0, whole))
    sent = packed(message)
    assert is_packed(sent) is (len(message) >= 1024)
    assert (unpacked(sent) if is_packed(sent) else sent) == message


@pytest.mark.parametrize("bad", [b"", b"{}", packed(b"x" * 9999)[:-1], b"\x78\x01rubbish", packed(bytes(65 << 20))])
def test_what_cannot_be_unpacked_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match="not a packed message"):
        unpacked(bad)
