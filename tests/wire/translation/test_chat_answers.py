"""Chat completions as they are answered: what servers send comes out as events, and events as what SDKs read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.wire.translation.strategies import answers, merged

from spillway_balancer.core.learning import Usage
from spillway_balancer.wire.faults import ErrorFacts
from spillway_balancer.wire.translation.chat_answers import ANSWERING
from spillway_balancer.wire.translation.said import (
    Alive,
    Argument,
    Asked,
    Began,
    Done,
    Ended,
    Event,
    Fault,
    Said,
    Thought,
    Told,
)

GOLDEN = Path(__file__).parents[1] / "golden"
SSE = "text/event-stream; charset=utf-8"


def read(*reads: bytes, media_type: str = SSE) -> list[Event]:
    reader = ANSWERING.reader(media_type)
    return [event for data in reads for event in reader.feed(data)] + reader.end()


def stream(*chunks: Any, done: bool = True) -> bytes:
    events = [b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks]
    return b"".join(events) + (b"data: [DONE]\n\n" if done else b"")


def delta(reason: str | None = None, index: int = 0, **said: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": said, "finish_reason": reason}
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


BEGAN = Began("c-1", "m", None, 1)


def said(*chunks: Any) -> list[Event]:
    """What a stream of these chunks says, without its frame."""
    events = read(stream(*chunks))
    assert events[0] == BEGAN
    assert isinstance(events[-1], Done)
    return events[1:-1]


def call(index: int | None, name: str | None, arguments: Any = "", id_of: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"function": {"arguments": arguments}}
    if index is not None:
        found["index"] = index
    if name is not None:
        found["function"]["name"] = name
    if id_of is not None:
        found |= {"id": id_of, "type": "function"}
    return found


LLAMA = Began("chatcmpl-3f9b", "meta-llama/Llama-3.1-8B-Instruct", None, 1_754_000_000)
USED = Usage(12, None, 5)

STREAMS: dict[str, list[Event]] = {
    "azure-chat": [Began("chatcmpl-az", "gpt-4o", None, 1_754_000_000), Said("Hi"), Ended("stop"), Done()],
    "chat-reasoning": [LLAMA, Thought("Hm"), Said("A"), Ended("stop"), Done()],
    "chat-tools": [LLAMA, Asked(0, "call_1", "f"), Argument(0, "{}"), Ended("tools"), Done()],
    "deepseek-chat": [
        Alive(),
        Alive(),
        Began("d1", "deepseek-chat", None, 1_760_000_000),
        Said("Hi"),
        Told(Usage(12, 8, 5)),
        Ended("stop"),
        Done(),
    ],
    "groq-chat": [
        Began("g1", "llama-3.3-70b-versatile", None, 1_760_000_000),
        Said("Hi"),
        Told(USED),
        Ended("stop"),
        Done(),
    ],
    "mistral-chat": [
        Began("m1", "mistral-small-latest", None, 1_760_000_000),
        Said("Hi"),
        Told(USED),
        Ended("stop"),
        Done(),
    ],
    "openrouter-chat": [
        Alive(),
        Alive(),
        Began("gen-1", "openai/gpt-4o", None, 1_760_000_000),
        Said("Hi"),
        Told(USED),
        Ended("stop"),
        Done(),
    ],
    "openrouter-error-late": [
        Alive(),
        Began("gen-1", "openai/gpt-4o", None, 1_760_000_000),
        Said("Hi"),
        Fault(ErrorFacts("server_error"), "Provider disconnected unexpectedly"),
    ],
    "vllm-chat": [
        LLAMA,
        *map(Said, ("The", " sky", " is", " blue", ".")),
        Told(USED),
        Ended("stop"),
        Done(),
    ],
    "vllm-chat-error": [
        LLAMA,
        Fault(
            ErrorFacts(None, "internalservererror", 500),
            "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        ),
    ],
    "vllm-chat-error-late": [
        LLAMA,
        *map(Said, ("The", " sky", " is")),
        Fault(
            ErrorFacts(None, "internalservererror", 500),
            "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        ),
    ],
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_servers_are_read(name: str, golden: Callable[[str], bytes]) -> None:
    assert read(golden(f"streams/{name}.sse")) == STREAMS[name]


@pytest.mark.parametrize("name", sorted(path.name for path in (GOLDEN / "streams").glob("*chat*.sse")))
@given(data=st.data())
def test_reads_may_divide_an_answer_anywhere(name: str, data: st.DataObject) -> None:
    whole = (GOLDEN / "streams" / name).read_bytes()
    if data.draw(st.booleans()):
        whole = whole.replace(b"\n", b"\r\n")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    assert read(*(whole[first:last] for first, last in pairwise((0, *cuts, len(whole))))) == read(whole)


@given(st.lists(st.binary(max_size=30)), st.sampled_from((SSE, "application/json", "")))
def test_garbage_is_a_fault_or_nothing(reads: list[bytes], media_type: str) -> None:
    _in_order(read(*reads, media_type=media_type))


FIELDS = (
    *("id", "choices", "index", "delta", "message", "content", "tool_calls", "function", "name", "arguments"),
    *("finish_reason", "usage", "prompt_tokens", "error", "reasoning", "reasoning_details", "type", "text"),
    *("signature", "data", "thinking", "refusal", "x_groq", "code", "function_call"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(JSON, max_size=4))
def test_absurd_values_are_read_without_raising(chunks: list[Any]) -> None:
    _in_order(read(stream(*chunks)))
    for chunk in chunks:
        _in_order(read(json.dumps(chunk).encode(), media_type="application/json"))


@given(st.lists(JSON, max_size=2))
def test_absurd_choices_are_read_without_raising(choices: list[Any]) -> None:
    chunks = [{"id": "c", "choices": [{"index": 0, "delta": choice, "finish_reason": choice}]} for choice in choices]
    _in_order(read(stream(*chunks)))


def _in_order(events: Sequence[Event]) -> None:
    kinds = [type(event) for event in events if not isinstance(event, Alive)]
    for only in (Began, Ended, Done, Fault):
        assert kinds.count(only) <= 1
    for last in (Done, Fault):
        assert last not in kinds[:-1]
    if kinds and kinds != [Fault]:
        assert kinds[0] is Began
    named = {event.at for event in events if isinstance(event, Asked)}
    assert named == set(range(len(named)))
    assert {event.at for event in events if isinstance(event, Argument)} <= named


def test_nothing_comes_behind_the_end() -> None:
    reader = ANSWERING.reader(SSE)
    assert isinstance(reader.feed(stream(delta(content="a")) + stream(delta(content="b")))[-1], Done)
    assert reader.feed(stream(delta(content="c"))) == []
    assert reader.end() == []


def test_a_stream_without_its_terminator_was_cut() -> None:
    assert read(stream(delta(content="a"), done=False)) == [BEGAN, Said("a")]
    assert read(stream(delta("stop", content="a"), done=False)) == [BEGAN, Said("a"), Ended("stop")]
    assert read(stream(delta(content="a"), done=False) + b'data: {"id": "c-1", "cho') == [BEGAN, Said("a")]
    assert read(b"") == []


def test_a_last_event_without_its_empty_line_counts() -> None:
    assert read(stream(delta("stop", content="a"), done=False) + b"data: [DONE]")[-1:] == [Done()]


def test_other_choices_are_left_out() -> None:
    assert said(delta(content="a"), delta(index=1, content="b"), delta("stop", 1)) == [Said("a"), Ended("stop")]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("model_length", "length"),
        ("content_filter", "filter"),
        ("eos_token", "stop"),
        ("something_new", "stop"),
    ],
)
def test_reasons_to_end(reason: str, expected: str) -> None:
    assert said(delta(reason, content="a")) == [Said("a"), Ended(expected)]  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
def test_a_reason_to_fail_is_a_fault(reason: str) -> None:
    assert isinstance(read(stream(delta(content="a"), delta(reason)))[-1], Fault)


def test_a_stop_sequence_is_told_where_the_engine_says_it() -> None:
    chunk = delta("stop")
    chunk["choices"][0]["stop_reason"] = "END"
    assert said(chunk) == [Ended("sequence", "END")]
    chunk["choices"][0]["stop_reason"] = 128_009
    assert said(chunk) == [Ended("stop")]


def test_a_refusal_is_said_and_ends_as_one() -> None:
    assert said(delta(refusal="I'm "), delta("stop", refusal="sorry")) == [
        Said("I'm "),
        Said("sorry"),
        Ended("refusal"),
    ]


CALLS: dict[str, tuple[list[Any], list[Event]]] = {
    "in pieces, one behind another": (
        [
            delta(tool_calls=[call(0, "f", "", "a")]),
            delta(tool_calls=[call(0, None, '{"x"')]),
            delta(tool_calls=[call(0, None, ":1}")]),
            delta(tool_calls=[call(1, "g", "{}", "b")]),
            delta("tool_calls"),
        ],
        [Asked(0, "a", "f"), Argument(0, '{"x"'), Argument(0, ":1}"), Asked(1, "b", "g"), Argument(1, "{}")],
    ),
    "several in one chunk": (
        [
            delta(tool_calls=[call(0, "f", '{"x":', "a"), call(1, "g", "{", "b")]),
            delta("tool_calls", tool_calls=[call(1, None, "}"), call(0, None, "1}")]),
        ],
        [
            Asked(0, "a", "f"),
            Argument(0, '{"x":'),
            Asked(1, "b", "g"),
            Argument(1, "{"),
            Argument(1, "}"),
            Argument(0, "1}"),
        ],
    ),
    "whole at the end, with stop": (
        [delta(content=""), delta("stop", tool_calls=[call(0, "f", '{"x":1}', "a")])],
        [Asked(0, "a", "f"), Argument(0, '{"x":1}')],
    ),
    "all with index 0, as Gemini": (
        [delta("stop", tool_calls=[call(0, "f", "{}", "a"), call(0, "f", '{"x":1}', "b")])],
        [Asked(0, "a", "f"), Argument(0, "{}"), Asked(1, "b", "f"), Argument(1, '{"x":1}')],
    ),
    "all with index 0 and no id": (
        [delta("stop", tool_calls=[call(0, "f", "{}", ""), call(0, "f", '{"x":1}', "")])],
        [
            Asked(0, "call_62a08e113fb1cd0c_0", "f"),
            Argument(0, "{}"),
            Asked(1, "call_62a08e113fb1cd0c_1", "f"),
            Argument(1, '{"x":1}'),
        ],
    ),
    "without index, arguments an object, as Ollama": (
        [delta("stop", tool_calls=[call(None, "f", {"x": 1}, "a"), call(None, "g", {}, "b")])],
        [Asked(0, "a", "f"), Argument(0, '{"x":1}'), Asked(1, "b", "g"), Argument(1, "{}")],
    ),
    "id and name again in every piece": (
        [delta(tool_calls=[call(0, "f", '{"x":', "a")]), delta("tool_calls", tool_calls=[call(0, "f", "1}", "a")])],
        [Asked(0, "a", "f"), Argument(0, '{"x":'), Argument(0, "1}")],
    ),
    "a name behind the id": (
        [delta(tool_calls=[call(0, None, "{", "a")]), delta("tool_calls", tool_calls=[call(0, "f", "}")])],
        [Asked(0, "a", "f"), Argument(0, "{"), Argument(0, "}")],
    ),
    "signed, as Gemini": (
        [
            delta(
                "tool_calls",
                tool_calls=[
                    call(0, "f", "{}", "a") | {"extra_content": {"google": {"thought_signature": "c2ln"}}},
                    call(1, "g", "{}", "b") | {"extra_content": {"google": None}},
                ],
            )
        ],
        [
            Thought(signature="google:c2ln"),
            Asked(0, "a", "f"),
            Argument(0, "{}"),
            Asked(1, "b", "g"),
            Argument(1, "{}"),
        ],
    ),
    "function_call, as it was once": (
        [
            delta(function_call={"name": "f", "arguments": "{"}),
            delta("function_call", function_call={"arguments": "}"}),
        ],
        [Asked(0, "call_62a08e113fb1cd0c_0", "f"), Argument(0, "{"), Argument(0, "}")],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_of_tools_are_read(name: str) -> None:
    chunks, expected = CALLS[name]
    assert said(*chunks) == [*expected, Ended("tools")]


def test_reasoning_in_every_form() -> None:
    detail = {"type": "reasoning.text", "text": "Hm", "index": 0}
    assert said(delta(reasoning="Hm", reasoning_details=[detail]), delta("stop", content="A")) == [
        Thought("Hm"),
        Said("A"),
        Ended("stop"),
    ]
    closed = {**detail, "signature": "sig"}
    assert said(delta(reasoning_details=[detail]), delta(reasoning_details=[closed | {"text": ""}])) == [
        Thought("Hm"),
        Thought("", "sig"),
        Ended("stop"),
    ]
    assert said(delta(reasoning_content="Hm", reasoning="Hm")) == [Thought("Hm"), Ended("stop")]
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
    assert said(delta(content=[thinking, {"type": "text", "text": "A"}])) == [Thought("Hm"), Said("A"), Ended("stop")]


WHOLE = {
    "id": "c-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "A",
                "reasoning_content": "Hm",
                "refusal": None,
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            "finish_reason": "tool_calls",
        },
        {"index": 1, "message": {"role": "assistant", "content": "B"}, "finish_reason": "stop"},
    ],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 12,
        "total_tokens": 21,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
}
SAID_WHOLE: list[Event] = [
    BEGAN,
    Thought("Hm"),
    Said("A"),
    Asked(0, "a", "f"),
    Argument(0, "{}"),
    Told(Usage(9, 4, 12, None, 3)),
    Ended("tools"),
    Done(),
]


def test_a_whole_answer_is_read() -> None:
    body = json.dumps(WHOLE).encode()
    assert read(body[:50], body[50:], media_type="application/json") == SAID_WHOLE


def test_a_whole_answer_within_a_stream_is_read() -> None:
    assert read(stream(WHOLE)) == SAID_WHOLE


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error": {"message": "No", "type": "server_error"}}', Fault(ErrorFacts(None, "server_error"), "No")),
        (b'{"detail": "Not here"}', Fault(ErrorFacts(), "Not here")),
        (b'{"error": "busy"}', Fault(ErrorFacts(), "busy")),
        (b'[{"error": {"code": 503, "message": "m"}}]', Fault(ErrorFacts(status=503), "m")),
        (b'{"choices": []}', Fault(ErrorFacts(), "the endpoint's answer has no choices")),
        (b'{"choices": [', Fault(ErrorFacts(), "the endpoint's answer cannot be understood")),
        (b"<html>", Fault(ErrorFacts(), "the endpoint's answer cannot be understood")),
    ],
)
def test_a_whole_answer_that_is_none_is_a_fault(body: bytes, expected: Fault) -> None:
    assert read(body, media_type="application/json") == [expected]


# ---- written


def write(events: Sequence[Event], usage: bool = True) -> bytes:
    assert ANSWERING.stream is not None
    writer = ANSWERING.stream("m", usage)
    return b"".join(writer.write((event,)) for event in events) + writer.end()


def write_whole(events: Sequence[Event]) -> bytes:
    assert ANSWERING.whole is not None
    writer = ANSWERING.whole("m")
    return writer.write(events) + writer.end()


@given(answers())
def test_a_stream_says_what_its_events_say(events: list[Event]) -> None:
    assert read(write(events)) == events


@given(answers())
def test_a_whole_answer_says_what_its_events_say(events: list[Event]) -> None:
    assert read(write_whole(events), media_type="application/json") == merged(events)


@given(answers())
def test_openais_types_take_every_chunk_and_answer(events: list[Event]) -> None:
    for line in write(events).split(b"\n\n")[:-2]:
        ChatCompletionChunk.model_validate_json(line.removeprefix(b"data: "), strict=True)
    ChatCompletion.model_validate_json(write_whole(events), strict=True)


def test_signatures_go_to_the_client_with_all_that_they_sign() -> None:
    events = [
        BEGAN,
        Thought("a"),
        Thought("b"),
        Thought("", "sig"),
        Thought(sealed="x"),
        Said("c"),
        Ended("stop"),
        Done(),
    ]
    body = write(events)
    detail = {"type": "reasoning.text", "text": "ab", "signature": "sig", "index": 0}
    assert json.dumps(detail, separators=(",", ":")).encode() in body
    assert read(body) == events
    assert json.loads(write_whole(events))["choices"][0]["message"]["reasoning_details"] == [
        detail,
        {"type": "reasoning.encrypted", "data": "x", "index": 1},
    ]


def test_a_stream_byte_by_byte() -> None:
    events = [Began("msg_1", "claude", created=7), Said("Hé"), Told(Usage(9, 4, 2, None, 1)), Ended("stop"), Done()]
    head = b'data: {"id":"msg_1","object":"chat.completion.chunk","created":7,"model":"m","choices":['
    assert write(events).split(b"\n\n") == [
        head
        + b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}',
        head + '{"index":0,"delta":{"content":"Hé"},"logprobs":null,"finish_reason":null}],"usage":null}'.encode(),
        head + b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}',
        head
        + b'],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,'
        + b'"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":1}}}',
        b"data: [DONE]",
        b"",
    ]


def test_usage_is_told_to_those_who_ask() -> None:
    body = write([BEGAN, Said("a"), Told(Usage(1, None, 1)), Ended("stop"), Done()], usage=False)
    assert b"usage" not in body
    assert body.endswith(b"data: [DONE]\n\n")


def test_later_numbers_replace_earlier_ones() -> None:
    events = [
        Began("a", "b", Usage(9, 4, 1)),
        Told(Usage(None, None, 7)),
        Ended("stop"),
        Done(),
    ]
    assert Told(Usage(9, 4, 7)) in read(write(events))
    assert json.loads(write_whole(events))["usage"]["total_tokens"] == 16


def test_a_tool_that_is_handed_nothing_gets_an_object() -> None:
    events = [BEGAN, Asked(0, "a", "f"), Asked(1, "b", "g"), Ended("tools"), Done()]
    expected = [BEGAN, Asked(0, "a", "f"), Argument(0, "{}"), Asked(1, "b", "g"), Argument(1, "{}"), *events[3:]]
    assert read(write(events)) == expected
    assert read(write_whole(events), media_type="application/json") == expected


def test_a_cut_stream_has_no_terminator_and_a_failed_one_its_error() -> None:
    assert b"[DONE]" not in write([BEGAN, Said("a"), Ended("stop")])
    failed = write([BEGAN, Said("a"), Fault(ErrorFacts("x", "overloaded_error"), "Overloaded"), Said("b"), Done()])
    assert failed.endswith(
        b'\n\ndata: {"error":{"message":"Overloaded","type":"overloaded_error","param":null,"code":"x"}}\n\n'
    )


def test_what_only_says_that_somebody_is_there_is_a_comment() -> None:
    assert write([Alive()]) == b": alive\n\n"


@pytest.mark.parametrize(
    ("end", "reason"),
    [("sequence", "stop"), ("refusal", "content_filter"), ("pause", "stop"), ("context", "length")],
)
def test_ends_that_chat_completions_do_not_have(end: str, reason: str) -> None:
    body = write_whole([BEGAN, Ended(end), Done()])  # type: ignore[arg-type]
    assert json.loads(body)["choices"][0]["finish_reason"] == reason


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "validationexception", "invalid_request_error"),
        (503, "serviceunavailableexception", "server_error"),
        (429, "rate_limit_error", "rate_limit_error"),
        (404, None, "invalid_request_error"),
        (500, None, "server_error"),
    ],
)
def test_types_of_errors_are_openais_words(status: int, kind: str | None, expected: str) -> None:
    body = json.loads(ANSWERING.error(status, "no", kind, None) if ANSWERING.error else b"")
    assert body["error"]["type"] == expected


def test_errors_are_openais() -> None:
    assert ANSWERING.error is not None
    assert json.loads(ANSWERING.error(400, "No", None, "bad")) == {
        "error": {"message": "No", "type": "invalid_request_error", "param": None, "code": "bad"}
    }
    assert json.loads(ANSWERING.error(529, "No", None, None))["error"]["type"] == "server_error"
