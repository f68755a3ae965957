"""examples/streams.yaml does what it says, over sockets."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Say as say  # by its full name, as pytest has imported it

EXAMPLE = Path(__file__).parents[2] / "examples" / "streams.yaml"


@pytest.fixture
async def scene(serve, endpoint) -> Any:
    pool, route = yaml.safe_load_all(EXAMPLE.read_text())
    engines = [await endpoint() for _ in range(3)]
    plan: deque[Any] = deque()
    for engine, listed in zip(engines, pool["spec"]["source"]["static"]["endpoints"], strict=True):
        engine.plan = plan
        listed["url"] = engine.url
    pool["spec"] |= {"metrics": {"mode": "None"}, "health": {"active": {"mode": "None"}}}
    route["spec"]["streams"]["keepAlive"] = "100ms"  # for a test that does not take long
    return await serve(docs=[pool, route]), plan


async def test_a_slow_first_token_is_hedged_for_one_request_of_twenty(scene, dial) -> None:
    lb, plan = scene
    client = await dial(lb)
    for _ in range(20):
        assert (await client.chat(stream=True)).text == "hello"
    plan.append(say.steps(say.HANG))
    reply = await client.chat(stream=True)
    assert reply.text == "hello"
    assert reply.body.startswith(b": keep-alive\n\n")
    await lb.until(lambda: lb.sample("spillway_hedges_total", result="won") == 1)
    assert lb.sample("spillway_hedge_wasted_cost_total", currency="USD") > 0


async def test_an_answer_goes_on_when_its_engine_breaks(scene, dial) -> None:
    lb, plan = scene
    begun = say.SSE + say.chunks(say.role(), say.word("hello "))
    plan.extend([say.steps(begun, say.RESET), say.well("world")])
    reply = await (await dial(lb)).chat(stream=True)
    assert (reply.text, reply.events[-1]) == ("hello world", "[DONE]")


async def test_signs_of_life_come_until_the_answer_does(scene, dial) -> None:
    lb, plan = scene

    async def late(call: Any) -> None:
        await asyncio.sleep(0.35)
        await say.well()(call)

    plan.append(late)
    reply = await (await dial(lb)).chat(stream=True)
    assert (reply.text, reply.body.count(b": keep-alive\n\n") >= 2) == ("hello", True)


async def test_what_could_cost_more_than_five_cents_is_refused(scene, dial) -> None:
    lb, _ = scene
    client = await dial(lb)
    assert (await client.chat(max_tokens=131072)).error["code"] == "cost_too_high"
    assert (await client.chat(max_tokens=1000)).text == "hello"
