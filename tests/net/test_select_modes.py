"""How a pool is selected, over real sockets: by price, speed, quality and weight, and what an edit does under load."""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic
from typing import Any

import pytest

EXPLAIN = "x-spillway-explain"


def tier(select: str, *pools: str, **more: Any) -> dict[str, Any]:
    return {"name": "only", "select": select, "pools": [{"name": each} for each in pools], **more}


@pytest.fixture
def selected(serve, endpoint, say, objects):
    """`await selected(tier, a={…}, b={…})`: pools with these facts of their model, that answer with their name."""

    async def start(made: dict[str, Any], models: Any = ("chat",), **facts: dict[str, Any]) -> Any:
        docs = [
            objects.pool(name, await endpoint(say.well(name)), models=[{"name": "demo", **each}])
            for name, each in facts.items()
        ]
        return await serve(docs=[*docs, objects.route(tiers=[made], models=models)])

    return start


async def test_the_cheapest_for_the_request_is_asked(selected, dial) -> None:
    price = {"price": {"input": "0.1", "output": "10"}}, {"price": {"input": "2", "output": "1"}}
    lb = await selected(tier("Cheapest", "unknown", "reads", "writes"), unknown={}, reads=price[0], writes=price[1])
    client = await dial(lb)
    long = [{"role": "user", "content": "word " * 20_000}]
    assert (await client.chat(messages=long, max_tokens=10)).text == "reads"
    assert (await client.chat(max_tokens=2000)).text == "writes"


async def test_the_best_within_what_a_request_may_cost(selected, dial) -> None:
    best = {"qualityPercent": 95, "price": {"input": "10", "output": "50"}}
    good = {"qualityPercent": 70, "price": {"input": "0.1", "output": "0.5"}}
    lb = await selected(
        tier("Quality", "bad", "good", "best", minQualityPercent=50, maxCost={"amount": "0.006"}),
        bad={"qualityPercent": 49, "price": {"input": "0"}},
        good=good,
        best=best,
    )
    client = await dial(lb)
    assert (await client.chat(max_tokens=100)).text == "best"
    reply = await client.chat([(EXPLAIN, "1")], max_tokens=1000)
    assert reply.text == "good"
    said = reply.header(EXPLAIN) or ""
    assert "only:default/bad(quality 49 below 50)" in said
    assert "only:default/best(expected cost above 0.006 USD)" in said
    dear = await client.chat(messages=[{"role": "user", "content": "word " * 400_000}])
    assert (dear.status, dear.error["code"]) == (400, "no_capable_target")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("select", ["Fastest", "HighestThroughput"])
async def test_the_fastest_is_found_by_its_answers(serve, engine, dial, objects, select: str, stream: bool) -> None:
    """By a pool that reads no prompts, too: what answers take is heard where a tier goes by it."""
    fast, slow = await engine(speed=100.0), await engine(speed=4.0)
    pools = {name: {"dispatch": {"strategy": "LeastLoad", "key": [{"type": "Header", "name": "x-session-id"}]}}
             for name in ("slow", "fast")}  # fmt: skip
    docs = [objects.pool("slow", slow, **pools["slow"]), objects.pool("fast", fast, **pools["fast"])]
    lb = await serve(docs=[*docs, objects.route(tiers=[tier(select, "slow", "fast")])])
    client = await dial(lb)
    for _ in range(4):
        assert (await client.chat(stream=stream, max_tokens=40)).status == 200
    before = lb.sample("spillway_attempts_total", pool="default/slow")
    assert before >= 1
    for _ in range(20):
        assert (await client.chat(stream=stream, max_tokens=40)).status == 200
    assert lb.sample("spillway_attempts_total", pool="default/fast") >= 20
    assert lb.sample("spillway_attempts_total", pool="default/slow") <= before + 2
    lb.balancer.telemetry.endpoints.read(lb.balancer.serving.current, monotonic())
    rates = [lb.sample("spillway_model_output_tokens_per_second", pool=f"default/{each}") for each in ("slow", "fast")]
    assert 0 < rates[0] < rates[1]
    if stream:
        name = "spillway_model_time_to_first_token_seconds"
        assert 0 < lb.sample(name, pool="default/fast", model="demo") < lb.sample(name, pool="default/slow")


async def test_sessions_are_shared_by_weight_and_stay(selected, dial) -> None:
    """Ten thousand are, within a point, in tests/core/test_selecting.py; over sockets a tenth of it is the same."""
    made = {"name": "only", "pools": [{"name": "a", "weight": 80}, {"name": "b", "weight": 20}]}
    lb = await selected(made, a={}, b={})
    client = await dial(lb)
    answers = [(await client.chat([("x-session-id", f"s{at}")])).text for at in range(1000)]
    assert 760 <= answers.count("a") <= 840
    again = [(await client.chat([("x-session-id", f"s{at}")])).text for at in range(100)]
    assert again == answers[:100]


