"""Every family of providers, asked with OpenAI's and Anthropic's own clients, through a balancer, at its fake.

docs/providers.md has the table of these tests: a column is a test, a row a family.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import anthropic
import openai
import pytest
from benchmarks import providers

from spillway_balancer.provider.books import Prices
from spillway_balancer.provider.faults import parse
from spillway_balancer.provider.keys import Key
from spillway_balancer.provider.quotas import Limits, Meter
from spillway_balancer.provider.server import ProviderServer
from spillway_balancer.provider.state import Pace, Settings

MODELS = {"anthropic": "claude-sonnet-4-5", "bedrock": "anthropic.claude-sonnet-4-5-v1:0"}
THINKING_MODELS = {
    "openai": "gpt-5-mini",
    "azure": "o3",
    "mistral": "magistral-medium",
    "groq": "openai/gpt-oss-120b",
    "xai": "grok-3-mini",
}
PRICES = Prices(*(Decimal(each) for each in ("3", "0.3", "3.75", "15", "6")))
PRICE = {"input": "3", "cachedInput": "0.3", "cacheWrite": "3.75", "output": "15", "cacheWriteLong": "6"}
HELLO: Any = [{"role": "user", "content": "Hello there, how are you?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": False}
TOOL: Any = {"type": "function", "function": {"name": "look_up", "description": "Finds it.", "parameters": SCHEMA}}
CLAUDE_TOOL: Any = {"name": "look_up", "description": "Finds it.", "input_schema": SCHEMA}
PICTURE: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
LONG = "a long prompt of many words that stays as it is " * 120

TYPES = providers.TYPES | {"compatible": "OpenAICompatible"}
FAKES = {"compatible": "together"}

family = pytest.mark.parametrize("type", TYPES)


class Place(NamedTuple):
    """A fake with accounts a and b, the balancer before it, and clients of the balancer."""

    fake: ProviderServer
    lb: Any
    chat: openai.AsyncOpenAI
    claude: anthropic.AsyncAnthropic

    def page(self) -> dict[str, Any]:
        """What has been billed, with usage told, as one request would be."""
        (page,) = [
            page.shown() for each in self.fake.state.books.accounts.values() for page in each.told.values()
        ]  # fmt: skip
        return page

    @property
    def refused(self) -> int:
        return sum(each.refused for each in self.fake.state.books.accounts.values())


Start = Callable[..., Awaitable[Place]]


@pytest.fixture
async def at(serve: Any, objects: Any, tmp_path: Path, say: Any) -> AsyncIterator[Start]:
    """`await at("anthropic", …)`: the public model `chat` is this family's; `settings` are the fake's."""
    async with AsyncExitStack() as stack:

        async def start(type: str, model: str | None = None, **settings: Any) -> Place:
            model = model or MODELS.get(type, "m")
            keys = tuple(Key(name, f"{say.KEY}-{name}") for name in "ab")
            for name, secret in keys:
                (tmp_path / "secrets" / name).mkdir(parents=True)
                (tmp_path / "secrets" / name / "api-key").write_text(secret)
            fake = ProviderServer(Settings(FAKES.get(type, type), keys, prices=((model, PRICES),), **settings))
            await stack.enter_async_context(fake)
            url = fake.url if type in ("azure", "vertex") else fake.base_url
            models = [{"name": "m", "upstreamName": model, "price": PRICE}]
            cloud = objects.provider("cloud", url, "a", "b", models=models, source={"provider": {"type": TYPES[type]}})
            if type in ("vertex", "bedrock"):
                for account in cloud["spec"]["source"]["provider"]["accounts"]:
                    account |= {"region": "europe-west4"} | ({"project": "p"} if type == "vertex" else {})
            retry = {"attempts": 4, "budgetPercent": 100}
            lb = await serve(docs=[cloud, objects.route("cloud", retry=retry)], secrets=tmp_path / "secrets")
            chat = openai.AsyncOpenAI(base_url=f"{lb.url}/v1", api_key="none", max_retries=0)
            claude = anthropic.AsyncAnthropic(base_url=lb.url, api_key="none", max_retries=0)
            stack.push_async_callback(chat.close)
            stack.push_async_callback(claude.close)
            return Place(fake, lb, chat, claude)

        yield start


class Streamed(NamedTuple):
    """What a stream of chat completions came to."""

    text: str
    calls: list[dict[str, Any]]
    end: str | None
    usage: Any


async def streamed(place: Place, **more: Any) -> Streamed:
    asked: Any = {"messages": HELLO, "stream_options": {"include_usage": True}} | more
    text, end, usage = "", None, None
    calls: list[dict[str, Any]] = []
    async for chunk in await place.chat.chat.completions.create(model="chat", stream=True, **asked):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            end = choice.finish_reason or end
            text += choice.delta.content or ""
            for call in choice.delta.tool_calls or []:
                if call.id:
                    calls.append({"id": call.id, "type": "function", "function": {"name": "", "arguments": ""}})
                if call.function is not None:
                    calls[-1]["function"]["name"] += call.function.name or ""
                    calls[-1]["function"]["arguments"] += call.function.arguments or ""
    return Streamed(text, calls, end, usage)


@family
async def test_plain(at: Start, type: str) -> None:
    place = await at(type)
    answer = await place.chat.chat.completions.create(model="chat", messages=HELLO, max_tokens=12)
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content
    whole = await place.claude.messages.create(model="chat", messages=HELLO, max_tokens=12)
    assert whole.stop_reason == "max_tokens"
    assert whole.content[0].type == "text"
    assert whole.content[0].text == answer.choices[0].message.content


@family
async def test_stream(at: Start, type: str) -> None:
    place = await at(type)
    whole = await place.chat.chat.completions.create(model="chat", messages=HELLO)
    answer = await streamed(place)
    assert answer.text == whole.choices[0].message.content
    assert answer.end == "stop"
    async with place.claude.messages.stream(model="chat", messages=HELLO, max_tokens=900) as stream:
        message = await stream.get_final_message()
    assert message.stop_reason == "end_turn"
    assert message.content[0].type == "text"
    assert message.content[0].text == answer.text


@family
async def test_tools(at: Start, type: str) -> None:
    """A loop through both client APIs: a call with its arguments, its result, and the words at the end."""
    place = await at(type)
    messages: list[Any] = [{"role": "user", "content": "please use look_up"}]
    answer = await streamed(place, messages=messages, tools=[TOOL])
    assert answer.end == "tool_calls"
    (call,) = answer.calls
    assert list(json.loads(call["function"]["arguments"])) == ["city"]
    messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    messages.append({"role": "tool", "tool_call_id": call["id"], "content": "it is there"})
    final = await place.chat.chat.completions.create(model="chat", messages=messages, tools=[TOOL])
    assert final.choices[0].finish_reason == "stop"
    turns: list[Any] = [{"role": "user", "content": "please use look_up"}]
    async with place.claude.messages.stream(
        model="chat", messages=turns, tools=[CLAUDE_TOOL], max_tokens=900
    ) as stream:
        message = await stream.get_final_message()
    assert message.stop_reason == "tool_use"
    use = next(block for block in message.content if block.type == "tool_use")
    assert list(use.input) == ["city"]  # type: ignore[call-overload]
    turns.append({"role": "assistant", "content": [block.to_dict() for block in message.content]})
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "it is there"}
    turns.append({"role": "user", "content": [result]})
    ended = await place.claude.messages.create(model="chat", messages=turns, tools=[CLAUDE_TOOL], max_tokens=900)
    assert ended.stop_reason == "end_turn"


@family
async def test_images(at: Start, type: str) -> None:
    place = await at(type)
    content: Any = [{"type": "text", "text": "What is this?"}, PICTURE]
    answer = await place.chat.chat.completions.create(
        model="chat", messages=[{"role": "user", "content": content}], max_tokens=5
    )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 256, "it has come, and is counted"
    assert place.page()["input"] == answer.usage.prompt_tokens


@family
async def test_structured_output(at: Start, type: str) -> None:
    place = await at(type)
    format: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
    answer = await streamed(place, response_format=format)
    assert list(json.loads(answer.text)) == ["city"]


@family
async def test_reasoning(at: Start, type: str) -> None:
    """Efforts arrive, what was thought is counted, and Anthropic's client reads it where it may be read."""
    place = await at(type, model=THINKING_MODELS.get(type))
    answer = await place.chat.chat.completions.create(
        model="chat", messages=HELLO, reasoning_effort="high", max_completion_tokens=30_000
    )
    page = place.page()
    assert page["reasoning"] > 0
    assert answer.usage is not None
    assert answer.usage.total_tokens == page["input"] + page["output"]
    thinking: Any = {"type": "enabled", "budget_tokens": 2048}
    async with place.claude.messages.stream(
        model="chat", messages=HELLO, thinking=thinking, max_tokens=30_000
    ) as stream:
        message = await stream.get_final_message()
    hidden = place.fake.state.family.api == "chat" and place.fake.state.family.chat.thoughts == "hidden"
    assert ("thinking" in [block.type for block in message.content]) != hidden
    assert message.content[-1].type == "text"


