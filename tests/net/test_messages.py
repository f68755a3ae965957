"""Anthropic's official SDK against the balancer, in front of endpoints that speak its API themselves."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import pytest

MODELS = [{"name": "demo", "upstreamName": "org/demo", "capabilities": ["Messages", "Tools"]}]
USAGE = {"input_tokens": 9, "output_tokens": 3}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "org/demo",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": USAGE,
}


def event(kind: str, **said: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **said})}\n\n".encode()


START = event("message_start", message={**MESSAGE, "content": [], "stop_reason": None})
BLOCK = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
PING = event("ping")
STOP = event("message_stop")
END = [
    event("content_block_stop", index=0),
    event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 3}),
    STOP,
]


def word(text: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


WORDS = [START, BLOCK, PING, word("one "), word("two"), *END]
OVERLOADED = {"type": "overloaded_error", "message": "Overloaded"}


def streamed(say, *events: bytes):
    return say.steps(say.SSE + say.chunks(*events) + say.END)


@pytest.fixture
async def ask(serve, objects):
    """The SDK in front of such endpoints, and the balancer between."""
    clients = []

    async def start(*endpoints, models=MODELS, pool=None, **spec):
        lb = await serve(*endpoints, pool={"models": models, **(pool or {})}, **spec)
        clients.append(anthropic.AsyncAnthropic(base_url=lb.url, api_key="anything", max_retries=0))
        return clients[-1], lb

    yield start
    for each in clients:
        await each.close()


def hello(say, **fields: Any) -> dict[str, Any]:
    return {"model": "chat", "max_tokens": 20, "messages": [{"role": "user", "content": say.PROMPT}], **fields}


async def listen(sdk, say, heard: list[str]) -> None:
    """What a stream says, as far as it comes."""
    async with sdk.messages.stream(**hello(say)) as stream:
        async for text in stream.text_stream:
            heard.append(text)  # noqa: PERF401 - what was said before an error counts


async def test_a_message_passes_through_as_it_came(ask, endpoint, say) -> None:
    heard = []

    async def answers(call) -> None:
        heard.append(call)
        call.write(say.message(body=json.dumps(MESSAGE).encode()))

    sdk, _ = await ask(await endpoint(answers))
    odd = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}, "new": 1}
    body = hello(say, system="Be brief.", extra_body={"not_yet_known": {"a": [1]}})
    body["messages"].append({"role": "user", "content": [odd]})
    answer = await sdk.messages.create(**body, extra_headers={"anthropic-beta": "files-api-2025-04-14"})
    assert answer.content[0].text == "hello"
    (call,) = heard
    sent = json.loads(call.body)
    assert sent["model"] == "org/demo"
    assert sent["not_yet_known"] == {"a": [1]}
    assert sent["messages"][1]["content"] == [odd]
    assert call.target == "/v1/messages"
    assert call.header("anthropic-version")
    assert call.header("anthropic-beta") == "files-api-2025-04-14"
    assert call.header("x-api-key") is None


async def test_a_stream_passes_through_and_ends_with_its_own_terminator(ask, endpoint, say) -> None:
    sdk, lb = await ask(await endpoint(streamed(say, *WORDS)))
    async with sdk.messages.stream(**hello(say)) as stream:
        assert [text async for text in stream.text_stream] == ["one ", "two"]
        final = await stream.get_final_message()
    assert final.stop_reason == "end_turn"
    await lb.until(lambda: lb.sample("spillway_attempts_total", reason="ok") == 1)


@pytest.mark.parametrize("before", [[], [START], [START, BLOCK, PING]])
async def test_an_error_before_content_goes_elsewhere(ask, endpoint, say, before) -> None:
    bad = await endpoint(streamed(say, *before, event("error", error=OVERLOADED)))
    sdk, lb = await ask(bad, await endpoint(streamed(say, *WORDS)), pool={"dispatch": {"strategy": "RoundRobin"}})
    for _ in range(2):
        heard: list[str] = []
        await listen(sdk, say, heard)
        assert "".join(heard) == "one two"
    assert lb.sample("spillway_attempts_total", reason="overloaded") >= 1


async def test_an_error_in_the_middle_is_told_once(ask, endpoint, say, dial) -> None:
    error = say.chunk(event("error", error=OVERLOADED)) + say.END
    fails = say.steps(say.SSE + say.chunks(START, BLOCK, word("one ")), say.PAUSE, error)
    sdk, lb = await ask(await endpoint(fails))
    heard: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as caught:
        await listen(sdk, say, heard)
    assert heard == ["one "]
    assert caught.value.body["error"]["type"] == "overloaded_error"
    reply = await (await dial(lb)).post("/v1/messages", hello(say, stream=True))
    assert reply.body.count(b"event: error") == 1


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_a_cut_is_told_in_the_clients_shape(ask, endpoint, say, end) -> None:
    sdk, lb = await ask(await endpoint(say.steps(say.SSE + say.chunks(START, BLOCK, word("one ")), end)))
    heard = []
    with pytest.raises(anthropic.APIStatusError) as caught:
        await listen(sdk, say, heard)
    assert heard == ["one "]
    assert caught.value.body["error"]["code"] == "stream_interrupted"
    await lb.until(lambda: lb.sample("spillway_attempts_total", reason="interrupted") == 1)


@pytest.mark.parametrize(
    ("status", "raised", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
    ],
)
async def test_an_endpoints_own_error_is_passed_on(ask, endpoint, say, status, raised, kind) -> None:
    said = json.dumps({"type": "error", "error": {"type": kind, "message": "no"}}).encode()
    sdk, _ = await ask(await endpoint(say.steps(say.message(status, body=said))))
    with pytest.raises(raised) as caught:
        await sdk.messages.create(**hello(say))
    assert caught.value.body["error"]["type"] == kind


async def test_errors_of_the_balancer_have_the_clients_shape(ask, endpoint, say) -> None:
    sdk, _ = await ask(await endpoint(say.steps(say.error(500))))
    with pytest.raises(anthropic.NotFoundError) as missing:
        await sdk.messages.create(**hello(say, model="nobody"))
    assert missing.value.body["type"] == "error"
    assert missing.value.body["error"]["type"] == "not_found_error"
    assert missing.value.body["error"]["code"] == "model_not_found"
    with pytest.raises(anthropic.APIStatusError) as failed:
        await sdk.messages.create(**hello(say))
    assert failed.value.status_code == 503
    assert failed.value.body["error"]["type"] == "overloaded_error"
    assert failed.value.body["error"]["attempts"]


async def test_methods_and_keys_that_are_refused_are_refused_in_this_shape(serve, objects, endpoint, dial, say) -> None:
    docs = [
        objects.pool("local", await endpoint(), models=MODELS),
        objects.route("local", consumers={"secretSelector": {"matchLabels": {"team": "a"}}}),
    ]
    lb = await serve(docs=docs)
    client = await dial(lb)
    await client.send(client.request("/v1/messages", method="GET"))
    wrong = await client.reply()
    assert (wrong.status, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.json()["type"] == "error"
    nobody = await client.post("/v1/messages", hello(say), [("x-api-key", say.KEY)])
    assert (nobody.status, nobody.json()["error"]["type"]) == (401, "authentication_error")


async def test_models_are_listed_as_this_sdk_reads_them(ask, endpoint, say) -> None:
    sdk, _ = await ask(await endpoint(say.steps(say.error(500))))
    assert [model.id async for model in sdk.models.list()] == ["chat"]
    assert (await sdk.models.retrieve("chat")).display_name == "chat"
    with pytest.raises(anthropic.NotFoundError) as caught:
        await sdk.models.retrieve("nobody")
    assert caught.value.body["error"]["type"] == "not_found_error"


async def test_signs_of_life_are_nothing_to_the_sdk(ask, endpoint, say) -> None:
    async def late(call) -> None:
        await asyncio.sleep(0.3)
        call.write(say.message(body=json.dumps(MESSAGE).encode()))

    sdk, _ = await ask(await endpoint(late), route={"streams": {"keepAlive": "100ms"}})
    async with sdk.messages.stream(**hello(say)) as stream:  # and what was not streamed is a stream all the same
        assert (await stream.get_final_message()).content[0].text == "hello"


async def test_tokens_are_estimated_where_nobody_counts(ask, endpoint, say) -> None:
    one = await endpoint()
    sdk, lb = await ask(one)
    messages = [{"role": "user", "content": "word " * 4_000}]
    counted = await sdk.messages.count_tokens(model="chat", messages=messages, system="Be brief.")
    assert 4_900 < counted.input_tokens < 5_200
    assert not one.calls
    with pytest.raises(anthropic.NotFoundError):
        await sdk.messages.count_tokens(model="nobody", messages=messages)
    assert lb.sample("spillway_requests_total", code="200", model="chat") == 1
