"""The events of a stream, whatever ends its lines and however reads divide it."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.wire.translation.frames import Frame, Frames


def cut(*reads: bytes) -> list[Frame]:
    frames = Frames()
    return [frame for read in reads for frame in frames.feed(read)] + frames.end()


STREAM = b'\xef\xbb\xbfevent: a\ndata: 1\ndata: 2\n\n\n: ping\n\ndata:x\n\nid: 3\nevent: b\n\ndata: {"last": 1}'
EXPECTED = [Frame("a", b"1\n2"), Frame(None, None), Frame(None, b"x"), Frame("b", None), Frame(None, b'{"last": 1}')]


def test_every_kind_of_line_end_gives_the_same_events() -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        assert cut(STREAM.replace(b"\n", end)) == EXPECTED


@given(
    st.sampled_from((b"\n", b"\r\n", b"\r")),
    st.lists(st.integers(0, len(STREAM) + 20), max_size=6).map(sorted),
)
def test_reads_may_divide_a_stream_anywhere(end: bytes, cuts: list[int]) -> None:
    stream = STREAM.replace(b"\n", end)
    edges = [0, *(min(each, len(stream)) for each in cuts), len(stream)]
    assert cut(*(stream[first:last] for first, last in pairwise(edges))) == EXPECTED


@given(st.lists(st.binary(max_size=12).map(lambda data: data.replace(b"a", b"\n").replace(b"b", b"\r"))))
def test_any_bytes_give_the_same_events_whole_and_one_by_one(reads: list[bytes]) -> None:
    whole = b"".join(reads)
    assert cut(*reads) == cut(whole) == cut(*(whole[at : at + 1] for at in range(len(whole))))
