"""Streams are asked for their usage where somebody counts it, and clients that did not ask never see the answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.wire.openai import peek
from spillway_balancer.wire.paths import PATHS
from spillway_balancer.wire.sse import StreamWatch
from spillway_balancer.wire.usage_chunk import ask_for_usage, without_usage

CHAT = PATHS["/v1/chat/completions"]
ASKED = {"include_usage": True}


def sent(body: bytes, model: str = "up", path: str = "/v1/chat/completions") -> bytes:
    peeked = peek(PATHS[path], "application/json", body)
    ask = ask_for_usage(peeked)
    return b"".join(peeked.forward(model, () if ask is None else (ask,)))


@pytest.mark.parametrize("model", ["chat", "org/model"])
@pytest.mark.parametrize(
    ("given_", "options"),
    [
        ({}, ASKED),
        ({"stream_options": None}, ASKED),
        ({"stream_options": {}}, ASKED),
        ({"stream_options": {"include_usage": False, "x": [1, {"a": "é"}]}}, {**ASKED, "x": [1, {"a": "é"}]}),
        ({"stream_options": "nonsense"}, "nonsense"),
    ],
)
def test_nothing_else_of_the_body_changes(given_, options, model):
    for body in (
        {"model": "chat", "messages": [], **given_, "stream": True},
        {**given_, "stream": True, "messages": [], "model": "chat"},
        {"tenant": 1, "spillway": 2, "model": "chat", **given_, "stream": True},
    ):
        expected = {**body, "model": model, "stream_options": options}
        assert json.loads(sent(json.dumps(body).encode(), model)) == expected


@pytest.mark.parametrize(
    ("path", "body", "asks"),
    [
        ("/v1/chat/completions", {"stream": True}, True),
        ("/v1/completions", {"stream": True, "stream_options": {"include_usage": False}}, True),
        ("/v1/chat/completions", {"stream": True, "stream_options": {"include_usage": True}}, False),
        ("/v1/chat/completions", {"stream": False}, False),
        ("/v1/chat/completions", {}, False),
        ("/v1/responses", {"stream": True}, False),  # tells it in any case
        ("/v1/audio/speech", {"stream": True}, False),
    ],
)
def test_who_is_asked(path, body, asks):
    peeked = peek(PATHS[path], "application/json", json.dumps({"model": "chat", **body}).encode())
    assert (ask_for_usage(peeked) is not None) is asks


def event(**chunk) -> bytes:
    return b"data: %b\n\n" % json.dumps(chunk).encode()


WORD = event(choices=[{"delta": {"content": "hi"}}], usage=None)
TRICK = event(choices=[{"delta": {"content": '"choices": [] "usage": {"x": 1}'}}])
AZURE = event(choices=[], prompt_filter_results=[1])
NULL = event(choices=[], usage=None)
USAGE = event(id="x", choices=[], usage={"prompt_tokens": 1, "completion_tokens": 2})
COMPACT = b'data:{"choices":[],"usage":{"prompt_tokens":1}}\r\n\r\n'
COMMENT = b": keep-alive\n\n"
BROKEN = b'data: {"choices": [], "usage": {\n\n'
DONE = b"data: [DONE]\n\n"
EVENTS = [WORD, TRICK, AZURE, NULL, USAGE, COMPACT, COMMENT, BROKEN]


@given(st.lists(st.sampled_from(EVENTS), max_size=12), st.lists(st.integers(1, 60), max_size=40))
def test_only_chunks_of_usage_are_left_out_however_reads_divide_the_stream(events, cuts):
    stream = b"".join([WORD, *events, DONE])
    watch, got, at = StreamWatch(CHAT.stream_end), b"", 0
    for size in [*cuts, len(stream)]:
        got += without_usage(watch.feed(stream[at : at + size]))
        at += size
    got += without_usage(watch.ended())
    expected = b"".join([WORD, *(each for each in events if each not in (USAGE, COMPACT)), DONE])
    # A read may divide the empty line behind an event; what is left of it is one more empty line, which says nothing.
    assert got.split() == expected.split()
    assert watch.finished
