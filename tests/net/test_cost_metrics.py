"""What requests cost, as metrics: with all of their attempts, at own engines, and what they saved by staying there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from time import monotonic
from typing import Any

import pytest
from tests.net.bookkeeper import PRICE, Bookkeeper

from spillway_api.types import Price
from spillway_balancer.core.prices import Used, cost

ASK = {"messages": [{"role": "user", "content": "Tell me all that you know of rivers. " * 20}], "max_tokens": 40}
EACH = {"route": "default/chat", "rule": "all", "currency": "USD"}
CALM = {"passive": {"consecutiveFailures": 0, "errorRatePercent": 100}}


@pytest.fixture
async def providers() -> AsyncIterator[tuple[Bookkeeper, Bookkeeper]]:
    both = Bookkeeper(), Bookkeeper()
    for one in both:
        await one.start()
    yield both
    for one in both:
        await one.stop()


def pool(objects: Any, name: str, *providers: Bookkeeper, **spec: Any) -> dict[str, Any]:
    return objects.pool(name, *(each.url.removesuffix("/v1") for each in providers), health=CALM, **spec)


def priced(objects: Any, name: str, *providers: Bookkeeper) -> dict[str, Any]:
    return pool(objects, name, *providers, models=[{"name": "gpt", "price": PRICE}])


def used(provider: Bookkeeper) -> Used:
    """By the last request that it had."""
    (message,) = provider.requests[-1]["messages"]
    prompt = len(str(message).replace("'", '"')) // 4
    cached = prompt // 3 if (len(provider.requests) - 1) % 2 else 0
    return Used(prompt, cached, 40)


async def page(dial: Any, lb: Any) -> str:
    text: str = (await (await dial(lb)).get("/metrics")).body.decode()
    return text


async def test_a_request_costs_what_all_of_its_attempts_do(serve, objects, providers, dial) -> None:
    """One is cut, one spills after a failure that costs nothing."""
    first, second = providers
    first.fate = lambda _number: "cut"
    tiers = [
        {"name": "one", "pools": [{"name": "one"}]},
        {"name": "two", "pools": [{"name": "two"}], "enterOn": ["Transient"]},
    ]
    docs = [priced(objects, "one", first), priced(objects, "two", second), objects.route(tiers=tiers)]
    lb = await serve(docs=docs)
    client = await dial(lb)
    cut = await client.chat(stream=True, **ASK)
    assert 0 < cut.text.count("word") < 40
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    failed = lb.sample("spillway_request_cost_total", **EACH, tier="one", spilled="false", result="failed")
    assert failed == lb.sample("spillway_cost_total") == pytest.approx(float(first.bill), rel=0.1), "by its text"
    first.fate = lambda _number: "500"
    reply = await (await dial(lb)).chat(headers=[("x-spillway-explain", "1")], **ASK)
    assert reply.status == 200
    amount = float(second.bill)
    assert reply.header("x-spillway-cost") == f"{amount:.9f}".rstrip("0") + " USD"
    spilled = {**EACH, "tier": "two", "spilled": "true", "result": "ok"}
    await lb.until(lambda: lb.sample("spillway_costed_requests_total", **spilled) == 1)
    assert lb.sample("spillway_request_cost_total", **spilled) == pytest.approx(amount)
    assert lb.sample("spillway_request_cost_total") == pytest.approx(lb.sample("spillway_cost_total"))


async def test_an_attempt_that_was_outrun_is_on_the_bill(serve, objects, providers, dial) -> None:
    """A hedge: the slow one's prompt is charged."""
    slow, quick = providers
    hedge = {"after": "50ms", "maxPercent": 100}
    docs = [
        priced(objects, "one", slow, quick),
        objects.route(tiers=[{"name": "one", "pools": [{"name": "one"}], "hedge": hedge}]),
    ]
    lb = await serve(docs=docs)
    slow.gate.clear()
    quick.gate.clear()
    client = await dial(lb)
    task = asyncio.create_task(client.chat(stream=True, **ASK))
    await lb.until(lambda: slow.requests and quick.requests)
    quick.gate.set()
    assert (await task).whole
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    paid = lb.sample("spillway_cost_total", route="default/chat")
    assert paid > float(quick.bill)
    assert lb.sample("spillway_request_cost_total", result="ok") == pytest.approx(paid)
    assert lb.sample("spillway_costed_requests_total") == 1
    slow.gate.set()


