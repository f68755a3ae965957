"""Whatever becomes of requests, what was set aside for them is settled: nothing of a limit is lost for good."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.net.bookkeeper import PRICE, Bookkeeper

TALK = {"role": "user", "content": "Tell me all that you know of rivers. " * 20}


@pytest.fixture
async def providers() -> AsyncIterator[list[Bookkeeper]]:
    made = [Bookkeeper() for _ in range(2)]
    for one in made:
        await one.start()
    yield made
    for one in made:
        await one.stop()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_nothing_stays_reserved(serve, objects, providers, dial, seed) -> None:
    """Clients that leave at any time, refusals, errors, cuts, hedges, the queue, and a configuration that changes."""
    dice = random.Random(seed)
    fates = ["", "", "", "429", "500", "cut", "silent", "slow", "slow"]
    for one in providers:
        one.fate = lambda _number: dice.choice(fates)
    pools = [
        objects.pool(
            name,
            one.url.removesuffix("/v1"),
            one.url.removesuffix("/v1").replace("127.0.0.1", "localhost"),
            models=[{"name": "gpt", "price": PRICE}],
            health={"passive": {"consecutiveFailures": 0, "errorRatePercent": 100}},
        )
        for name, one in zip(("first", "second"), providers, strict=True)
    ]

    def policy(cents: int) -> dict[str, Any]:
        limits = {"budget": {"amount": f"0.{cents}"}, "requestsPerMinute": 100000, "tokensPerMinute": 60000}
        tiers = [
            {
                "name": "first",
                "pools": [{"name": "first"}],
                "limits": limits,
                "hedge": {"after": "10ms", "maxPercent": 50},
            },
            {
                "name": "second",
                "pools": [{"name": "second"}],
                "limits": {**limits, "maxSharePercent": 50},
                "enterOn": ["Capacity", "Transient", "Budget"],
            },
        ]
        return objects.route(tiers=tiers, queue={"maxWait": "100ms"})

    lb = await serve(docs=[*pools, policy(20)])

    async def one(number: int) -> None:
        client = await dial(lb)
        options = {"stream": True} if dice.random() < 0.6 else {}
        most = {"max_tokens": dice.randrange(1, 300)} if dice.random() < 0.8 else {}
        asking = asyncio.ensure_future(client.chat(messages=[TALK], **options, **most))
        if dice.random() < 0.3:
            await asyncio.sleep(dice.random() * 0.05)
            asking.cancel()
            client.close()
        await asyncio.gather(asking, return_exceptions=True)

    asked = [asyncio.ensure_future(one(number)) for number in range(150)]
    await asyncio.sleep(0.05)
    lb.write(*pools, policy(30))
    await asyncio.gather(*asked)
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    (route,) = lb.balancer.serving.current.routes.all
    await lb.until(lambda: str(route.limits["all", "first"].money.limit) == "0.30")
    for limits in route.limits.values():
        assert limits.money.reserved == 0
        assert limits.money.spent > 0
        assert limits.money.spent <= limits.money.limit
    assert lb.sample("spillway_hedges_total") > 0
    assert lb.sample("spillway_requests_total", code="499") > 0
    assert lb.sample("spillway_requests_total", code="200") > 20
    # Each token that counts belongs to an answer: what a provider never billed is not in the meters for long.
    billed = sum(float(each.bill) for each in providers)
    spent = sum(float(limits.money.spent) for limits in route.limits.values())
    assert spent == pytest.approx(billed, rel=0.5)
