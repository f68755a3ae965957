"""The fake of Anthropic before the official client: answers, streams, tools, thoughts, caches, refusals, the bill."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import aiohttp
import anthropic
import pytest

from spillway_balancer.provider.quotas import Limits

from .conftest import PRICES, Fake, bill

Claudes = Callable[..., anthropic.AsyncAnthropic]
HELLO: Any = [{"role": "user", "content": "Hello there"}]
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
TOOLS: Any = [{"name": "read_file", "input_schema": SCHEMA}, {"name": "run", "input_schema": {"type": "object"}}]
THINK: Any = {"type": "enabled", "budget_tokens": 1024}
LONG = "a long prompt of many words " * 200  # 1400 tokens


def marked(text: str, **ttl: str) -> Any:
    return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral", **ttl}}]


async def test_an_answer_and_what_it_costs(fake: Fake, claudes: Claudes, session: aiohttp.ClientSession) -> None:
    server = await fake("anthropic")
    answer = await claudes(server).messages.with_raw_response.create(model="m", messages=HELLO, max_tokens=9)
    assert answer.headers["request-id"].startswith("req_")
    said = await answer.parse()
    assert said.stop_reason == "max_tokens"
    assert said.usage.output_tokens == 9
    books = await bill(session, server)
    assert Decimal(books["amount"]) == (PRICES.input * said.usage.input_tokens + PRICES.output * 9) / 1_000_000


async def test_a_stream_says_the_same_as_the_whole(fake: Fake, claudes: Claudes) -> None:
    client = claudes(await fake("anthropic"))
    whole = await client.messages.create(model="m", messages=HELLO, max_tokens=999)
    async with client.messages.stream(model="m", messages=HELLO, max_tokens=999) as stream:
        streamed = await stream.get_final_message()
    assert whole.stop_reason == streamed.stop_reason == "end_turn"
    assert whole.content[0].type == streamed.content[0].type == "text"
    assert whole.content[0].text == streamed.content[0].text
    assert whole.usage.output_tokens == streamed.usage.output_tokens


async def test_the_events_of_a_stream_are_anthropics(fake: Fake, session: aiohttp.ClientSession) -> None:
    server = await fake("anthropic")
    headers = {"x-api-key": "fake-key", "anthropic-version": "2023-06-01"}
    body = {"model": "m", "max_tokens": 2, "stream": True, "messages": HELLO}
    async with session.post(f"{server.url}/v1/messages", json=body, headers=headers) as response:
        text = await response.text()
    assert [line[7:] for line in text.splitlines() if line.startswith("event: ")] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_a_loop_of_tools_with_thoughts_that_come_back(fake: Fake, claudes: Claudes) -> None:
    """Signatures are verified: thoughts that were changed, or that stand nowhere, are refused."""
    client = claudes(await fake("anthropic"))
    messages: list[Any] = [{"role": "user", "content": "begin with read_file and run"}]
    asked: Any = {"model": "m", "tools": TOOLS, "thinking": THINK, "max_tokens": 4096}
    async with client.messages.stream(messages=messages, **asked) as stream:
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "tool_use", "tool_use"]
    assert message.stop_reason == "tool_use"
    content: list[Any] = [block.model_dump(exclude_none=True) for block in message.content]
    for block in content:
        block.pop("caller", None)
    messages.append({"role": "assistant", "content": content})
    with pytest.raises(anthropic.BadRequestError, match="`tool_use` ids were found without"):
        await client.messages.create(messages=messages, **asked)
    results = [{"type": "tool_result", "tool_use_id": block["id"], "content": "done"} for block in content[1:]]
    messages.append({"role": "user", "content": results})
    final = await client.messages.create(messages=messages, **asked)
    assert final.stop_reason == "end_turn"
    changed = [content[0] | {"thinking": "something else"}, *content[1:]]
    with pytest.raises(anthropic.BadRequestError, match="Invalid `signature` in `thinking` block"):
        await client.messages.create(
            messages=[messages[0], {"role": "assistant", "content": changed}, messages[2]], **asked
        )
    bare = [messages[0], {"role": "assistant", "content": content[1:]}, messages[2]]
    with pytest.raises(anthropic.BadRequestError, match="Expected `thinking` or `redacted_thinking`, but found"):
        await client.messages.create(messages=bare, **asked)


async def test_thoughts_may_be_left_out_and_their_signature_holds(fake: Fake, claudes: Claudes) -> None:
    client = claudes(await fake("anthropic"))
    thinking: Any = {"type": "adaptive", "display": "omitted"}
    async with client.messages.stream(model="m", messages=HELLO, thinking=thinking, max_tokens=999) as stream:
        message = await stream.get_final_message()
    thought = message.content[0]
    assert thought.type == "thinking"
    assert thought.thinking == ""
    content: Any = [thought.model_dump(exclude_none=True), {"type": "text", "text": "so"}]
    more: Any = [*HELLO, {"role": "assistant", "content": content}, {"role": "user", "content": "and?"}]
    await client.messages.create(model="m", messages=more, thinking=thinking, max_tokens=999)


async def test_caches_are_written_at_marks_and_read_by_prefix(
    fake: Fake, claudes: Claudes, session: aiohttp.ClientSession
) -> None:
    """Input tokens leave both out; two turns of one conversation read what the one before wrote."""
    server = await fake("anthropic")
    client = claudes(server)
    first = await client.messages.create(model="m", system=marked(LONG), messages=HELLO, max_tokens=1)
    assert first.usage.cache_read_input_tokens == 0
    written = first.usage.cache_creation_input_tokens
    assert written is not None
    assert written >= 1400
    more: Any = [*HELLO, {"role": "assistant", "content": "I am"}, {"role": "user", "content": marked(LONG, ttl="1h")}]
    second = await client.messages.create(model="m", system=marked(LONG), messages=more, max_tokens=1)
    assert second.usage.cache_read_input_tokens == written
    assert second.usage.cache_creation is not None
    assert second.usage.cache_creation.ephemeral_5m_input_tokens == 0
    hour = second.usage.cache_creation.ephemeral_1h_input_tokens
    assert hour >= 1400
    fresh = first.usage.input_tokens + second.usage.input_tokens
    amount = PRICES.input * fresh + PRICES.cached * written + PRICES.written * written
    amount += PRICES.written_1h * hour + PRICES.output * 2
    assert Decimal((await bill(session, server))["amount"]) == amount / 1_000_000


async def test_structured_output_pictures_and_counting(fake: Fake, claudes: Claudes) -> None:
    client = claudes(await fake("anthropic"))
    config: Any = {"format": {"type": "json_schema", "schema": SCHEMA}}
    answer = await client.messages.create(model="m", messages=HELLO, max_tokens=99, output_config=config)
    assert answer.content[0].type == "text"
    assert answer.content[0].text.startswith('{"path":')
    source = {"type": "base64", "media_type": "image/png", "data": "aGk="}
    seen: Any = [
        {"role": "user", "content": [{"type": "text", "text": "Hello there"}, {"type": "image", "source": source}]}
    ]
    plain = await client.messages.count_tokens(model="m", messages=HELLO)
    with_picture = await client.messages.count_tokens(model="m", messages=seen)
    assert with_picture.input_tokens == plain.input_tokens + 256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 'first message must use the "user" role'),
        ({"messages": [{"role": "user", "content": ""}]}, "non-empty content"),
        ({"frequency_penalty": 1}, "frequency_penalty: Extra inputs are not permitted"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "greater than or equal to 1024"),
        ({"thinking": THINK}, "`max_tokens` must be greater than `thinking.budget_tokens`"),
        ({"thinking": {"type": "adaptive"}, "temperature": 0.5}, "may only be set to 1"),
        ({"tool_choice": {"type": "any"}}, "only be specified while providing `tools`"),
        ({"tools": [{"name": "bad name", "input_schema": SCHEMA}]}, "String should match pattern"),
    ],
)
async def test_requests_are_validated(
    fake: Fake, session: aiohttp.ClientSession, change: dict[str, Any], message: str
) -> None:
    server = await fake("anthropic")
    body = {"model": "m", "max_tokens": 100, "messages": HELLO} | change
    body = {name: value for name, value in body.items() if value is not None}
    headers = {"x-api-key": "fake-key", "anthropic-version": "2023-06-01"}
    async with session.post(f"{server.url}/v1/messages", json=body, headers=headers) as response:
        said = await response.json()
    assert response.status == 400
    assert said["error"]["type"] == "invalid_request_error"
    assert message in said["error"]["message"]
    assert said["request_id"] == response.headers["request-id"]


async def test_neighbours_of_one_role_are_one_turn(fake: Fake, claudes: Claudes) -> None:
    client = claudes(await fake("anthropic"))
    await client.messages.create(model="m", messages=HELLO + HELLO, max_tokens=1)


async def test_keys_limits_and_their_headers(fake: Fake, claudes: Claudes) -> None:
    server = await fake("anthropic", limits=Limits(requests=1, tokens=10_000))
    with pytest.raises(anthropic.AuthenticationError, match="invalid x-api-key"):
        await claudes(server, "wrong").messages.create(model="m", messages=HELLO, max_tokens=1)
    client = claudes(server)
    answer = await client.messages.with_raw_response.create(model="m", messages=HELLO, max_tokens=1)
    assert answer.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert answer.headers["anthropic-ratelimit-tokens-limit"] == "10000"
    assert answer.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    with pytest.raises(anthropic.RateLimitError) as limited:
        await client.messages.create(model="m", messages=HELLO, max_tokens=1)
    assert 50 <= int(limited.value.response.headers["retry-after"]) <= 60