@family
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_usage(at: Start, type: str, stream: bool) -> None:
    """What the client is told, what the balancer reports as cost, and the provider's bill are the same."""
    place = await at(type)
    for _ in range(2):  # the second time from the provider's cache, where it has one
        messages = [{"role": "user", "content": LONG}]
        asked: Any = {"messages": messages, "max_tokens": 7}
        if stream:
            usage = (await streamed(place, **asked)).usage
        else:
            usage = (await place.chat.chat.completions.create(model="chat", **asked)).usage
        assert usage.completion_tokens == 7
    books = place.fake.state.books.shown()
    await place.lb.until(lambda: place.lb.sample("spillway_cost_total") > 0 and place.lb.in_flight == 0)
    assert round(Decimal(place.lb.sample("spillway_cost_total")), 12) == Decimal(books["amount"])
    assert books["told"] == books["amount"]


ERRORS = {
    "rate-limited": "rate-limited",
    "quota-exhausted": "quota-exhausted",
    "spend-limit": "quota-exhausted",
    "auth": "auth",
    "overloaded": "overloaded",
    "server-error": "server-error",
}


@family
@pytest.mark.parametrize("error", ERRORS)
async def test_errors(at: Start, type: str, error: str) -> None:
    """One account's errors are not the client's: the other one answers, and the reason is the right one."""
    fault = {"kind": "error", "error": error, "keys": ["a"], "retry_after": 30}
    place = await at(type, faults=parse(json.dumps(fault)))
    for _ in range(4):
        answer = await place.chat.chat.completions.create(model="chat", messages=HELLO, max_tokens=3)
        assert answer.choices[0].message.content
    assert place.lb.sample("spillway_attempts_total", endpoint="a", reason=ERRORS[error]) >= 1
    assert place.lb.sample("spillway_attempts_total", endpoint="b") == 4


