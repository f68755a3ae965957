"""A rule's clamps: what a body asks for is lowered and never raised, and every other byte of it stays."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.types import Clamp, ReasoningEffort
from spillway_balancer.core.errors import AmbiguousKey
from spillway_balancer.wire import openai
from spillway_balancer.wire.clamps import LIMITS, Clamped
from spillway_balancer.wire.paths import PATHS

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


def clamped(
    body: str,
    path: str = CHAT,
    provider: str | None = None,
    tokens: int | None = None,
    effort: Any = None,
    to: str = "m",
) -> str:
    peeked = openai.peek(PATHS[path], "application/json", body.encode())
    edits = Clamped(peeked, Clamp(max_output_tokens=tokens, reasoning_effort=effort)).edits(provider)
    return b"".join(peeked.forward(to, edits)).decode()


# path, provider, the body, what becomes of it with at most 100 tokens
TOKENS = [
    (CHAT, None, '{"model": "m", "n": 1}', '{"model": "m","max_tokens":100, "n": 1}'),
    (CHAT, "OpenAICompatible", '{"model":"m"}', '{"model":"m","max_tokens":100}'),
    (CHAT, "OpenAI", '{"model":"m"}', '{"model":"m","max_completion_tokens":100}'),
    (CHAT, "AzureOpenAI", '{"model":"m"}', '{"model":"m","max_completion_tokens":100}'),
    (CHAT, "Mistral", '{"model":"m"}', '{"model":"m","max_tokens":100}'),
    (CHAT, "OpenAI", '{"max_tokens": 500, "model":"m"}', '{"max_tokens": 100, "model":"m"}'),
    (CHAT, None, '{"model":"m", "max_tokens" : 7 }', '{"model":"m", "max_tokens" : 7 }'),
    (CHAT, None, '{"model":"m","max_tokens":100}', '{"model":"m","max_tokens":100}'),
    (CHAT, None, '{"model":"m","max_tokens":101}', '{"model":"m","max_tokens":100}'),
    (
        CHAT,
        None,
        '{"max_completion_tokens":7,"model":"m","max_tokens":800}',
        '{"max_completion_tokens":7,"model":"m","max_tokens":100}',
    ),
    (CHAT, None, '{"model":"m","max_tokens":null}', '{"model":"m","max_tokens":100}'),
    (CHAT, "OpenAI", '{"model":"m","max_tokens":null}', '{"model":"m","max_completion_tokens":100,"max_tokens":null}'),
    (CHAT, None, '{"model":"m","max_output_tokens":5}', '{"model":"m","max_tokens":100,"max_output_tokens":5}'),
    (CHAT, None, '{"model":"m","max_tokens":-1}', '{"model":"m","max_tokens":100}'),
    (CHAT, None, '{"model":"m","max_tokens":0}', '{"model":"m","max_tokens":1}'),
    (CHAT, None, '{"model":"m","max_tokens":"800"}', '{"model":"m","max_tokens":100}'),
    (CHAT, None, '{"model":"m","max_tokens":"80"}', '{"model":"m","max_tokens":"80"}'),
    (CHAT, None, '{"model":"m","max_tokens":true}', '{"model":"m","max_tokens":true}'),
    (CHAT, None, '{"model":"m","max_tokens":[1]}', '{"model":"m","max_tokens":100}'),
    (CHAT, None, '{"model":"m","max_tokens":1e400}', '{"model":"m","max_tokens":100}'),
    (CHAT, None, '{"model":"m","max_tokens":9.5,"n_predict":-1}', '{"model":"m","max_tokens":9.5,"n_predict":100}'),
    (COMPLETIONS, "OpenAI", '{"model":"m","prompt":"p"}', '{"model":"m","max_tokens":100,"prompt":"p"}'),
    (RESPONSES, None, '{"model":"m","input":"p"}', '{"model":"m","max_output_tokens":100,"input":"p"}'),
    (RESPONSES, None, '{"model":"m","max_output_tokens":1000}', '{"model":"m","max_output_tokens":100}'),
    ("/v1/embeddings", None, '{"model":"m","input":"p"}', '{"model":"m","input":"p"}'),
    (CHAT, None, '{"api_key":"k","model":"m","api_base":"u"}', '{"model":"m","max_tokens":100}'),
]


@pytest.mark.parametrize(("path", "provider", "body", "expected"), TOKENS)
def test_the_most_tokens_of_an_answer(path: str, provider: str | None, body: str, expected: str) -> None:
    assert clamped(body, path, provider, tokens=100) == expected


# path, clamp, the body, what becomes of it
EFFORTS = [
    (CHAT, "low", '{"model":"m","reasoning_effort":"high"}', '{"model":"m","reasoning_effort":"low"}'),
    (CHAT, "low", '{"model":"m","reasoning_effort":"minimal"}', '{"model":"m","reasoning_effort":"minimal"}'),
    (CHAT, "high", '{"model":"m","reasoning_effort":"xhigh"}', '{"model":"m","reasoning_effort":"high"}'),
    (CHAT, "high", '{"model":"m","reasoning_effort":3}', '{"model":"m","reasoning_effort":"high"}'),
    (CHAT, "low", '{"model":"m"}', '{"model":"m","reasoning_effort":"low"}'),
    (CHAT, "low", '{"model":"m","reasoning_effort":null}', '{"model":"m","reasoning_effort":"low"}'),
    (CHAT, "medium", '{"model":"m"}', '{"model":"m"}'),
    (CHAT, "high", '{"model":"m"}', '{"model":"m"}'),
    (
        CHAT,
        "low",
        '{"model":"m","reasoning":{"effort":"none"}}',
        '{"model":"m","reasoning_effort":"none","reasoning":{"effort":"none"}}',
    ),
    (
        RESPONSES,
        "low",
        '{"model":"m", "reasoning" : { "effort" : "high", "summary":"auto"}}',
        '{"model":"m", "reasoning" : { "effort" : "low", "summary":"auto"}}',
    ),
    (
        RESPONSES,
        "minimal",
        '{"model":"m","reasoning":{ "summary":"auto"}}',
        '{"model":"m","reasoning":{ "effort":"minimal","summary":"auto"}}',
    ),
    (RESPONSES, "low", '{"model":"m","reasoning":{}}', '{"model":"m","reasoning":{"effort":"low"}}'),
    (RESPONSES, "low", '{"model":"m","reasoning":null}', '{"model":"m","reasoning":{"effort":"low"}}'),
    (
        RESPONSES,
        "low",
        '{"model":"m","reasoning":{"effort":null,"a":1}}',
        '{"model":"m","reasoning":{"effort":"low","a":1}}',
    ),
    (RESPONSES, "low", '{"model":"m"}', '{"model":"m","reasoning":{"effort":"low"}}'),
    (
        RESPONSES,
        "medium",
        '{"model":"m","reasoning":{"summary":"auto"}}',
        '{"model":"m","reasoning":{"summary":"auto"}}',
    ),
    (COMPLETIONS, "low", '{"model":"m","prompt":"p"}', '{"model":"m","prompt":"p"}'),
]


@pytest.mark.parametrize(("path", "effort", "body", "expected"), EFFORTS)
def test_the_most_effort_on_reasoning(path: str, effort: str, body: str, expected: str) -> None:
    assert clamped(body, path, effort=effort) == expected


@pytest.mark.parametrize(
    "body",
    [
        '{"model":"m","reasoning":{"effort":"low","effort":"high"}}',
        '{"model":"m","Reasoning_Effort":"high"}',
        '{"model":"m","reasoning_\\u0065ffort":"high"}',
        '{"model":"m","N_Predict":1}',
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(body: str) -> None:
    with pytest.raises(AmbiguousKey):
        clamped(body, RESPONSES, effort="low")


def test_model_and_clamps_change_together() -> None:
    body = '{"cache_salt":"s","max_tokens":9000,"model":"m","reasoning_effort":"high","api_key":"k","x":"\\u00e9"}'
    assert clamped(body, tokens=10, effort="none", to="up") == (
        '{"max_tokens":10,"model":"up","reasoning_effort":"none","x":"\\u00e9"}'
    )


# ---- any body

EFFORT_NAMES = list(get_args(ReasoningEffort))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 300),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["7", "500", " 99 ", "-1", "many", "1e3", "inf", "nan"]),
    st.just([]),
)
OTHERS = st.dictionaries(
    st.sampled_from(["messages", "temperature", "user", "stop", "metadata", "x"]),
    st.recursive(st.integers() | st.text(max_size=8) | st.none(), lambda inner: st.lists(inner, max_size=3)),
)
EFFORTS_GIVEN = st.none() | st.sampled_from([*EFFORT_NAMES, "xhigh", "HIGH", 3, ""])


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    body: dict[str, Any] = {**draw(OTHERS), "model": "m"}
    for name in draw(st.sets(st.sampled_from(LIMITS))):
        body[name] = draw(VALUES)
    if draw(st.booleans()):
        body["reasoning_effort"] = draw(EFFORTS_GIVEN)
    if draw(st.booleans()):
        body["reasoning"] = draw(
            st.none() | st.fixed_dictionaries({}, optional={"effort": EFFORTS_GIVEN, "a": st.text()})
        )
    return dict(draw(st.permutations(list(body.items()))))


def most_allowed(body: dict[str, Any], names: tuple[str, ...]) -> float:
    """Tokens that the most lenient reader of any of these fields lets an answer have."""
    allowed = [_lenient(body[name]) for name in names if body.get(name) is not None]
    return max(allowed, default=math.inf)


def _lenient(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.inf
    return number if number >= 1 else math.inf  # cut to 0, it is no limit


def effort_of(body: dict[str, Any], path: str) -> int:
    nested = body.get("reasoning")
    value = body.get("reasoning_effort") if path == CHAT else nested.get("effort") if isinstance(nested, dict) else None
    if value is None:
        return EFFORT_NAMES.index("medium")
    return EFFORT_NAMES.index(value) if value in EFFORT_NAMES else len(EFFORT_NAMES)


@settings(max_examples=500, deadline=None)
@given(
    bodies(),
    st.sampled_from([CHAT, RESPONSES, COMPLETIONS]),
    st.sampled_from([None, "OpenAI", "OpenAICompatible"]),
    st.none() | st.integers(1, 200),
    st.none() | st.sampled_from(EFFORT_NAMES),
    st.sampled_from([None, 1]),
)
def test_nothing_is_ever_loosened_and_nothing_else_changes(
    body: dict[str, Any], path: str, provider: str | None, tokens: int | None, effort: Any, indent: int | None
) -> None:
    before = json.dumps(body, indent=indent)
    text = clamped(before, path, provider, tokens, effort)
    after = json.loads(text)
    read = {
        CHAT: ("max_completion_tokens", "max_tokens"),
        COMPLETIONS: ("max_tokens",),
        RESPONSES: ("max_output_tokens",),
    }
    had, has = most_allowed(body, read[path]), most_allowed(after, read[path])
    assert has <= had
    if tokens is not None:
        assert has <= tokens
        assert all(_lenient(after[name]) <= tokens for name in LIMITS if after.get(name) is not None)
        for name in LIMITS:  # one that was lower is as it was
            if body.get(name) is not None and 1 <= _lenient(body[name]) <= tokens:
                assert after[name] == body[name]
    if path != COMPLETIONS:
        assert effort_of(after, path) <= effort_of(body, path)
        if effort is not None:
            assert effort_of(after, path) <= EFFORT_NAMES.index(effort)
    ours = {*LIMITS, "reasoning_effort", "reasoning"}
    assert {name: value for name, value in after.items() if name not in ours} == {
        name: value for name, value in body.items() if name not in ours
    }
    assert _rest(after) == _rest(body)
    if tokens is None and effort is None:
        assert text == before
    once = clamped(text, path, provider, tokens, effort)
    assert once == text  # and once more changes nothing


def _rest(body: dict[str, Any]) -> dict[str, Any]:
    nested = body.get("reasoning")
    return {name: value for name, value in nested.items() if name != "effort"} if isinstance(nested, dict) else {}
