"""The city's people against a small real server: history grows by real answers, and every failure has a name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from spillway_balancer.city.chat import Player
from spillway_balancer.city.load import Session, Turn

Script = Callable[[dict[str, Any]], tuple[int, bytes]]
Serve = Callable[[Script], AbstractAsyncContextManager[str]]


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def says(text: str) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}}])


ROLE = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}])
DONE = b"data: [DONE]\n\n"


@pytest.fixture
def serve() -> Serve:
    """A chat endpoint that answers as the script says."""

    @asynccontextmanager
    async def serving(script: Script) -> AsyncIterator[str]:
        async def chat(request: web.Request) -> web.Response:
            status, body = script(await request.json())
            return web.Response(status=status, body=body)

        app = web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()

    return serving


def session(*texts: str, system: str | None = None, cache_key: str | None = None) -> Session:
    return Session("chat", 0.0, system, tuple(Turn(text, 8, 0.0) for text in texts), cache_key)


async def test_each_turn_carries_the_history_with_the_real_answers(serve: Serve) -> None:
    asked: list[dict[str, Any]] = []

    def script(body: dict[str, Any]) -> tuple[int, bytes]:
        asked.append(body)
        return 200, ROLE + says(f"answer {len(asked)}") + says(".") + DONE

    async with serve(script) as url:
        player = Player(url, "chat")
        await player.play([session("one", "two", system="Be kind.", cache_key="k")])

    assert [(message["role"], message["content"]) for message in asked[1]["messages"]] == [
        ("system", "Be kind."),
        ("user", "one"),
        ("assistant", "answer 1."),
        ("user", "two"),
    ]
    assert asked[1]["prompt_cache_key"] == "k"
    assert asked[1]["stream"] is True
    assert asked[1]["model"] == "chat"
    assert player.errors == 0
    assert all(answer.first is not None and answer.first <= answer.ended for answer in player.answers)


async def test_a_plain_client_sends_no_key(serve: Serve) -> None:
    asked: list[dict[str, Any]] = []

    def script(body: dict[str, Any]) -> tuple[int, bytes]:
        asked.append(body)
        return 200, says("x") + DONE

    async with serve(script) as url:
        await Player(url, "chat").play([session("one")])
    assert asked[0].keys() == {"model", "messages", "max_tokens", "stream"}


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (429, b'{"error": {"code": "rate_limited", "message": "slow down"}}', "429 rate_limited: slow down"),
        (502, b"<html>", "502 without an error object"),
        (200, says("half") + event(error={"code": "stream_cut", "type": "server_error"}), "cut: stream_cut"),
        (200, says("half"), "the stream ended without [DONE]"),
        (200, ROLE + DONE, "an answer without content"),
    ],
)
async def test_a_failed_answer_is_named_and_ends_its_session(serve: Serve, status: int, body: bytes, said: str) -> None:
    async with serve(lambda _: (status, body)) as url:
        player = Player(url, "chat")
        await player.play([session("one", "two")])
    assert [answer.error for answer in player.answers] == [said]
    assert player.errors == 1
    assert player.open == 0


async def test_nobody_there_is_an_error_and_no_exception(unused_tcp_port: int) -> None:
    player = Player(f"http://127.0.0.1:{unused_tcp_port}/v1", "chat")
    await asyncio.wait_for(player.play([session("one")]), 5)
    assert player.answers[0].error == "ClientConnectorError"
