"""Anthropic as a provider over real sockets: what its API is asked, and what its answers come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from spillway_balancer.wire.translation.messages_heard import UNSIGNED

GOLDEN = Path(__file__).parents[1] / "wire" / "golden"
VERSION = "anthropic-version"
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 9, "output_tokens": 3},
}
BODY: dict[str, Any] = {"model": "chat", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def providing(serve, endpoint, say, objects, tmp_path):
    """`lb, heard = await providing(answer, …)`: a pool of Anthropic's, whose accounts a, b, … get the answers."""

    async def start(*answers: Any, **route: Any) -> Any:
        heard: list[Any] = []
        served = {}
        for name, answer in zip("abc", answers or (say.message(body=json.dumps(MESSAGE).encode()),), strict=False):
            (tmp_path / name).mkdir()
            (tmp_path / name / "api-key").write_text(f"{say.KEY}-{name}")
            served[f"{say.KEY}-{name}"] = answer

        async def behave(call: Any) -> None:
            heard.append(call)
            call.write(served[call.header("x-api-key")])

        source = {"provider": {"type": "Anthropic"}}
        models = [{"name": "claude", "upstreamName": "claude-sonnet-4-5"}]
        url = (await endpoint(behave)).url
        cloud = objects.provider("cloud", url, *"abc"[: len(served)], source=source, models=models)
        return await serve(docs=[cloud, objects.route("cloud", **route)], secrets=tmp_path), heard

    return start


async def test_it_is_asked_at_its_address_with_its_key_and_in_the_clients_version(providing, dial, say) -> None:
    lb, heard = await providing()
    client = await dial(lb)
    for headers in ([], [(VERSION, "2026-10-21"), ("anthropic-beta", "context-1m-2025-08-07")]):
        reply = await client.post(
            "/v1/messages", BODY, [("x-api-key", "mine"), ("authorization", "Bearer x"), *headers]
        )
        assert reply.status == 200
    assert [call.target for call in heard] == ["/v1/messages"] * 2
    assert [call.header(VERSION) for call in heard] == ["2023-06-01", "2026-10-21"]
    assert [call.header("anthropic-beta") for call in heard] == [None, "context-1m-2025-08-07"]
    assert {call.header("x-api-key") for call in heard} == {f"{say.KEY}-a"}
    assert {call.header("authorization") for call in heard} == {None}
    assert heard[0].json() == {**BODY, "model": "claude-sonnet-4-5"}


async def test_only_what_it_would_refuse_of_a_session_from_elsewhere_is_changed(providing, dial) -> None:
    lb, heard = await providing()
    call = {"type": "tool_use", "id": "a", "name": "Bash", "input": {}}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": UNSIGNED}
    messages = [
        *BODY["messages"],
        {"role": "assistant", "content": [thought, call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "1"}]},
    ]
    thinking = {"type": "enabled", "budget_tokens": 1024}
    body = {**BODY, "max_tokens": 4000, "thinking": thinking, "new": {"a": 1}, "messages": messages}
    assert (await (await dial(lb)).post("/v1/messages", body)).status == 200
    messages[1]["content"] = [call]
    assert heard[0].json() == {**body, "model": "claude-sonnet-4-5", "thinking": {"type": "disabled"}}


@pytest.mark.parametrize(
    ("golden", "status"),
    [
        ("anthropic-credit.400", 200),
        ("anthropic-spend.429", 200),
        ("anthropic-billing.402", 200),
        ("anthropic-rate.429", 200),
        ("anthropic-key.401", 200),
        ("anthropic-overloaded.529", 200),
        ("anthropic-field.400", 400),
        ("anthropic-context.400", 400),
    ],
)
async def test_errors_lead_to_another_account_where_that_helps(providing, dial, say, golden, status) -> None:
    error = (GOLDEN / "errors" / f"{golden}.json").read_bytes()
    code = int(golden.rpartition(".")[2])
    good = say.message(body=json.dumps(MESSAGE).encode())
    lb, heard = await providing(say.message(code, error), good)
    client = await dial(lb)
    replies = [await client.post("/v1/messages", BODY, [("x-request-id", str(number))]) for number in range(4)]
    assert {reply.status for reply in replies} <= {200, status}
    asked = [call.header("x-api-key") for call in heard]
    if status == 200:
        assert f"{say.KEY}-b" in asked
    else:
        refused = [reply for reply in replies if reply.status == status]
        assert all(reply.body == error for reply in refused), "as it came"


