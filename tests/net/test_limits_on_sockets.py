"""Limits of tiers and what attempts cost, over sockets, held against the books of the provider itself."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from tests.net.bookkeeper import PRICE, WORD, Bookkeeper

PARAGRAPH = {"role": "user", "content": "Tell me all that you know of rivers and the lands they run through. " * 8}


def tiers(limits: dict[str, Any], **spill: Any) -> list[dict[str, Any]]:
    return [
        {"name": "local", "pools": [{"name": "local"}], **({"spill": spill} if spill else {})},
        {"name": "cloud", "pools": [{"name": "cloud"}], "limits": limits},
    ]


ALL_LEAVE = {"inFlightPerEndpoint": {"start": 0, "full": 1}, "smoothing": "0s", "minDwell": "0s", "by": "Request"}


def cloud(objects: Any, provider: Bookkeeper, **spec: Any) -> dict[str, Any]:
    return objects.pool("cloud", provider.url.removesuffix("/v1"), models=[{"name": "gpt", "price": PRICE}], **spec)


def purse(lb: Any, tier: str = "cloud") -> Any:
    (route,) = lb.balancer.serving.current.routes.all
    return route.limits["all", tier].money


def only(limits: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "cloud", "pools": [{"name": "cloud"}], "limits": limits}]


@pytest.mark.parametrize("whose", ["tier", "pool"])
async def test_a_burst_spends_no_more_than_the_budget_and_what_the_bill_says(
    whose, serve, engine, objects, provider, dial
) -> None:
    """All at once, streamed and plain, well and failed and cut: to the last digit of the provider's own books."""
    mine, others = {"budget": {"amount": "0.50"}}, {"budget": {"amount": "99"}}
    of_tier, of_pool = (mine, others) if whose == "tier" else (others, mine)
    provider.fate = lambda number: {3: "500", 7: "429", 11: "500"}.get(number, "")
    local = objects.pool("local", await engine(), capacity={"maxInFlightPerEndpoint": 100})
    docs = [
        local,
        cloud(objects, provider, health={"passive": {"consecutiveFailures": 0, "errorRatePercent": 100}}, **of_pool),
        objects.route(tiers=tiers(of_tier, **ALL_LEAVE)),
    ]
    lb = await serve(docs=docs)
    held = lb.endpoint("e1").load.lease(10, 10, 10)  # so that everything would leave

    async def ask(number: int) -> int:
        options = {"stream": True} if number % 3 else {}
        reply = await (await dial(lb)).chat(messages=[PARAGRAPH], max_tokens=100 + number % 400, **options)
        assert reply.status == 200
        assert reply.whole
        return reply.status

    await asyncio.gather(*(ask(number) for number in range(240)))
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    held.release()
    money = purse(lb)
    fund = lb.balancer.serving.current.pools["default/cloud"].fund.money
    assert (money.reserved, fund.reserved) == (0, 0)
    assert Fraction(money.spent) == Fraction(fund.spent) == provider.bill
    assert Decimal("0.49") < money.spent <= Decimal("0.50")
    assert lb.sample("spillway_tier_spent_total", tier="cloud", currency="USD") == 0  # read at the scrape
    assert lb.sample("spillway_cost_total", route="default/chat", rule="all", pool="default/cloud", model="gpt") == (
        pytest.approx(float(money.spent))
    )
    assert lb.sample("spillway_usage_estimated_total") == 0
    spilled = lb.sample("spillway_tier_requests_total", tier="cloud")
    assert 80 < spilled < 240
    assert lb.sample("spillway_tier_requests_total", tier="local") == 240 - spilled  # those it kept out went home


async def test_money_that_is_spent_is_said_with_its_time(serve, objects, provider, dial) -> None:
    lb = await serve(
        docs=[cloud(objects, provider), objects.route(tiers=only({"budget": {"amount": "0.0041", "period": "Hour"}}))]
    )
    client = await dial(lb)
    assert (await client.chat(messages=[PARAGRAPH], max_tokens=200)).status == 200
    reply = await client.chat(messages=[PARAGRAPH], max_tokens=200)
    assert reply.status == 429
    error = reply.json()["error"]
    assert (error["code"], error["type"]) == ("budget_spent", "insufficient_quota")
    assert error["attempts"] == ["cloud: budget (limits.budget)"]
    assert 0 < int(reply.header("retry-after")) <= 3600
    assert len(provider.requests) == 1
    page = (await client.get("/metrics")).body.decode()
    assert 'spillway_tier_limited_total{limit="budget",route="default/chat",rule="all",tier="cloud"} 1.0' in page
    assert 'spillway_tier_spent_total{currency="USD",route="default/chat",rule="all",tier="cloud"} 0.00' in page