async def test_requests_to_providers_without_a_price_are_counted_and_not_taken_for_free(
    serve, objects, providers, dial
) -> None:
    own, other = providers
    cloud = objects.provider("cloud", other.url, models=[{"name": "strange"}])
    cloud["spec"]["source"]["provider"]["accounts"] = [{"name": "a"}]
    lb = await serve(docs=[cloud, objects.route("cloud")])
    client = await dial(lb)
    for options in ({}, {"stream": True}):
        assert (await client.chat(**ASK, **options)).status == 200
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    names = {"route": "default/chat", "pool": "default/cloud", "model": "strange"}
    assert lb.sample("spillway_unpriced_requests_total", **names) == 2
    assert lb.sample("spillway_cost_total") == lb.sample("spillway_costed_requests_total") == 0
    assert "stream_options" not in other.requests[1], "nobody counts"
    other.fate = lambda _number: "500"
    await client.chat(**ASK)
    assert lb.sample("spillway_unpriced_requests_total", **names) == 2, "what was refused has cost nothing"
    assert not own.requests


async def test_own_engines_without_a_price_are_not_unpriced(serve, objects, providers, dial) -> None:
    own, _ = providers
    lb = await serve(docs=[pool(objects, "local", own), objects.route("local")])
    assert (await (await dial(lb)).chat(**ASK)).status == 200
    assert lb.sample("spillway_unpriced_requests_total") == 0


async def test_what_stays_at_home_saves_what_the_next_tier_would_have_charged(serve, objects, providers, dial) -> None:
    own, other = providers
    tiers = [{"name": "local", "pools": [{"name": "local"}]}, {"name": "cloud", "pools": [{"name": "cloud"}]}]
    local = pool(objects, "local", own, cost={"perEndpointHour": "3.60"})
    lb = await serve(docs=[local, priced(objects, "cloud", other), objects.route(tiers=tiers)])
    client = await dial(lb)
    upkeep = lb.balancer.serving.current.pools["default/local"].upkeep
    upkeep.passed(monotonic() - 100, 1, 0, 0)
    saved, asked = Decimal(0), 0
    for options in ({}, {"stream": True}, {}):
        assert (await client.chat(**ASK, **options)).whole
        asked += 1
        saved += cost(Price(input=PRICE["input"], cached_input=PRICE["cachedInput"], output=PRICE["output"]), used(own))
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    assert own.requests[1]["stream_options"] == {"include_usage": True}, "its tokens are counted"
    home = {**EACH, "tier": "local"}
    assert lb.sample("spillway_saved_cost_total", **home) == pytest.approx(float(saved))
    assert lb.sample("spillway_costed_requests_total", **home, spilled="false", result="ok") == asked
    paid = lb.sample("spillway_request_cost_total", **home, spilled="false", result="ok")
    assert lb.sample("spillway_cost_total") == 0, "that is money which somebody charges"
    text = await page(dial, lb)
    assert 0.1 <= upkeep.total < 0.12
    assert 0.1 <= paid <= 0.1 * (1 + 1 / 2 + 1 / 3) * 1.2, "of the same hundred seconds each has its part, so far"
    assert 'spillway_pool_cost_total{currency="USD",pool="default/local"}' in text
    for kind in ("prompt", "cached", "output"):
        assert f'spillway_pool_token_cost{{currency="USD",kind="{kind}",pool="default/local"}}' in text


async def test_what_fails_at_home_saves_nothing(serve, objects, providers, dial) -> None:
    own, other = providers
    own.fate = lambda _number: "500"
    tiers = [
        {"name": "local", "pools": [{"name": "local"}]},
        {"name": "cloud", "pools": [{"name": "cloud"}], "enterOn": ["Transient"]},
    ]
    local = pool(objects, "local", own, cost={"perEndpointHour": "3.60"})
    lb = await serve(docs=[local, priced(objects, "cloud", other), objects.route(tiers=tiers)])
    assert (await (await dial(lb)).chat(**ASK)).whole
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    assert lb.sample("spillway_saved_cost_total") == 0
    spilled = lb.sample("spillway_request_cost_total", **EACH, tier="cloud", spilled="true", result="ok")
    assert spilled == pytest.approx(float(other.bill))


