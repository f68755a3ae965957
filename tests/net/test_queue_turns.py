"""Turns in the queue come from what happens, not from the clock that looks now and then: nobody is forgotten."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.conftest import Say as say

from spillway_balancer.net import queueing


@pytest.fixture(autouse=True)
def nobody_looks_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queueing, "POLL", 3600.0)


@pytest.mark.parametrize("seed", range(4))
async def test_whoever_leaves_whenever_the_others_are_served(serve: Any, endpoint: Any, dial: Any, seed: int) -> None:
    dice = random.Random(seed)

    async def answer(call: Any) -> None:
        await asyncio.sleep(dice.random() * 0.004)
        await say.steps(say.RESET)(call) if dice.random() < 0.1 else await say.well()(call)

    lb = await serve(
        await endpoint(answer),
        await endpoint(answer),
        pool={
            "capacity": {"maxInFlightPerEndpoint": 2},
            "health": {"passive": {"consecutiveFailures": 0, "minRequests": 10000}},
        },
        route={"retry": {"attempts": 2}, "priority": {"header": "x-priority"}},
    )
    clients = [await dial(lb) for _ in range(80)]

    async def one(number: int, client: Any) -> int | None:
        await asyncio.sleep(dice.random() * 0.02)
        headers = [("authorization", f"Bearer k{number % 7}"), ("x-priority", str(-(number % 3)))]
        task = asyncio.create_task(client.chat(headers))
        if dice.random() < 0.3:
            await asyncio.sleep(dice.random() * 0.05)
            if not task.done():
                client.reset()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                return None
        return int((await task).status)

    statuses = await asyncio.gather(*(one(number, client) for number, client in enumerate(clients)))
    assert set(statuses) <= {200, 503, None}
    assert statuses.count(200) > 30
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    assert lb.sample("spillway_queue_requests") == lb.sample("spillway_queue_bytes") == 0
    assert lb.sample("spillway_queue_rejects_total") == 0


async def test_two_rules_that_share_a_pool_are_both_served(serve: Any, endpoint: Any, dial: Any, objects: Any) -> None:
    engine = await endpoint()
    docs = [objects.pool("local", engine, capacity={"maxInFlightPerEndpoint": 1})]
    for name in ("one", "two"):
        route = objects.route("local", models=[name])
        route["metadata"]["name"] = name
        docs.append(route)
    lb = await serve(docs=docs)
    clients = [(await dial(lb), name) for name in ("one", "two") for _ in range(15)]
    replies = await asyncio.gather(*(client.chat(model=name) for client, name in clients))
    assert {reply.status for reply in replies} == {200}
