"""Streams passing by: what is handed out and when, how they end; the same for any division of the bytes into reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_balancer.wire.faults import ErrorFacts
from spillway_balancer.wire.paths import StreamEnd
from spillway_balancer.wire.sse import StreamWatch

Golden = Callable[[str], bytes]

DONE = b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any] | None = None, **choice: Any) -> bytes:
    body = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta or {}, **choice}]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


ROLE = chunk({"role": "assistant", "content": ""})
HELLO = chunk({"content": "Hello"})
ERROR = b'data: {"error": {"message": "out of memory", "type": "server_error", "code": 500}}\n\n'
PING = b": ping\n\n"


class Seen(NamedTuple):
    out: bytes
    held: bytes
    committed: bool
    finished: bool
    error: ErrorFacts | None


def watch(reads: Sequence[bytes], kind: StreamEnd = "done-sentinel", limit: int = 1 << 20, ended: bool = False) -> Seen:
    watched = StreamWatch(kind, limit)
    out = b"".join([watched.feed(read) for read in reads])
    if ended:
        out += watched.ended()
    return Seen(out, watched.held(), watched.committed, watched.finished, watched.error)


# -- whole streams


@pytest.mark.parametrize(
    ("name", "kind", "events_before_content"),
    [
        ("vllm-chat", "done-sentinel", 1),
        ("completions-crlf-pings", "done-sentinel", 3),
        ("azure-chat", "done-sentinel", 2),
        ("deepseek-chat", "done-sentinel", 3),
        ("groq-chat", "done-sentinel", 1),
        ("mistral-chat", "done-sentinel", 1),
        ("openrouter-chat", "done-sentinel", 3),
        ("chat-tools", "done-sentinel", 1),
        ("chat-reasoning", "done-sentinel", 1),
        ("vertex-tools", "done-sentinel", 0),
        ("responses", "responses-event", 4),
        ("transcription", "message-end", 0),
    ],
)
def test_streams_of_servers(golden: Golden, name: str, kind: StreamEnd, events_before_content: int) -> None:
    stream = golden(f"streams/{name}.sse")
    end = b"\r\n\r\n" if b"\r" in stream else b"\n\n"
    events = [event + end for event in stream.split(end)[:-1]]
    watched = StreamWatch(kind)
    outs = [watched.feed(event) for event in events]
    assert outs[:events_before_content] == [b""] * events_before_content
    assert outs[events_before_content] == b"".join(events[: events_before_content + 1])
    assert b"".join(outs) == stream
    assert watched.finished is (kind != "message-end")
    assert watched.ended() == b""
    assert watched.finished
    assert watched.error is None


@pytest.mark.parametrize(
    ("name", "kind", "error"),
    [
        ("vllm-chat-error", "done-sentinel", ErrorFacts(None, "internalservererror", 500)),
        ("responses-failed", "responses-event", ErrorFacts("server_error", None)),
        ("responses-error", "responses-event", ErrorFacts("rate_limit_exceeded", "invalid_request_error")),
    ],
)
def test_an_error_before_content_is_kept_from_the_client(
    golden: Golden, name: str, kind: StreamEnd, error: ErrorFacts
) -> None:
    stream = golden(f"streams/{name}.sse")
    seen = watch([stream], kind)
    assert (seen.out, seen.committed, seen.error) == (b"", False, error)
    assert stream.startswith(seen.held)


def test_an_error_after_content_goes_on_and_is_known(golden: Golden) -> None:
    stream = golden("streams/vllm-chat-error-late.sse")
    assert watch([stream]) == Seen(stream, b"", True, True, ErrorFacts(None, "internalservererror", 500))
    stream = golden("streams/openrouter-error-late.sse")
    assert watch([stream]) == Seen(stream, b"", True, True, ErrorFacts("server_error"))


@pytest.mark.parametrize(
    "name",
    [
        "azure-chat",
        "deepseek-chat",
        "groq-chat",
        "mistral-chat",
        "openrouter-chat",
        "openrouter-error-late",
        "vertex-tools",
    ],
)
@given(cuts=st.lists(st.integers(1, 400), max_size=30))
def test_streams_of_providers_come_to_the_same_however_reads_divide_them(name: str, cuts: list[int]) -> None:
    stream = (Path(__file__).parent / "golden" / "streams" / f"{name}.sse").read_bytes()
    reads, at = [], 0
    for size in [*cuts, len(stream)]:
        reads.append(stream[at : at + size])
        at += size
    whole, divided = watch([stream], ended=True), watch([each for each in reads if each], ended=True)
    assert divided == whole
    assert divided.out == stream  # no event is lost, and none is there twice
    assert divided.finished


# -- what is content


@pytest.mark.parametrize(
    "event",
    [
        HELLO,
        chunk({"content": " "}),
        chunk({"reasoning": "hm"}),
        chunk({"reasoning_content": "hm"}),
        chunk({"refusal": "no"}),
        chunk({"tool_calls": [{"index": 0}]}),
        chunk({"function_call": {"name": "f"}}),
        chunk({"audio": {"id": "a"}}),
        chunk({"role": "assistant", "something_new": "x"}),
        chunk({}, finish_reason="stop"),
        chunk({"content": ""}, finish_reason="length"),
        b'data: {"choices":[{"index":0,"text":"a"}]}\n\n',
        b'data: {"choices":[{"index":0,"text":"","finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n',
        b'data: {"choices":[{"message":{"content":"whole"}}]}\n\n',
        b'data: {"choices":[{"something":1}]}\n\n',
        b'data: {"choices":["odd"]}\n\n',
        b'data: {"choices":[{"delta":"odd"}]}\n\n',
        b'data: {"choices":null}\n\n',
        b'data: {"something":"else"}\n\n',
        b"data: no json\n\n",
        b"data: 7\n\n",
        b"data:\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        DONE,
        b"data:[DONE]\n\n",
        b'data: {"choices":[{"delta":\ndata: {"content":"two lines"}}]}\n\n',
    ],
)
def test_content_commits_and_brings_what_was_held(event: bytes) -> None:
    assert watch([PING, ROLE, event])[:3] == (PING + ROLE + event, b"", True)


@pytest.mark.parametrize(
    "event",
    [
        ROLE,
        PING,
        b"\n",
        b"\n\n",
        b":\n\n",
        b"event: ping\ndata: {}\n\n",
        b'data: {"type":"ping"}\n\n',
        b"id: 1\nretry: 500\n\n",
        b"event: message\n\n",
        b"\xef\xbb\xbf" + ROLE,
        chunk({}),
        chunk({"content": None}),
        chunk({"content": "", "tool_calls": None, "refusal": None, "reasoning_content": ""}, finish_reason=None),
        b'data: {"choices":[],"usage":null}\n\n',
        b'data: {"choices":[],"prompt_filter_results":[{}]}\n\n',
        b'data: {"choices":[{"index":0,"text":"","finish_reason":null}]}\n\n',
        ROLE.replace(b"\n", b"\r\n"),
        ROLE.replace(b"\n", b"\r"),
    ],
)
def test_what_is_no_content_is_held(event: bytes) -> None:
    assert watch([event]) == Seen(b"", event, False, False, None)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (ERROR, ErrorFacts(None, "server_error", 500)),
        (b'event: error\ndata: {"message":"x"}\n\n', ErrorFacts()),
        (b"event: error\ndata: broken\n\n", ErrorFacts()),
        (b"event: error\n\n", ErrorFacts()),
        (b'data: {"object":"error","message":"x","type":"E","code":400}\n\n', ErrorFacts(None, "e", 400)),
        (b'data: {"error":"plain"}\n\n', ErrorFacts()),
        (
            b'data: {"choices":[{"delta":{"content":""},"finish_reason":"error"}],"error":{"code":502}}\n\n',
            ErrorFacts(None, None, 502),
        ),
    ],
)
def test_errors(event: bytes, error: ErrorFacts) -> None:
    assert watch([ROLE + event + HELLO]) == Seen(b"", ROLE + event.rstrip(), False, False, error)
    after = watch([HELLO + event])
    assert after == Seen(HELLO + event, b"", True, False, error)


def test_null_is_no_error() -> None:
    event = b'data: {"error":null,"choices":[{"delta":{"content":"a"}}]}\n\n'
    assert watch([event, event]).error is None


# -- terminators


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_done_is_found_under_any_line_end(ending: bytes) -> None:
    stream = (HELLO + DONE).replace(b"\n", ending)
    assert watch([stream]) == Seen(stream, b"", True, True, None)


def test_done_within_content_finishes_nothing() -> None:
    stream = HELLO + chunk({"content": "say [DONE]"}) + chunk({"content": "\ndata: [DONE]\n\n"})
    assert not watch([stream]).finished
    assert not watch([HELLO, b": [DONE]\n\n"]).finished


def test_text_about_terminators_finishes_nothing() -> None:
    event = (
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"response.failed"}\n\n'
    )
    seen = watch([event, event], "responses-event")
    assert (seen.committed, seen.finished, seen.error) == (True, False, None)


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete", "response.failed"])
@pytest.mark.parametrize("named", [True, False])
def test_terminators_of_responses(kind: str, named: bool) -> None:
    delta = b'data: {"type":"response.output_text.delta","delta":"a"}\n\n'
    end = (f"event: {kind}\n" if named else "").encode() + f'data: {{"type":"{kind}","response":{{}}}}\n\n'.encode()
    seen = watch([delta, end], "responses-event")
    assert (seen.out, seen.finished, seen.error is not None) == (delta + end, True, kind == "response.failed")


def test_a_last_event_without_its_empty_line_is_completed() -> None:
    for cut in (b"", b"\n"):
        assert watch([HELLO, b"data: [DONE]" + cut], ended=True) == Seen(HELLO + DONE, b"", True, True, None)
    assert watch([HELLO, b"data: [DONE]\r"], ended=True).finished
    assert watch([HELLO, b"data: [DONE]\r\n"], ended=True).finished


def test_a_stream_that_only_ends_is_finished_where_it_has_no_terminator() -> None:
    assert watch([HELLO], "message-end", ended=True).finished
    assert not watch([HELLO], "done-sentinel", ended=True).finished


# -- partial and large events


def test_half_an_event_is_held_back_so_that_an_error_event_can_follow() -> None:
    watched = StreamWatch("done-sentinel")
    assert watched.feed(HELLO + HELLO[:20]) == HELLO
    assert watched.held() == HELLO[:20]
    assert not watched.mid_event
    assert watched.feed(HELLO[20:]) == HELLO
    assert watched.held() == b""


def test_an_event_that_is_too_large_to_hold_is_let_through_as_it_comes() -> None:
    watched = StreamWatch("done-sentinel", limit=1000)
    watched.feed(HELLO)
    big = chunk({"content": "x" * 5000})
    assert watched.feed(big[:900]) == b""
    assert watched.feed(big[900:2000]) == big[:2000]
    assert watched.mid_event
    assert watched.feed(big[2000:-1]) == big[2000:-2]
    assert watched.feed(big[-1:] + DONE) == big[-2:] + DONE
    assert not watched.mid_event
    assert watched.finished


def test_a_large_event_that_is_cut_stays_open_even_when_the_message_ends() -> None:
    watched = StreamWatch("done-sentinel", limit=100)
    watched.feed(HELLO + b"data: " + b"x" * 500)
    assert watched.ended() == b""
    assert watched.mid_event
    terminator = StreamWatch("responses-event", limit=100)
    terminator.feed(b"event: response.completed\ndata: " + b"x" * 500 + b"\n")
    assert (terminator.ended(), terminator.mid_event, terminator.finished) == (b"\n\n", False, True)
    plain = StreamWatch("message-end", limit=100)
    plain.feed(b"data: " + b"x" * 500)
    assert (plain.ended(), plain.mid_event, plain.finished) == (b"\n\n", False, True)


def test_a_beginning_that_is_too_large_to_hold_is_committed() -> None:
    pings = [PING] * 200
    seen = watch(pings, limit=100)
    assert (seen.out, seen.committed) == (b"".join(pings), True)


@pytest.mark.parametrize("named", [True, False])
def test_a_terminator_larger_than_the_limit_is_recognised_by_its_beginning(named: bool) -> None:
    delta = b'data: {"type":"response.output_text.delta","delta":"a"}\n\n'
    end = b"event: response.completed\n" if named else b""
    end += b'data: {"type":"response.completed","response":{"text":"' + b"y" * 5000 + b'"}}\n\n'
    for reads in ([delta, end], [delta, end[:3000], end[3000:]], [delta + end]):
        seen = watch(reads, "responses-event", limit=1000)
        assert (seen.out, seen.finished) == (delta + end, True)


def test_memory_stays_bounded_after_an_error() -> None:
    watched = StreamWatch("done-sentinel", limit=1000)
    watched.feed(ERROR)
    for _ in range(100):
        assert watched.feed(b"x" * 1000) == b""
    assert watched.held() == ERROR.rstrip()


# -- the law

EVENTS = st.sampled_from(
    [
        PING,
        ROLE,
        HELLO,
        DONE,
        ERROR,
        b"event: ping\ndata: {}\n\n",
        b"event: error\ndata: x\n\n",
        b"data: a\ndata: b\n\n",
        b"\n",
        b"\n\n\n",
        b"\xef\xbb\xbf",
        b"data: [DONE]",
        b'data: {"type":"response.created"}\n\n',
        b'data: {"type":"response.output_text.delta","delta":"a"}\n\n',
        b'event: response.completed\ndata: {"type":"response.completed"}\n\n',
        b'data: {"type":"response.failed","response":{"error":{"code":"c"}}}\n\n',
        b"data: " + b"z" * 70 + b"\n\n",
        b"data: " + b"z" * 70,
    ]
) | st.binary(max_size=6)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    ending = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    mixed = draw(st.booleans())
    stream = b""
    for event in draw(st.lists(EVENTS, max_size=8)):
        if mixed:
            ending = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
        stream += event.replace(b"\n", ending)
    return stream


def divided(stream: bytes, cuts: list[int]) -> list[bytes]:
    points = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in pairwise(points)]


KINDS = st.sampled_from(["done-sentinel", "responses-event", "message-end"])
LIMITS = st.sampled_from([1, 16, 64, 200, 1 << 20])


@settings(max_examples=400)
@given(streams(), st.lists(st.integers(0, 2000), max_size=12), KINDS, LIMITS, st.booleans())
def test_any_division_into_reads_gives_the_same_result(
    stream: bytes, cuts: list[int], kind: StreamEnd, limit: int, ended: bool
) -> None:
    whole = watch([stream], kind, limit, ended)
    assert watch(divided(stream, cuts), kind, limit, ended) == whole
    assert watch([stream[at : at + 1] for at in range(len(stream))], kind, limit, ended) == whole


@given(streams(), st.lists(st.integers(0, 2000), max_size=12), KINDS, LIMITS)
def test_nothing_is_lost_or_made_up(stream: bytes, cuts: list[int], kind: StreamEnd, limit: int) -> None:
    seen = watch(divided(stream, cuts), kind, limit)
    if seen.error is None or seen.committed:
        assert seen.out + seen.held == stream
    else:
        assert seen.out == b""
        assert stream.startswith(seen.held)


@given(streams(), st.lists(st.integers(0, 2000), max_size=12), KINDS)
def test_the_client_first_hears_with_the_read_that_completes_the_first_content(
    stream: bytes, cuts: list[int], kind: StreamEnd
) -> None:
    bytewise = StreamWatch(kind)
    point = next((at + 1 for at in range(len(stream)) if bytewise.feed(stream[at : at + 1])), None)
    watched = StreamWatch(kind)
    read = 0
    for piece in divided(stream, cuts):
        read += len(piece)
        out = watched.feed(piece)
        assert watched.committed is (point is not None and read >= point)
        assert bool(out) <= watched.committed


@given(streams(), st.lists(st.integers(0, 2000), max_size=12))
def test_what_the_client_has_after_commit_ends_where_an_event_ends(stream: bytes, cuts: list[int]) -> None:
    watched = StreamWatch("done-sentinel")
    got = b""
    for piece in divided(stream, cuts):
        got += watched.feed(piece)
        if got:
            lines = got.decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")
            assert lines.endswith("\n\n")
