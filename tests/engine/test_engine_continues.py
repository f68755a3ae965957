"""`continue_final_message`: the simulated engine goes on with an answer as it would have said it itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.engine.text import Answer

MESSAGES = [{"role": "user", "content": "tell me a story"}]


@given(st.binary(max_size=40), st.integers(1, 60), st.integers(0, 300))
def test_what_was_said_and_the_rest_are_the_whole(prompt: bytes, tokens: int, cut: int) -> None:
    whole = Answer(prompt, tokens)
    said = whole.text[:cut]
    if not 0 < len(said) < len(whole.text):
        return
    full = max(0, len(said) - (4 - len(prompt) % 4)) // 4 + (len(said) >= 4 - len(prompt) % 4)
    rest = Answer.rest(prompt + said.encode(), said, tokens - full)
    assert said + rest.text == whole.text
    assert "".join(rest.piece(at, at + 1) for at in range(rest.tokens)) == rest.text


async def ask(session: Any, server: Any, **fields: Any) -> Any:
    body = {"model": "demo", "messages": MESSAGES, **fields}
    async with session.post(f"{server.url}/v1/chat/completions", json=body) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("limit", [{}, {"max_tokens": 30}])
@pytest.mark.parametrize("words", [1, 5])
async def test_it_goes_on_where_the_last_message_ends(serve, session, words, limit) -> None:
    server = await serve()
    _, whole = await ask(session, server, **limit)
    text = whole["choices"][0]["message"]["content"]
    said = " ".join(text.split(" ")[:words])
    rest = {"max_tokens": 30 - words} if limit else {}
    more = {"continue_final_message": True, "add_generation_prompt": False}
    messages = [*MESSAGES, {"role": "assistant", "content": said}]
    status, answer = await ask(session, server, messages=messages, **more, **rest)
    assert status == 200
    assert said + answer["choices"][0]["message"]["content"] == text
    usage = answer["usage"]
    assert usage["prompt_tokens"] > whole["usage"]["prompt_tokens"]
    assert usage["total_tokens"] == whole["usage"]["total_tokens"]


@pytest.mark.parametrize(
    "fields",
    [
        {"continue_final_message": True},
        {"continue_final_message": True, "add_generation_prompt": False},
    ],
    ids=["both", "no message of the assistant"],
)
async def test_what_cannot_be_gone_on_with_is_refused_as_vllm_does(serve, session, fields) -> None:
    status, _ = await ask(session, await serve(), **fields)
    assert status == 400


async def test_what_it_would_never_have_said_is_a_prompt_as_any_other(serve, session) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": "éternally, 42"}]
    more = {"continue_final_message": True, "add_generation_prompt": False, "max_tokens": 6}
    status, answer = await ask(session, await serve(), messages=messages, **more)
    assert (status, answer["usage"]["completion_tokens"]) == (200, 6)
