"""A session of chat completions with tools: at home, cut over to a provider of another API in the middle, and back.

OpenAI's SDK is the agent; strict fakes are at all ends, and keep books of what they have told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from pydantic import BaseModel

from spillway_balancer.provider.keys import Key
from spillway_balancer.provider.server import ProviderServer
from spillway_balancer.provider.state import Settings

PIXEL = "data:image/png;base64,aGk="
AWAY = {
    "anthropic": ("Anthropic", "claude-sonnet-4-5"),
    "bedrock": ("Bedrock", "eu.anthropic.claude-sonnet-4-20250514-v1:0"),
}


class Read(BaseModel):
    """Reads a file."""

    path: str


class Place(BaseModel):
    city: str


TOOLS = [openai.pydantic_function_tool(Read, name="read_file")]


class Agent:
    """One session, which hands back all that it was told."""

    def __init__(self, sdk: openai.AsyncOpenAI) -> None:
        self._sdk = sdk
        self.messages: list[Any] = [
            {"role": "system", "content": "You are an agent."},
            {"role": "user", "content": "please use read_file"},
        ]

    async def turn(self, away: bool, **asked: Any) -> Any:
        """The answer. What its tools come to asks for the next one."""
        helper = self._sdk.chat.completions.stream(
            model="chat",
            messages=self.messages,
            tools=TOOLS,
            max_completion_tokens=4096,
            stream_options={"include_usage": True},
            extra_headers={"x-away": "yes" if away else "no"},
            **asked,
        )
        async with helper as stream:
            answer = await stream.get_final_completion()
        choice = answer.choices[0]
        self.messages.append(choice.message.model_dump(exclude={"parsed"}, exclude_none=True))
        calls = choice.message.tool_calls or ()
        assert (choice.finish_reason == "tool_calls") == bool(calls)
        for call in calls:
            assert isinstance(call.function.parsed_arguments, Read)
            result = {"role": "tool", "tool_call_id": call.id, "content": "two files are left: use read_file"}
            self.messages.append(result)
        return answer


@pytest.fixture(params=AWAY)
async def town(request, serve, objects, tmp_path) -> AsyncIterator[Any]:
    """`agent, home, away`: an engine's API at home, and another one for requests with a header."""
    kind, model = AWAY[request.param]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "api-key").write_text("fake-key")
    keys = (Key("main", "fake-key"),)
    async with (
        ProviderServer(Settings("fireworks", keys=keys)) as home,
        ProviderServer(Settings(request.param, keys=keys)) as away,
    ):
        own = objects.provider("local", home.base_url, "a", models=[{"name": "demo"}])
        account = {"name": "a", "secretRef": {"name": "a"}, **({"region": "eu-west-1"} if kind == "Bedrock" else {})}
        source = {"provider": {"type": kind, "accounts": [account]}}
        cloud = objects.provider("cloud", away.url, "a", source=source, models=[{"name": "c", "upstreamName": model}])
        rules = [
            {
                "name": "away",
                "when": 'headers["x-away"] == "yes"',
                "tiers": [{"name": "away", "pools": [{"name": "cloud"}]}],
            },
            {"name": "home", "tiers": [{"name": "home", "pools": [{"name": "local"}]}]},
        ]
        lb = await serve(docs=[own, cloud, objects.route("local", rules=rules)], secrets=tmp_path)
        async with openai.AsyncOpenAI(base_url=f"{lb.url}/v1", api_key="anything", max_retries=0) as sdk:
            yield Agent(sdk), home, away


@pytest.mark.parametrize("effort", [{}, {"reasoning_effort": "low"}], ids=["unasked", "low"])
async def test_a_chat_with_tools_is_cut_over_and_comes_home(town, effort) -> None:
    agent, home, away = town
    went = [False] * 2 + [True] * 3 + [False] * 2 + [True]
    answers = [await agent.turn(each, **effort) for each in went]
    calls = [call.id for answer in answers for call in answer.choices[0].message.tool_calls]
    assert len(calls) == len(set(calls)) == len(went), "each turn called the tool"
    for server, there in ((home, False), (away, True)):
        usages = [answer.usage for answer, each in zip(answers, went, strict=True) if each is there]
        (page,) = (await books(server)).values()
        assert sum(usage.prompt_tokens for usage in usages) == page["input"]
        assert sum(usage.completion_tokens for usage in usages) == page["output"]


async def books(server: ProviderServer) -> dict[str, Any]:
    """What it has told, by model."""
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/books") as response:
        told: dict[str, Any] = (await response.json())["keys"]["main"]["told"]
        return told


async def test_a_picture_and_an_answer_of_a_schema(town) -> None:
    agent, _, _ = town
    picture = {"type": "image_url", "image_url": {"url": PIXEL}}
    agent.messages[1:] = [{"role": "user", "content": [{"type": "text", "text": "Where is this?"}, picture]}]
    for away in (False, True):
        answer = await agent.turn(away, response_format=Place)
        assert isinstance(answer.choices[0].message.parsed, Place)
        agent.messages.append({"role": "user", "content": "And now?"})
