"""What differs between the families that speak chat completions, and their limits, by the wire alone."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.provider.families import FAMILIES
from spillway_balancer.provider.quotas import Bucket, Limits, Meter, spell
from spillway_balancer.provider.refusals import Refusal
from spillway_balancer.provider.server import ProviderServer

from .conftest import Fake, bill

CHAT = [name for name, family in FAMILIES.items() if family.api == "chat"]
HELLO: Any = [{"role": "user", "content": "Hello there"}]
KEYS = {"authorization": "Bearer fake-key", "api-key": "fake-key"}


async def events(session: aiohttp.ClientSession, server: ProviderServer, **more: Any) -> tuple[bytes, list[Any]]:
    """A stream as it came, and its chunks."""
    body = {"model": "m", "messages": HELLO, "stream": True, "max_tokens": 40} | more
    async with session.post(f"{server.base_url}/chat/completions", json=body, headers=KEYS) as response:
        assert response.status == 200, await response.text()
        raw = await response.read()
    lines = [line[6:] for line in raw.split(b"\n") if line.startswith(b"data: ")]
    assert lines.pop() == b"[DONE]"
    return raw, [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("type", "status", "word"),
    [
        ("openai", 401, "invalid_api_key"),
        ("azure", 401, "invalid subscription key"),
        ("gemini", 400, "API_KEY_INVALID"),
        ("vertex", 401, "UNAUTHENTICATED"),
        ("mistral", 401, "Unauthorized"),
        ("groq", 401, "invalid_api_key"),
        ("together", 401, "invalid_api_key"),
        ("fireworks", 401, "invalid_api_key"),
        ("deepseek", 401, "invalid_api_key"),
        ("openrouter", 401, "401"),
        ("xai", 400, "Incorrect API key provided"),
    ],
)
async def test_a_wrong_key_is_told_in_the_family_s_words(
    fake: Fake, session: aiohttp.ClientSession, type: str, status: int, word: str
) -> None:
    server = await fake(type)
    body = {"model": "m", "messages": HELLO}
    for headers in ({}, {"authorization": "Bearer wrong", "api-key": "wrong"}):
        async with session.post(f"{server.base_url}/chat/completions", json=body, headers=headers) as response:
            assert response.status == status
            assert word in await response.text()


@pytest.mark.parametrize("type", CHAT)
async def test_the_last_usage_of_a_stream_is_that_of_the_books(
    fake: Fake, session: aiohttp.ClientSession, type: str
) -> None:
    server = await fake(type)
    more = {} if type == "mistral" else {"stream_options": {"include_usage": True}}
    _, chunks = await events(session, server, **more)
    told = [chunk.get("usage") or chunk.get("x_groq", {}).get("usage") for chunk in chunks]
    last = [each for each in told if each][-1]
    page = (await bill(session, server))["keys"]["main"]["told"]["m"]
    assert last["prompt_tokens"] == page["input"]
    assert last["total_tokens"] == page["input"] + page["output"]


@pytest.mark.parametrize(
    ("type", "where"),
    [
        ("deepseek", "reasoning_content"),
        ("xai", "reasoning_content"),
        ("groq", "reasoning"),
        ("openrouter", "reasoning"),
    ],
)
async def test_thoughts_stand_where_the_family_puts_them(
    fake: Fake, session: aiohttp.ClientSession, type: str, where: str
) -> None:
    server = await fake(type)
    _, chunks = await events(session, server, reasoning_effort="high", max_tokens=500)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    thought = [at for at, delta in enumerate(deltas) if delta.get(where)]
    said = [at for at, delta in enumerate(deltas) if delta.get("content")]
    assert thought
    assert max(thought) < min(said)
    async with session.post(
        f"{server.base_url}/chat/completions",
        json={"model": "m", "messages": HELLO, "reasoning_effort": "high", "max_tokens": 500},
        headers=KEYS,
    ) as response:
        answer = await response.json()
    assert answer["choices"][0]["message"][where] == "".join(deltas[at][where] for at in thought)
    usage = answer["usage"]
    spoken = usage["total_tokens"] - usage["prompt_tokens"] - usage["completion_tokens"]
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
    assert spoken == (reasoning if type == "xai" else 0)


async def test_azure_begins_with_its_filter_and_an_empty_list(fake: Fake, session: aiohttp.ClientSession) -> None:
    server = await fake("azure")
    _, chunks = await events(session, server)
    assert chunks[0]["choices"] == []
    assert "prompt_filter_results" in chunks[0]
    assert all("content_filter_results" in chunk["choices"][0] for chunk in chunks[1:])


@pytest.mark.parametrize(
    ("type", "comment"), [("openrouter", b": OPENROUTER PROCESSING"), ("deepseek", b": keep-alive")]
)
async def test_comments_come_before_anything(
    fake: Fake, session: aiohttp.ClientSession, type: str, comment: bytes
) -> None:
    raw, _ = await events(session, await fake(type))
    assert raw.startswith(comment)


async def test_gemini_tells_usage_with_every_chunk_and_it_grows(fake: Fake, session: aiohttp.ClientSession) -> None:
    _, chunks = await events(session, await fake("gemini"), stream_options={"include_usage": True})
    told = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] == 40


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"max_completion_tokens": 5}, "max_completion_tokens"),
        ({"stream": True, "stream_options": {"include_usage": True}}, "include_usage"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": None, "refusal": None}]}, "refusal"),
    ],
)
async def test_mistral_refuses_what_it_does_not_know(
    fake: Fake, session: aiohttp.ClientSession, more: dict[str, Any], field: str
) -> None:
    server = await fake("mistral")
    body = {"model": "m", "messages": HELLO} | more
    async with session.post(f"{server.base_url}/chat/completions", json=body, headers=KEYS) as response:
        assert response.status == 422
        detail = (await response.json())["message"]["detail"][0]
    assert detail["type"] == "extra_forbidden"
    assert field in detail["loc"]


async def test_azure_tells_limits_that_it_does_not_have_as_it_does(fake: Fake, session: aiohttp.ClientSession) -> None:
    server = await fake("azure")
    body = {"model": "m", "messages": HELLO}
    async with session.post(f"{server.base_url}/chat/completions", json=body, headers=KEYS) as response:
        assert response.headers["x-ratelimit-remaining-requests"] == "-1"
        assert response.headers["x-ratelimit-remaining-tokens"] == "0"
        assert response.headers["apim-request-id"]


# ---- limits ------------------------------------------------------------------------------------------------


@given(st.integers(1, 1000), st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_no_more_requests_get_in_than_a_bucket_and_its_refill(size: int, pauses: list[float]) -> None:
    """Within any time t, at most size + size * t / 60; and who waits as told gets in."""
    meter = Meter(Limits(requests=size), 0.0)
    now = 0.0
    entered = 0
    for pause in pauses:
        now += pause
        try:
            meter.enter(1, now)
            entered += 1
        except Refusal as refusal:
            now += (refusal.retry_after or 0.0) + 1e-6
            meter.enter(1, now)
            entered += 1
        assert entered <= size + size * now / 60 + 1e-6


def test_tokens_are_given_back_when_the_answer_is_shorter() -> None:
    meter = Meter(Limits(tokens=100), 0.0)
    meter.enter(100, 0.0)
    with pytest.raises(Refusal):
        meter.enter(50, 0.0)
    meter.settle(100, 40, 0.0)
    meter.enter(50, 0.0)
    assert meter.openai(0.0, 0.0)["x-ratelimit-remaining-tokens"] == "10"


def test_headers_are_the_families_own() -> None:
    meter = Meter(Limits(requests=60, tokens=6000), 0.0)
    meter.enter(600, 0.0)
    assert meter.openai(0.0, 1000.0) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5400",
        "x-ratelimit-reset-tokens": "6s",
    }
    assert meter.anthropic(0.0, 1000.0)["anthropic-ratelimit-tokens-reset"] == "1970-01-01T00:16:46Z"
    assert meter.silent(0.0, 1000.0) == {}
    assert [spell(each) for each in (0.02, 1.25, 60, 372)] == ["20ms", "1.25s", "1m0s", "6m12s"]
    assert Bucket(60, 0.0).wait(1000, 0.0) == 0.0  # more than there ever is: let in when all is there
