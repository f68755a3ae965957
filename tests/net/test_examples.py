"""Examples do what their comments say, against endpoints on real sockets."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest
import yaml
from tests.net.staging import EXAMPLES, KEY, staged


@pytest.fixture
def stage(serve, endpoint, say, tmp_path):
    """`await stage("x.yaml", edit, pool=behaviour, …)`: the example as a balancer, its endpoints by pool, documents.
    An endpoint that is not told what to do answers with the name of its pool. `edit` may change the policies."""

    async def start(example: str, edit: Any = None, **behaviours: Any) -> tuple[Any, dict[str, Any], list[Any]]:
        docs = yaml.safe_load_all((EXAMPLES / example).read_text())
        names = [doc["metadata"]["name"] for doc in docs if doc["kind"] == "ModelPool"]
        endpoints = {name: await endpoint(behaviours.get(name.replace("-", "_"), say.well(name))) for name in names}
        made = staged(example, {name: each.url for name, each in endpoints.items()}, tmp_path / "secrets")
        if edit is not None:
            edit({doc["metadata"]["name"]: doc["spec"] for doc in made if doc["kind"] == "RoutePolicy"})
        return await serve(docs=made, secrets=tmp_path / "secrets"), endpoints, made

    return start


SESSIONS = 600


async def sides(client: Any) -> list[str]:
    """Which version has served each session."""
    return [(await client.chat([("x-session-id", f"user-{number}")])).text for number in range(SESSIONS)]


async def test_canary_80_20(stage, dial) -> None:
    lb, _, docs = await stage("canary-80-20.yaml")
    client = await dial(lb)
    first = await sides(client)
    share = first.count("llama-70b-canary") / SESSIONS
    assert abs(share - 0.2) < 0.05  # three standard deviations of 600 sessions
    assert await sides(client) == first

    # The weight is raised while somebody asks all the time: in force within two seconds, and nobody loses a request.
    pools = docs[-1]["spec"]["rules"][0]["tiers"][0]["pools"]
    pools[0]["weight"], pools[1]["weight"] = 50, 50
    route = lb.balancer.serving.current.routes.all[0]
    begun = monotonic()
    lb.write(*docs)
    while lb.balancer.serving.current.routes.all[0] is route:
        assert (await client.chat()).status == 200
    assert monotonic() - begun < 2.0
    second = await sides(client)
    assert abs(second.count("llama-70b-canary") / SESSIONS - 0.5) < 0.06
    moved = [(before, after) for before, after in zip(first, second, strict=True) if before != after]
    assert set(moved) == {("llama-70b", "llama-70b-canary")}  # nobody goes back

    async def weighed(*weights: int) -> list[str]:
        before = lb.balancer.serving.current.routes.all[0]
        pools[0]["weight"], pools[1]["weight"] = weights
        lb.write(*docs)
        await lb.until(lambda: lb.balancer.serving.current.routes.all[0] is not before)
        return await sides(client)

    assert await weighed(80, 20) == first  # those that went have returned
    assert set(await weighed(0, 100)) == {"llama-70b-canary"}


async def test_canary_that_is_down_is_made_up_for(stage, dial, say) -> None:
    lb, endpoints, docs = await stage("canary-80-20.yaml")
    endpoints["llama-70b-canary"].pages["/health"] = say.message(503)
    docs[1]["spec"]["health"]["active"] = {"mode": "HTTP", "interval": "1s", "timeout": "1s", "unhealthyThreshold": 1}
    lb.write(*docs)
    await lb.until(lambda: lb.endpoint("e1", "llama-70b-canary").probe.healthy is False)
    assert set(await sides(await dial(lb))) == {"llama-70b"}


async def test_premium(stage, dial, say) -> None:
    lb, endpoints, _ = await stage("premium.yaml")
    client = await dial(lb)

    async def asked(*headers: tuple[str, str]) -> str:
        return str((await client.chat(headers, model="assistant")).text)

    assert await asked(("x-tier", "premium")) == "large"
    assert await asked(("x-tier", "basic")) == "small"
    assert await asked() == "small"
    assert lb.sample("spillway_rule_errors_total") == 0.0

    # The large model is full: eight requests hang there, and the ninth goes to the provider with its own key.
    endpoints["large"].then = say.steps(say.HANG)
    waiting = [await dial(lb) for _ in range(8)]
    for each in waiting:
        await each.send(each.request(body=each.chat_body(model="assistant"), headers=[("x-tier", "premium")]))
    await lb.until(lambda: lb.endpoint("e1", "large").load.in_flight == 8)
    assert await asked(("x-tier", "premium")) == "cloud"
    assert await asked() == "small"
    assert endpoints["cloud"].calls[-1].header("authorization") == f"Bearer {KEY}"
    for each in waiting:
        each.reset()


async def test_twenty_models(stage, dial, say) -> None:
    async def named(call: Any) -> None:
        call.write(say.completion(call.json()["model"]))

    lb, endpoints, docs = await stage("twenty-models.yaml", small=named, code=named, large=named)
    client = await dial(lb)
    listed = [each["id"] for each in (await client.get("/v1/models")).json()["data"]]
    assert len(listed) == 20
    for name in listed:
        assert (await client.chat(model=name)).text == name.removeprefix("acme/")  # as its engine calls it
    for doc in docs[:-1]:
        own = [each["upstreamName"] for each in doc["spec"]["models"]]
        assert sorted(call.json()["model"] for call in endpoints[doc["metadata"]["name"]].calls) == sorted(own)
    assert (await client.chat(model="acme/unheard-of")).status == 404


async def test_latency_fallback_when_a_request_has_waited_too_long(stage, dial, say) -> None:
    def hurried(policies: dict[str, Any]) -> None:
        policies["chat"]["timeouts"] |= {"connect": "200ms", "firstByte": "200ms"}

    lb, endpoints, _ = await stage("latency-fallback.yaml", hurried, local=say.steps(say.SSE, say.HANG))
    client = await dial(lb)
    assert (await client.chat(stream=True)).text == "cloud"
    assert len(endpoints["local"].calls) == 1
    assert lb.sample("spillway_attempts_total", pool="default/local", reason="first-byte-timeout") == 1.0
    assert lb.sample("spillway_tier_requests_total", tier="cloud", spilled="true") == 1.0


async def test_latency_fallback_before_a_request_waits(stage, dial, say) -> None:
    def hurried(policies: dict[str, Any]) -> None:
        spill = policies["chat"]["rules"][0]["tiers"][0]["spill"]
        spill |= {"predictedTTFT": {"start": "50ms", "full": "100ms"}, "smoothing": "0s"}

    async def slow(call: Any) -> None:
        await asyncio.sleep(0.2)
        await say.well("local")(call)

    lb, _, _ = await stage("latency-fallback.yaml", hurried, local=slow)
    client = await dial(lb)
    served = [(await client.chat([("x-session-id", f"s{number}")], stream=True)).text for number in range(30)]
    assert served[0] == "local"
    assert set(served[-10:]) == {"cloud"}
    assert lb.sample("spillway_attempts_total", reason="first-byte-timeout") == 0.0


async def test_try_out(stage, dial) -> None:
    lb, endpoints, _ = await stage("try-out.yaml")
    client = await dial(lb)
    long = [{"role": "user", "content": "word " * 400}]
    for number in range(200):
        reply = await client.chat([("x-session-id", f"s{number}")], **({"messages": long} if number % 4 == 0 else {}))
        assert reply.text == "llama-70b"
    await lb.until(lambda: not lb.balancer.proxy.copies.under_way)
    copies = lb.sample("spillway_mirror_requests_total", pool="default/llama-70b-next", result="ok")
    assert copies == len(endpoints["llama-70b-next"].calls)
    assert 8 <= copies <= 37  # 20 of 200, four standard deviations either way
    seen = {"route": "default/chat-next"}
    assert lb.sample("spillway_shadow_decisions_total", **seen, tier="small", agrees="false") == 150
    assert lb.sample("spillway_shadow_decisions_total", **seen, tier="large", agrees="true") == 50
    assert endpoints["llama-8b"].calls == []


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
TOOL = [{"type": "function", "function": {"name": "f"}}]


def words(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": "word " * number}]


async def test_tiers_by_length(stage, dial, say) -> None:
    lb, endpoints, _ = await stage("tiers-by-length.yaml")
    client = await dial(lb)

    async def asked(task: str = "", **fields: Any) -> str:
        headers = [("x-task", task)] if task else []
        reply = await client.chat(headers, model="auto", **fields)
        assert reply.status == 200
        return str(reply.text)

    assert await asked() == "small"
    assert await asked(messages=words(2_000)) == "medium"
    assert await asked(messages=words(20_000)) == "large"
    assert await asked("summarise an order") == "medium"
    assert await asked("review of a Contract") == "large"
    assert await asked("contractual small talk, subcontract") == "large"  # \b is where a word begins
    assert await asked("subcontract") == "small"
    assert await asked(tools=TOOL) == "medium"
    assert await asked(messages=IMAGE) == "large"
    assert lb.sample("spillway_rule_errors_total") == 0.0

    # Each has the next one to fall back on, but never one that cannot do it.
    endpoints["small"].then = endpoints["medium"].then = say.steps(say.error(503))
    assert (await client.chat(model="auto")).status == 503
    assert await asked("a summary") == "large"
    endpoints["large"].then = say.steps(say.error(503))
    endpoints["medium"].then = say.well("medium")
    assert await asked("a proof") == "medium"
    refused = await client.chat(model="auto", messages=IMAGE)
    assert refused.status == 503
    assert "medium default/medium: has no Vision" in refused.error["attempts"]


async def test_aliases(stage, dial, say) -> None:
    async def named(call: Any) -> None:
        call.write(say.completion(call.json()["model"]))

    lb, endpoints, docs = await stage("aliases.yaml", own=named, cloud=named)
    client = await dial(lb)
    assert [each["id"] for each in (await client.get("/v1/models")).json()["data"]] == [
        "shop-chat",
        "shop-search",
        "shop-support",
        "shop-texts",
    ]

    async def asked(model: str, **fields: Any) -> str:
        return str((await client.chat(model=model, **fields)).text)

    found = await client.post("/v1/embeddings", {"model": "shop-search", "input": "red shoes"})
    assert found.status == 200
    assert endpoints["vectors"].calls[-1].json()["model"] == "BAAI/bge-m3"
    assert (await client.chat(model="shop-search")).error["code"] == "no_capable_target"

    assert await asked("shop-texts") == "llama-8b"
    assert await asked("shop-texts", tools=TOOL) == "gpt-5-mini"
    assert await asked("shop-chat", messages=IMAGE) == "gpt-5-mini"
    assert {await asked("shop-chat") for _ in range(10)} <= {"llama-8b", "gpt-5-mini"}

    assert await asked("shop-support") == "gpt-5"
    assert await asked("shop-support", messages=words(20_000)) == "gpt-5-mini"  # the better one would cost 3.3 cents
    dear = await client.chat(model="shop-support", messages=words(200_000))
    assert dear.error["code"] == "no_capable_target"
    endpoints["cloud"].then = say.steps(say.error(503))
    assert (await client.chat(model="shop-support")).status == 503  # what is below 70 is no fallback
    endpoints["cloud"].then = named

    # Another model behind the name: an edit, and the shop notices nothing.
    (texts,) = [doc["spec"] for doc in docs if doc["metadata"]["name"] == "texts"]
    texts["rules"][0]["tiers"][0]["pools"] = [{"name": "cloud", "model": "gpt"}]
    before = lb.balancer.serving.current.digest
    lb.write(*docs)
    await lb.until(lambda: lb.balancer.serving.current.digest != before)
    assert await asked("shop-texts") == "gpt-5"
