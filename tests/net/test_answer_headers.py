"""The headers that we add to an answer: ten at most, for who asks, and of declared names and numbers alone."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from spillway_balancer.net.explaining import NAMES

ASK = [("x-spillway-explain", "1")]


def own(reply: Any) -> dict[str, str]:
    return {name.removeprefix("x-spillway-"): value for name, value in reply.headers if name.startswith("x-spillway-")}


@pytest.fixture
def two_tiers(serve, objects):
    async def make(local: Any, cloud: Any, **tier: Any) -> Any:
        tiers = [{"name": "own", "pools": [{"name": "local"}], **tier}, {"name": "cloud", "pools": [{"name": "cloud"}]}]
        price = {"input": "2.00", "output": "10.00"}
        return await serve(
            docs=[
                objects.pool("local", local, capacity={"maxInFlightPerEndpoint": 1}),
                objects.pool("cloud", cloud, models=[{"name": "gpt", "price": price}]),
                objects.route(tiers=tiers, retry={"attempts": 2}),
            ]
        )

    return make


@pytest.mark.parametrize("stream", [True, False])
async def test_what_became_of_a_request_in_ten_headers(two_tiers, engine, endpoint, dial, say, stream) -> None:
    """The own pool has no room, so it goes to the provider; a request before has taught how fast that is."""
    lb = await two_tiers(await endpoint(say.steps(say.HANG)), await engine(models=("gpt",)))
    waiting = await dial(lb)
    await waiting.send(waiting.request(body=waiting.chat_body()))
    await lb.until(lambda: lb.endpoint("e1").load.in_flight == 1)
    client = await dial(lb)
    for _ in range(2):
        reply = await client.chat(ASK, stream=stream, max_tokens=1000)
        assert reply.status == 200
    told = own(reply)
    assert tuple(told) == NAMES
    assert len(told) == 10
    explain = dict(pair.split("=", 1) for pair in told.pop("explain").split("; "))
    ttft, cost = float(told.pop("ttft")), told.pop("cost")
    assert told == {
        "route": "default/chat",
        "rule": "all",
        "tier": "cloud",
        "pool": "default/cloud",
        "endpoint": "e1",
        "attempts": "1",
        "spilled": "saturated",
    }
    assert ttft == float(explain["ttft"])
    amount, currency = cost.split(" ")
    assert currency == "USD"
    if stream:
        assert amount.startswith("<=")
        assert 0.01 < float(amount.removeprefix("<=")) < 0.0101  # a thousand tokens of answer, and a few of prompt
    else:
        usage = reply.json()["usage"]
        assert Decimal(amount) == (2 * usage["prompt_tokens"] + 10 * usage["completion_tokens"]) / Decimal(10**6)
    waiting.reset()


async def test_a_price_is_that_of_the_model_by_our_name(serve, endpoint, dial, say, objects) -> None:
    """Two models of a pool may be one to its provider, and differ in their price."""
    twice = [
        {"name": name, "upstreamName": "gpt", "price": {"output": price}}
        for name, price in (("now", "20.00"), ("later", "10.00"))
    ]
    lb = await serve(
        docs=[
            objects.pool("cloud", await endpoint(say.well("hello")), models=twice),
            objects.route(tiers=[{"name": "cloud", "pools": [{"name": "cloud", "model": "later"}]}]),
        ]
    )
    client = await dial(lb)
    assert own(await client.chat(ASK))["cost"] == "0.00001 USD"


async def test_nothing_is_said_to_who_does_not_ask(two_tiers, endpoint, dial) -> None:
    lb = await two_tiers(await endpoint(), await endpoint())
    assert own(await (await dial(lb)).chat()) == {}


async def test_what_has_nothing_to_say_is_left_out(serve, endpoint, dial) -> None:
    lb = await serve(await endpoint(), pool={"dispatch": {"strategy": "RoundRobin"}})
    told = own(await (await dial(lb)).chat(ASK))
    assert set(NAMES) - set(told) == {"spilled", "ttft", "cost"}
    assert told["attempts"] == "1"


async def test_the_reason_is_why_the_first_tier_was_left_however_far_it_went(two_tiers, endpoint, dial, say) -> None:
    lb = await two_tiers(await endpoint(say.steps(say.error(500))), await endpoint())
    told = own(await (await dial(lb)).chat(ASK))
    assert (told["tier"], told["spilled"], told["attempts"]) == ("cloud", "server-error", "2")


async def test_an_error_says_where_it_comes_from(two_tiers, endpoint, dial, say) -> None:
    refusing = say.steps(say.error(503))
    lb = await two_tiers(await endpoint(refusing), await endpoint(refusing))
    reply = await (await dial(lb)).chat(ASK)
    assert reply.status == 503
    told = own(reply)
    assert (told["pool"], told["attempts"], told["spilled"]) == ("default/cloud", "2", "overloaded")


async def test_a_request_that_is_refused_was_sent_nowhere(serve, objects, endpoint, dial) -> None:
    rules = [{"name": "never", "when": "false", "tiers": [{"name": "t", "pools": [{"name": "local"}]}]}]
    lb = await serve(docs=[objects.pool("local", await endpoint()), objects.route(rules=rules)])
    client = await dial(lb)
    reply = await client.chat(ASK)
    assert reply.status == 404
    assert own(reply) == {"route": "default/chat", "attempts": "0"}
    assert own(await client.chat(ASK, model="unknown")) == {}


async def test_an_endpoint_has_no_say_in_them(serve, endpoint, dial, say) -> None:
    body = b'{"choices":[{"message":{"content":"hello"}}]}'
    lying = say.message(body=body, x_spillway_pool="theirs", x_spillway_more="1", x_request_id="of-the-engine")
    served = await endpoint(say.steps(lying))
    lb = await serve(served)
    client = await dial(lb)
    reply = await client.chat([*ASK, ("x-request-id", "of-the-client"), ("x-spillway-tier", "mine")])
    assert own(reply)["pool"] == "default/local"
    assert "more" not in own(reply)
    # A request's id goes both ways as it is, and is nothing of ours.
    assert served.calls[0].header("x-request-id") == "of-the-client"
    assert not [name for name, _ in served.calls[0].headers if name.startswith("x-spillway-")]
    assert reply.header("x-request-id") == "of-the-engine"
    assert own(await client.chat()) == {}


async def test_after_signs_of_life_they_are_comments(serve, endpoint, dial, say) -> None:
    """The head has gone before it was known where the request would end."""

    async def slow(call: Any) -> None:
        await asyncio.sleep(0.25)
        await say.well()(call)

    lb = await serve(await endpoint(slow), route={"streams": {"keepAlive": "100ms"}})
    reply = await (await dial(lb)).chat(ASK, stream=True)
    assert own(reply) == {}
    assert (reply.status, reply.text) == (200, "hello")
    assert b"\n: x-spillway-endpoint: e1\n: x-spillway-attempts: 1\n" in reply.body
