"""Going on with a cut stream: which requests it is exact for, what is asked, and how the rest is joined on."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_balancer.wire.paths import PATHS
from spillway_balancer.wire.resume import Splice, Transcript, body_to_go_on, may_go_on

CHAT = PATHS["/v1/chat/completions"]
MESSAGES = [{"role": "user", "content": "hello"}]
HEAD = {"id": "first", "object": "chat.completion.chunk", "created": 7, "model": "m", "system_fingerprint": "fp"}
DONE = b"data: [DONE]\n\n"


def values(**fields: Any) -> dict[str, msgspec.Raw]:
    body = {"model": "m", "messages": MESSAGES, "stream": True, **fields}
    return msgspec.json.decode(json.dumps(body), type=dict[str, msgspec.Raw])


def chunk(finish: str | None = None, head: dict[str, Any] | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps({**(head or HEAD), "choices": [choice]}).encode()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 1, "max_tokens": 5, "temperature": 0.7, "seed": 3, "stop": ["x"], "user": "u"},
        {"stream_options": {"include_usage": True}},
        {"tools": None, "logprobs": False, "response_format": {"type": "text"}, "echo": False},
    ],
)
def test_one_choice_of_plain_text_may_be_gone_on_with(fields: dict[str, Any]) -> None:
    assert may_go_on(CHAT, values(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": "auto"},
        {"functions": [{"name": "f"}]},
        {"response_format": {"type": "json_object"}},
        {"guided_json": {}},
        {"structured_outputs": {"json": {}}},
        {"regex": "a"},
        {"logprobs": True},
        {"echo": True},
        {"min_tokens": 4},
        {"continue_final_message": True},
        {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        {"a_field_of_next_year": 1},
        {"messages": [*MESSAGES, {"role": "assistant", "content": "It"}]},
        {"messages": []},
        {"messages": "hello"},
    ],
)
def test_with_more_than_that_it_is_not_exact(fields: dict[str, Any]) -> None:
    assert not may_go_on(CHAT, values(**fields))


def test_other_paths_are_not_gone_on_with() -> None:
    assert not [path for path in PATHS.values() if path is not CHAT and may_go_on(path, values())]


def test_the_rest_is_asked_for_as_engines_take_it() -> None:
    body = json.dumps({"model": "m", "messages": MESSAGES, "max_tokens": 10, "seed": 1.5}).encode()
    asked = body_to_go_on(body, "It was ", 3)
    assert asked is not None
    assert json.loads(asked) == {
        "model": "m",
        "messages": [*MESSAGES, {"role": "assistant", "content": "It was"}],
        "max_tokens": 7,
        "seed": 1.5,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }


def test_where_only_space_was_said_the_request_is_as_it_was() -> None:
    body = json.dumps({"messages": MESSAGES, "max_completion_tokens": 10}).encode()
    assert json.loads(body_to_go_on(body, "\n ", 1) or b"") == {"messages": MESSAGES, "max_completion_tokens": 9}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_at_its_limit_has_no_rest(name: str) -> None:
    body = json.dumps({"messages": MESSAGES, name: 4}).encode()
    assert body_to_go_on(body, "It", 4) is None
    assert body_to_go_on(body, "It", 3) is not None


def said(*events: bytes) -> Transcript:
    transcript = Transcript()
    transcript.feed(b"".join(events))
    return transcript


def test_what_was_said_is_kept() -> None:
    kept = said(chunk(role="assistant", content=""), b": ping\n\n", chunk(content="It "), chunk(content="was"))
    assert (kept.text, kept.tokens, kept.sound) == ("It was", 2, True)
    assert kept.head == {name: value for name, value in HEAD.items() if name != "object"}


@pytest.mark.parametrize(
    "event",
    [
        chunk(tool_calls=[{"index": 0}]),
        chunk(reasoning_content="hm"),
        chunk(finish="stop"),
        DONE,
        b"data: nonsense\n\n",
        b'data: {"error": {"message": "no"}}\n\n',
        chunk(content=["parts"]),
        b'data: {"choices": [{"index": 1, "delta": {"content": "x"}}]}\n\n',
        b'data: {"choices": [{"index": 0, "logprobs": {"content": []}, "delta": {"content": "x"}}]}\n\n',
        b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}], "usage": {"prompt_tokens": 1}}\n\n',
        chunk(content="x" * (1 << 20)),
        b"data: " + b"x" * (1 << 20 | 1),
    ],
)
def test_anything_but_plain_text_under_way_is_not_gone_on_with(event: bytes) -> None:
    assert not said(chunk(content="It"), event).sound


OTHER = {"id": "second", "object": "chat.completion.chunk", "created": 8, "model": "up", "service_tier": "x"}


def test_the_rest_comes_under_the_first_head_without_its_role_and_its_usage() -> None:
    splice = Splice(said(chunk(role="assistant", content=""), chunk(content="It")))
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 3}}\n\n'
    out = splice.feed(
        chunk(head=OTHER, role="assistant", content="")
        + b": ping\n\n"
        + chunk(head=OTHER, role="assistant", content=" was")
        + chunk(head=OTHER, finish="stop", content="")
        + usage
        + DONE
    )
    events = out.split(b"\n\n")
    assert (events[0], events[-2], events[-1]) == (b": ping", b"data: [DONE]", b"")
    word, last = (json.loads(event.removeprefix(b"data: ")) for event in events[1:3])
    assert len(events) == 5
    assert word == {**HEAD, "service_tier": "x", "choices": word["choices"]}
    assert word["choices"][0]["delta"] == {"content": " was"}
    assert last["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("before", "after", "whole"),
    [
        ("It ", [" was"], "It was"),
        ("It ", ["was"], "It was"),
        ("It \n", [" ", "\n", "\nwas"], "It \n\nwas"),
        ("It \n", [" x"], "It \n x"),
        ("It", [" was"], "It was"),
    ],
)
def test_space_that_was_said_is_not_said_twice(before: str, after: list[str], whole: str) -> None:
    transcript = said(chunk(content=before))
    Splice(transcript).feed(b"".join(chunk(head=OTHER, content=text) for text in after))
    assert transcript.text == whole


def test_what_was_joined_on_can_be_gone_on_with_again() -> None:
    transcript = said(chunk(content="one"))
    Splice(transcript).feed(chunk(head=OTHER, content=" two"))
    Splice(transcript).feed(chunk(head={"id": "third"}, content=" three"))
    assert (transcript.text, transcript.head["id"], transcript.tokens) == ("one two three", "first", 3)


PIECES = st.one_of(
    st.text(max_size=8).map(lambda text: chunk(head=OTHER, content=text)),
    st.sampled_from(
        [
            chunk(head=OTHER, role="assistant", content=""),
            chunk(head=OTHER, finish="stop"),
            b": ping\n\n",
            b"data: nonsense\r\n\r\n",
            b'data: {"choices": [],\ndata:  "usage": {"prompt_tokens": 3}}\n\n',
            b'event: error\ndata: {"error": {"message": "no"}}\n\n',
            DONE,
        ]
    ),
)


def divided(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[begin:end] for begin, end in pairwise(bounds)]


@settings(deadline=None)
@given(st.lists(PIECES, max_size=8), st.sampled_from(["It", "It ", "\n"]), st.lists(st.integers(0, 2000), max_size=12))
def test_any_division_of_the_bytes_gives_the_same(pieces: list[bytes], before: str, cuts: list[int]) -> None:
    stream, start = b"".join(pieces), chunk(content=before)
    first = said(start)
    whole = Splice(first).feed(stream)
    second = Transcript()
    for piece in divided(start, cuts):
        second.feed(piece)
    splice = Splice(second)
    assert b"".join(splice.feed(piece) for piece in divided(stream, cuts)) == whole
    assert (second.text, second.sound, second.tokens) == (first.text, first.sound, first.tokens)


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=10), st.data())
def test_cut_anywhere_and_gone_on_with_the_text_is_what_it_would_have_been(
    words: list[str], data: st.DataObject
) -> None:
    """For an engine that says the same words after what it is told of them."""
    whole = "".join(words)
    at = data.draw(st.integers(1, len(whole)))
    transcript = said(chunk(content=whole[:at]))
    told = whole[:at].rstrip()
    rest = whole[len(told) :]
    split = data.draw(st.integers(0, len(rest)))
    Splice(transcript).feed(chunk(head=OTHER, content=rest[:split]) + chunk(head=OTHER, content=rest[split:]))
    assert transcript.text == whole
