"""All that clients do, through a sidecar and a gateway behind it: streams, other paths, leaving, guards, a restart."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.net.sidecars import beside

from spillway_balancer.wire.forwarded import parse

SIGNED = b"\r\nx-spillway-served-by: gateway\r\n"
GATEWAY = {"pool": "@gateway/default", "endpoint": "gateway"}


@pytest.fixture
def pair(serve, objects, tmp_path):
    """`car, lb = await pair(near, far, …)`: engines in a pool that a sidecar may send to, and a provider's account in
    the tier behind it; or, without `near`, a provider alone."""
    (tmp_path / "keys" / "a").mkdir(parents=True)
    (tmp_path / "keys" / "a" / "api-key").write_text("sk-account-a")

    async def make(near: Any, far: Any, *more: Any, first: Any = None, **route: Any) -> tuple[Any, Any]:
        pools = [objects.provider("cloud", far.url + "/v1", "a", **(route.pop("cloud", None) or {}))]
        tiers = [{"name": "cloud", "pools": [{"name": "cloud"}], "enterOn": ["Capacity", "Transient"]}]
        if near is not None:
            pools.append(objects.pool("local", near, **(route.pop("local", None) or {})))
            tiers.insert(0, {"name": "local", "pools": [{"name": "local"}], **(first or {})})
        else:
            del tiers[0]["enterOn"]
        lb = await serve(docs=[*pools, *more, objects.route(tiers=tiers, **route)], secrets=tmp_path / "keys")
        return await beside(serve, tmp_path, lb), lb

    return make


async def test_a_stream_comes_piece_by_piece(pair, endpoint, say, dial) -> None:
    gate = asyncio.Event()
    far = await endpoint(
        say.steps(
            say.SSE + say.chunks(say.role(), say.word("one ")), gate, say.chunks(say.word("two"), say.DONE) + say.END
        )
    )
    car, _ = await pair(None, far)
    client = await dial(car)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    head = await client.head()
    assert (head.status, head.header("x-spillway-served-by")) == (200, "gateway")
    heard = b""
    while b"one " not in heard:
        heard += await client.chunk()
    gate.set()
    while piece := await client.chunk():
        heard += piece
    assert heard == b"".join((say.role(), say.word("one "), say.word("two"), say.DONE))


@pytest.mark.parametrize("when", ["before the answer", "within it"])
async def test_a_client_that_leaves_frees_the_gateways_work(pair, endpoint, say, dial, when) -> None:
    begins = say.SSE + say.chunks(say.role(), say.word("one "))
    far = await endpoint(say.steps(*([begins] if when == "within it" else []), say.HANG))
    car, lb = await pair(None, far)
    client = await dial(car)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    call = await far.call()
    if when == "within it":
        await client.head()
    client.close()
    await call.gone()
    await lb.until(lambda: lb.sample("spillway_attempts_total", reason="client-gone") == 1)
    await car.until(lambda: car.sample("spillway_attempts_total", reason="client-gone", **GATEWAY) == 1)


async def test_a_cut_is_said_once(pair, endpoint, say, dial) -> None:
    far = await endpoint(say.steps(say.SSE + say.chunks(say.role(), say.word("one ")), say.PAUSE, say.RESET))
    car, _ = await pair(None, far)
    reply = await (await dial(car)).chat(stream=True)
    assert reply.error["code"] == "stream_interrupted"
    assert reply.body.count(b'"error"') == 1
    assert reply.whole


async def test_a_gateway_that_goes_away_within_a_stream_is_a_cut(serve, endpoint, say, dial, tmp_path) -> None:
    head = say.SSE.replace(b"\r\n", SIGNED, 1)
    gateway = await endpoint(say.steps(head + say.chunks(say.role(), say.word("one ")), say.PAUSE, say.RESET))
    car = await beside(serve, tmp_path, gateway, knows=False)
    reply = await (await dial(car)).chat(stream=True)
    assert reply.error["code"] == "stream_interrupted"
    assert len(gateway.calls) == 1


async def test_an_error_that_a_gateway_says_in_its_stream_is_the_last_word(
    serve, endpoint, say, dial, tmp_path
) -> None:
    """It has begun to show signs of life, and then nothing was left to try."""
    error = say.event({"error": {"message": "no", "type": "x", "param": None, "code": "attempts_failed"}})
    head = say.SSE.replace(b"\r\n", SIGNED, 1)
    gate = asyncio.Event()
    gateway = await endpoint(
        say.steps(head + say.chunk(b": 1 before you\n\n"), gate, say.chunks(error, say.DONE) + say.END)
    )
    car = await beside(serve, tmp_path, gateway, knows=False)
    client = await dial(car)
    await client.send(
        client.request("/v1/chat/completions", client.chat_body(stream=True), [("x-spillway-queue", "comments")])
    )
    head = await client.head()
    assert await client.chunk() == b": 1 before you\n\n"
    gate.set()
    body = b""
    while piece := await client.chunk():
        body += piece
    assert body == error + say.DONE
    assert gateway.calls[0].header("x-spillway-queue") == "comments"
    assert len(gateway.calls) == 1


async def test_signs_of_life_of_both_make_one_stream(pair, endpoint, say, dial) -> None:
    gate = asyncio.Event()

    async def slow(call: Any) -> None:
        await gate.wait()
        await say.well()(call)

    car, _ = await pair(None, await endpoint(slow), streams={"keepAlive": "100ms"})
    client = await dial(car)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    head = await client.head()
    for _ in range(3):
        assert (await client.chunk()).startswith(b": ")
    gate.set()
    reply = await client.rest(head)
    assert reply.text == "hello"
    assert reply.whole


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/v1/embeddings", "application/json", b'{"model":"chat","input":["zebra-prompt-text"]}'),
        ("/v1/responses", "application/json", b'{"model":"chat","input":"zebra-prompt-text"}'),
        (
            "/v1/messages",
            "application/json",
            b'{"model":"chat","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}',
        ),
        (
            "/v1/messages/count_tokens",
            "application/json",
            b'{"model":"chat","messages":[{"role":"user","content":"hi"}]}',
        ),
        (
            "/v1/audio/transcriptions",
            "multipart/form-data; boundary=b",
            b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nchat\r\n--b\r\n'
            b'content-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\x00\xff\r\n--b--\r\n',
        ),
    ],
)
@pytest.mark.parametrize("knows", [False, True])
async def test_every_path_goes_on_as_it_came(
    serve, pair, endpoint, say, dial, tmp_path, path, kind, body, knows
) -> None:
    answer = say.message(200, b'{"seen": true}').replace(b"\r\n", SIGNED, 1)
    gateway = await endpoint(say.steps(answer))
    _, lb = await pair(None, await endpoint())
    car = await beside(serve, tmp_path, gateway, knows=False)
    if knows:
        car.learns(lb)
    reply = await (await dial(car)).post(path, body, [("content-type", kind), ("anthropic-version", "2023-06-01")])
    assert (reply.status, reply.json()) == (200, {"seen": True})
    (call,) = gateway.calls
    assert (call.target, call.body, call.header("content-type")) == (path, body, kind)
    assert call.header("anthropic-version") == "2023-06-01"
    assert bool(parse(call.header("x-spillway-forwarded")).rule) is knows


async def test_messages_are_translated_at_the_gateway(pair, endpoint, say, dial) -> None:
    far = await endpoint(say.well("from afar"))
    car, _ = await pair(None, far)
    body = {"model": "chat", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    client = await dial(car)
    reply = await client.post("/v1/messages", body, [("anthropic-version", "2023-06-01")])
    assert reply.json()["content"][0]["text"] == "from afar"
    assert far.calls[0].target == "/v1/chat/completions"
    counted = await client.post("/v1/messages/count_tokens", {"model": "chat", "messages": body["messages"]})
    assert counted.json()["input_tokens"] >= 1
    assert len(far.calls) == 1
    wrong = await client.post("/v1/messages", {**body, "model": "nobody"})
    assert (wrong.status, wrong.json()["error"]["type"]) == (404, "not_found_error")
    assert wrong.header("x-spillway-served-by") == "gateway"


async def test_a_name_that_nobody_has_is_the_gateways_to_refuse(pair, endpoint, dial) -> None:
    car, lb = await pair(await endpoint(), await endpoint())
    reply = await (await dial(car)).chat(model="nobody")
    assert (reply.status, reply.error["code"], reply.header("x-spillway-served-by")) == (
        404,
        "model_not_found",
        "gateway",
    )
    assert car.sample("spillway_requests_total", route="@gateway/default", model="*", code="404") == 1
    assert lb.sample("spillway_requests_total", code="404") == 1


async def test_load_leaves_for_the_gateway_and_names_the_tier_to_enter(
    pair, serve, endpoint, say, dial, tmp_path
) -> None:
    gate = asyncio.Event()

    async def slow(call: Any) -> None:
        await gate.wait()
        await say.well("near")(call)

    near = await endpoint(slow)
    gateway = await endpoint(say.steps(say.completion("far").replace(b"\r\n", SIGNED, 1)))
    spill = {"spill": {"inFlightPerEndpoint": {"start": 1, "full": 2}, "by": "Request", "smoothing": "0s"}}
    _, lb = await pair(near, await endpoint(), first=spill)
    car = await beside(serve, tmp_path, gateway, knows=False)
    car.learns(lb)
    first = [await dial(car) for _ in range(2)]
    for client in first:
        await client.send(client.request("/v1/chat/completions", client.chat_body()))
    await car.until(lambda: len(near.calls) == 2)
    replies = [await (await dial(car)).chat() for _ in range(3)]
    assert [reply.text for reply in replies] == ["far"] * 3
    assert {parse(call.header("x-spillway-forwarded")).tier for call in gateway.calls} == {"cloud"}
    assert len(near.calls) == 2
    gate.set()
    assert [(await client.reply()).text for client in first] == ["near"] * 2
    assert car.sample("spillway_tier_requests_total", tier="cloud", spilled="true") == 3


async def test_guards_hold_on_the_way_to_the_gateway_and_there(pair, endpoint, say, dial) -> None:
    """What a guard keeps from engines goes to the gateway, which asks its own."""
    near, far = await endpoint(), await endpoint(say.well("far"))
    declares = {"dataHandling": {"jurisdictions": ["EU"]}}
    guards = [{"name": "eu", "when": 'headers["x-eu"] == "1"', "require": {"jurisdictions": ["EU"]}}]
    car, _ = await pair(near, far, cloud=declares, guards=guards)
    client = await dial(car)
    assert (await client.chat([("x-eu", "1")])).text == "far"
    assert not near.calls
    assert (await client.chat([("x-eu", "0")])).text == "hello"


async def test_a_pool_that_is_asked_for_is_the_gateways_where_the_sidecar_has_it_not(pair, endpoint, say, dial) -> None:
    near, far = await endpoint(say.well("near")), await endpoint(say.well("far"))
    car, _ = await pair(near, far, overrides={"allow": ["Pool", "NoFallback"]})
    client = await dial(car)
    assert (await client.chat([("x-spillway-pool", "cloud")])).text == "far"
    assert (await client.chat([("x-spillway-pool", "local")])).text == "near"
    wrong = await client.chat([("x-spillway-pool", "nowhere")])
    assert (wrong.status, wrong.error["code"], wrong.header("x-spillway-served-by")) == (
        400,
        "invalid_override",
        "gateway",
    )
    near.then = say.steps(say.error(500))
    stays = await client.chat([("x-spillway-no-fallback", "1")])
    assert stays.status >= 500
    assert len(far.calls) == 1


async def test_who_asks_why_is_told_by_both(pair, endpoint, say, dial) -> None:
    near, far = await endpoint(say.steps(say.error(503))), await endpoint(say.well("far"))
    car, _ = await pair(near, far)
    reply = await (await dial(car)).chat([("x-spillway-explain", "1")])
    told = {name: value for name, value in reply.headers if name.startswith("x-spillway-")}
    assert told["x-spillway-pool"] == "default/cloud"
    assert told["x-spillway-served-by"] == "gateway"
    assert "pool=@gateway/default" in told["x-spillway-sidecar"]
    assert "local default/local/e1: overloaded (503)" in told["x-spillway-sidecar"]
    assert len(told) == len([name for name, _ in reply.headers if name.startswith("x-spillway-")])
    quiet = await (await dial(car)).chat()
    assert [name for name, _ in quiet.headers if name.startswith("x-spillway-")] == ["x-spillway-served-by"]


async def test_what_is_forwarded_is_recorded_as_forwarded(serve, endpoint, objects, say, dial, tmp_path) -> None:
    lb = await serve(await endpoint())
    car = await beside(serve, tmp_path, lb, knows=False, record=tmp_path / "records.jsonl")
    await (await dial(car)).chat()
    await car.balancer.recorder.close()
    lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    (line,) = [each for each in lines if "pool" in each]
    assert (line["pool"], line["endpoint"], line["status"]) == ("@gateway/default", "gateway", "ok")


async def test_models_are_those_of_the_gateway(serve, endpoint, objects, dial, tmp_path) -> None:
    docs = [objects.pool("local", await endpoint()), objects.route("local", models=["chat", "org/one"])]
    lb = await serve(docs=docs)
    car = await beside(serve, tmp_path, lb, knows=False)
    client = await dial(car)
    for target in ("/v1/models", "/v1/models/chat", "/v1/models/org%2Fone", "/v1/models/org/one", "/v1/models/nobody"):
        here, there = await client.get(target), await (await dial(lb)).get(target)
        assert (here.status, here.json()) == (there.status, there.json())
        assert here.header("x-spillway-served-by") == "gateway"
    await client.send(client.request("/v1/models", method="HEAD"))
    assert (await client.reply("HEAD")).status == 200
    await client.send(client.request("/v1/models", headers=[("anthropic-version", "2023-06-01")]))
    assert "has_more" in (await client.reply()).json()


async def test_models_are_those_that_it_knows_where_no_gateway_answers(pair, endpoint, dial) -> None:
    car, lb = await pair(await endpoint(), await endpoint())
    await lb.balancer.stop()
    client = await dial(car)
    assert [each["id"] for each in (await client.get("/v1/models")).json()["data"]] == ["chat"]
    assert (await client.get("/v1/models/chat")).status == 200
    unknown = await client.get("/v1/models/other")
    assert (unknown.status, unknown.error["code"]) == (503, "no_ready_endpoint")


async def test_a_hedge_near_by_is_not_the_gateways_affair(pair, endpoint, say, dial, objects) -> None:
    """The first of two engines is silent; the tier behind is never asked."""
    far = await endpoint()
    silent = await endpoint(say.steps(say.HANG))
    car, _ = await pair(
        silent,
        far,
        local={"source": {"static": {"endpoints": [
            {"name": "e1", "url": silent.url}, {"name": "e2", "url": (await endpoint(say.well("second"))).url}
        ]}}, "dispatch": {"strategy": "RoundRobin"}},
        first={"hedge": {"after": "30ms", "maxPercent": 100}},
    )  # fmt: skip
    client = await dial(car)
    for _ in range(2):
        assert (await client.chat(stream=True)).text == "second"
    assert not far.calls


async def test_a_gateway_that_restarts_under_load_loses_nothing(serve, engine, objects, dial, tmp_path) -> None:
    """It drains, is gone for a moment, and comes back: what has no other way waits for it."""
    one = await engine()
    docs = [objects.pool("local", one), objects.route("local")]
    lb = await serve(docs=docs)
    port = lb.port
    car = await beside(serve, tmp_path, lb, knows=False)
    done = asyncio.Event()
    statuses: list[int] = []

    async def ask() -> None:
        client = await dial(car)
        while not done.is_set():
            reply = await client.chat(max_tokens=4, stream=len(statuses) % 2 == 0)
            assert reply.whole
            statuses.append(reply.status if not reply.streamed or reply.events[-1] == "[DONE]" else 599)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(ask())
        for _ in range(3):
            before = len(statuses)
            await car.until(lambda before=before: len(statuses) > before + 20)
            await lb.balancer.drain()
            await lb.balancer.stop()
            lb.balancer = type(lb.balancer)(type(lb.balancer.settings)(paths=(lb.file,), port=port, seed=1))
            await lb.balancer.start()
        done.set()
    assert set(statuses) == {200}


async def test_a_slow_client_slows_the_endpoint_behind_both(pair, endpoint, say, dial) -> None:
    words = [say.chunks(say.word("x" * 65536)) for _ in range(320)]
    wrote = 0

    async def pour(call: Any) -> None:
        nonlocal wrote
        call.write(say.SSE + say.chunk(say.role()))
        for word in words:
            call.write(word)
            await call.writer.drain()
            wrote += 1
        call.write(say.chunk(say.DONE) + say.END)

    car, _ = await pair(None, await endpoint(pour))
    client = await dial(car, receive_buffer=4096)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    await car.until(lambda: wrote > 1)
    before = -1
    while before != wrote:
        before = wrote
        await asyncio.sleep(0.3)
    assert wrote < len(words), "the endpoint is held up"
    assert (await client.reply()).events[-1] == "[DONE]"


async def test_a_sidecar_that_ends_lets_what_it_has_sent_on_end(pair, endpoint, say, dial) -> None:
    gate = asyncio.Event()
    far = await endpoint(
        say.steps(say.SSE + say.chunks(say.role(), say.word("one ")), gate, say.chunks(say.DONE) + say.END)
    )
    car, _ = await pair(None, far)
    client = await dial(car)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    head = await client.head()
    ending = asyncio.create_task(car.balancer.drain())
    await car.until(lambda: car.balancer.proxy.draining)
    gate.set()
    reply = await client.rest(head)
    assert reply.events[-1] == "[DONE]"
    assert await ending


@pytest.mark.parametrize("fate", ["its error", "gone"])
async def test_after_signs_of_life_the_end_is_an_event(pair, serve, endpoint, say, dial, tmp_path, fate) -> None:
    gate = asyncio.Event()
    _, lb = await pair(None, await endpoint(), streams={"keepAlive": "100ms"}, retry={"attempts": 1})
    error = say.error(503, "its_own").replace(b"\r\n", SIGNED, 1)
    gateway = await endpoint(say.steps(gate, error if fate == "its error" else say.RESET))
    car = await beside(serve, tmp_path, gateway, knows=False)
    car.learns(lb)
    client = await dial(car)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    head = await client.head()
    assert (await client.chunk()).startswith(b": ")
    gate.set()
    reply = await client.rest(head)
    assert reply.whole
    assert reply.error["code"] == ("its_own" if fate == "its error" else "attempts_failed")
    await car.until(lambda: car.sample("spillway_requests_total", code="503") == 1)
