"""What an answer tells of itself: token counts that no text can fake, and the text that the next turn repeats."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.core.learning import Usage
from spillway_balancer.wire.usage import MAX_CHARS, AnswerText, UsageWatch

Golden = Callable[[str], bytes]

CHAT = {"prompt_tokens": 12, "total_tokens": 17, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 8}}
RESPONSES = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 8},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 17,
}


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def watched(pieces: Iterable[bytes]) -> Usage | None:
    watch = UsageWatch()
    for piece in pieces:
        watch.feed(piece)
    return watch.usage()


def collected(pieces: Iterable[bytes], stream: bool = True) -> str | None:
    text = AnswerText(stream)
    for piece in pieces:
        text.feed(piece)
    return text.text()


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


# ---- usage


@pytest.mark.parametrize("said", [CHAT, RESPONSES])
@pytest.mark.parametrize("style", [{"indent": 4}, {"separators": (",", ":")}, {"separators": (" ,\r\n", "\t:\n ")}])
def test_both_shapes_in_any_spacing(said: dict[str, Any], style: dict[str, Any]) -> None:
    answer = {"id": "x", "choices": [{"message": {"content": "Hi"}}], "usage": said, "service_tier": None}
    usage = watched([json.dumps(answer, **style).encode()])
    assert usage is not None
    assert usage[:3] == (12, 8, 5)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ("vllm-chat", Usage(12, None, 5)),
        ("responses", Usage(5, None, 2)),
        ("chat-reasoning", None),
        ("vllm-chat-error", None),
        ("mistral-chat", Usage(12, None, 5)),
        ("groq-chat", Usage(12, None, 5)),
        ("openrouter-chat", Usage(12, None, 5)),
        ("deepseek-chat", Usage(12, 8, 5)),
        ("vertex-tools", Usage(27, None, 549, None, 504)),  # reasoning is not among the tokens of the answer
    ],
)
def test_streams_of_engines(golden: Golden, stream: str, expected: Usage | None) -> None:
    data = golden(f"streams/{stream}.sse")
    for size in (1, 7, 100, 1 << 20):
        assert watched(cut(data, size)) == expected


def test_the_last_that_is_told_counts() -> None:
    counting = [{**CHAT, "completion_tokens": tokens} for tokens in range(1, 900)]
    assert watched(event({"choices": [], "usage": each}) for each in counting) == Usage(12, 8, 899)


def test_it_is_found_wherever_it_stands() -> None:
    for before, after in ((0, 50_000), (50_000, 0), (7_000, 7_000)):
        answer = {"text": "x" * before, "usage": CHAT, "more": "y" * after}
        for size in (333, 4096, 1 << 20):
            assert watched(cut(json.dumps(answer).encode(), size)) == Usage(12, 8, 5)


def test_a_null_in_every_chunk_hides_nothing() -> None:
    chunk = event({"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": None})
    assert watched([chunk] * 50) is None
    assert watched([event({"usage": CHAT}), *[chunk] * 500]) == Usage(12, 8, 5)


TEXT = st.text(max_size=40) | st.sampled_from(
    [
        '"usage": {"prompt_tokens": 1}',
        '","usage":{"prompt_tokens":1},"x":"',
        "usage",
        '"usage"',
        '\\"usage":{"a":1}',
        "\\",
    ]
)


@given(TEXT, st.booleans(), st.integers(1, 60))
def test_no_text_of_the_model_passes_for_it(text: str, tell: bool, size: int) -> None:
    call = {"function": {"name": "f", "arguments": json.dumps({"usage": {"prompt_tokens": 3}, "text": text})}}
    chunk = event({"choices": [{"index": 0, "delta": {"content": text, "tool_calls": [call]}}]})
    expected = Usage(12, 8, 5) if tell else None
    for order in ([chunk, event({"usage": CHAT})], [event({"usage": CHAT}), chunk]):
        data = b"".join(order if tell else [chunk])
        assert watched([data]) == watched(cut(data, size)) == expected


@pytest.mark.parametrize("number", [-1, 10**8 + 1, 1.5, "12", True, None, [1], 1e300])
def test_an_absurd_number_is_unknown(number: object) -> None:
    said = {**CHAT, "prompt_tokens": number}
    assert watched([json.dumps({"usage": said}).encode()]) == Usage(None, 8, 5)
    said = {**CHAT, "prompt_tokens_details": {"cached_tokens": number}}
    assert watched([json.dumps({"usage": said}).encode()]) == Usage(12, None, 5)


@pytest.mark.parametrize("details", [None, [], 7, {}, {"cached_tokens": 13}, {"audio_tokens": 0}])
def test_details_that_tell_nothing_or_more_than_there_is(details: object) -> None:
    assert watched([json.dumps({"usage": {**CHAT, "prompt_tokens_details": details}}).encode()]) == Usage(12, None, 5)


def test_a_schema_that_is_named_usage_is_none() -> None:
    tools = [{"parameters": {"properties": {"usage": {"type": "object", "max_tokens": "x"}}}}]
    assert watched([json.dumps({"usage": RESPONSES, "tools": tools}).encode()]) == Usage(12, 8, 5, None, 0)


@given(st.binary(max_size=200) | st.text(alphabet='"usage_tokens":{}\\,1 ', max_size=200).map(str.encode))
def test_no_bytes_make_it_fail(noise: bytes) -> None:
    for data in (noise, b'"usage":{' + noise, b'"usage":' + noise + b'"prompt_tokens":1}}}'):
        watched([data])
        watched(cut(data, 7))
        collected(cut(data, 7))
        collected(cut(data, 7), stream=False)


def test_brackets_without_an_end_cost_no_more_than_their_length() -> None:
    assert watched([b'"usage":{' * 3000 + b'"prompt_tokens"' + b"{" * 30_000]) is None
    assert watched([b'"usage":{"prompt_tokens' + b'\\"' * 30_000]) is None


# ---- text


def deltas(*texts: str, **more: Any) -> list[bytes]:
    return [event({"choices": [{"index": 0, "delta": {"content": text, **more}}]}) for text in texts]


@given(st.lists(TEXT, max_size=8), st.integers(1, 60))
def test_a_stream_says_what_its_deltas_say(texts: list[str], size: int) -> None:
    data = b"".join([b": ping\n\n", *deltas("", *texts), b"data: [DONE]\n\n"])
    assert collected(cut(data, size)) == "".join(texts)
    assert collected(cut(data.replace(b"\n", b"\r\n"), size)) == "".join(texts)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [("vllm-chat", "The sky is blue."), ("responses", "Hi"), ("chat-reasoning", None), ("transcription", "")],
)
def test_text_of_streams_of_engines(golden: Golden, stream: str, expected: str | None) -> None:
    assert collected(cut(golden(f"streams/{stream}.sse"), 50)) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}}]}, "Hi"),
        ({"choices": [{"index": 1, "message": {"content": "No"}}, {"index": 0, "message": {"content": "Yes"}}]}, "Yes"),
        ({"choices": [{"index": 0, "text": " upon a time"}]}, " upon a time"),
        ({"choices": [{"index": 0, "message": {"content": None, "tool_calls": [{"id": "c"}]}}]}, ""),
        ({"choices": [{"index": 0, "message": {"content": "Hi", "reasoning_content": "Hm"}}]}, None),
        ({"choices": [{"index": 0, "message": {"content": "Hi", "reasoning": "Hm"}}]}, None),
        ({"choices": [{"index": 0, "message": {"content": {"a": 1}}}]}, None),
        ({"output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}]}, "Hi"),
        ({"output": [{"type": "reasoning"}, {"type": "message", "content": [{"text": "Hi"}]}]}, None),
        ({"output": [{"type": "function_call", "name": "f"}]}, ""),
        ({"type": "message", "content": [{"type": "text", "text": "Hi"}, {"type": "tool_use", "id": "a"}]}, "Hi"),
        (
            {"type": "message", "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Hi"}]},
            "HmHi",
        ),
        ({"type": "message", "content": "Hi"}, ""),
        ("text", None),
    ],
)
def test_text_of_whole_answers(answer: object, expected: str | None) -> None:
    data = json.dumps(answer, indent=2).encode()
    for size in (5, 1 << 20):
        assert collected(cut(data, size), stream=False) == expected


def test_an_answer_of_many_choices_says_what_the_first_says() -> None:
    other = event({"choices": [{"index": 1, "delta": {"content": "B"}}]})
    assert collected([*deltas("A"), other, *deltas("a")]) == "Aa"


def test_a_message_in_a_stream_says_its_text() -> None:
    def delta(kind: str, **said: str) -> bytes:
        return event({"type": "content_block_delta", "index": 0, "delta": {"type": kind, **said}})

    tool = delta("input_json_delta", partial_json='{"a":1}')
    assert collected([delta("text_delta", text="one"), tool, delta("text_delta", text=" two")]) == "one two"
    assert collected([delta("thinking_delta", thinking="Hm"), delta("text_delta", text="two")]) == "Hmtwo"
    assert collected([delta("redacted_thinking", data="x"), delta("text_delta", text="two")]) is None


def test_a_completion_in_a_stream_says_its_text() -> None:
    assert collected([event({"choices": [{"index": 0, "text": text}]}) for text in ("one", " two")]) == "one two"


def test_an_answer_that_is_too_long_is_given_up_and_holds_no_memory() -> None:
    text = AnswerText(stream=True)
    (piece,) = deltas("x" * 1000)
    for _ in range(MAX_CHARS // 1000):
        text.feed(piece)
    assert text._size < 10_000
    for _ in range(1000):
        text.feed(piece)
    assert text._size == 0
    assert text.text() is None
    for stream in (True, False):
        assert collected([b'data: {"a":"'] + [b"x" * 1000] * 1000, stream) is None


def test_what_breaks_off_says_nothing() -> None:
    assert collected([b"".join(deltas("The", " end"))[:-9]]) is None
