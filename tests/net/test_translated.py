"""Clients of one API in front of endpoints that speak another, over sockets, with the official SDKs."""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from spillway_balancer.engine.faults import parse

TOOL = {
    "name": "get_weather",
    "description": "The weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
async def sdks():
    """`claude(lb)` and `gpt(lb)`: the two SDKs."""
    clients: list[Any] = []

    def keep(client: Any) -> Any:
        clients.append(client)
        return client

    class Both:
        @staticmethod
        def claude(lb) -> anthropic.AsyncAnthropic:
            return keep(anthropic.AsyncAnthropic(base_url=lb.url, api_key="anything", max_retries=0))

        @staticmethod
        def gpt(lb) -> openai.AsyncOpenAI:
            return keep(openai.AsyncOpenAI(base_url=f"{lb.url}/v1", api_key="anything", max_retries=0))

    yield Both
    for each in clients:
        await each.close()


def hello(say, **fields: Any) -> dict[str, Any]:
    return {"model": "chat", "max_tokens": 20, "messages": [{"role": "user", "content": say.PROMPT}], **fields}


# ---- Anthropic's SDK, engines of our own


async def test_a_message_is_served_by_an_engine_that_speaks_chat(serve, engine, sdks, say) -> None:
    lb = await serve(await engine())
    answer = await sdks.claude(lb).messages.create(**hello(say, system="Be brief."))
    assert answer.content[0].text
    assert answer.model == "chat"
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 20
    assert answer.usage.input_tokens > 5


async def test_a_stream_is_served_by_an_engine_that_speaks_chat(serve, engine, sdks, say) -> None:
    lb = await serve(await engine())
    async with sdks.claude(lb).messages.stream(**hello(say)) as stream:
        said = "".join([text async for text in stream.text_stream])
        final = await stream.get_final_message()
    assert final.content[0].text == said
    assert final.usage.output_tokens == 20
    assert final.stop_reason == "max_tokens"
    await lb.until(lambda: lb.sample("spillway_attempts_total", reason="ok") == 1)


async def test_tools_go_there_and_back(serve, endpoint, sdks, say) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    usage = {"prompt_tokens": 30, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 16}}
    answer = {"id": "c1", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": usage}
    one = await endpoint(say.steps(say.message(body=json.dumps(answer).encode(), x_request_id="r1")))
    lb = await serve(one)
    sdk = sdks.claude(lb)
    body = hello(say, tools=[TOOL])
    raw = await sdk.messages.with_raw_response.create(**body, extra_headers={"anthropic-beta": "a-1"})
    assert raw.headers["request-id"] == "r1"
    said = await raw.parse()
    assert said.stop_reason == "tool_use"
    assert said.content[0].input == {"city": "Paris"}
    assert (said.usage.input_tokens, said.usage.cache_read_input_tokens, said.usage.output_tokens) == (14, 16, 9)
    result = {"type": "tool_result", "tool_use_id": said.content[0].id, "content": "12 degrees"}
    body["messages"] += [
        {"role": "assistant", "content": [block.model_dump() for block in said.content]},
        {"role": "user", "content": [result]},
    ]
    await sdk.messages.create(**body)
    first, second = one.calls
    assert first.target == "/v1/chat/completions"
    assert first.header("anthropic-version") is None
    assert first.header("anthropic-beta") is None
    assert first.header("x-api-key") is None
    assert first.json()["tools"][0]["function"]["parameters"] == TOOL["input_schema"]
    roles = [each["role"] for each in second.json()["messages"]]
    assert roles == ["user", "assistant", "tool"]
    assert second.json()["messages"][2] == {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees"}


async def test_an_engines_error_is_told_in_the_clients_shape(serve, endpoint, sdks, say) -> None:
    too_long = say.error(400, "context_length_exceeded")
    lb = await serve(await endpoint(say.steps(too_long)))
    with pytest.raises(anthropic.BadRequestError) as caught:
        await sdks.claude(lb).messages.create(**hello(say))
    assert caught.value.body == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "no", "code": "context_length_exceeded"},
    }
    assert lb.sample("spillway_attempts_total", reason="context-length") == 1


