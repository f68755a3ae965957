"""Requests over real sockets never reach a model that declares not to be able to serve them, however bad it gets."""

from __future__ import annotations

from typing import Any

import pytest

from spillway_balancer.core.reasons import Failure

EXPLAIN = "x-spillway-explain"
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
TOOL = [{"type": "function", "function": {"name": "f"}}]
LONG = [{"role": "user", "content": "word " * 8000}]


def model(*capabilities: str, **facts: Any) -> list[dict[str, Any]]:
    return [{"name": "demo", "capabilities": [*capabilities], **facts}]


@pytest.fixture
def tiered(serve, endpoint, say, objects):
    """`await tiered(models, models, …)`: one tier for each, whose endpoint answers with its name: t0, t1, …"""

    async def start(*tiers: list[dict[str, Any]], said: Any = None, **last: Any) -> Any:
        docs, made = [], []
        for at, models in enumerate(tiers):
            does = said if said is not None and at == 0 else say.well(f"t{at}")
            docs.append(objects.pool(f"p{at}", await endpoint(does), models=models))
            made.append({"name": f"t{at}", "pools": [{"name": f"p{at}"}]})
        made[-1] |= last
        return await serve(docs=[*docs, objects.route(tiers=made)])

    return start


async def test_a_request_begins_where_it_can_be_served(tiered, dial) -> None:
    lb = await tiered(model("Chat"), model("Chat", "Tools"), model())
    client = await dial(lb)
    assert (await client.chat()).text == "t0"
    assert (await client.chat(tools=TOOL)).text == "t1"
    reply = await client.chat([(EXPLAIN, "1")], messages=IMAGE)
    assert reply.text == "t2"
    assert "left-out=t0:default/p0(has no Vision),t1:default/p1(has no Vision)" in (reply.header(EXPLAIN) or "")


async def test_nobody_falls_back_to_who_cannot(tiered, dial, say) -> None:
    lb = await tiered(model("Chat", "Vision"), model("Chat"), said=say.steps(say.error(503)))
    client = await dial(lb)
    assert (await client.chat()).text == "t1"
    reply = await client.chat(messages=IMAGE)
    assert reply.status == 503
    attempts = reply.error["attempts"]
    assert attempts[0] == "t1 default/p1: has no Vision"
    assert attempts[1].startswith("t0 default/p0/e1: overloaded")


async def test_nor_when_every_endpoint_of_its_own_is_ejected(tiered, dial) -> None:
    lb = await tiered(model("Chat", "Vision"), model("Chat"))
    pool = lb.balancer.serving.current.pools["default/p0"]
    for _ in range(3):
        pool.failed(pool.endpoints["e1"], Failure("connect"), 0.0, 1e9)
    client = await dial(lb)
    assert (await client.chat(messages=IMAGE)).text == "t0"  # the last resort is of those that can


async def test_a_request_that_nobody_can_serve_is_told_what_is_missing(tiered, dial, say) -> None:
    lb = await tiered(model("Chat"), model("Chat", "Tools"))
    client = await dial(lb)
    reply = await client.chat(messages=[*IMAGE, {"role": "user", "content": say.PROMPT}], tools=TOOL)
    assert (reply.status, reply.error["code"], reply.error["type"]) == (
        400,
        "no_capable_target",
        "invalid_request_error",
    )
    assert reply.error["message"].endswith("needs: Tools, Vision")
    assert reply.error["attempts"] == [
        "t0 default/p0: has no Tools, Vision",
        "t1 default/p1: has no Vision",
    ]
    embedded = await client.post("/v1/embeddings", {"model": "chat", "input": "a"})
    assert (embedded.status, embedded.error["code"]) == (400, "no_capable_target")


async def test_a_long_request_is_not_spilled_to_a_small_window(tiered, dial, say) -> None:
    lb = await tiered(model(contextWindow=32_000), model(contextWindow=4_096), said=say.steps(say.error(503)))
    client = await dial(lb)
    assert (await client.chat()).text == "t1"
    reply = await client.chat(messages=LONG)
    assert reply.status == 503
    assert "t1 default/p1: context window too small" in reply.error["attempts"]


async def test_a_long_request_skips_home_where_the_policy_lets_length_go_on(tiered, dial) -> None:
    lb = await tiered(model(contextWindow=4_096), model(contextWindow=32_000), enterOn=["ContextLength"])
    client = await dial(lb)
    assert (await client.chat()).text == "t0"
    assert (await client.chat(messages=LONG)).text == "t1"


async def test_where_no_window_is_large_enough_the_endpoint_answers_itself(tiered, dial, say) -> None:
    lb = await tiered(model(contextWindow=2_048), said=say.steps(say.error(400, "context_length_exceeded")))
    reply = await (await dial(lb)).chat(messages=LONG)
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
