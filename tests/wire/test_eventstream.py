"""AWS's frames: the published test vectors, and what holds for all bytes."""

from __future__ import annotations

import struct
from struct import pack
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spillway_balancer.wire.eventstream import MAX_PAYLOAD, Frame, Frames, Header, encode

# As the SDKs of AWS have them in their own tests (aws-c-event-stream, botocore).
VECTORS = {
    "empty": ("000000100000000005c248eb7d98c8ff", Frame((), b"")),
    "payload": ("0000001d00000000fd528c5a7b27666f6f273a27626172277dc3653936", Frame((), b"{'foo':'bar'}")),
    "text header": (
        "0000003d0000002007fd83960c636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e7b27666f6f273a27626172"
        "277d8d9c08b1",
        Frame((Header("content-type", "string", "application/json"),), b"{'foo':'bar'}"),
    ),
    "number header": (
        "0000002d0000001041c424b80a6576656e742d74797065040000a00c7b27666f6f273a27626172277d36f480a0",
        Frame((Header("event-type", "int", 40972),), b"{'foo':'bar'}"),
    ),
}


def numbers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


VALUES: dict[str, st.SearchStrategy[object]] = {
    "true": st.just(True),
    "false": st.just(False),
    "byte": numbers(8),
    "short": numbers(16),
    "int": numbers(32),
    "long": numbers(64),
    "bytes": st.binary(max_size=40),
    "string": st.text(st.characters(codec="utf-8"), max_size=20),
    "timestamp": numbers(64),
    "uuid": st.binary(min_size=16, max_size=16),
}
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
HEADERS = st.lists(
    st.sampled_from(sorted(VALUES)).flatmap(lambda kind: st.builds(Header, NAMES, st.just(kind), VALUES[kind])),
    max_size=5,
    unique_by=lambda header: header.name,
).map(tuple)
FRAMES = st.lists(st.builds(Frame, HEADERS, st.binary(max_size=60)), max_size=4)
CUTS = st.lists(st.integers(0, 400), max_size=12)


def decoded(data: bytes, cuts: list[int]) -> tuple[list[Frame], Frames]:
    frames, found, at = Frames(), [], 0
    for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        found += frames.feed(data[at:cut])
        at = max(at, cut)
    return found, frames


@pytest.mark.parametrize("vector", VECTORS)
def test_published_vectors(vector: str) -> None:
    data, frame = VECTORS[vector]
    assert decoded(bytes.fromhex(data), [])[0] == [frame]
    assert encode(frame).hex() == data


@given(FRAMES, CUTS)
def test_any_division_of_the_bytes_gives_the_same_frames(frames: list[Frame], cuts: list[int]) -> None:
    found, decoder = decoded(b"".join(map(encode, frames)), cuts)
    assert found == frames
    assert decoder.broken is None
    assert not decoder.amid


@given(FRAMES, CUTS, st.data())
def test_a_flipped_bit_never_becomes_a_frame(frames: list[Frame], cuts: list[int], data: st.DataObject) -> None:
    good = [encode(frame) for frame in [*frames, Frame((), b"last")]]
    sent = bytearray(b"".join(good))
    bit = data.draw(st.integers(0, len(sent) * 8 - 1))
    sent[bit // 8] ^= 1 << bit % 8
    found, decoder = decoded(bytes(sent), cuts)
    before, passed = [], 0
    for each, frame in zip(good, [*frames, Frame((), b"last")], strict=True):
        passed += len(each)
        if passed > bit // 8:
            break
        before.append(frame)
    assert found == before
    assert decoder.broken is not None


@given(st.binary(max_size=200), CUTS)
@example(b"data: {}\n\n", [3])
@example(b"<html><body>502 Bad Gateway</body></html>", [])
def test_garbage_is_told_and_never_raised(data: bytes, cuts: list[int]) -> None:
    found, decoder = decoded(data, cuts)
    assert found == []
    assert decoder.broken is not None or len(data) < 16
    assert decoder.amid == (0 < len(data) < 12)


def test_nothing_comes_behind_a_broken_frame() -> None:
    frames = Frames()
    assert frames.feed(b"x" * 16) == []
    assert frames.feed(encode(Frame((), b"good"))) == []
    assert frames.broken == "a frame's lengths do not match their checksum"


def headed(headers: bytes, payload: bytes = b"") -> bytes:
    """A frame with good checksums around any headers."""
    lengths = pack("!II", 16 + len(headers) + len(payload), len(headers))
    body = lengths + pack("!I", crc32(lengths)) + headers + payload
    return body + pack("!I", crc32(body))


@pytest.mark.parametrize(
    "headers",
    [
        b"\x05event",  # cut before its kind
        b"\x05event\x07\x00\x09short",  # cut in its value
        b"\x05event\x0a",  # an eleventh kind
        b"\x00\x00",  # without a name
        b"\x01a\x00\x01a\x01",  # twice
        b"\x01a\x07\x00\x01\xff",  # text that is none
        b"\x01\xff\x00",  # a name that is no text
        b"\x01a\x04\x00\x00",  # half a number
    ],
)
def test_headers_that_cannot_be_read_break_the_stream(headers: bytes) -> None:
    frames = Frames()
    assert frames.feed(headed(headers, b"{}")) == []
    assert frames.broken == "a frame's headers cannot be read"


@pytest.mark.parametrize("lengths", [(15, 0), (16, 1), (20, 200_000), (MAX_PAYLOAD + 17, 0), (2**32 - 1, 2**32 - 1)])
def test_a_length_that_no_frame_has_is_not_waited_for(lengths: tuple[int, int]) -> None:
    prelude = pack("!II", *lengths)
    frames = Frames()
    assert frames.feed(prelude + pack("!I", crc32(prelude))) == []
    assert frames.broken == "a frame says to be of a length that none has"


@pytest.mark.parametrize(
    "header",
    [
        Header("n" * 256, "true", True),
        Header("n", "byte", 128),
        Header("n", "uuid", b"short"),
        Header("n", "bytes", 5),
        Header("n", "string", "x" * 65_536),
    ],
)
def test_what_has_no_room_is_not_encoded(header: Header) -> None:
    with pytest.raises((ValueError, struct.error)):
        encode(Frame((header,), b""))
