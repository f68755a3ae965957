"""A stream ends well when it has said so itself, whatever the connection does behind that."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import Say as say  # by its full name, as pytest has imported it

WHOLE = say.SSE + say.chunks(say.role(), say.word("hello"), say.delta("stop"), say.DONE)


@pytest.mark.parametrize("hedge", [None, {"after": "5s"}])
async def test_a_client_that_leaves_with_all_of_a_stream_has_not_left(
    serve, endpoint, dial, objects, hedge: Any
) -> None:
    """OpenAI's SDKs close the connection at `[DONE]`, often before the chunk that ends the body comes."""
    engine = await endpoint(say.steps(WHOLE, say.HANG))
    tier = {"name": "only", "pools": [{"name": "local"}]} | ({"hedge": hedge} if hedge else {})
    lb = await serve(docs=[objects.pool("local", engine), objects.route(tiers=[tier])])
    client = await dial(lb)
    await client.send(client.request(body=client.chat_body(stream=True)))
    await client.reader.readuntil(b"data: [DONE]\n\n")
    client.reset()
    await lb.until(lambda: lb.sample("spillway_requests_total") == 1)
    assert lb.sample("spillway_requests_total", code="200") == 1
    assert lb.sample("spillway_attempts_total", reason="ok") == lb.sample("spillway_attempts_total") == 1
    await engine.calls[0].gone()
    assert lb.in_flight == 0
    assert (await (await dial(lb)).get("/healthz")).status == 200


async def test_one_that_leaves_before_the_end_has(serve, endpoint, dial) -> None:
    engine = await endpoint(say.steps(say.SSE + say.chunks(say.role(), say.word("hello"), say.delta("stop")), say.HANG))
    lb = await serve(engine)
    client = await dial(lb)
    await client.send(client.request(body=client.chat_body(stream=True)))
    await client.reader.readuntil(b"hello")
    client.reset()
    await lb.until(lambda: lb.sample("spillway_requests_total") == 1)
    assert lb.sample("spillway_requests_total", code="499") == 1
    assert lb.sample("spillway_attempts_total", reason="client-gone") == 1


@pytest.mark.parametrize("then", [say.RESET, say.CLOSE, say.HANG])
async def test_what_breaks_behind_the_end_is_no_cut(serve, endpoint, dial, then: Any) -> None:
    engine = await endpoint(say.steps(WHOLE, say.PAUSE, then))
    lb = await serve(engine, route={"timeouts": {"streamIdle": "300ms"}})
    client = await dial(lb)
    reply = await client.chat(stream=True)
    assert (reply.whole, reply.text, reply.events[-1]) == (True, "hello", "[DONE]")
    await lb.until(lambda: lb.sample("spillway_attempts_total", reason="ok") == 1)
    assert lb.sample("spillway_requests_total", code="200") == 1
    assert (await client.chat(stream=True)).text == "hello", "the client's connection goes on"
