"""Faults of the fakes, family by family, and what the books say of the answers that they spoiled."""

from __future__ import annotations

import asyncio
from binascii import crc32
from typing import Any

import aiohttp
import pytest

from spillway_balancer.provider.families import FAMILIES
from spillway_balancer.provider.faults import KINDS, Cut, ErrorEvent, parse
from spillway_balancer.provider.refusals import KINDS as ERRORS
from spillway_balancer.provider.server import ProviderServer
from spillway_balancer.provider.state import Pace

from .conftest import Fake, bill


def ask(server: ProviderServer, stream: bool = True, tokens: int = 8) -> dict[str, Any]:
    """What `session.post` takes to ask any of the families for an answer."""
    family = server.state.family
    said = "Hello there"
    if family.api == "converse":
        body: Any = {"messages": [{"role": "user", "content": [{"text": said}]}]}
        body["inferenceConfig"] = {"maxTokens": tokens}
        url = f"{server.url}/model/m/converse{'-stream' if stream else ''}"
    else:
        body = {"model": "m", "messages": [{"role": "user", "content": said}], "max_tokens": tokens, "stream": stream}
        url = server.base_url + ("/v1/messages" if family.api == "messages" else "/chat/completions")
    headers = {"authorization": "Bearer fake-key", "x-api-key": "fake-key", "anthropic-version": "2023-06-01"}
    return {"url": url, "json": body, "headers": headers | {"api-key": "fake-key"}}


async def set_faults(session: aiohttp.ClientSession, server: ProviderServer, *faults: dict[str, Any]) -> None:
    async with session.put(f"{server.url}/sim/faults", json=list(faults)) as response:
        assert response.status == 200


TERMINATORS = {"chat": b"data: [DONE]\n\n", "messages": b'data: {"type":"message_stop"}\n\n', "converse": b"metadata"}


@pytest.mark.parametrize("type", FAMILIES)
async def test_a_stream_ends_with_its_terminator_unless_it_is_cut(
    fake: Fake, session: aiohttp.ClientSession, type: str
) -> None:
    """The books have what was generated of a cut one, as untold."""
    server = await fake(type)
    end = TERMINATORS[server.state.family.api]
    async with session.post(**ask(server)) as response:
        whole = await response.read()
    assert end in whole
    await set_faults(session, server, {"kind": "cut", "chunks": 3, "how": "no-end", "count": 1})
    async with session.post(**ask(server)) as response:
        assert response.status == 200
        cut = await response.read()
    assert end not in cut
    books = (await bill(session, server))["keys"]["main"]
    assert books["untold"]["m"]["output"] >= 3
    for how in ("close", "mid-frame"):
        await set_faults(session, server, {"kind": "cut", "chunks": 3, "how": how, "count": 1})
        with pytest.raises(aiohttp.ClientPayloadError):
            async with session.post(**ask(server)) as response:
                await response.read()


@pytest.mark.parametrize("type", FAMILIES)
@pytest.mark.parametrize("error", ERRORS)
async def test_errors_come_in_the_form_of_the_family(
    fake: Fake, session: aiohttp.ClientSession, type: str, error: str
) -> None:
    server = await fake(type)
    await set_faults(session, server, {"kind": "error", "error": error, "retry_after": 2.5})
    async with session.post(**ask(server)) as response:
        body = await response.json()
        assert response.status >= 400
        assert server.state.family.request_id in response.headers
        if "retry-after" in response.headers:
            assert response.headers["retry-after"] == "3"
    match server.state.family.api:
        case "messages":
            assert body["type"] == "error"
            assert body["error"]["type"].endswith(("_error", "_too_large"))
        case "converse":
            assert response.headers["x-amzn-errortype"].endswith("Exception")
            assert "message" in body
        case "chat":
            assert body
    assert (await bill(session, server))["keys"]["main"]["refused"] == 1


@pytest.mark.parametrize("type", ["openai", "anthropic", "bedrock", "openrouter"])
@pytest.mark.parametrize("chunks", [0, 2])
async def test_an_error_within_a_stream_before_content_is_free(
    fake: Fake, session: aiohttp.ClientSession, type: str, chunks: int
) -> None:
    server = await fake(type)
    await set_faults(session, server, {"kind": "error-event", "error": "overloaded", "chunks": chunks})
    async with session.post(**ask(server)) as response:
        assert response.status == 200
        said = await response.read()
    assert {"openai": b"slow_down", "anthropic": b"overloaded_error", "openrouter": b"server_error"}.get(
        type, b"serviceUnavailableException"
    ) in said
    account = (await bill(session, server))["keys"]["main"]
    assert account["refused"] == (chunks == 0)
    assert bool(account["untold"]) == bool(chunks)


