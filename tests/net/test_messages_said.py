"""Anthropic's official SDK takes what is written as answers of its API: the writer's bytes, over a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anthropic
import pytest

from spillway_balancer.core.learning import Usage
from spillway_balancer.wire.faults import ErrorFacts
from spillway_balancer.wire.translation.messages_answers import ANSWERING
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

HELLO: dict[str, Any] = {"model": "public", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
TURN: list[Event] = [
    Alive(),
    Began("chatcmpl-1", "upstream", Usage(120, 100)),
    Thought("Two "),
    Thought("cities."),
    Said("I look "),
    Alive(),
    Said("it up."),
    Asked(0, "call:1", "weather"),
    Argument(0, '{"city": '),
    Asked(1, "call:2", "weather"),
    Argument(1, '{"city": "Rome"}'),
    Argument(0, '"Bern"}'),
    Ended("tools"),
    Told(Usage(120, 100, 30, None, 12)),
    Done(),
]


@pytest.fixture
async def speaking(endpoint, say) -> AsyncIterator[Callable[..., Awaitable[anthropic.AsyncAnthropic]]]:
    """The SDK in front of a server that says these events."""
    clients: list[anthropic.AsyncAnthropic] = []
    assert ANSWERING.stream is not None
    assert ANSWERING.whole is not None
    stream, whole = ANSWERING.stream, ANSWERING.whole

    async def start(*events: Event) -> anthropic.AsyncAnthropic:
        async def answers(call: Any) -> None:
            if call.json().get("stream"):
                writer = stream("public", False)
                call.write(say.SSE + say.chunks(*(part for each in events if (part := writer.write([each])))) + say.END)
            else:
                one = whole("public")
                one.write(events)
                call.write(say.message(body=one.end()))

        url = (await endpoint(answers)).url
        clients.append(anthropic.AsyncAnthropic(base_url=url, api_key="anything", max_retries=0))
        return clients[-1]

    yield start
    for each in clients:
        await each.close()


def judged(message: anthropic.types.Message) -> None:
    """What both ways have to come to."""
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    thought, text, bern, rome = message.content
    assert thought.type == "thinking"
    assert (thought.thinking, bool(thought.signature)) == ("Two cities.", True)
    assert text.type == "text"
    assert text.text == "I look it up."
    assert bern.type == rome.type == "tool_use"
    assert [bern.input, rome.input] == [{"city": "Bern"}, {"city": "Rome"}]
    assert bern.id != rome.id
    assert (message.stop_reason, message.model, message.id) == ("tool_use", "public", "chatcmpl-1")
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (20, 100, 30)
    assert usage.output_tokens_details is not None
    assert usage.output_tokens_details.thinking_tokens == 12


async def test_a_message(speaking) -> None:
    sdk = await speaking(*TURN)
    judged(await sdk.messages.create(**HELLO))


async def test_a_stream(speaking) -> None:
    sdk = await speaking(*TURN)
    async with sdk.messages.stream(**HELLO) as stream:
        assert [text async for text in stream.text_stream] == ["I look ", "it up."]
        judged(await stream.get_final_message())


async def test_raw_events(speaking) -> None:
    sdk = await speaking(*TURN)
    events = [event async for event in await sdk.messages.create(**HELLO, stream=True)]
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")


async def test_structured_output_is_parsed(speaking) -> None:
    sdk = await speaking(Began(), Said('{"a":'), Said(" 1}"), Ended("stop"), Told(Usage(1, None, 2)), Done())
    assert json.loads((await sdk.messages.create(**HELLO)).content[0].text) == {"a": 1}


async def test_an_error_in_a_stream_is_raised(speaking) -> None:
    sdk = await speaking(Began(), Said("It"), Fault(ErrorFacts(None, "overloaded_error"), "Overloaded"))
    heard: list[str] = []

    async def listen() -> None:
        async with sdk.messages.stream(**HELLO) as stream:
            async for text in stream.text_stream:
                heard.append(text)  # noqa: PERF401 - what was said before the error counts

    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        await listen()
    assert heard == ["It"]


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (429, anthropic.RateLimitError),
        (503, anthropic.InternalServerError),
    ],
)
async def test_errors_are_the_sdks_own(endpoint, say, status: int, raised: type[Exception]) -> None:
    assert ANSWERING.error is not None
    body = ANSWERING.error(status, "No.", None, "some_code")
    url = (await endpoint(say.steps(say.message(status, body)))).url
    async with anthropic.AsyncAnthropic(base_url=url, api_key="anything", max_retries=0) as sdk:
        with pytest.raises(raised, match="No"):
            await sdk.messages.create(**HELLO)
