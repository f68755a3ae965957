"""Comments that keep a client's timers alive while attempts go on, and how an answer ends that they have begun."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

import pytest
from tests.conftest import Say as say  # by its full name, as pytest has imported it

LIVELY: dict[str, Any] = {"streams": {"keepAlive": "100ms"}}
LIMITS = {"timeouts": {"connect": "2s", "firstByte": "5s", "streamIdle": "5s", "total": "20s"}}
COMMENT = b": keep-alive\n\n"


def after(seconds: float, behave: Any) -> Any:
    """What an endpoint does, so much later."""

    async def late(call: Any) -> None:
        await asyncio.sleep(seconds)
        await behave(call)

    return late


async def test_a_silent_endpoint_is_waited_for_with_comments_and_then_the_answer_comes_whole(
    serve, endpoint, dial
) -> None:
    client = await dial(await serve(await endpoint(after(0.35, say.well())), route=LIVELY))
    reply = await client.chat(stream=True)
    assert (reply.status, reply.whole, reply.text, reply.events[-1]) == (200, True, "hello", "[DONE]")
    assert reply.header("content-type") == "text/event-stream; charset=utf-8"
    assert reply.body.startswith(COMMENT)
    assert 2 <= reply.body.count(COMMENT) <= 4
    assert (await client.chat(stream=True)).status == 200, "the connection goes on"


async def test_what_answers_in_time_and_what_fails_in_time_has_its_own_status_and_no_comment(
    serve, endpoint, dial
) -> None:
    engine = await endpoint()
    engine.plan = deque([say.well(), say.steps(say.error(422))])
    client = await dial(await serve(engine, route=LIVELY))
    reply = await client.chat(stream=True)
    assert (reply.text, COMMENT in reply.body) == ("hello", False)
    assert (await client.chat(stream=True)).status == 422


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
async def test_nobody_else_is_sent_comments(serve, endpoint, dial, fields) -> None:
    """Not who wants no stream; and without `keepAlive` nobody."""
    engine = await endpoint(after(0.3, say.well()))
    lb = await serve(engine, route=LIVELY if not fields else {})
    reply = await (await dial(lb)).chat(**fields)
    assert (reply.text, COMMENT in reply.body) == ("hello", False)


async def test_attempts_go_on_behind_the_comments(serve, endpoint, dial) -> None:
    one, two = await endpoint(), await endpoint()
    one.plan = two.plan = deque([after(0.25, say.steps(say.error(500)))])
    lb = await serve(one, two, route=LIVELY)
    reply = await (await dial(lb)).chat(stream=True)
    assert (reply.status, reply.text, reply.body.startswith(COMMENT)) == (200, "hello", True)
    assert (len(one.calls), len(two.calls)) == (1, 1)
    await lb.until(lambda: lb.sample("spillway_requests_total", code="200") == 1)


REFUSED = say.event({"error": {"message": "no", "type": "x", "param": None, "code": "content_filter"}})
FAILURES = [
    pytest.param(say.steps(say.error(500)), 503, "attempts_failed", id="500"),
    pytest.param(say.steps(say.error(429, retry_after="7")), 429, "rate_limited", id="429"),
    pytest.param(say.steps(say.RESET), 503, "attempts_failed", id="reset"),
    pytest.param(say.steps(say.SSE, say.chunk(say.role()), say.CLOSE), 503, "attempts_failed", id="early cut"),
    pytest.param(say.steps(say.error(422, "odd")), 422, "odd", id="the endpoint's own"),
    pytest.param(say.steps(say.message(422, b"<html>")), 422, "no_event_stream", id="the endpoint's own, no JSON"),
    pytest.param(
        say.steps(say.SSE + say.chunk(REFUSED) + say.END), 500, "content_filter", id="the endpoint's own, as an event"
    ),
]


@pytest.mark.parametrize(("behave", "code", "name"), FAILURES)
async def test_a_failure_behind_comments_is_an_error_event_and_no_success(
    serve, endpoint, dial, behave, code, name
) -> None:
    engine = await endpoint(after(0.15, behave))
    lb = await serve(engine, route=LIVELY)
    client = await dial(lb)
    reply = await client.chat(stream=True)
    assert (reply.status, reply.whole, reply.body.startswith(COMMENT)) == (200, True, True)
    assert reply.error["code"] == name
    assert reply.events[-1] != "[DONE]"
    if name == "rate_limited":
        assert reply.error["retry_after"] == 7.0
    if name in ("attempts_failed", "rate_limited"):
        assert reply.error["attempts"]
    await lb.until(lambda: lb.sample("spillway_requests_total", code=str(code)) == 1)
    assert lb.sample("spillway_requests_total") == 1
    engine.then = say.well()
    if code != 429:
        assert (await client.chat(stream=True)).text == "hello", "the connection goes on"


async def test_a_cut_after_content_is_an_error_event_as_ever(serve, endpoint, dial) -> None:
    words = say.chunks(say.role(), say.word("one "))
    engine = await endpoint(after(0.15, say.steps(say.SSE, words, say.RESET)))
    lb = await serve(engine, route=LIVELY)
    reply = await (await dial(lb)).chat(stream=True)
    assert reply.body.startswith(COMMENT)
    assert reply.error["code"] == "stream_interrupted"
    await lb.until(lambda: lb.sample("spillway_requests_total", code="502") == 1)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_an_endpoint_that_does_not_stream_is_said_as_one_event(serve, endpoint, dial, path) -> None:
    engine = await endpoint(after(0.15, say.steps(say.completion("hello"))))
    client = await dial(await serve(engine, route=LIVELY))
    reply = await client.post(path, {"model": "chat", "input": "x", "stream": True})
    assert reply.body.startswith(COMMENT)
    events = [line for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    first = json.loads(events[0].removeprefix("data: "))
    if path == "/v1/responses":
        assert (first["type"], first["response"]["id"]) == ("response.completed", "c1")
    else:
        assert (first["id"], events[-1]) == ("c1", "data: [DONE]")


async def test_who_asks_why_is_told_in_a_comment_of_the_attempt_that_answered(serve, endpoint, dial) -> None:
    one, two = await endpoint(), await endpoint()
    one.plan = two.plan = deque([after(0.25, say.steps(say.error(500)))])
    client = await dial(await serve(one, two, route=LIVELY))
    reply = await client.chat([("x-spillway-explain", "1")], stream=True)
    assert reply.header("x-spillway-explain") is None
    assert b": x-spillway-explain: rule=all; tier=only" in reply.body
    assert b"attempt=2" in reply.body


async def test_a_client_that_leaves_among_comments_ends_the_attempt(serve, endpoint, dial) -> None:
    engine = await endpoint(say.steps(say.HANG))
    lb = await serve(engine, route={**LIVELY, **LIMITS})
    client = await dial(lb)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    call = await engine.call()
    assert (await client.reader.readuntil(COMMENT)).endswith(COMMENT)
    client.reset()
    await call.gone()
    await lb.until(lambda: lb.sample("spillway_requests_total", code="499") == 1)


async def test_an_old_client_is_sent_comments_too(serve, endpoint, dial) -> None:
    engine = await endpoint(after(0.25, say.well()))
    client = await dial(await serve(engine, route=LIVELY))
    body = json.dumps(client.chat_body(stream=True)).encode()
    head = b"POST /v1/chat/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    await client.send(head % len(body) + body)
    said = await client.closed()
    assert b"transfer-encoding" not in said
    assert COMMENT in said
    assert said.endswith(say.DONE)
