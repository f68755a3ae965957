"""The prefix of a conversation: equal where engines can share their cache, and indifferent to how JSON is written."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.wire import openai
from spillway_balancer.wire.paths import PATHS


def prefix(request: dict[str, Any], chars: int | None = None, path: str = "/v1/chat/completions") -> bytes | None:
    return openai.peek(PATHS[path], "", json.dumps({"model": "m", **request}).encode()).prefix(chars)


SYSTEM = {"role": "system", "content": "Be brief."}
HELLO = {"role": "user", "content": "Hello"}


def test_it_ends_with_the_first_message_of_the_user() -> None:
    assert prefix({"messages": [SYSTEM, HELLO]}) == b"system\nBe brief.\nuser\nHello\n"
    later = [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "And now?"}]
    assert prefix({"messages": [SYSTEM, HELLO, *later]}) == prefix({"messages": [SYSTEM, HELLO]})


def test_without_a_user_all_messages_take_part() -> None:
    messages = [SYSTEM, {"role": "assistant", "content": "Hi"}]
    assert prefix({"messages": messages}) == b"system\nBe brief.\nassistant\nHi\n"


@pytest.mark.parametrize("chars", [1, 7, 16, 17, 100])
def test_it_is_cut_to_characters_not_bytes(chars: int) -> None:
    full = "system\nÄÖÜ€\nuser\nHällo\n"
    messages = [{"role": "system", "content": "ÄÖÜ€"}, {"role": "user", "content": "Hällo"}]
    assert prefix({"messages": messages}, chars) == full[:chars].encode()


def test_text_parts_count_as_their_text() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert prefix({"messages": [{"role": "user", "content": parts}]}) == prefix({"messages": [HELLO]})


def test_images_take_part_by_what_they_are() -> None:
    def with_image(url: str) -> bytes | None:
        image = {"type": "image_url", "image_url": {"url": url}}
        return prefix({"messages": [{"role": "user", "content": [image, {"type": "text", "text": "What?"}]}]})

    assert with_image("https://a/1.png") == with_image("https://a/1.png")
    assert with_image("https://a/1.png") != with_image("https://a/2.png")
    data = with_image("data:image/png;base64," + "A" * 100_000)
    assert data is not None
    assert len(data) < 100


def test_tools_take_part_and_are_not_counted() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    plain = prefix({"messages": [HELLO]}, 6)
    with_tools = prefix({"messages": [HELLO], "tools": tools}, 6)
    assert plain is not None
    assert with_tools is not None
    assert with_tools != plain
    assert with_tools.endswith(plain)
    assert prefix({"messages": [HELLO], "tools": []}, 6) == plain


@pytest.mark.parametrize("field", ["system", "instructions"])
def test_a_system_prompt_outside_the_messages_takes_part(field: str) -> None:
    assert prefix({"messages": [HELLO], field: "Be brief."}) == prefix({"messages": [SYSTEM, HELLO]})


def test_an_input_of_responses_is_a_conversation() -> None:
    expected = b"system\nBe brief.\nuser\nHello\n"
    as_text = prefix({"input": "Hello", "instructions": "Be brief."}, path="/v1/responses")
    as_list = prefix(
        {
            "instructions": "Be brief.",
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}],
        },
        path="/v1/responses",
    )
    assert as_text == expected
    assert as_list == expected


def test_items_of_responses_that_are_no_messages_take_part_by_hash() -> None:
    def after(output: str) -> bytes | None:
        item = {"type": "function_call_output", "call_id": "c", "output": output}
        return prefix({"input": [item, HELLO]}, path="/v1/responses")

    assert after("1") != after("2")


@pytest.mark.parametrize(
    ("request_", "path", "expected"),
    [
        ({"prompt": "once upon"}, "/v1/completions", b"once upon"),
        ({"prompt": ["first", "second"]}, "/v1/completions", b"first"),
        ({"prompt": [1, 2, 3]}, "/v1/completions", b"1,2,3"),
        ({"prompt": [[1, 2], [3]]}, "/v1/completions", b"1,2"),
        ({"prompt": "x" * 5000}, "/v1/completions", b"x" * 1024),
        ({"input": ["embed me"]}, "/v1/embeddings", b"embed me"),
        ({"query": "q", "documents": ["d"]}, "/v1/rerank", b"q"),
        ({"text_1": "a", "text_2": "b"}, "/v1/score", b"a"),
        ({}, "/v1/chat/completions", None),
        ({"messages": []}, "/v1/chat/completions", None),
        ({"messages": None}, "/v1/chat/completions", None),
        ({"prompt": []}, "/v1/completions", None),
        ({"prompt": ""}, "/v1/completions", None),
        ({"prompt": None}, "/v1/completions", None),
    ],
)
def test_without_messages_the_first_prompt_counts(request_: dict[str, Any], path: str, expected: bytes | None) -> None:
    assert prefix(request_, path=path) == expected


def test_a_prompt_is_cut_to_the_given_characters() -> None:
    assert prefix({"prompt": "x" * 5000}, 3000, "/v1/completions") == b"x" * 3000


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_number_that_no_float_holds_leaves_the_request_without_a_prefix(number: str) -> None:
    for body in ('{"model": "m", "messages": [{"role": "user", "content": %s}]}', '{"model": "m", "prompt": [%s]}'):
        peeked = openai.peek(PATHS["/v1/chat/completions"], "", (body % number).encode())
        assert peeked.prefix(None) is None
        assert peeked.prompt(0) is None


@pytest.mark.parametrize("messages", [7, "text", {"role": "user"}, [7, None, "x"], [{"content": {"a": 1}}], [[]]])
def test_messages_of_an_unknown_shape_do_no_harm(messages: object) -> None:
    prefix({"messages": messages})


TEXT = st.text(max_size=12)
PARTS = st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXT})
    | st.fixed_dictionaries(
        {"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": TEXT, "detail": TEXT})}
    ),
    max_size=3,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "assistant", "user", "tool"]), "content": TEXT | PARTS | st.none()},
    optional={"name": TEXT, "tool_calls": st.lists(st.fixed_dictionaries({"id": TEXT, "type": TEXT}), max_size=2)},
)
REQUEST = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, max_size=4)},
    optional={"tools": st.lists(st.dictionaries(TEXT, TEXT, max_size=3), max_size=2), "temperature": st.floats(0, 1)},
)


def shuffled(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        dice.shuffle(keys)
        return {key: shuffled(value[key], dice) for key in keys}
    return [shuffled(item, dice) for item in value] if isinstance(value, list) else value


@given(REQUEST, st.randoms(use_true_random=False), st.none() | st.integers(1, 60))
def test_it_does_not_depend_on_spacing_escapes_or_the_order_of_keys(
    request_: dict[str, Any], dice: random.Random, chars: int | None
) -> None:
    path = PATHS["/v1/chat/completions"]
    request_ = {"model": "m", **request_}
    compact = json.dumps(request_, separators=(",", ":"), ensure_ascii=False)
    spacious = json.dumps(shuffled(request_, dice), indent=2)
    one, other = (openai.peek(path, "", body.encode()).prefix(chars) for body in (compact, spacious))
    assert one == other