async def test_the_client_that_did_not_ask_sees_no_chunk_of_usage(serve, objects, provider, dial) -> None:
    lb = await serve(docs=[cloud(objects, provider), objects.route(tiers=only({"tokensPerMinute": 100000}))])
    client = await dial(lb)
    plain = await client.chat(messages=[PARAGRAPH], max_tokens=5, stream=True)
    asked = await client.chat(messages=[PARAGRAPH], max_tokens=5, stream=True, stream_options={"include_usage": True})
    assert [each["stream_options"] for each in provider.requests] == [{"include_usage": True}] * 2
    assert [bool(json.loads(each)["choices"]) for each in plain.events[:-1]] == [True] * 6
    assert [bool(json.loads(each)["choices"]) for each in asked.events[:-1]] == [True] * 6 + [False]
    assert plain.events[-1] == asked.events[-1] == "[DONE]"
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    (limits,) = lb.balancer.serving.current.routes.all[0].limits.values()
    counted = sum(sum(len(json.dumps(each)) for each in one["messages"]) // 4 + 5 for one in provider.requests)
    assert limits.tokens.used(asyncio.get_running_loop().time()) == counted


async def test_where_nothing_is_counted_the_request_goes_on_as_it_came(serve, objects, provider, dial) -> None:
    pool = objects.pool("cloud", provider.url.removesuffix("/v1"), models=[{"name": "chat"}])
    lb = await serve(docs=[pool, objects.route(tiers=only({"requestsPerMinute": 10}))])
    await (await dial(lb)).chat(messages=[PARAGRAPH], max_tokens=5, stream=True)
    assert "stream_options" not in provider.requests[0]


async def test_what_an_answer_does_not_say_is_estimated_by_its_text_and_counted(serve, objects, provider, dial) -> None:
    provider.fate = lambda _number: "silent"
    lb = await serve(docs=[cloud(objects, provider), objects.route(tiers=only({"budget": {"amount": "1"}}))])
    client = await dial(lb)
    for options in ({}, {"stream": True}):
        await client.chat(messages=[PARAGRAPH], max_tokens=80, **options)
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    assert lb.sample("spillway_usage_estimated_total", pool="default/cloud") == 2
    per_answer = len(WORD) * 80 / 4
    prompt = len(PARAGRAPH["content"]) / 4
    expected = 2 * (prompt * 2.50 + per_answer * 10) / 1e6
    assert float(purse(lb).spent) == pytest.approx(expected, rel=0.15)


async def test_a_cut_stream_costs_its_prompt_and_what_came(serve, objects, provider, dial) -> None:
    provider.fate = lambda _number: "cut"
    lb = await serve(docs=[cloud(objects, provider), objects.route(tiers=only({"budget": {"amount": "1"}}))])
    reply = await (await dial(lb)).chat(messages=[PARAGRAPH], max_tokens=200, stream=True)
    assert "error" in reply.events[-1]
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    money = purse(lb)
    came = sum("word" in each for each in reply.events)
    expected = (len(PARAGRAPH["content"]) / 4 * 2.50 + came * len(WORD) / 4 * 10) / 1e6
    assert came > 0
    assert money.reserved == 0
    assert float(money.spent) == pytest.approx(expected, rel=0.15)


async def test_a_client_that_leaves_gives_back_what_was_set_aside(serve, objects, provider, dial) -> None:
    provider.gate.clear()
    lb = await serve(docs=[cloud(objects, provider), objects.route(tiers=only({"budget": {"amount": "1"}}))])
    client = await dial(lb)
    body = {"model": "chat", "messages": [PARAGRAPH], "max_tokens": 5000}
    asking = asyncio.ensure_future(client.post("/v1/chat/completions", body))
    await lb.until(lambda: provider.requests)
    assert purse(lb).reserved > Decimal("0.05")
    asking.cancel()
    client.close()
    await lb.until(lambda: purse(lb).reserved == 0)
    # The provider has had the prompt; what it has made of it nobody knows.
    assert float(purse(lb).spent) == pytest.approx(len(PARAGRAPH["content"]) / 4 * 2.50 / 1e6, rel=0.15)


async def test_what_would_spend_too_much_at_once_waits_for_what_is_under_way(serve, objects, provider, dial) -> None:
    """Room for one answer at a time: the second is let in when the first has turned out to cost less."""
    provider.gate.clear()
    lb = await serve(docs=[cloud(objects, provider), objects.route(tiers=only({"budget": {"amount": "0.0041"}}))])
    asking = [
        asyncio.ensure_future((await dial(lb)).chat(messages=[PARAGRAPH], max_tokens=200, stream=stream))
        for stream in (False, True)
    ]
    await lb.until(lambda: lb.balancer.proxy.in_flight == 2 and provider.requests)
    provider.most = 10
    provider.gate.set()
    assert [(await each).status for each in asking] == [200, 200]
    assert len(provider.requests) == 2


async def test_a_share_of_the_requests_leaves_and_no_more(serve, engine, objects, provider, dial) -> None:
    local = objects.pool("local", await engine(), capacity={"maxInFlightPerEndpoint": 100})
    lb = await serve(
        docs=[local, cloud(objects, provider), objects.route(tiers=tiers({"maxSharePercent": 30}, **ALL_LEAVE))]
    )
    held = lb.endpoint("e1").load.lease(10, 10, 10)
    client = await dial(lb)
    for _ in range(40):
        assert (await client.chat(messages=[PARAGRAPH], max_tokens=2)).status == 200
    held.release()
    assert len(provider.requests) == 12
    assert lb.sample("spillway_tier_requests_total", tier="local") == 28


async def test_what_is_spent_outlives_a_reload(serve, objects, provider, dial) -> None:
    docs = [cloud(objects, provider), objects.route(tiers=only({"budget": {"amount": "0.0041"}}))]
    lb = await serve(docs=docs)
    client = await dial(lb)
    assert (await client.chat(messages=[PARAGRAPH], max_tokens=200)).status == 200
    before = purse(lb)
    lb.write(docs[0], objects.route(tiers=only({"budget": {"amount": "0.0042"}})))
    await lb.until(lambda: purse(lb).limit == Decimal("0.0042"))
    assert purse(lb) is before
    assert (await client.chat(messages=[PARAGRAPH], max_tokens=200)).status == 429
