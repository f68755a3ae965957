"""The page on translation says of fields what the code does with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spillway_api.providers import PRESETS
from spillway_balancer.wire.translation import chat_asks, converse_asks, messages_asks
from spillway_balancer.wire.translation.conversation import Conversation, Media, Text, Turn

PAGE = (Path(__file__).parents[3] / "docs" / "translation.md").read_text()
REFUSED: dict[str, Any] = {
    "n": 2,
    "logprobs": True,
    "logit_bias": {"1": 1},
    "frequency_penalty": 1,
    "presence_penalty": 1,
    "audio": {},
    "modalities": ["text", "audio"],
    "web_search_options": {},
    "functions": [{"name": "f"}],
    "function_call": "auto",
    "response_format": {"type": "json_object"},
}
LEFT_OUT = ("store", "metadata", "safety_identifier", "service_tier", "prompt_cache_key", "seed", "context_management")


def asked(**fields: Any) -> Conversation:
    body = json.dumps({"messages": [{"role": "user", "content": "a"}], **fields}).encode()
    assert chat_asks.ASKING.read is not None
    return chat_asks.ASKING.read(msgspec.json.decode(body, type=dict[str, msgspec.Raw]))


@pytest.mark.parametrize("name", REFUSED)
def test_what_goes_to_chat_pools_alone(name: str) -> None:
    rows = [line for line in PAGE.splitlines() if line.endswith("| to pools that speak chat completions |")]
    assert any(f"`{name}`" in row or (name.endswith("_penalty") and "penalties" in row) for row in rows)
    for asking in (messages_asks.ASKING, converse_asks.ASKING):
        assert asking.uncarried(asked(**{name: REFUSED[name]})) == (name,)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out(name: str) -> None:
    for asking in (messages_asks.ASKING, converse_asks.ASKING, chat_asks.ASKING):
        if (asking, name) != (messages_asks.ASKING, "context_management"):  # which is Anthropic's own
            assert asking.uncarried(asked(**{name: "x"})) == ()
    assert f"`{name}`" in PAGE or "prompt caches" in PAGE


def test_who_takes_what() -> None:
    def told(of: Conversation) -> set[str]:
        chats = {name: preset for name, preset in PRESETS.items() if preset.api == "chat"}
        return {name for name, preset in chats.items() if not chat_asks.asking_of(preset).uncarried(of)}

    without = re.search(r"^\| `top_k` \| not to (.*) \|$", PAGE, re.MULTILINE)
    assert without is not None
    spelled = {"VertexAI": "Vertex AI", "AzureOpenAI": "Azure OpenAI"}
    refusing = PRESETS.keys() - told(asked(top_k=3)) - {"Anthropic", "Bedrock"}
    assert {spelled.get(name, name) for name in refusing} == set(without[1].split(", "))
    pdf = Conversation((Turn("user", (Text("a"), Media("JVBERi0=", kind="application/pdf"))),))
    assert told(pdf) == {"OpenAI", "OpenRouter"}
    assert "| PDF | to Anthropic, Bedrock, OpenAI and OpenRouter |" in PAGE
    for asking in (messages_asks.ASKING, converse_asks.ASKING):
        assert asking.uncarried(pdf) == ()