async def test_an_edited_weight_is_in_force_within_two_seconds_and_drops_no_request(selected, dial) -> None:
    made = {"name": "only", "pools": [{"name": "a", "weight": 95}, {"name": "b", "weight": 5}]}
    lb = await selected(made, a={}, b={})
    answers: list[tuple[float, int, str]] = []
    stop = asyncio.Event()

    async def client(number: int) -> None:
        one, at = await dial(lb), 0
        while not stop.is_set():
            at += 1
            reply = await one.chat([("x-session-id", f"{number}-{at}")], stream=at % 2 == 0)
            answers.append((monotonic(), reply.status, reply.text))

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(client(number))
        await lb.until(lambda: len(answers) > 500)
        edited = monotonic()
        lb.write(lb.file.read_text().replace("weight: 95", "weight: 0").replace("weight: 5\n", "weight: 100\n"))
        await lb.until(lambda: monotonic() > edited + 3.0)
        stop.set()
    assert {status for _, status, _ in answers} == {200}
    before = Counter(text for at, _, text in answers if at < edited)
    assert before["a"] > 0.88 * before.total()
    late = Counter(text for at, _, text in answers if at > edited + 2.0)
    assert late["a"] == 0
    assert late["b"] > 50


async def test_auto_is_a_name_as_any_other(selected, dial) -> None:
    lb = await selected(tier("Weighted", "a"), models=["auto"], a={})
    client = await dial(lb)
    assert (await client.chat(model="auto")).text == "a"
    assert [each["id"] for each in (await client.get("/v1/models")).json()["data"]] == ["auto"]
    assert (await client.chat(model="automatic")).status == 404


@pytest.fixture
def suffixed(serve, endpoint, say, objects):
    async def start(models: Any, **names: Any) -> Any:
        """Pools with these models, of rising price."""
        docs = [
            objects.pool(
                name,
                await endpoint(say.well(name)),
                models=[{"name": each, "price": {"input": str(9 - at)}} for each in models],
            )
            for at, (name, models) in enumerate(names.items())
        ]
        return await serve(docs=[*docs, objects.route(tiers=[tier("InOrder", *names)], models=models)])

    return start


async def test_floor_is_asked_for_under_its_name_and_counted_as_the_declared_one(suffixed, dial) -> None:
    lb = await suffixed(["chat", "chat:turbo"], dear=["demo"], cheap=["demo"])
    client = await dial(lb)
    assert (await client.chat(model="chat")).text == "dear"
    assert (await client.chat(model="chat:turbo")).text == "dear"
    for model in ("chat:floor", "chat:turbo:floor"):
        assert (await client.chat(model=model)).text == "cheap"
    assert (await client.get("/v1/models/chat:floor")).status == 200
    assert (await client.chat(model="chat:ceiling")).status == 404
    assert lb.sample("spillway_requests_total", model="chat", code="200") == 2
    assert {line.split("'model', '")[1].split("'")[0] for line in lb.series() if "spillway_requests_total" in line} == {
        "chat",
        "chat:turbo",
        "",
    }


async def test_endpoints_are_asked_for_the_head(serve, endpoint, say, objects, dial) -> None:
    one = await endpoint(say.well())
    models = [{"name": "qwen"}, {"name": "gemma:2b", "upstreamName": "google/gemma"}]
    lb = await serve(docs=[objects.pool("local", one, models=models), objects.route("local", models=["*"])])
    client = await dial(lb)
    for asked, upstream in (("qwen:floor", "qwen"), ("gemma:2b:nitro", "google/gemma"), ("gemma:2b", "google/gemma")):
        assert (await client.chat(model=asked)).status == 200
        assert (await one.call()).json()["model"] == upstream
    assert (await client.chat(model="gemma:floor")).status == 404


async def test_a_suffix_is_still_meant_when_its_request_has_waited_and_the_policy_has_changed(
    serve, endpoint, say, objects, dial
) -> None:
    free = asyncio.Event()

    async def behave(call: Any) -> None:
        await free.wait()
        call.write(say.completion("full"))

    def priced(amount: str) -> list[dict[str, Any]]:
        return [{"name": "demo", "price": {"input": amount}}]

    full = objects.pool("full", await endpoint(behave), models=priced("1"), capacity={"maxInFlightPerEndpoint": 1})
    dear = objects.pool("dear", await endpoint(say.well("dear")), models=priced("9"))
    cheap = objects.pool("cheap", await endpoint(say.well("cheap")), models=priced("2"))
    lb = await serve(docs=[full, objects.route("full")])
    first = asyncio.ensure_future((await dial(lb)).chat())
    await lb.until(lambda: lb.in_flight == 1)
    second = asyncio.ensure_future((await dial(lb)).chat(model="chat:floor"))
    await lb.until(lambda: lb.balancer.proxy.in_flight == 2)
    lb.write(dear, cheap, objects.route(tiers=[tier("InOrder", "dear", "cheap")]))
    assert (await second).text == "cheap"
    free.set()
    assert (await first).text == "full"
