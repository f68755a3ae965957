"""OpenAI's own SDK reads what is written here: served over HTTP, streams and whole answers, tools and errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from openai import AsyncOpenAI
from pydantic import BaseModel

from spillway_balancer.core.learning import Usage
from spillway_balancer.wire.faults import ErrorFacts
from spillway_balancer.wire.translation import conversation
from spillway_balancer.wire.translation.chat_answers import ANSWERING
from spillway_balancer.wire.translation.chat_asks import ASKING
from spillway_balancer.wire.translation.said import (
    Alive,
    Argument,
    Asked,
    Began,
    Done,
    Ended,
    Event,
    Fault,
    Said,
    Thought,
    Told,
)


class Weather(BaseModel):
    city: str


class Now(BaseModel):
    pass


SAID: list[Event] = [
    Began("msg_01", "claude", Usage(30, 10, 1), 1_754_000_000),
    Alive(),
    Thought("Two "),
    Thought("tools."),
    Thought("", "sig"),
    Said("I will "),
    Said("look."),
    Asked(0, "toolu_a", "Weather"),
    Argument(0, '{"city"'),
    Argument(0, ':"Rome"}'),
    Asked(1, "toolu_b", "Now"),
    Told(Usage(30, 10, 25, 5, 8)),
    Ended("tools"),
    Done(),
]


@asynccontextmanager
async def client_of(events: Sequence[Event], error: bytes | None = None) -> AsyncIterator[AsyncOpenAI]:
    """A client of a server that gives this answer to every request, as the request wants it."""
    assert ANSWERING.stream is not None
    assert ANSWERING.whole is not None
    stream, whole = ANSWERING.stream, ANSWERING.whole

    async def answer(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if error is not None:
            return web.Response(status=429, body=error, content_type="application/json")
        if not asked.get("stream"):
            writer = whole(asked["model"])
            return web.Response(body=writer.write(events) + writer.end(), content_type="application/json")
        writer = stream(asked["model"], bool((asked.get("stream_options") or {}).get("include_usage")))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(writer.write((event,)))
        await response.write(writer.end())
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with (
        TestServer(app) as server,
        AsyncOpenAI(base_url=str(server.make_url("/v1")), api_key="k", max_retries=0) as client,
    ):
        yield client


ASK: dict[str, Any] = {"model": "public", "messages": [{"role": "user", "content": "How is the weather in Rome?"}]}
TOOLS = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Now)]


async def test_the_stream_helper_puts_an_answer_with_tools_together() -> None:
    async with client_of(SAID) as client:
        helper = client.chat.completions.stream(**ASK, tools=TOOLS, stream_options={"include_usage": True})
        async with helper as stream:
            kinds = [event.type async for event in stream]
            found = await stream.get_final_completion()
    assert kinds.count("tool_calls.function.arguments.done") == 2
    assert kinds.count("content.done") == 1
    message = found.choices[0].message
    assert message.content == "I will look."
    assert [call.function.parsed_arguments for call in message.tool_calls or ()] == [Weather(city="Rome"), Now()]
    assert [call.id for call in message.tool_calls or ()] == ["toolu_a", "toolu_b"]
    assert found.choices[0].finish_reason == "tool_calls"
    assert (found.id, found.model, found.created) == ("msg_01", "public", 1_754_000_000)
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (30, 25, 55)
    assert found.usage.prompt_tokens_details is not None
    assert found.usage.prompt_tokens_details.cached_tokens == 10
    assert found.usage.completion_tokens_details is not None
    assert found.usage.completion_tokens_details.reasoning_tokens == 8


async def test_a_stream_of_chunks_hands_on_reasoning_beside_what_the_sdk_knows() -> None:
    async with client_of(SAID) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        chunks = [chunk async for chunk in stream]
    assert all(len(chunk.choices) == 1 and chunk.usage is None for chunk in chunks)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert "".join(getattr(delta, "reasoning_content", "") for delta in deltas) == "Two tools."
    assert "".join(delta.content or "" for delta in deltas) == "I will look."


async def test_a_whole_answer_is_parsed() -> None:
    async with client_of(SAID) as client:
        found = await client.chat.completions.parse(**ASK, tools=TOOLS)
    message = found.choices[0].message
    assert [call.function.parsed_arguments for call in message.tool_calls or ()] == [Weather(city="Rome"), Now()]
    assert message.model_extra is not None
    assert message.model_extra["reasoning_content"] == "Two tools."
    assert found.usage is not None
    assert found.usage.total_tokens == 55


async def test_what_the_sdk_hands_back_is_read_with_its_reasoning() -> None:
    async with client_of(SAID) as client:
        found = await client.chat.completions.create(**ASK)
    message = found.choices[0].message.model_dump()
    assert ASKING.read is not None
    body = msgspec.json.encode({"messages": [message]})
    parts = ASKING.read(msgspec.json.decode(body, type=dict[str, msgspec.Raw])).turns[0].parts
    assert parts == (
        conversation.Thought("Two tools.", "sig"),
        conversation.Text("I will look."),
        conversation.ToolUse("toolu_a", "Weather", b'{"city":"Rome"}'),
        conversation.ToolUse("toolu_b", "Now", b"{}"),
    )


async def test_a_fault_within_a_stream_raises_what_the_provider_has_said() -> None:
    fault = Fault(ErrorFacts(None, "overloaded_error"), "Overloaded")
    async with client_of([*SAID[:6], fault, Done()]) as client:
        with pytest.raises(openai.APIError, match="Overloaded") as caught:
            _ = [chunk async for chunk in await client.chat.completions.create(**ASK, stream=True)]
    assert caught.value.type == "overloaded_error"


async def test_an_error_body_raises_the_class_of_its_status() -> None:
    assert ANSWERING.error is not None
    body = ANSWERING.error(429, "Slow down", "rate_limit_error", "rate_limit_exceeded")
    async with client_of([], body) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**ASK)
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")
