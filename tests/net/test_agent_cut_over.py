"""A coding agent's session through /v1/messages: served at home, cut over to Anthropic in the middle of a loop of tools
by a spill, and back again, with the official SDK as the agent and a strict fake of Anthropic at the other end.

Home are engines that speak chat completions, think aloud without signing it, and count their calls in ids that
Anthropic does not take (`functions.run:0`, as Kimi's models do); or such as speak Messages themselves, and sign their
thoughts with a random number, as vLLM does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count, pairwise
from typing import Any

import anthropic
import pytest

from spillway_balancer.provider.keys import Key
from spillway_balancer.provider.server import ProviderServer
from spillway_balancer.provider.state import Settings

SPILL = {"inFlightPerEndpoint": {"start": 0, "full": 1}, "smoothing": "0s", "minDwell": "0s"}
RUN: Any = {"name": "run", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}}}
SYSTEM: Any = [{"type": "text", "text": "You are an agent. " * 60, "cache_control": {"type": "ephemeral"}}]
GO_ON = "1 failed; run it again"
HOLD = "hold"


def chatting(say: Any) -> Any:
    """An engine: it calls the tool that it is told to, and ends otherwise; what says `hold` it keeps."""

    async def behave(call: Any) -> None:
        body = call.json()
        last = json.dumps(body["messages"][-1]["content"])
        if HOLD in last:
            await call.hang()
        number = sum(message["role"] == "tool" for message in body["messages"])
        deltas: list[dict[str, Any]] = [{"role": "assistant"}, {"reasoning_content": f"Thought {number}."}]
        if "run" in last:
            for at, piece in enumerate(("", '{"command":', ' "pytest"}')):
                head = {"id": f"functions.run:{number}", "type": "function"} if at == 0 else {}
                function = {"arguments": piece} | ({"name": "run"} if at == 0 else {})
                deltas.append({"tool_calls": [{"index": 0, **head, "function": function}]})
        else:
            deltas.append({"content": "All is well."})
        end = "tool_calls" if "run" in last else "stop"
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": end})
        usage = {"prompt_tokens": 400, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 300}}
        told = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "demo"}
        chunks: list[dict[str, Any]] = [{**told, "choices": [choice]} for choice in choices]
        chunks.append({**told, "choices": [], "usage": usage})
        events = [b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks]
        call.write(say.SSE + say.chunks(*events, b"data: [DONE]\n\n") + say.END)

    return behave


def speaking(say: Any) -> Any:
    """The same in Messages."""

    async def behave(call: Any) -> None:
        messages = call.json()["messages"]
        last = json.dumps(messages[-1]["content"])
        if HOLD in last:
            await call.hang()
        thought = [
            {"type": "thinking_delta", "thinking": "Hm."},
            {"type": "signature_delta", "signature": "5f2b0c9c" * 4},
        ]
        use = {"type": "tool_use", "id": f"chatcmpl-tool-{len(messages)}", "name": "run", "input": {}}
        handed = [{"type": "input_json_delta", "partial_json": '{"command": "pytest"}'}]
        text = {"type": "text", "text": ""}, [{"type": "text_delta", "text": "All is well."}]
        blocks = [({"type": "thinking", "thinking": "", "signature": ""}, thought)]
        blocks.append((use, handed) if "run" in last else text)
        usage = {"input_tokens": 400, "output_tokens": 20}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "demo", "content": []}
        events: list[dict[str, Any]] = [{"type": "message_start", "message": {**message, "usage": usage}}]
        for at, (start, deltas) in enumerate(blocks):
            events.append({"type": "content_block_start", "index": at, "content_block": start})
            events += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": at})
        end = "tool_use" if "run" in last else "end_turn"
        events.append({"type": "message_delta", "delta": {"stop_reason": end, "stop_sequence": None}, "usage": usage})
        events.append({"type": "message_stop"})
        said = [f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events]
        call.write(say.SSE + say.chunks(*said) + say.END)

    return behave


class Agent:
    """One session. `went` says where each of its turns was answered."""

    def __init__(self, sdk: anthropic.AsyncAnthropic, thinking: dict[str, Any]) -> None:
        self._sdk = sdk
        self._thinking = thinking
        self.messages: list[Any] = [{"role": "user", "content": "Make the tests pass: run them."}]
        self.went: list[str] = []
        self.said: list[anthropic.types.Message] = []

    async def turn(self, answer: str = GO_ON) -> anthropic.types.Message:
        """The model's turn, and what its tools come to."""
        stream = self._sdk.messages.stream(
            model="chat",
            max_tokens=4096,
            system=SYSTEM,
            messages=self.messages,
            tools=[RUN],
            extra_body={"thinking": self._thinking},
            extra_headers={"x-spillway-explain": "1"},
        )
        async with stream as said:
            message = await said.get_final_message()
            told = dict(pair.split("=", 1) for pair in said.response.headers["x-spillway-explain"].split("; "))
        self.went.append(told["tier"])
        self.said.append(message)
        self.messages.append({"role": "assistant", "content": [block.to_dict() for block in message.content]})
        calls = [block for block in message.content if block.type == "tool_use"]
        assert (message.stop_reason == "tool_use") == bool(calls)
        if calls:
            results = [{"type": "tool_result", "tool_use_id": call.id, "content": answer} for call in calls]
            self.messages.append({"role": "user", "content": results})
        return message


