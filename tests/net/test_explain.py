"""The header that says why an endpoint was chosen: for who asks, in numbers, and never a word of the prompt."""

from __future__ import annotations

from typing import Any

import pytest

EXPLAIN = "x-spillway-explain"
STORY = "In the beginning the reef was without form, and void; and darkness was upon the face of the deep. " * 40


def said(reply: Any) -> dict[str, str]:
    value = reply.header(EXPLAIN)
    assert value is not None
    pairs = [pair.partition("=") for pair in value.split("; ")]
    assert all(sign == "=" for _, sign, _ in pairs)
    return {name: given for name, _, given in pairs}


async def ask(dial: Any, lb: Any, messages: list[dict[str, str]], explain: bool = True, **fields: Any) -> Any:
    client = await dial(lb)
    headers = [(EXPLAIN, "1")] if explain else []
    body = {"model": "chat", "max_tokens": 40, "messages": messages, **fields}
    reply = await client.post("/v1/chat/completions", body, headers)
    assert reply.status == 200
    return reply


async def test_it_says_where_and_why(serve, engine, dial, say) -> None:
    lb = await serve(await engine(), await engine())
    told = said(await ask(dial, lb, [{"role": "user", "content": say.PROMPT}]))
    assert told["tier"] == "only"
    assert told["pool"] == "default/local"
    assert told["endpoint"] in ("e1", "e2")
    assert (told["strategy"], told["reason"], told["attempt"]) == ("Adaptive", "least-work", "1")
    assert float(told["ttft"]) >= 0
    assert float(told["prompt-tokens"]) > 0
    assert told["cached-tokens"] == "0"
    numbers = {"queued-tokens", "bytes-per-token", "speed", "cache-tokens", "requests"}
    assert all(float(told[name]) >= 0 for name in numbers)


@pytest.mark.parametrize("stream", [True, False])
async def test_next_turn_of_a_chat_finds_more_of_its_prompt(serve, engine, dial, stream: bool) -> None:
    lb = await serve(await engine(), await engine())
    messages = [{"role": "user", "content": STORY}]
    first = await ask(dial, lb, messages, stream=stream)
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And then? " * 60}]
    second = await ask(dial, lb, messages, stream=stream)
    messages += [{"role": "assistant", "content": second.text}, {"role": "user", "content": "And after that?"}]
    third = await ask(dial, lb, messages, stream=stream)
    told = [said(each) for each in (first, second, third)]
    assert told[0]["endpoint"] == told[1]["endpoint"] == told[2]["endpoint"]
    assert [each["reason"] for each in told] == ["least-work", "prefix", "prefix"]
    cached = [int(each["cached-tokens"]) for each in told]
    assert 0 == cached[0] < cached[1] < cached[2]
    assert cached[1] > 0.8 * int(told[0]["prompt-tokens"])
    assert all(int(each["cached-tokens"]) < int(each["prompt-tokens"]) for each in told)


async def test_nothing_is_said_to_who_does_not_ask(serve, engine, dial) -> None:
    lb = await serve(await engine())
    reply = await ask(dial, lb, [{"role": "user", "content": "hi"}], explain=False)
    assert reply.header(EXPLAIN) is None


async def test_no_text_and_no_secret_is_in_it(serve, engine, dial, say) -> None:
    lb = await serve(await engine())
    client = await dial(lb)
    headers = [(EXPLAIN, say.KEY), ("authorization", f"Bearer {say.KEY}"), ("x-session-id", say.PROMPT)]
    reply = await client.chat(headers, user=say.PROMPT)
    value = reply.header(EXPLAIN)
    assert value is not None
    assert value.isascii()
    assert not any(word in value for word in ("zebra", "quagga", say.PROMPT, say.KEY))


async def test_endpoint_is_not_told_that_somebody_asks(serve, endpoint, say, dial) -> None:
    heard = []

    async def behave(call: Any) -> None:
        heard.append(call.header(EXPLAIN))
        call.write(say.completion())

    lb = await serve(await endpoint(behave))
    assert said(await ask(dial, lb, [{"role": "user", "content": "hi"}]))["endpoint"] == "e1"
    assert heard == [None]


async def test_other_strategies_say_what_they_go_by(serve, engine, dial) -> None:
    lb = await serve(await engine(), pool={"dispatch": {"strategy": "LeastLoad"}})
    told = said(await ask(dial, lb, [{"role": "user", "content": "hi"}]))
    assert (told["strategy"], told["reason"]) == ("LeastLoad", "least-load")
    assert "cached-tokens" not in told


async def test_second_attempt_is_explained_not_the_one_that_failed(serve, engine, endpoint, say, dial) -> None:
    async def refuse(call: Any) -> None:
        call.write(say.error(503))

    lb = await serve(await endpoint(refuse), await engine())
    for _ in range(8):
        told = said(await ask(dial, lb, [{"role": "user", "content": "hi"}]))
        assert told["endpoint"] == "e2"
        if told["attempt"] == "2":
            return
    pytest.fail("the endpoint that refuses was never tried")


@pytest.mark.parametrize(
    ("headers", "asked", "unasked"), [("Never", False, False), ("OnRequest", True, False), ("Always", True, True)]
)
async def test_the_policy_says_who_is_told(serve, engine, dial, headers: str, asked: bool, unasked: bool) -> None:
    lb = await serve(await engine(), route={"explain": {"headers": headers}})
    for explain, told in ((True, asked), (False, unasked)):
        reply = await ask(dial, lb, [{"role": "user", "content": "hi"}], explain=explain)
        assert (reply.header(EXPLAIN) is not None) is told