async def test_what_nobody_counts_has_no_series(serve, objects, providers, dial) -> None:
    own, _ = providers
    lb = await serve(docs=[pool(objects, "local", own), objects.route("local")])
    assert (await (await dial(lb)).chat(stream=True, **ASK)).whole
    assert "stream_options" not in own.requests[0]
    assert not [name for name in lb.series() if "cost" in name and "request" in name]


# ---- Anthropic's way to count

USAGE = {
    "input_tokens": 50,
    "cache_read_input_tokens": 1000,
    "cache_creation_input_tokens": 200,
    "cache_creation": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 50},
    "output_tokens": 40,
}
CLAUDE = {"input": "3", "cachedInput": "0.30", "cacheWrite": "3.75", "cacheWriteLong": "6", "output": "15"}
PROMPT_COSTS = (50 * 3 + 1000 * 0.30 + 150 * 3.75 + 50 * 6) / 1e6
TEXT = "word " * 40
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn"}


def event(kind: str, **said: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **said})}\n\n".encode()


def claude(say: Any, cut: bool) -> Any:
    """Answers as Anthropic does, and is cut before its end."""

    async def behave(call: Any) -> None:
        if not call.json().get("stream"):
            said = {**MESSAGE, "content": [{"type": "text", "text": TEXT}], "usage": USAGE}
            call.write(say.message(body=json.dumps(said).encode()))
            return
        events = [
            event("message_start", message={**MESSAGE, "content": [], "usage": {**USAGE, "output_tokens": 1}}),
            event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": TEXT}),
        ]
        if not cut:
            events += [
                event("content_block_stop", index=0),
                event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 40}),
                event("message_stop"),
            ]
        call.write(say.SSE + say.chunks(*events) + (b"" if cut else say.END))
        if cut:
            call.writer.close()

    return behave


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
@pytest.mark.parametrize("way", ["whole", "stream", "cut"])
async def test_messages_cost_what_their_provider_counts_passed_through_and_translated(
    serve, objects, endpoint, dial, say, path, way
) -> None:
    one = await endpoint(claude(say, way == "cut"))
    models = [{"name": "claude", "capabilities": ["Messages"], "price": CLAUDE}]
    lb = await serve(docs=[objects.pool("local", one, models=models), objects.route("local")])
    body = {"model": "chat", "max_tokens": 50, "messages": ASK["messages"], "stream": way != "whole"}
    reply = await (await dial(lb)).post(path, body)
    assert reply.status == 200
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    paid = lb.sample("spillway_cost_total", pool="default/local")
    by_text = len(TEXT) / 4  # nobody has told how long the answer has become
    assert paid == pytest.approx(PROMPT_COSTS + (by_text if way == "cut" else 40) * 15 / 1e6)
    assert lb.sample("spillway_usage_estimated_total") == (way == "cut")
    assert lb.sample("spillway_request_cost_total", result="failed" if way == "cut" else "ok") == pytest.approx(paid)


# ---- prices of one's own


async def test_a_list_of_prices_is_followed_as_it_changes(serve, objects, providers, dial, tmp_path) -> None:
    own, _ = providers
    path = tmp_path / "prices.yaml"
    path.write_text('OpenAICompatible: {"gpt*": {input: "1", output: "2"}}\n')
    cloud = objects.provider("cloud", own.url, models=[{"name": "gpt-2031-01-31"}])
    cloud["spec"]["source"]["provider"]["accounts"] = [{"name": "a"}]
    lb = await serve(docs=[cloud, objects.route("cloud")], prices=path)

    def price() -> Price | None:
        return lb.balancer.serving.current.pools["default/cloud"].spec.models[0].price

    assert price() == Price(input="1", output="2")
    assert (await (await dial(lb)).chat(**ASK)).status == 200
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    assert lb.sample("spillway_cost_total", pool="default/cloud") == pytest.approx(
        float(cost(Price(input="1", output="2"), used(own)))
    )
    path.write_text('OpenAICompatible: {"gpt*": {input: 7}}\n')  # a slip: what was in force stays so
    await lb.until(lambda: lb.sample("spillway_config_reloads_total", result="refused") == 1)
    assert price() == Price(input="1", output="2")
    path.write_text('OpenAICompatible: {"gpt*": {input: "7"}}\n')
    await lb.until(lambda: price() == Price(input="7"))
