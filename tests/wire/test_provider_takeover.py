"""A session that spills in the middle of its tools and passes through: calls as the next provider takes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spillway_api.providers import PRESETS
from spillway_balancer.wire.openai import peek
from spillway_balancer.wire.paths import PATHS
from spillway_balancer.wire.providers.fields import adapted

CHAT = "/v1/chat/completions"
CALL = {"id": "chatcmpl-tool-1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
OWN = {"id": "a1B2c3D4e", "type": "function", "function": {"name": "g", "arguments": "{}"}}
SIGNED = CALL | {"extra_content": {"google": {"thought_signature": "c2ln"}}}


def session(*calls: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": "a", "x": 1.0},
        {"role": "assistant", "content": None, "tool_calls": list(calls)},
        *({"role": "tool", "tool_call_id": call["id"], "content": "1"} for call in calls),
        {"role": "user", "content": "b"},
    ]


def sent(messages: Any, provider: str, model: str) -> Any:
    body = json.dumps({"messages": messages, "model": "m", "seed": 3}).encode()
    peeked = peek(PATHS[CHAT], "application/json", body)
    out = b"".join(peeked.forward("m", adapted(peeked, PRESETS[provider], model)))
    found = json.loads(out)
    assert found | {"messages": None} == {"messages": None, "model": "m", "seed": 3}
    if found["messages"] == messages:
        assert out == body, "what need not be changed stays byte for byte"
    return found["messages"]


def test_mistral_gets_ids_of_its_own_and_an_answer_between_tool_and_user() -> None:
    given = session(CALL, OWN)
    found = sent(given, "Mistral", "mistral-large-latest")
    made = found[1]["tool_calls"][0]["id"]
    assert len(made) == 9
    assert made.isalnum()
    assert found[2] == given[2] | {"tool_call_id": made}
    assert found[1]["tool_calls"][1] == OWN
    assert found[3] == given[3]
    assert [message["role"] for message in found] == ["user", "assistant", "tool", "tool", "assistant", "user"]
    assert sent(found, "Mistral", "mistral-large-latest") == found


@pytest.mark.parametrize(("provider", "model"), [("Gemini", "gemini-3-pro"), ("VertexAI", "google/gemini-3.5-flash")])
def test_gemini_gets_a_word_for_the_signature_of_anothers_call(provider: str, model: str) -> None:
    found = sent(session(CALL, OWN), provider, model)
    unsigned = {"google": {"thought_signature": "skip_thought_signature_validator"}}
    assert found[1]["tool_calls"] == [CALL | {"extra_content": unsigned}, OWN]
    assert found[2:] == session(CALL, OWN)[2:]


THOUGHT = {"role": "assistant", "content": "b", "reasoning_content": "Hm", "reasoning": "Hm", "reasoning_details": [{}]}
PLAIN = {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    ("provider", "given", "expected"),
    [
        ("OpenAI", THOUGHT, PLAIN),
        ("AzureOpenAI", THOUGHT, PLAIN),
        ("Mistral", THOUGHT, PLAIN),
        ("Mistral", PLAIN | {"refusal": None, "annotations": [], "tool_calls": None}, PLAIN),
        ("OpenAI", PLAIN | {"refusal": None}, PLAIN | {"refusal": None}),
        ("Groq", THOUGHT, PLAIN | {"reasoning": "Hm"}),
        ("OpenRouter", THOUGHT, THOUGHT),
        ("DeepSeek", THOUGHT, THOUGHT),
        ("DeepSeek", PLAIN, PLAIN | {"reasoning_content": ""}),
        ("DeepSeek", PLAIN | {"reasoning": "Hm"}, PLAIN | {"reasoning": "Hm", "reasoning_content": "Hm"}),
        ("DeepSeek", PLAIN | {"reasoning": None}, PLAIN | {"reasoning": None, "reasoning_content": ""}),
    ],
)
def test_reasoning_of_another_model_stands_as_the_provider_wants_it(provider: str, given: Any, expected: Any) -> None:
    user = {"role": "user", "content": 'the "reasoning"'}
    assert sent([user, given, user], provider, "m") == [user, expected, user]


@pytest.mark.parametrize(
    ("messages", "provider", "model"),
    [
        (session(SIGNED, OWN), "Gemini", "gemini-3-pro"),
        (session(CALL), "Gemini", "gemini-2.5-pro"),
        (session(CALL), "OpenAI", "gemini-3-pro"),
        (session(OWN)[:-1], "Mistral", "m"),
        ([{"role": "user", "content": "tool_calls"}], "Mistral", "m"),
        ([{"role": "user", "tool_calls": None}], "Mistral", "m"),
        ([{"role": "user", "tool_calls": 3}], "Mistral", "m"),
        ([{"role": "user", "tool_call_id": 3}], "Mistral", "m"),
        (['"tool_calls"'], "Mistral", "m"),
        ('"tool_calls"', "Mistral", "m"),
    ],
)
def test_what_need_not_be_changed_or_is_wrong_stays_as_it_came(messages: Any, provider: str, model: str) -> None:
    assert sent(messages, provider, model) == messages
