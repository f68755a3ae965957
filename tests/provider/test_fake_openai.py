"""The fake of OpenAI before the official client: answers, streams, tools, thoughts, refusals, and what is charged."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import aiohttp
import openai
import pytest

from spillway_balancer.provider.quotas import Limits

from .conftest import PRICES, Fake, bill

Chats = Callable[..., openai.AsyncOpenAI]
HELLO: Any = [{"role": "user", "content": "Hello there"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
            "required": ["city"],
        },
    },
}
LONG = "a long prompt of many words " * 200  # 1400 tokens


async def test_an_answer_and_what_it_costs(fake: Fake, chats: Chats, session: aiohttp.ClientSession) -> None:
    server = await fake("openai")
    answer = await chats(server).chat.completions.with_raw_response.create(model="m", messages=HELLO, max_tokens=9)
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["openai-version"] == "2020-10-01"
    said = answer.parse()
    assert said.choices[0].finish_reason == "length"
    assert said.usage is not None
    assert said.usage.completion_tokens == 9
    books = await bill(session, server)
    page = books["keys"]["main"]["told"]["m"]
    assert (page["input"], page["output"]) == (said.usage.prompt_tokens, 9)
    cost = (PRICES.input * said.usage.prompt_tokens + PRICES.output * 9) / 1_000_000
    assert Decimal(books["amount"]) == cost


async def test_a_stream_says_the_same_as_the_whole(fake: Fake, chats: Chats) -> None:
    server = await fake("openai")
    client = chats(server)
    whole = await client.chat.completions.create(model="m", messages=HELLO)
    stream = await client.chat.completions.create(
        model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


async def test_without_asking_a_stream_tells_no_usage(fake: Fake, chats: Chats, session: aiohttp.ClientSession) -> None:
    server = await fake("openai")
    stream = await chats(server).chat.completions.create(model="m", messages=HELLO, stream=True, max_tokens=5)
    assert all(chunk.usage is None for chunk in [chunk async for chunk in stream])
    assert (await bill(session, server))["keys"]["main"]["untold"]["m"]["output"] == 5


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_that_the_prompt_names_is_called_and_its_result_answered(
    fake: Fake, chats: Chats, stream: bool
) -> None:
    client = chats(await fake("openai"))
    messages: list[Any] = [{"role": "user", "content": "please use get_weather"}]
    if stream:
        async with client.chat.completions.stream(model="m", messages=messages, tools=[WEATHER]) as events:
            message = (await events.get_final_completion()).choices[0].message
    else:
        answer = await client.chat.completions.create(model="m", messages=messages, tools=[WEATHER])
        assert answer.choices[0].finish_reason == "tool_calls"
        message = answer.choices[0].message
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    arguments = json.loads(call.function.arguments)  # type: ignore[union-attr]
    assert set(arguments) == {"city", "unit"}
    messages.append(
        {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": {
            "name": "get_weather", "arguments": json.dumps(arguments)}}]}
    )  # fmt: skip
    with pytest.raises(openai.BadRequestError, match="must be followed by tool messages"):
        await client.chat.completions.create(model="m", messages=messages, tools=[WEATHER])
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "sunny"})
    final = await client.chat.completions.create(model="m", messages=messages, tools=[WEATHER])
    assert final.choices[0].finish_reason == "stop"


async def test_models_that_think_count_what_they_thought(fake: Fake, chats: Chats) -> None:
    client = chats(await fake("openai"))
    answer = await client.chat.completions.create(model="gpt-5-mini", messages=HELLO, reasoning_effort="high")
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    thought = answer.usage.completion_tokens_details.reasoning_tokens
    assert thought is not None
    assert 0 < thought < answer.usage.completion_tokens
    with pytest.raises(openai.BadRequestError, match="max_completion_tokens"):
        await client.chat.completions.create(model="gpt-5-mini", messages=HELLO, max_tokens=5)


async def test_structured_output_fits_its_schema(fake: Fake, chats: Chats) -> None:
    client = chats(await fake("openai"))
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "tags": {"type": "array"}}}
    answer = await client.chat.completions.create(
        model="m",
        messages=HELLO,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    found = json.loads(answer.choices[0].message.content or "")
    assert isinstance(found["n"], int)
    assert isinstance(found["tags"], list)
    with pytest.raises(openai.BadRequestError, match="must contain the word 'json'"):
        await client.chat.completions.create(model="m", messages=HELLO, response_format={"type": "json_object"})


async def test_pictures_are_counted(fake: Fake, chats: Chats) -> None:
    client = chats(await fake("openai"))
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    content: Any = [{"type": "text", "text": "Hello there"}, picture]
    plain = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=1)
    seen = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": content}], max_tokens=1
    )
    assert plain.usage is not None
    assert seen.usage is not None
    assert seen.usage.prompt_tokens == plain.usage.prompt_tokens + 256


async def test_long_prompts_are_cached_in_steps_of_128(
    fake: Fake, chats: Chats, session: aiohttp.ClientSession
) -> None:
    server = await fake("openai")
    for again in (False, True):
        answer = await chats(server).chat.completions.create(
            model="m", messages=[{"role": "user", "content": LONG}], max_tokens=1
        )
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        cached = answer.usage.prompt_tokens_details.cached_tokens
        assert cached == (answer.usage.prompt_tokens // 128 * 128 if again else 0)
        prompt = answer.usage.prompt_tokens
    page = (await bill(session, server))["keys"]["main"]["told"]["m"]
    fresh = 2 * prompt - prompt // 128 * 128
    amount = PRICES.input * fresh + PRICES.cached * (prompt // 128 * 128) + PRICES.output * 2
    assert Decimal(page["amount"]) == amount / 1_000_000


async def test_what_is_refused_is_told_as_openai_does(fake: Fake, chats: Chats, session: aiohttp.ClientSession) -> None:
    server = await fake("openai", context=50, models=("m",))
    client = chats(server)
    with pytest.raises(openai.AuthenticationError) as key:
        await chats(server, "wrong").chat.completions.create(model="m", messages=HELLO)
    assert key.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as model:
        await client.chat.completions.create(model="other", messages=HELLO)
    assert model.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": LONG}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="Unrecognized request argument"):
        await client.chat.completions.create(model="m", messages=HELLO, extra_body={"top_k": 4})
    assert (await bill(session, server))["keys"]["main"] == {
        "requests": 3, "refused": 3, "unpriced": 0, "amount": "0", "told": {}, "untold": {}
    }  # fmt: skip


async def test_limits_are_told_before_they_are_enforced(fake: Fake, chats: Chats) -> None:
    client = chats(await fake("openai", limits=Limits(requests=2)))
    first = await client.chat.completions.with_raw_response.create(model="m", messages=HELLO, max_tokens=1)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    await client.chat.completions.create(model="m", messages=HELLO, max_tokens=1)
    with pytest.raises(openai.RateLimitError) as limited:
        await client.chat.completions.create(model="m", messages=HELLO, max_tokens=1)
    assert limited.value.code == "rate_limit_exceeded"
    headers = limited.value.response.headers
    assert 28 <= int(headers["retry-after"]) <= 30
    assert 28_000 <= int(headers["retry-after-ms"]) <= 30_000
    assert headers["x-ratelimit-remaining-requests"] == "0"


async def test_embeddings_are_charged_for_their_input(fake: Fake, chats: Chats) -> None:
    client = chats(await fake("openai"))
    answer = await client.embeddings.create(model="m", input=["Hello there", "you"], encoding_format="float")
    assert [len(each.embedding) for each in answer.data] == [64, 64]
    assert answer.usage.prompt_tokens == 3