async def test_a_field_that_cannot_be_told_is_named_before_anything_is_sent(serve, endpoint, sdks, say) -> None:
    one = await endpoint()
    lb = await serve(one)
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    with pytest.raises(anthropic.BadRequestError) as caught:
        await sdks.claude(lb).messages.create(**hello(say, tools=tools))
    error = caught.value.body["error"]
    assert error["code"] == "no_capable_target"
    assert "tools[0]" in error["message"]
    assert "tools[0]" in error["attempts"][0]
    assert not one.calls


async def test_what_cannot_be_understood_is_refused_by_name(serve, endpoint, sdks, say) -> None:
    one = await endpoint()
    lb = await serve(one)
    with pytest.raises(anthropic.BadRequestError) as caught:
        await sdks.claude(lb).messages.create(**hello(say, extra_body={"temperature": "warm"}))
    assert caught.value.body["error"]["param"] == "temperature"
    assert not one.calls


async def test_a_pool_that_speaks_the_clients_api_gets_what_the_others_cannot_be_told(
    serve, objects, endpoint, sdks, say
) -> None:
    chats, speaks = await endpoint(), await endpoint(say.steps(whole(say)))
    docs = [
        objects.pool("chats", chats),
        objects.pool("speaks", speaks, models=[{"name": "demo", "capabilities": ["Messages", "Tools"]}]),
        objects.route("chats", "speaks"),
    ]
    lb = await serve(docs=docs)
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    for _ in range(5):
        await sdks.claude(lb).messages.create(**hello(say, tools=tools))
    assert len(speaks.calls) == 5
    assert not chats.calls


async def test_clamps_hold_behind_a_translation(serve, endpoint, sdks, say) -> None:
    one = await endpoint()
    clamp = {"maxOutputTokens": 7, "reasoningEffort": "low"}
    tiers = [{"name": "only", "pools": [{"name": "local"}]}]
    lb = await serve(one, route={"rules": [{"name": "all", "set": clamp, "tiers": tiers}]})
    await sdks.claude(lb).messages.create(**hello(say))
    assert one.calls[0].json()["max_tokens"] == 7


# ---- OpenAI's SDK, endpoints that speak Messages

SPEAKS = {"models": [{"name": "demo", "capabilities": ["Messages", "Tools"]}]}
USAGE = {"input_tokens": 4, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 10, "output_tokens": 6}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "demo",
    "content": [{"type": "text", "text": "one two"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": USAGE,
}


def event(kind: str, **said: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **said})}\n\n".encode()


def word(text: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


START = event("message_start", message={**MESSAGE, "content": [], "stop_reason": None})
BLOCK = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
END = [
    event("content_block_stop", index=0),
    event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 6}),
    event("message_stop"),
]
OVERLOADED = event("error", error={"type": "overloaded_error", "message": "Overloaded"})


def whole(say, status: int = 200, **headers: str) -> bytes:
    return say.message(status, body=json.dumps(MESSAGE).encode(), **headers)


def refusal(say, status: int, kind: str, message: str = "no", **headers: str) -> bytes:
    return say.message(
        status, json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode(), **headers
    )


def streamed(say, *events: bytes):
    return say.SSE + say.chunks(*events) + say.END


def well(say):
    async def behave(call) -> None:
        stream = call.json().get("stream")
        call.write(streamed(say, START, BLOCK, word("one "), word("two"), *END) if stream else whole(say))

    return behave


async def test_a_chat_is_served_by_an_endpoint_that_speaks_messages(serve, endpoint, sdks, say) -> None:
    one = await endpoint(say.steps(whole(say, request_id="req_1", anthropic_ratelimit_requests_remaining="9")))
    lb = await serve(one, pool=SPEAKS)
    raw = await sdks.gpt(lb).chat.completions.with_raw_response.create(**hello(say))
    answer = raw.parse()
    assert answer.choices[0].message.content == "one two"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (114, 100)
    assert abs(answer.created - time.time()) < 60
    assert raw.headers["x-request-id"] == "req_1"
    assert not [name for name in raw.headers if name.startswith("anthropic-")]
    (call,) = one.calls
    assert call.target == "/v1/messages"
    assert call.header("anthropic-version") == "2023-06-01"
    assert call.header("authorization") is None
    assert call.json()["max_tokens"] == 20