@family
async def test_errors_within_a_stream(at: Start, type: str) -> None:
    """Before content another account answers; after it the client is told, by an error and not by silence."""
    before = {"kind": "error-event", "error": "overloaded", "chunks": 0, "keys": ["a"]}
    place = await at(type, faults=parse(json.dumps(before)))
    for _ in range(3):
        assert (await streamed(place, max_tokens=5)).text
    place.fake.state.set_faults(parse('{"kind": "cut", "chunks": 2, "how": "no-end"}'), 0.0)
    with pytest.raises(openai.APIError):
        await streamed(place, max_tokens=5)
    place.fake.state.set_faults(parse('{"kind": "error-event", "error": "server-error", "chunks": 2}'), 0.0)
    with pytest.raises(openai.APIError):
        await streamed(place, max_tokens=5)


@family
async def test_quotas(at: Start, type: str) -> None:
    """Two accounts of 6 a minute serve 12 without a 429 for the client; where quotas are told, without one at all."""
    place = await at(type, limits=Limits(requests=6))
    for _ in range(12):
        await place.chat.chat.completions.create(model="chat", messages=HELLO, max_tokens=2)
    if place.fake.state.family.quotas is not Meter.silent:
        assert place.refused == 0


@family
@pytest.mark.parametrize("api", ["chat", "messages"])
async def test_a_client_that_leaves_is_charged_its_prompt(at: Start, type: str, api: str) -> None:
    """Its usage never came: what is reported is an estimate, near what the provider has billed."""
    place = await at(type, pace=Pace(0.0, 0.02))
    body: dict[str, Any] = {"model": "chat", "max_tokens": 400, "stream": True, "messages": HELLO}
    if api == "chat":
        body["messages"] = [{"role": "system", "content": LONG}, *HELLO]
    else:
        body["system"] = LONG
    path = "/v1/messages" if api == "messages" else "/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(place.lb.url + path, json=body) as response:
        await response.content.readany()
        response.close()
    await place.lb.until(lambda: place.lb.in_flight == 0 and any(each.requests for each in accounts(place)))
    billed = Decimal(place.fake.state.books.shown()["amount"])
    reported = Decimal(place.lb.sample("spillway_cost_total"))
    assert billed * Decimal("0.8") < reported < billed * Decimal("1.2")


@family
@pytest.mark.parametrize("api", ["chat", "messages"])
async def test_an_answer_that_breaks_off_is_charged_and_made_again(at: Start, type: str, api: str) -> None:
    """It was made before it began to arrive, and is billed. No usage came, so its prompt is an estimate."""
    place = await at(type, faults=parse('{"kind": "cut", "count": 1}'))
    asked: Any = {"model": "chat", "max_tokens": 5, "messages": [{"role": "user", "content": LONG}]}
    if api == "chat":
        await place.chat.chat.completions.create(**asked)
    else:
        await place.claude.messages.create(**asked)
    await place.lb.until(lambda: place.lb.in_flight == 0)
    assert sum(each.requests for each in accounts(place)) == 2
    billed = Decimal(place.fake.state.books.shown()["amount"])
    reported = Decimal(place.lb.sample("spillway_cost_total"))
    assert billed * Decimal("0.8") < reported <= billed * Decimal("1.1")


def accounts(place: Place) -> list[Any]:
    return list(place.fake.state.books.accounts.values())
