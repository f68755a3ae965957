"""Amazon Bedrock behind the official SDKs of OpenAI and Anthropic: a fake one that checks requests and signatures, and
keeps books."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from spillway_balancer.provider.faults import Broken, Cut, Error, ErrorEvent, Fault
from spillway_balancer.provider.keys import Key
from spillway_balancer.provider.server import ProviderServer
from spillway_balancer.provider.state import Pace, Settings

ID = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SONNET = "eu.anthropic.claude-sonnet-4-20250514-v1:0"
SPEAK = {"type": "function", "function": {"name": "speak", "parameters": {"type": "object", "properties": {"a": {}}}}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
async def bedrock(serve, objects, tmp_path, say):
    """`lb = await bedrock(a=value, …)`: a pool whose accounts have these values in their Secrets."""
    fakes: list[ProviderServer] = []

    async def start(*faults: Fault, pace: float = 0.0, model: str = SONNET, **accounts: str) -> Any:
        accounts = accounts or {"a": say.KEY}
        keys = []
        for name, value in accounts.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "api-key").write_text(value)
            keys += [Key(name, value if "{" not in value else f"{ID}:{SECRET}{_session(value)}")]
        fakes.append(ProviderServer(Settings("bedrock", keys=tuple(keys), faults=faults, pace=Pace(token=pace))))
        await fakes[-1].start()
        listed = [{"name": name, "region": "eu-west-1", "secretRef": {"name": name}} for name in accounts]
        source = {"provider": {"type": "Bedrock", "accounts": listed}}
        models = [
            {"name": "chat", "upstreamName": model, "capabilities": ["Chat", "Tools", "Vision", "StructuredOutput"]}
        ]
        pool = objects.provider("cloud", fakes[-1].url, *accounts, models=models, source=source)
        lb = await serve(docs=[pool, objects.route("cloud")], secrets=tmp_path)
        return lb

    yield start
    for fake in fakes:
        await fake.stop()


def _session(value: str) -> str:
    token = json.loads(value).get("sessionToken")
    return f":{token}" if token else ""


@pytest.fixture
async def gpt():
    clients: list[openai.AsyncOpenAI] = []

    def client(lb: Any) -> openai.AsyncOpenAI:
        clients.append(openai.AsyncOpenAI(base_url=f"{lb.url}/v1", api_key="anything", max_retries=0))
        return clients[-1]

    yield client
    for each in clients:
        await each.close()


@pytest.fixture
async def claude():
    clients: list[anthropic.AsyncAnthropic] = []

    def client(lb: Any) -> anthropic.AsyncAnthropic:
        clients.append(anthropic.AsyncAnthropic(base_url=lb.url, api_key="anything", max_retries=0))
        return clients[-1]

    yield client
    for each in clients:
        await each.close()


def hello(say: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": say.PROMPT}], "max_tokens": 20, **fields}


KEYS = {"accessKeyId": ID, "secretAccessKey": SECRET}


@pytest.mark.parametrize(
    "value",
    ["bearer", json.dumps(KEYS), json.dumps(KEYS | {"sessionToken": "to/ken=="})],
    ids=["bearer", "keys", "session"],
)
async def test_each_kind_of_key_is_taken(bedrock, gpt, say, value) -> None:
    lb = await bedrock(a=say.KEY if value == "bearer" else value)
    answer = await gpt(lb).chat.completions.create(**hello(say))
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.model == "chat"
    assert answer.usage.completion_tokens == 20
    assert lb.sample("spillway_attempts_total", reason="ok") == 1


async def test_keys_that_are_wrong_close_the_account_and_the_next_one_serves(bedrock, gpt, say) -> None:
    wrong = json.dumps(KEYS | {"accessKeyId": "AKIDOTHER"})
    lb = await bedrock(a=wrong, b=f"{say.KEY}-b")
    for _ in range(4):
        await gpt(lb).chat.completions.create(**hello(say))
    assert lb.sample("spillway_attempts_total", endpoint="a", reason="auth") <= 1
    assert lb.sample("spillway_attempts_total", endpoint="b", reason="ok") == 4


async def test_a_stream_with_usage(bedrock, gpt, say) -> None:
    lb = await bedrock()
    stream = await gpt(lb).chat.completions.create(**hello(say, stream=True, stream_options={"include_usage": True}))
    chunks = [chunk async for chunk in stream]
    whole = await gpt(lb).chat.completions.create(**hello(say))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert {chunk.model for chunk in chunks} == {"chat"}


async def test_a_loop_of_tools_from_a_chat(bedrock, gpt, say) -> None:
    lb = await bedrock()
    body = hello(say, tools=[SPEAK], tool_choice="required", max_tokens=200)
    first = (await gpt(lb).chat.completions.create(**body)).choices[0]
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    assert call.function.name == "speak"
    json.loads(call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "content": ""}
    body["messages"] += [first.message.model_dump(exclude_none=True), result]
    second = (await gpt(lb).chat.completions.create(**body | {"tool_choice": "auto"})).choices[0]
    assert second.finish_reason in ("stop", "length")
    del body["tools"], body["tool_choice"]
    assert (await gpt(lb).chat.completions.create(**body)).choices[0].message.content


async def test_one_tool_at_a_time_is_for_models_that_can_be_told(bedrock, gpt, say) -> None:
    choice = {"type": "function", "function": {"name": "speak"}}
    asked = hello(say, tools=[SPEAK], tool_choice=choice, parallel_tool_calls=False, max_tokens=200)
    lb = await bedrock(model="eu.anthropic.claude-haiku-4-5-20251001-v1:0", new=say.KEY)
    answer = await gpt(lb).chat.completions.create(**asked)
    assert len(answer.choices[0].message.tool_calls) == 1
    old = await bedrock(old=say.KEY)
    with pytest.raises(openai.BadRequestError, match="parallel_tool_calls"):
        await gpt(old).chat.completions.create(**asked)
    assert old.sample("spillway_attempts_total") == 0


async def test_an_agent_with_thoughts_and_tools(bedrock, claude, say) -> None:
    lb = await bedrock()
    body: dict[str, Any] = {
        "model": "chat",
        "max_tokens": 3000,
        "thinking": {"type": "enabled", "budget_tokens": 1500},
        "system": [{"type": "text", "text": "Be brief. " * 600, "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "speak", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}],
        "messages": [{"role": "user", "content": f"{say.PROMPT} please use speak"}],
    }
    async with claude(lb).messages.stream(**body) as stream:
        first = await stream.get_final_message()
    assert first.stop_reason == "tool_use"
    thought, *_, use = first.content
    assert thought.type == "thinking"
    assert thought.signature
    assert first.usage.cache_creation_input_tokens > 1024
    result = {
        "type": "tool_result",
        "tool_use_id": use.id,
        "content": [{"type": "text", "text": "done"}],
        "is_error": True,
    }
    body["messages"] += [
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]},
        {"role": "user", "content": [result]},
    ]
    second = await claude(lb).messages.create(**body)
    assert second.usage.cache_read_input_tokens > 1024
    assert second.content[-1].type == "text"
    assert lb.sample("spillway_attempts_total", reason="ok") == 2


async def test_pictures_and_structured_output(bedrock, gpt, say) -> None:
    lb = await bedrock()
    content = [
        {"type": "text", "text": say.PROMPT},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    shape = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    asked = hello(say, messages=[{"role": "user", "content": content}], response_format=shape, max_tokens=100)
    answer = await gpt(lb).chat.completions.create(**asked)
    assert isinstance(json.loads(answer.choices[0].message.content)["n"], int)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"n": 2}, "n"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
async def test_what_cannot_be_carried_is_refused_before_sending(bedrock, gpt, say, fields, named) -> None:
    lb = await bedrock()
    with pytest.raises(openai.BadRequestError) as refused:
        await gpt(lb).chat.completions.create(**hello(say, **fields))
    assert f"'{named}'" in str(refused.value) or named in str(refused.value)
    assert lb.sample("spillway_attempts_total") == 0


DAY = "Too many tokens per day, please wait before trying again."
TWO = {"a": "key-a", "b": "key-b"}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Error(error="rate-limited", keys=("a",)), "rate-limited"),
        (Error(error="daily-quota", keys=("a",), message=DAY), "quota-exhausted"),
        (Error(error="unavailable", keys=("a",)), "overloaded"),
        (Error(error="server-error", keys=("a",)), "server-error"),
        (Error(error="forbidden", keys=("a",)), "auth"),
        (ErrorEvent(error="rate-limited", chunks=0, keys=("a",)), "rate-limited"),
        (ErrorEvent(error="unavailable", chunks=0, keys=("a",)), "overloaded"),
        (Broken(chunks=0, keys=("a",)), "server-error"),
        (Cut(chunks=0, keys=("a",)), "connect"),
    ],
    ids=lambda each: f"{each.__class__.__name__}-{getattr(each, 'error', '')}" if isinstance(each, Fault) else each,
)
async def test_what_fails_before_anything_is_said_is_tried_at_the_next_account(
    bedrock, gpt, say, fault, reason
) -> None:
    lb = await bedrock(fault, **TWO)
    for _ in range(6):  # each account is chosen first by some
        stream = await gpt(lb).chat.completions.create(**hello(say, stream=True))
        assert [chunk async for chunk in stream][-1].choices[0].finish_reason == "length"
    assert lb.sample("spillway_attempts_total", endpoint="b", reason="ok") == 6
    assert lb.sample("spillway_attempts_total", endpoint="a", reason=reason) >= 1


@pytest.mark.parametrize(
    "fault",
    [ErrorEvent(error="rate-limited", chunks=3), Broken(chunks=3), Cut(chunks=3), Cut(chunks=3, how="mid-frame")],
)
async def test_what_breaks_off_later_is_told_and_no_damaged_word_is_handed_on(bedrock, gpt, say, fault) -> None:
    whole = await gpt(await bedrock()).chat.completions.create(**hello(say))
    lb = await bedrock(fault, pace=0.01, b="key-b")  # so that words have gone before it
    stream = await gpt(lb).chat.completions.create(**hello(say, stream=True))
    said: list[str] = []
    with pytest.raises(openai.APIError):
        await collect(stream, said)
    assert said
    assert whole.choices[0].message.content.startswith("".join(said))
    assert whole.choices[0].message.content != "".join(said)
    assert lb.sample("spillway_attempts_total", reason="interrupted") == 1


async def collect(stream: Any, said: list[str]) -> None:
    async for chunk in stream:
        said.append(chunk.choices[0].delta.content or "")  # noqa: PERF401 - kept when it raises
