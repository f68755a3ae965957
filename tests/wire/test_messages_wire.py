"""Anthropic's Messages as they pass through: what is content, what an agent's turns have in common, errors of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_api.types import Clamp
from spillway_balancer.core.errors import AmbiguousKey, ModelNotFound, NoReadyEndpoint, RateLimited
from spillway_balancer.core.prefix import BLOCK_BYTES
from spillway_balancer.wire import anthropic, asks, openai
from spillway_balancer.wire.canonical import MEDIA_BYTES
from spillway_balancer.wire.clamps import Clamped
from spillway_balancer.wire.headers import request_headers
from spillway_balancer.wire.opened import as_events
from spillway_balancer.wire.paths import PATHS
from spillway_balancer.wire.prompt_blocks import PromptBlocks, continue_blocks
from spillway_balancer.wire.replies import error_body, error_event
from spillway_balancer.wire.sse import StreamWatch
from spillway_balancer.wire.usage import AnswerText

PATH = PATHS["/v1/messages"]
STREAM = (Path(__file__).parent / "golden" / "streams" / "messages-tools.sse").read_bytes()
LONG = "All happy families are alike; every unhappy family is unhappy in its own way. " * 12
PNG = "iVBORw0KGgo" * 2_000


def peeked(**body: Any) -> Any:
    return openai.peek(PATH, "application/json", json.dumps({"model": "m", "max_tokens": 9, **body}).encode())


def prompt(**body: Any) -> PromptBlocks:
    found = peeked(**body).prompt(7)
    assert found is not None
    return found


def picture(data: str = PNG, **more: Any) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}, **more}


def event(kind: str, **said: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **said})}\n\n".encode()


# ---- streams


def test_frames_and_pings_are_no_content_and_message_stop_is_the_end() -> None:
    events = [part + b"\n\n" for part in STREAM.split(b"\n\n")[:-1]]
    watch = StreamWatch("message-stop")
    outs = [watch.feed(each) for each in events]
    assert outs[:3] == [b""] * 3
    assert outs[3] == b"".join(events[:4])
    assert b"".join(outs) == STREAM
    assert watch.finished
    cut = StreamWatch("message-stop")
    cut.feed(b"".join(events[:-1]))
    cut.ended()
    assert cut.committed
    assert not cut.finished


@pytest.mark.parametrize(
    "block",
    [
        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        {"type": "redacted_thinking", "data": "abc"},
        {"type": "text", "text": "already"},
        {"type": "something_new"},
    ],
)
def test_a_block_that_says_something_as_it_begins_is_content(block: dict[str, Any]) -> None:
    watch = StreamWatch("message-stop")
    watch.feed(event("content_block_start", index=0, content_block=block))
    assert watch.committed


def test_an_error_ends_a_stream_and_says_what_it_is() -> None:
    overloaded = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    early, late = StreamWatch("message-stop"), StreamWatch("message-stop")
    assert early.feed(event("ping") + overloaded) == b""
    assert early.error is not None
    assert early.error.type == "overloaded_error"
    late.feed(event("content_block_delta", index=0, delta={"type": "text_delta", "text": "a"}))
    assert late.feed(overloaded) == overloaded
    assert late.finished
    assert late.error == early.error


@given(cuts=st.lists(st.integers(1, 400), max_size=30))
def test_a_stream_comes_to_the_same_however_reads_divide_it(cuts: list[int]) -> None:
    watch, text, out, at = StreamWatch("message-stop"), AnswerText(stream=True), b"", 0
    for size in [*cuts, len(STREAM)]:
        if piece := STREAM[at : at + size]:
            out += watch.feed(piece)
            text.feed(piece)
        at += size
    assert out + watch.ended() == STREAM
    assert watch.finished
    assert text.text() == "Okay, let's check the weather for San Francisco, CA:"


# ---- what turns have in common


def turns(first: str, *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": first}, *more]


def test_the_answers_text_goes_on_with_the_chain() -> None:
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {"b": 1, "a": 2}}
    thought = {"type": "thinking", "thinking": "Hm. " + LONG, "signature": "sealed"}
    answer = {"role": "assistant", "content": [thought, {"type": "text", "text": LONG}, call]}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "ok"}]}
    before = prompt(system="Be brief.", messages=turns(LONG))
    after = prompt(system="Be brief.", messages=turns(LONG, answer, {"role": "user", "content": [result]}))
    heard = AnswerText(stream=False)
    heard.feed(json.dumps({"type": "message", **answer}).encode())
    said = heard.text()
    assert said == "Hm. " + LONG + LONG
    chain = [*before.prompt.blocks, *continue_blocks(before, said)]
    assert len(chain) > 2 * len(LONG) // BLOCK_BYTES
    assert list(after.prompt.blocks)[: len(chain)] == chain


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text", "text": LONG},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": LONG}},
        {"type": "tool_result", "tool_use_id": "t1", "content": LONG},
        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": LONG}, picture()]},
        picture(),
        {"type": "document", "source": {"type": "url", "url": LONG}},
    ],
)
def test_marks_of_a_cache_move_and_change_nothing(block: dict[str, Any]) -> None:
    marked = {**block, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    plain = prompt(messages=turns("a", {"role": "user", "content": [block]}))
    assert plain.prompt == prompt(messages=turns("a", {"role": "user", "content": [marked]})).prompt
    assert plain.prompt.blocks


def test_what_a_tool_answers_takes_part_as_text() -> None:
    def answered(content: Any) -> PromptBlocks:
        block = {"type": "tool_result", "tool_use_id": "t1", "content": content}
        return prompt(messages=turns("a", {"role": "user", "content": [block]}))

    assert answered(LONG) == answered([{"type": "text", "text": LONG}])
    assert answered(LONG) != answered(LONG + "x")
    assert answered([picture()]).prompt.size < 2 * MEDIA_BYTES
    written = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": LONG}}
    said = {"type": "text", "text": LONG}
    assert prompt(messages=[{"role": "user", "content": [written]}]) == prompt(
        messages=[{"role": "user", "content": [said]}]
    )


def test_the_prefix_holds_the_system_prompt_and_the_first_turn() -> None:
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    first = peeked(system=system, messages=turns("Hello")).prefix(None)
    assert first == b"system\nBe brief.\nuser\nHello\n"
    more = {"role": "assistant", "content": "Hi"}
    assert peeked(system="Be brief.", messages=turns("Hello", more)).prefix(None) == first


# ---- facts


def test_media_count_as_what_they_cost_and_not_as_their_base64() -> None:
    within = {"type": "tool_result", "tool_use_id": "t", "content": [picture()]}
    for block in (picture(), within, {"type": "document", "source": {"data": PNG, "type": "base64"}}):
        body = peeked(messages=turns("a", {"role": "user", "content": [block]}))
        assert MEDIA_BYTES // 4 < body.prompt_tokens < MEDIA_BYTES
    assert peeked(messages=turns("word " * 8_000)).prompt_tokens > 9_000


def test_images_json_and_tools_are_found() -> None:
    within = {"type": "tool_result", "tool_use_id": "t", "content": [picture()]}
    for block, expected in ((picture(), True), (within, True), ({"type": "text", "text": '"image"'}, False)):
        values = peeked(messages=[{"role": "user", "content": [block]}]).values()
        assert asks.images(values) is expected
    form = {"type": "json_schema", "schema": {}}
    assert asks.wants_json(peeked(output_config={"format": form}, messages=[]).values())
    assert asks.wants_json(peeked(output_format=form, messages=[]).values())
    assert not asks.wants_json(peeked(output_config={"effort": "low"}, messages=[]).values())
    assert asks.tools(peeked(tools=[{"name": "f", "input_schema": {}}], messages=[]).values())
    assert peeked(messages=[]).output_tokens == 9


# body, what becomes of it
THINKING = [
    ({"thinking": {"type": "enabled", "budget_tokens": 5000}}, {"thinking": {"type": "disabled"}}),
    ({"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
    ({"thinking": {"type": "adaptive"}}, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
    ({"output_config": {"effort": "max"}}, {"output_config": {"effort": "low"}}),
    ({"output_config": {"effort": "low"}}, {"output_config": {"effort": "low"}}),
    ({"output_config": {"format": {"type": "x"}}}, {"output_config": {"format": {"type": "x"}}}),
    ({}, {}),
]


@pytest.mark.parametrize(("given", "expected"), THINKING)
def test_clamps_lower_limits_and_thoughts(given: dict[str, Any], expected: dict[str, Any]) -> None:
    body = peeked(messages=[], **{"max_tokens": 9_000, **given})
    edits = Clamped(body, Clamp(max_output_tokens=500, reasoning_effort="low")).edits(None)
    sent = json.loads(b"".join(body.forward("m", edits)))
    assert sent == {"model": "m", "max_tokens": 500, "messages": [], **expected}


def test_a_budget_is_lowered_with_its_limit_and_by_its_effort() -> None:
    def sent(clamp: Clamp) -> Any:
        body = peeked(messages=[], max_tokens=60_000, thinking={"type": "enabled", "budget_tokens": 50_000})
        return json.loads(b"".join(body.forward("m", Clamped(body, clamp).edits(None))))["thinking"]

    assert sent(Clamp(max_output_tokens=4_000))["budget_tokens"] == 3_999
    assert sent(Clamp(reasoning_effort="medium"))["budget_tokens"] == 8_192
    assert sent(Clamp(reasoning_effort="none")) == {"type": "disabled"}


def test_names_that_are_acted_on_must_be_spelled_so() -> None:
    with pytest.raises(AmbiguousKey):
        peeked(Thinking={"type": "enabled"})


def test_headers_of_this_api_go_where_it_is_spoken() -> None:
    headers = [(b"Anthropic-Version", b"2023-06-01"), (b"anthropic-beta", b"a"), (b"x-a", b"1")]
    assert request_headers(headers) == [(b"accept-encoding", b"identity"), (b"x-a", b"1")]
    named = dict(request_headers(headers, messages=True))
    assert named[b"anthropic-version"] == b"2023-06-01"
    assert named[b"anthropic-beta"] == b"a"


# ---- answers of ours


def test_errors_have_the_shape_of_the_api_that_was_asked() -> None:
    error = ModelNotFound("the model 'x' does not exist", param="model")
    said = {"type": "not_found_error", "message": error.message, "code": "model_not_found", "param": "model"}
    assert json.loads(error_body(error, PATH)) == {"type": "error", "error": said}
    assert json.loads(error_body(error, None))["error"]["type"] == "invalid_request_error"
    line, data = error_event(RateLimited("wait", retry_after=2.0), PATH).strip().split(b"\n")
    assert line == b"event: error"
    assert json.loads(data.removeprefix(b"data: "))["error"]["retry_after"] == 2.0
    assert json.loads(error_body(NoReadyEndpoint("no", attempts=("a",)), PATH))["error"]["attempts"] == ["a"]
    assert [anthropic.error_type(each) for each in (413, 418, 500, 502, 529)] == [
        "request_too_large",
        "invalid_request_error",
        "api_error",
        "api_error",
        "overloaded_error",
    ]


def test_a_whole_message_as_the_stream_that_it_would_have_been() -> None:
    content: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "Hm", "signature": "s"},
        {"type": "text", "text": "Hi", "citations": None},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1]}},
        {"type": "something_new", "x": 1},
    ]
    message = {"type": "message", "id": "m", "content": content, "stop_reason": "tool_use", "usage": {"a": 1}}
    stream = as_events(200, json.dumps(message).encode(), PATH)
    events = [json.loads(part.split(b"data: ")[1]) for part in stream.split(b"\n\n")[:-1]]
    assert events[0]["message"] == {**message, "content": [], "stop_reason": None}
    assert [each["content_block"]["type"] for each in events if "content_block" in each] == [
        block["type"] for block in content
    ]
    deltas = [each["delta"] for each in events if each["type"] == "content_block_delta"]
    assert [next(value for key, value in each.items() if key != "type") for each in deltas] == [
        "Hm",
        "s",
        "Hi",
        '{"a":[1]}',
    ]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    assert events[-1] == {"type": "message_stop"}
    failed = as_events(500, b'{"error": "out of memory"}', PATH)
    assert json.loads(failed.split(b"data: ")[1])["error"] == {"type": "api_error", "message": "out of memory"}
