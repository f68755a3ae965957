"""An agent's session that goes from provider to provider in the middle of its tools, in either client's API.

Each turn is served by another fake, which checks what the real one checks: ids of calls, results that belong to them,
signatures of thoughts. Where client and provider speak the same API the body passes through, as in the balancer.
"""

from __future__ import annotations

import json
from typing import Any, Final

import aiohttp
import msgspec
import pytest

from spillway_api.providers import PRESETS
from spillway_balancer.provider.families import FAMILIES
from spillway_balancer.wire.openai import peek
from spillway_balancer.wire.paths import PATHS
from spillway_balancer.wire.providers.fields import adapted
from spillway_balancer.wire.translation.pairs import ANSWERING, Asked
from spillway_balancer.wire.translation.said import Done

from .conftest import Fake

SERVED_BY: Final = {
    "openai": ("OpenAI", "gpt-5"),
    "mistral": ("Mistral", "mistral-large-latest"),
    "gemini": ("Gemini", "gemini-3-pro"),
    "groq": ("Groq", "llama-3.3-70b-versatile"),
    "deepseek": ("DeepSeek", "deepseek-chat"),
    "anthropic": ("Anthropic", "claude-sonnet-4-5"),
    "bedrock": ("Bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
}
WAYS: Final = [
    ("groq", "groq", "anthropic", "anthropic", "groq"),  # home, a spill, and home again
    ("anthropic", "openai", "bedrock", "mistral", "anthropic", "gemini"),
    ("bedrock", "deepseek", "gemini", "openai", "mistral", "bedrock"),
]
SCHEMA: Final = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
GOES_ON: Final = "two files are left: use read_file"


class Client:
    """An agent: it hands back what it was told, and what its tools have answered."""

    api = ""

    def __init__(self) -> None:
        self.messages: list[Any] = [{"role": "user", "content": "please use read_file"}]

    def body(self, model: str) -> dict[str, Any]:
        raise NotImplementedError

    def take(self, answer: dict[str, Any]) -> int:
        """The answer, to be handed back with results of its tools; how many it asked for."""
        raise NotImplementedError


class Claude(Client):
    api = "messages"

    def body(self, model: str) -> dict[str, Any]:
        tool = {"name": "read_file", "description": "Reads.", "input_schema": SCHEMA}
        thinking = {"type": "enabled", "budget_tokens": 1024}
        system = [{"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}}]
        asked = {"system": system, "messages": self.messages, "tools": [tool], "thinking": thinking}
        return {"model": model, "max_tokens": 4096, "stream": True, **asked}

    def take(self, answer: dict[str, Any]) -> int:
        calls = [block for block in answer["content"] if block["type"] == "tool_use"]
        assert (answer["stop_reason"] == "tool_use") == bool(calls)
        results = [{"type": "tool_result", "tool_use_id": call["id"], "content": GOES_ON} for call in calls]
        self.messages += [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": results}]
        return len(calls)


class Gpt(Client):
    api = "chat"
    kept: frozenset[str] = frozenset({"role", "content", "tool_calls"})

    def body(self, model: str) -> dict[str, Any]:
        tool = {"type": "function", "function": {"name": "read_file", "description": "Reads.", "parameters": SCHEMA}}
        system = {"role": "system", "content": "You are an agent."}
        return {"model": model, "stream": True, "messages": [system, *self.messages], "tools": [tool]}

    def take(self, answer: dict[str, Any]) -> int:
        (choice,) = answer["choices"]
        message = choice["message"]
        calls = message.get("tool_calls", ())
        assert (choice["finish_reason"] == "tool_calls") == bool(calls)
        kept = {name: value for name, value in message.items() if name in self.kept}
        results = [{"role": "tool", "tool_call_id": call["id"], "content": GOES_ON} for call in calls]
        self.messages += [kept, *results]
        return len(calls)


class Keeper(Gpt):
    """Hands back all that it was told of an answer, reasoning and its signatures too."""

    kept = frozenset({*Gpt.kept, "refusal", "reasoning_content", "reasoning_details"})

    def body(self, model: str) -> dict[str, Any]:
        effort = {} if model.startswith(("llama", "mistral")) else {"reasoning_effort": "low"}
        return super().body(model) | effort


@pytest.mark.parametrize("client", [Claude, Gpt, Keeper])
@pytest.mark.parametrize("way", WAYS, ids="-".join)
async def test_a_session_goes_on_wherever_it_is_served(
    fake: Fake, session: aiohttp.ClientSession, client: type[Client], way: tuple[str, ...]
) -> None:
    agent = client()
    for name in way:
        preset, model = SERVED_BY[name]
        api = FAMILIES[name].api
        sent = json.dumps(agent.body(model)).encode()
        path, body = f"/v1/{'messages' if api == 'messages' else 'chat/completions'}", sent
        if api != agent.api:
            asked = Asked(agent.api, msgspec.json.decode(sent, type=dict[str, msgspec.Raw]))
            assert asked.uncarried(api, preset, model) == ()
            path, body = asked.body(api, preset, model)
        else:
            peeked = peek(PATHS[path], "application/json", sent)
            body = b"".join(peeked.forward(model, adapted(peeked, PRESETS[preset], model)))
        server = await fake(name)
        url = server.base_url + path.removeprefix("/v1") if api == "chat" else server.url + path
        headers = {"authorization": "Bearer fake-key", "x-api-key": "fake-key", "api-key": "fake-key"}
        headers |= {"anthropic-version": "2023-06-01", "content-type": "application/json"}
        async with session.post(url, data=body, headers=headers) as response:
            data = await response.read()
            assert response.status == 200, (name, data)
            reader = ANSWERING[api].reader(response.headers["content-type"])
        events = [*reader.feed(data), *reader.end()]
        assert isinstance(events[-1], Done), (name, events[-1])
        whole = ANSWERING[agent.api].whole
        assert whole is not None
        writer = whole(model)
        assert agent.take(json.loads(writer.write(events) + writer.end())) == 1, name