@pytest.mark.parametrize("asked", [True, False])
async def test_a_chats_stream_is_served_by_one(serve, endpoint, sdks, say, asked) -> None:
    lb = await serve(await endpoint(well(say)), pool=SPEAKS)
    options = {"stream_options": {"include_usage": True}} if asked else {}
    stream = await sdks.gpt(lb).chat.completions.create(**hello(say, stream=True, **options))
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two"
    told = [chunk.usage for chunk in chunks if chunk.usage]
    assert [(each.prompt_tokens, each.completion_tokens) for each in told] == ([(114, 6)] if asked else [])
    await lb.until(lambda: lb.sample("spillway_attempts_total", reason="ok") == 1)


async def test_tokens_count_as_the_provider_has_told_them(serve, objects, endpoint, sdks, say) -> None:
    price = {"input": "1", "cachedInput": "0.1", "cacheWrite": "2", "output": "10", "currency": "USD"}
    pool = objects.pool("local", await endpoint(well(say)), models=[{**SPEAKS["models"][0], "price": price}])
    lb = await serve(docs=[pool, objects.route("local")])
    for stream in (False, True):
        said = await sdks.gpt(lb).chat.completions.create(**hello(say, stream=stream))
        if stream:
            assert [chunk async for chunk in said]
    # a million tokens: 4 at 1, 100 read at 0.1, 10 written at 2, 6 said at 10
    await lb.until(lambda: lb.sample("spillway_cost_total") == pytest.approx(2 * 94e-6))


async def test_media_types_of_answers_decide_and_not_what_was_asked(serve, endpoint, sdks, say) -> None:
    """An endpoint that does not stream what it was asked to stream, and the other way round."""
    contrary = await endpoint()

    async def behave(call) -> None:
        stream = not call.json().get("stream")
        call.write(streamed(say, START, BLOCK, word("one "), word("two"), *END) if stream else whole(say))

    contrary.then = behave
    lb = await serve(contrary, pool=SPEAKS)
    stream = await sdks.gpt(lb).chat.completions.create(**hello(say, stream=True))
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]) == "one two"
    answer = await sdks.gpt(lb).chat.completions.create(**hello(say))
    assert answer.choices[0].message.content == "one two"


# ---- faults, on both ways

EVENT = "the provider's error, as an event of the client's API"
CUT_EVENT = "an error event `stream_interrupted`"
WHOLE = "200, whole"


def chat_events(say) -> dict[str, Any]:
    """What an endpoint says that speaks chat completions."""
    error = say.event({"error": {"message": "Overloaded", "type": "overloaded_error", "code": 503}})
    return {"before": [say.role()], "content": [say.role(), say.word("one ")], "error": error}


def message_events(say) -> dict[str, Any]:
    return {"before": [START, BLOCK, event("ping")], "content": [START, BLOCK, word("one ")], "error": OVERLOADED}


# what the endpoint does, the reason, what the client sees where there is another endpoint
FAULTS = [
    ("429", "rate-limited", WHOLE),
    ("529", "overloaded", WHOLE),
    ("500", "server-error", WHOLE),
    ("error before content", "overloaded", WHOLE),
    ("error after content", "interrupted", EVENT),
    ("cut before content", "connect", WHOLE),
    ("cut after content", "interrupted", CUT_EVENT),
    ("no terminator", "interrupted", CUT_EVENT),
    ("stall before content", "stall", WHOLE),
    ("stall after content", "interrupted", CUT_EVENT),
    ("nonsense", "server-error", WHOLE),
]