async def test_a_broken_checksum_is_the_only_thing_wrong_with_its_frame(
    fake: Fake, session: aiohttp.ClientSession
) -> None:
    server = await fake("bedrock")
    await set_faults(session, server, {"kind": "broken", "chunks": 2})
    async with session.post(**ask(server)) as response:
        data = await response.read()
    sound = []
    while data:
        total = int.from_bytes(data[:4], "big")
        message, data = data[:total], data[total:]
        assert crc32(message[:8]) == int.from_bytes(message[8:12], "big")
        sound.append(crc32(message[:-4]) == int.from_bytes(message[-4:], "big"))
    assert sound == [True, True, True, False]


async def test_pings_alone_and_slow_first_bytes(fake: Fake, session: aiohttp.ClientSession) -> None:
    server = await fake("anthropic")
    await set_faults(session, server, {"kind": "stall", "chunks": 0, "pings": True})
    async with session.post(**ask(server)) as response:
        head = await response.content.readuntil(b"event: ping\n")
        assert b"content_block_delta" not in head + await response.content.readuntil(b"event: ping\n")
    await set_faults(session, server, {"kind": "slow", "seconds": 0.1})
    began = asyncio.get_running_loop().time()
    async with session.post(**ask(server)) as response:
        assert asyncio.get_running_loop().time() - began >= 0.1
    await set_faults(session, server, {"kind": "reset"})
    with pytest.raises(aiohttp.ClientError):
        await session.post(**ask(server))


async def test_faults_choose_models_and_accounts(fake: Fake, session: aiohttp.ClientSession) -> None:
    server = await fake("openai")
    await set_faults(session, server, {"kind": "error", "error": "server-error", "models": ["other"]})
    async with session.post(**ask(server)) as response:
        assert response.status == 200
    await set_faults(session, server, {"kind": "error", "error": "server-error", "keys": ["main"], "count": 1})
    async with session.post(**ask(server)) as response:
        assert response.status == 500
    async with session.get(f"{server.url}/sim/faults") as response:
        (shown,) = await response.json()
    assert (shown["hits"], shown["left"]) == (1, 0)


async def test_who_leaves_pays_for_what_was_generated(fake: Fake, session: aiohttp.ClientSession) -> None:
    server = await fake("openai", pace=Pace(0, 0.02))
    async with session.post(**ask(server, tokens=200)) as response:
        async for line in response.content:
            if b'"content":"' in line and b'"content":""' not in line:
                break
    for _ in range(100):
        account = (await bill(session, server))["keys"]["main"]
        if account["requests"]:
            break
        await asyncio.sleep(0.02)
    assert 1 <= account["untold"]["m"]["output"] < 100


async def test_answers_that_are_no_streams_fail_as_a_whole(fake: Fake, session: aiohttp.ClientSession) -> None:
    server = await fake("openai")
    await set_faults(session, server, {"kind": "error-event", "error": "server-error"})
    async with session.post(**ask(server, stream=False)) as response:
        assert response.status == 500
    await set_faults(session, server, {"kind": "cut"})
    with pytest.raises(aiohttp.ClientPayloadError):
        async with session.post(**ask(server, stream=False)) as response:
            await response.read()
    account = (await bill(session, server))["keys"]["main"]
    assert (account["refused"], account["untold"]["m"]["requests"]) == (1, 1)


def test_faults_are_read_and_what_is_wrong_is_said() -> None:
    assert parse('{"kind": "cut", "how": "no-end"}') == (Cut(how="no-end"),)
    assert parse('[{"kind": "error-event", "chunks": 0}]') == (ErrorEvent(chunks=0),)
    with pytest.raises(ValueError, match=f"kinds are: {', '.join(KINDS)}"):
        parse('{"kind": "flood"}')
    with pytest.raises(ValueError, match="error"):
        parse('{"kind": "error", "error": "bad luck"}')