@pytest.fixture
async def away() -> AsyncIterator[ProviderServer]:
    """Anthropic."""
    async with ProviderServer(Settings("anthropic", keys=(Key("main", "fake-key"),))) as server:
        yield server


@pytest.fixture(params=["chat", "messages"])
async def town(request, serve, endpoint, say, objects, away, tmp_path) -> AsyncIterator[Any]:
    """`lb, sdk, homes`: two engines at home, and Anthropic behind them."""
    native = request.param == "messages"
    homes = [await endpoint(speaking(say) if native else chatting(say)) for _ in range(2)]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "api-key").write_text("fake-key")
    source = {"provider": {"type": "Anthropic"}}
    models = [{"name": "claude", "upstreamName": "claude-sonnet-4-5"}]
    cloud = objects.provider("cloud", away.url, "a", source=source, models=models)
    tiers = [
        {"name": "home", "pools": [{"name": "local"}], "spill": SPILL},
        {"name": "away", "pools": [{"name": "cloud"}]},
    ]
    route = objects.route(tiers=tiers)
    own = [{"name": "demo", "capabilities": ["Chat", "Tools", *(["Messages"] if native else [])]}]
    lb = await serve(docs=[objects.pool("local", *homes, models=own), cloud, route], secrets=tmp_path)
    async with anthropic.AsyncAnthropic(base_url=lb.url, api_key="anything", max_retries=0) as sdk:
        yield lb, sdk, homes


class Burst:
    """Other requests that keep the engines at home busy, as long as it lasts."""

    def __init__(self, lb: Any, sdk: anthropic.AsyncAnthropic) -> None:
        self._lb = lb
        self._sdk = sdk
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> None:
        for number in count():
            if all(self._lb.endpoint(name).load.in_flight for name in ("e1", "e2")):
                return
            say = f"{number} {HOLD}"
            ask = self._sdk.messages.create(model="chat", max_tokens=9, messages=[{"role": "user", "content": say}])
            self._tasks.add(asyncio.create_task(ask))
            before = self._lb.in_flight
            await self._lb.until(
                lambda before=before: self._lb.in_flight > before or any(t.done() for t in self._tasks)
            )
            self._tasks = {task for task in self._tasks if not task.done()}

    async def _held(self, before: int) -> None:
        """The last of them is at home, or was answered elsewhere."""
        await self._lb.until(lambda: self._lb.in_flight > before or any(task.done() for task in self._tasks))
        self._tasks = {task for task in self._tasks if not task.done()}

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lb.until(lambda: self._lb.in_flight == 0)


@pytest.mark.parametrize(
    "thinking", [{"type": "disabled"}, {"type": "adaptive"}, {"type": "enabled", "budget_tokens": 1024}], ids=str
)
async def test_a_session_is_cut_over_in_a_loop_of_tools_and_comes_home(town, away, thinking) -> None:
    lb, sdk, homes = town
    agent = Agent(sdk, thinking)
    for _ in range(3):
        await agent.turn()
    async with Burst(lb, sdk):
        for _ in range(3):
            await agent.turn()
    for _ in range(2):
        await agent.turn()
    async with Burst(lb, sdk):
        await agent.turn()
        await agent.turn("all passed")
        last = await agent.turn()
    assert agent.went == ["home"] * 3 + ["away"] * 3 + ["home"] * 2 + ["away"] * 3
    assert last.stop_reason == "end_turn"
    calls = [block.id for message in agent.said for block in message.content if block.type == "tool_use"]
    assert len(calls) == len(set(calls)) == 10
    assert all(block.input for message in agent.said for block in message.content if block.type == "tool_use")
    served = [call for one in homes for call in one.calls if HOLD not in json.dumps(call.json()["messages"][-1])]
    assert len(served) == 5
    assert sum(any(call in one.calls for call in served) for one in homes) == 1, "one engine has its prefix"
    bodies = [call.json() for call in served]
    for earlier, later in pairwise(bodies):
        shared = len(earlier["messages"])
        assert later["messages"][:shared] == earlier["messages"], "the prefix in the engine's cache grows at its end"
    asked, answered = paired(bodies[-1]["messages"])
    assert asked == answered == calls[:7], "what was called there is known here"


def paired(messages: list[Any]) -> tuple[list[str], list[str]]:
    """Ids of calls and of their results, in either API."""
    blocks = [each for message in messages for each in message["content"] or () if isinstance(each, dict)]
    asked = [use["id"] for message in messages for use in message.get("tool_calls") or ()]
    asked += [each["id"] for each in blocks if each["type"] == "tool_use"]
    answered = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    return asked, answered + [each["tool_use_id"] for each in blocks if each["type"] == "tool_result"]