def fault(say, name: str, says: dict[str, Any]):
    before, content, error = (
        say.SSE + say.chunks(*says["before"]),
        say.SSE + say.chunks(*says["content"]),
        say.chunk(says["error"]) + say.END,
    )
    steps: dict[str, tuple[Any, ...]] = {
        "429": (say.error(429, "rate_limit_exceeded", "rate_limit_error"),),
        "529": (say.error(529, None, "overloaded_error"),),
        "500": (say.error(500, None, "api_error"),),
        "error before content": (before, error),
        "error after content": (content, say.PAUSE, error),
        "cut before content": (before, say.RESET),
        "cut after content": (content, say.RESET),
        "no terminator": (content + say.END,),
        "stall before content": (before, say.HANG),
        "stall after content": (content, say.HANG),
        "nonsense": (say.SSE + say.chunks(b"data: nonsense\n\n") + say.END,),
    }
    return say.steps(*steps[name])


SOON = {
    "timeouts": {"connect": "300ms", "firstByte": "300ms", "streamIdle": "300ms"},
    "retry": {"retryOn": ["ConnectError", "Reset", "FirstByteTimeout"]},
}


def test_the_page_has_these_faults() -> None:
    page = (Path(__file__).parents[2] / "docs" / "messages.md").read_text()
    table = page.partition("| the endpoint | reason | the client sees |\n|---|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == [f"| {name} | `{reason}` | {sees} |" for name, reason, sees in FAULTS]


@pytest.mark.parametrize("way", ["chat to messages", "messages to chat"])
@pytest.mark.parametrize(("name", "reason", "sees"), FAULTS, ids=[each[0] for each in FAULTS])
async def test_faults(serve, endpoint, dial, say, way, name, reason, sees) -> None:
    to_messages = way == "chat to messages"
    says = message_events(say) if to_messages else chat_events(say)
    bad = await endpoint(fault(say, name, says))
    good = await endpoint(well(say) if to_messages else say.well("one two"))
    pool = {"dispatch": {"strategy": "RoundRobin"}, **(SPEAKS if to_messages else {})}
    lb = await serve(bad, good, pool=pool, route=SOON)
    target = "/v1/chat/completions" if to_messages else "/v1/messages"
    replies = []
    while not bad.calls:  # whoever is first in the round
        replies.append(await (await dial(lb)).post(target, hello(say, stream=True)))
    body = replies[-1].body.decode()
    assert replies[-1].status == 200
    assert body.count("one ") == 1
    end = "data: [DONE]\n\n" if to_messages else 'data: {"type":"message_stop"}\n\n'
    if sees == WHOLE:
        assert body.endswith(end)
        assert '"error"' not in body
    else:
        assert body.count('"error":{') == 1
        assert ("Overloaded" in body) is (sees == EVENT)
        assert ("stream_interrupted" in body) is (sees == CUT_EVENT)
        if not to_messages:
            assert body.count("event: error") == 1
            assert end not in body
    await lb.until(lambda: lb.sample("spillway_attempts_total", reason=reason) == 1)


async def test_whole_answers_that_are_none_go_elsewhere(serve, endpoint, sdks, say) -> None:
    for bad in (
        say.message(body=b"nonsense"),
        say.message(body=b'{"type":"message"'),
        refusal(say, 529, "overloaded_error"),
    ):
        one = await endpoint(say.steps(bad))
        pool = {**SPEAKS, "dispatch": {"strategy": "RoundRobin"}}
        lb = await serve(one, await endpoint(well(say)), pool=pool)
        while not one.calls:
            answer = await sdks.gpt(lb).chat.completions.create(**hello(say))
            assert answer.choices[0].message.content == "one two"


async def test_a_providers_own_words_decide_what_an_error_means(serve, endpoint, sdks, say) -> None:
    spent = refusal(say, 400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.")
    one = await endpoint(say.steps(spent))
    lb = await serve(one, pool=SPEAKS)
    with pytest.raises(openai.APIStatusError):
        await sdks.gpt(lb).chat.completions.create(**hello(say))
    assert lb.sample("spillway_attempts_total", reason="quota-exhausted") == 1


async def test_a_bad_request_is_told_in_the_words_of_the_provider(serve, endpoint, sdks, say) -> None:
    lb = await serve(
        await endpoint(say.steps(refusal(say, 400, "invalid_request_error", "max_tokens: too many"))), pool=SPEAKS
    )
    with pytest.raises(openai.BadRequestError) as caught:
        await sdks.gpt(lb).chat.completions.create(**hello(say))
    assert caught.value.message.endswith("max_tokens: too many") or "max_tokens: too many" in str(caught.value.body)
    assert caught.value.type == "invalid_request_error"


async def test_an_attempt_that_is_hedged_is_translated_by_itself(serve, objects, endpoint, sdks, say) -> None:
    slow = await endpoint(say.steps(say.SSE + say.chunks(say.role()), say.HANG))
    tiers = [{"name": "only", "pools": [{"name": "local"}], "hedge": {"after": "50ms", "maxPercent": 100}}]
    lb = await serve(
        slow,
        await endpoint(say.well("one two")),
        pool={"dispatch": {"strategy": "RoundRobin"}},
        route={"rules": [{"name": "all", "tiers": tiers}]},
    )
    while not slow.calls:
        async with sdks.claude(lb).messages.stream(**hello(say)) as stream:
            assert "".join([text async for text in stream.text_stream]) == "one two"


async def test_copies_for_a_mirror_are_translated_for_it(serve, objects, endpoint, sdks, say) -> None:
    mirror = await endpoint(well(say))
    docs = [
        objects.pool("local", await endpoint(say.well("hello"))),
        objects.pool("mirror", mirror, **SPEAKS),
        objects.route("local", mirror={"pool": {"name": "mirror"}, "percent": 100}),
    ]
    lb = await serve(docs=docs)
    await sdks.gpt(lb).chat.completions.create(**hello(say))
    await lb.until(lambda: mirror.calls)
    assert mirror.calls[0].target == "/v1/messages"
    await lb.until(lambda: lb.sample("spillway_mirror_requests_total", result="ok") == 1)


async def test_cut_streams_that_are_translated_are_not_gone_on_with(serve, engine, sdks, say) -> None:
    cut = parse('{"kind": "cut", "chunks": 5}')
    pool = {"engine": "vLLM", "dispatch": {"strategy": "RoundRobin"}}
    lb = await serve(await engine(faults=cut), await engine(), pool=pool, route={"streams": {"resume": "SameModel"}})
    codes = []
    for _ in range(2):
        try:
            async with sdks.claude(lb).messages.stream(**hello(say)) as stream:
                await stream.get_final_message()
        except anthropic.APIStatusError as error:
            codes.append(error.body["error"]["code"])
    assert codes == ["stream_interrupted"]


# ---- reads, quotas, rules


def parsed(body: bytes) -> list[Any]:
    """The events of a stream, without what is made up anew for each answer."""
    out = []
    for event in body.split(b"\n\n")[:-1]:
        data = event.split(b"data: ", 1)[1]
        value = json.loads(data) if data != b"[DONE]" else "[DONE]"
        for place in (value, value.get("message")) if isinstance(value, dict) else ():
            for name in ("id", "created"):
                (place or {}).pop(name, None)
        out.append(value)
    return out


@pytest.mark.parametrize("way", ["chat to messages", "messages to chat"])
async def test_an_answer_is_the_same_however_its_bytes_arrive(serve, endpoint, dial, say, way) -> None:
    to_messages = way == "chat to messages"
    words = [START, BLOCK, word("one "), word("two"), *END]
    if not to_messages:
        words = [say.role(), say.word("one "), say.word("two"), say.delta("stop"), say.DONE]
    stream = b"".join(words)
    one = await endpoint()
    lb = await serve(one, pool=SPEAKS if to_messages else {})
    target = "/v1/chat/completions" if to_messages else "/v1/messages"
    seen = []
    for size in (len(stream), 1, 7, 100):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        one.plan.append(say.steps(say.SSE, *(say.chunk(piece) for piece in pieces), say.END))
        seen.append(parsed((await (await dial(lb)).post(target, hello(say, stream=True))).body))
    assert seen[0]
    assert seen.count(seen[0]) == len(seen)


async def test_quotas_steer_though_the_client_never_sees_them(
    serve, objects, endpoint, dial, sdks, say, tmp_path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "api-key").write_text(say.KEY)
    left = {"anthropic_ratelimit_requests_limit": "50", "anthropic_ratelimit_requests_remaining": "7"}
    soon = datetime.fromtimestamp(time.time() + 3600, UTC).isoformat()
    reset = {"anthropic_ratelimit_requests_reset": soon}
    one = await endpoint(say.steps(whole(say, **left, **reset)))
    models = [{"name": "claude", "upstreamName": "claude-sonnet-4-5"}]
    cloud = objects.provider("cloud", one.url, "a", source={"provider": {"type": "Anthropic"}}, models=models)
    lb = await serve(docs=[cloud, objects.route("cloud")], secrets=tmp_path)
    raw = await sdks.gpt(lb).chat.completions.with_raw_response.create(**hello(say))
    assert raw.parse().choices[0].message.content == "one two"
    assert not [name for name in raw.headers if "ratelimit" in name]
    page = (await (await dial(lb)).get("/metrics")).body
    assert b'spillway_endpoint_quota_remaining{endpoint="a",kind="requests",pool="default/cloud"} 7.0' in page


async def test_rules_see_what_messages_ask_for(serve, objects, endpoint, sdks, say) -> None:
    first, second = await endpoint(), await endpoint()
    when = "request.user == 'u1' && request.tools && request.max_tokens == 20 && request.stream == false"
    rules = [
        {"name": "agents", "when": when, "tiers": [{"name": "a", "pools": [{"name": "first"}]}]},
        {"name": "others", "tiers": [{"name": "b", "pools": [{"name": "second"}]}]},
    ]
    docs = [objects.pool("first", first), objects.pool("second", second), objects.route("first", rules=rules)]
    lb = await serve(docs=docs)
    await sdks.claude(lb).messages.create(**hello(say, tools=[TOOL], metadata={"user_id": "u1"}))
    await sdks.claude(lb).messages.create(**hello(say, tools=[TOOL]))
    assert (len(first.calls), len(second.calls)) == (1, 1)


async def test_who_asks_why_is_told_of_the_translation(serve, endpoint, sdks, say) -> None:
    lb = await serve(await endpoint())
    raw = await sdks.claude(lb).messages.with_raw_response.create(
        **hello(say), extra_headers={"x-spillway-explain": "1"}
    )
    assert "; translated=chat" in raw.headers["x-spillway-explain"]


@pytest.mark.parametrize("way", ["chat to messages", "messages to chat"])
async def test_nonsense_of_an_endpoint_is_an_error_of_the_endpoint(serve, endpoint, dial, say, way) -> None:
    """Whatever it answers the client gets an answer in its own API, and the balancer has no bug."""
    to_messages = way == "chat to messages"
    dice = random.Random(7)
    good = json.dumps(MESSAGE).encode() if to_messages else say.completion().split(b"\r\n\r\n", 1)[1]
    stream = b"".join([START, BLOCK, word("one "), *END]) if to_messages else say.role() + say.word("one ") + say.DONE
    kinds = ["application/json", "text/event-stream", "text/html", "", "application/vnd.amazon.eventstream"]
    one = await endpoint()
    lb = await serve(one, pool=SPEAKS if to_messages else {}, route={"retry": {"attempts": 1}})
    client = await dial(lb)
    target = "/v1/chat/completions" if to_messages else "/v1/messages"
    for number in range(60):
        body = bytearray(dice.choice([good, stream, dice.randbytes(300), b"", b"{}", b"[1]", b'{"error": 1}']))
        for _ in range(dice.randrange(4) if body else 0):
            at = dice.randrange(len(body) + 1)
            body[at : at + dice.randrange(9)] = dice.randbytes(dice.randrange(3))
        status = dice.choice([200, 200, 200, 404, 422, 500])
        one.then = say.steps(say.message(status, bytes(body), content_type=dice.choice(kinds)))
        reply = await client.post(target, hello(say, stream=number % 2 == 0))
        assert reply.whole
        if reply.status >= 400:
            assert isinstance(reply.json()["error"]["message"], str)
        elif number % 2:
            assert "choices" in reply.json() if to_messages else reply.json()["type"] == "message"
    assert len(one.calls) == 60
