"""What the balancer's translations write is accepted by the fakes, and what they read is what the fakes' books say.

Both were written after the same public documentation by different hands, and share no code.
"""

from __future__ import annotations

import json
from typing import Any, Final

import aiohttp
import msgspec
import pytest
from benchmarks.providers import TYPES

from spillway_balancer.provider.families import FAMILIES
from spillway_balancer.wire.translation import pairs
from spillway_balancer.wire.translation.conversation import Conversation
from spillway_balancer.wire.translation.dialects import Answering, Api, Asking
from spillway_balancer.wire.translation.said import Asked, Done, Ended, Fault, Said, Thought, Told

from .conftest import Fake, bill

HELLO: Final = {"role": "user", "content": "Hello there"}
SCHEMA: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION: Final = {"type": "function", "function": {"name": "get_weather", "description": "x", "parameters": SCHEMA}}
CALL: Final = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'}}
PICTURE: Final = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
FORMAT: Final = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
TOOL: Final = {"name": "get_weather", "description": "x", "input_schema": SCHEMA}
SOURCE: Final = {"type": "base64", "media_type": "image/png", "data": "aGk="}
USE: Final = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}
FOREIGN: Final = {"type": "thinking", "thinking": "hm", "signature": "no"}
LONG: Final = "a long prompt of many words " * 200

CHATS: Final[dict[str, dict[str, Any]]] = {
    "plain": {"messages": [{"role": "system", "content": "Be kind."}, HELLO]},
    "limited": {"messages": [HELLO], "max_completion_tokens": 7, "stop": ["owl"], "temperature": 0.5},
    "tool": {"messages": [{"role": "user", "content": "use get_weather"}], "tools": [FUNCTION]},
    "forced": {"messages": [HELLO], "tools": [FUNCTION], "tool_choice": "required"},
    "result": {
        "messages": [
            HELLO,
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
            {"role": "user", "content": "and so?"},
        ],
        "tools": [FUNCTION],
    },
    "picture": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, PICTURE]}]},
    "json": {"messages": [HELLO], "response_format": FORMAT},
    "effort": {"messages": [HELLO], "reasoning_effort": "low", "max_completion_tokens": 4096},
}
MESSAGES: Final[dict[str, dict[str, Any]]] = {
    "plain": {"system": "Be kind.", "messages": [HELLO]},
    "tool": {"messages": [{"role": "user", "content": "use get_weather"}], "tools": [TOOL]},
    "result": {
        "messages": [
            HELLO,
            {"role": "assistant", "content": [USE]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no", "is_error": True},
                    {"type": "text", "text": "and so?"},
                ],
            },
        ],
        "tools": [TOOL],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    },
    "picture": {"messages": [{"role": "user", "content": [{"type": "image", "source": SOURCE}]}]},
    "thinking": {"messages": [HELLO], "thinking": {"type": "enabled", "budget_tokens": 1024}},
    "cached": {
        "system": [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}],
        "messages": [HELLO],
    },
    "foreign thoughts": {
        "messages": [
            HELLO,
            {"role": "assistant", "content": [FOREIGN, {"type": "text", "text": "so"}]},
            HELLO,
        ],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    },
}  # fmt: skip
ASKED: Final = [("chat", name) for name in CHATS] + [("messages", name) for name in MESSAGES]


def read(api: Api, name: str, stream: bool) -> Conversation:
    body = {"model": "m", "stream": stream} | (CHATS if api == "chat" else MESSAGES)[name]
    if api == "messages":
        body = {"max_tokens": 4096} | body
    return pairs.Asked(api, msgspec.json.decode(json.dumps(body), type=dict[str, msgspec.Raw])).conversation()


def dialect(type: str) -> tuple[Asking, Answering]:
    api = FAMILIES[type].api
    return pairs.asking(api, TYPES[type]), pairs.ANSWERING[api]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("api", "name"), ASKED)
@pytest.mark.parametrize("type", FAMILIES)
async def test_what_is_written_is_accepted_and_what_is_read_is_in_the_books(
    fake: Fake, session: aiohttp.ClientSession, type: str, api: str, name: str, stream: bool
) -> None:
    asked = read(api, name, stream)
    asking, answering = dialect(type)
    if refused := asking.uncarried(asked):
        assert name in ("picture", "json", "foreign thoughts"), refused
        return
    server = await fake(type)
    model = "anthropic.claude-sonnet-4-5-20250929-v1:0" if type == "bedrock" else "m"
    path, body = asking.write(asked, model)
    url = server.url + path if type in ("anthropic", "bedrock") else server.base_url + path.removeprefix("/v1")
    headers = {"authorization": "Bearer fake-key", "x-api-key": "fake-key", "api-key": "fake-key"}
    headers |= {"anthropic-version": "2023-06-01", "content-type": "application/json"}
    async with session.post(url, data=body, headers=headers) as response:
        data = await response.read()
        assert response.status == 200, data
        reader = answering.reader(response.headers["content-type"])
    events = [*reader.feed(data), *reader.end()]
    assert not [each for each in events if isinstance(each, Fault)]
    assert isinstance(events[-1], Done)
    assert any(isinstance(each, Ended) for each in events)
    usage = [each.usage for each in events if isinstance(each, Told)][-1]
    (page,) = (await bill(session, server))["keys"]["main"]["told"].values()
    assert usage.prompt_tokens == page["input"]
    assert usage.output_tokens == page["output"]
    assert (usage.cached_tokens or 0) == page["cached"]
    assert (usage.written_tokens or 0) == page["written"]
    if FAMILIES[type].chat.thoughts != "hidden" or FAMILIES[type].api == "chat":
        assert (usage.reasoning_tokens or 0) in (page["reasoning"], 0)
    if name in ("tool", "forced"):
        assert any(isinstance(each, Asked) and each.name == "get_weather" for each in events)
    else:
        assert any(isinstance(each, Said) for each in events)
    if name == "thinking" and FAMILIES[type].api != "chat":
        assert any(isinstance(each, Thought) and each.signature for each in events)


def test_every_chat_family_has_a_preset() -> None:
    assert set(TYPES) == set(FAMILIES)
