"""What bodies ask of a model: tools, images, JSON, a limit; and that no body makes the question fail."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.wire import asks


def values(body: Any) -> dict[str, msgspec.Raw]:
    return msgspec.json.Decoder(dict[str, msgspec.Raw]).decode(msgspec.json.encode(body))


def turn(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"tools": [{"type": "function"}]}, True),
        ({"functions": [{"name": "f"}]}, True),
        ({"tools": [], "functions": [{"name": "f"}]}, True),
        ({"tools": []}, False),
        ({"tools": None}, False),
        ({"tools": "all"}, False),
        ({}, False),
    ],
)
def test_tools(body, expected):
    assert asks.tools(values(body)) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"messages": [turn({"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}})]}, True),
        ({"input": [turn({"type": "input_image", "image_url": "data:,"})]}, True),
        ({"input": [{"type": "input_image", "image_url": "data:,"}]}, True),
        ({"messages": [turn({"type": "text", "text": "image_url"})]}, False),
        ({"messages": [{"role": "user", "content": "image_url"}]}, False),
        ({"messages": [{"role": "assistant", "content": None}]}, False),
        ({"input": "image"}, False),
        ({"messages": [turn({"type": ["image_url"]})]}, False),
    ],
)
def test_images(body, expected):
    assert asks.images(values(body)) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"response_format": {"type": "json_object"}}, True),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, True),
        ({"text": {"format": {"type": "json_schema"}}}, True),
        ({"response_format": {"type": "text"}}, False),
        ({"response_format": "b64_json"}, False),
        ({"text": "json_object"}, False),
        ({"text": {"format": None}}, False),
        ({}, False),
    ],
)
def test_json(body, expected):
    assert asks.wants_json(values(body)) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 5}, 5),
        ({"max_output_tokens": 9}, 9),
        ({"max_completion_tokens": None, "max_tokens": 7}, 7),
        ({"max_tokens": True}, None),
        ({"max_tokens": "7"}, None),
        ({}, None),
    ],
)
def test_limit(body, expected):
    assert asks.output_limit(values(body)) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.sampled_from(["image_url", "json_object", ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "content", "format"]), inner, max_size=3)
    ),
    max_leaves=8,
)
fields = st.sampled_from(["messages", "input", "tools", "functions", "response_format", "text", "max_tokens"])


@given(body=st.dictionaries(fields, json_values))
def test_no_body_makes_a_question_fail(body):
    asked = values(body)
    assert {asks.tools(asked), asks.images(asked), asks.wants_json(asked)} <= {True, False}
    asks.output_limit(asked)