async def test_the_sdk_streams_through(providing, say) -> None:
    stream = (GOLDEN / "translation" / "messages" / "thinking.sse").read_bytes()
    lb, _ = await providing(say.SSE + say.chunks(stream) + say.END)
    sdk = anthropic.AsyncAnthropic(base_url=lb.url, api_key="anything", max_retries=0)
    async with sdk, sdk.messages.stream(**BODY) as said:
        assert [text async for text in said.text_stream] == ["The greatest common divisor is 21."]
        message = await said.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "redacted_thinking", "text"]
    assert message.usage.output_tokens == 60


async def test_chats_are_translated_and_answered_as_chats(providing, dial, say) -> None:
    lb, heard = await providing()
    headers = [("authorization", "Bearer mine"), ("openai-beta", "a"), ("anthropic-beta", "b")]
    async with openai.AsyncOpenAI(base_url=f"{lb.url}/v1", api_key="mine", max_retries=0) as sdk:
        answer = await sdk.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": "Hello"}], extra_headers=dict(headers)
        )
    assert answer.choices[0].message.content == "hello"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 3)
    call = heard[0]
    assert call.target == "/v1/messages"
    assert (call.header("x-api-key"), call.header(VERSION)) == (f"{say.KEY}-a", "2023-06-01")
    assert [call.header(name) for name in ("authorization", "openai-beta", "anthropic-beta")] == [None] * 3
    assert call.json() == {"model": "claude-sonnet-4-5", "max_tokens": 32_000, "messages": BODY["messages"]}
    reply = await (await dial(lb)).chat(n=2)
    assert reply.status == 400
    assert b"cannot be told" in reply.body
    assert len(heard) == 1, "refused before anything is sent"


async def test_tokens_are_counted_where_they_will_be_used(providing, dial, say) -> None:
    lb, heard = await providing(say.message(body=b'{"input_tokens": 14}'))
    body = {"model": "chat", "messages": BODY["messages"]}
    reply = await (await dial(lb)).post("/v1/messages/count_tokens", body)
    assert (reply.status, reply.body) == (200, b'{"input_tokens": 14}')
    assert heard[0].target == "/v1/messages/count_tokens"
    assert heard[0].json() == {**body, "model": "claude-sonnet-4-5"}


async def test_tokens_of_what_is_translated_first_are_estimated_though_a_provider_behind_it_counts(
    serve, endpoint, objects, dial, say, tmp_path
) -> None:
    """Who counts names no limit of an answer, which the message itself will have."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "api-key").write_text(say.KEY)
    home, cloud = await endpoint(), await endpoint(say.steps(say.message(body=b'{"input_tokens": 14}')))
    price = {"input": "3", "output": "15"}
    pools = (
        objects.pool("home", home),
        objects.provider(
            "cloud", cloud.url, "a", source={"provider": {"type": "Anthropic"}}, models=[{"name": "c", "price": price}]
        ),
    )
    tiers = [{"name": each, "pools": [{"name": each}]} for each in ("home", "cloud")]
    lb = await serve(docs=[*pools, objects.route(tiers=tiers)], secrets=tmp_path)
    client = await dial(lb)
    body = {"model": "chat", "messages": BODY["messages"]}
    told = await client.post("/v1/messages/count_tokens", body)
    assert told.status == 200
    assert told.json()["input_tokens"] < 5
    assert not home.calls
    assert not cloud.calls
    # What a translation cannot say leads to who counts, and costs nothing there.
    tool = {"type": "web_search_20250305", "name": "web_search"}
    told = await client.post("/v1/messages/count_tokens", {**body, "tools": [tool]}, [("x-spillway-explain", "1")])
    assert told.json() == {"input_tokens": 14}
    assert told.header("x-spillway-tier") == "cloud"
    assert "home(its endpoints are not asked for /v1/messages/count_tokens)" in told.header("x-spillway-explain")
    assert told.header("x-spillway-cost") is None
    assert lb.sample("spillway_costed_requests_total") == 0
    assert lb.sample("spillway_cost_total") == 0
