"""A changed file takes force without dropping a stream; a bad one is refused and the last good state serves on."""

from __future__ import annotations

import asyncio
import json

import aiohttp


def ask(stream: bool, tokens: int = 30) -> dict[str, object]:
    return {"model": "chat", "stream": stream, "max_tokens": tokens, "messages": [{"role": "user", "content": "hi"}]}


async def test_a_stream_outlives_the_endpoint_that_is_taken_away(serve, engine, objects) -> None:
    old, new = await engine(speed=1.0), await engine()
    lb = await serve(old)
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{lb.url}/v1/chat/completions", json=ask(True)) as answer,
    ):
        await answer.content.readany()
        lb.write(objects.pool("local", new), objects.route("local"))
        before = lb.balancer.serving.current.digest
        await lb.until(lambda: lb.balancer.serving.current.digest != before)
        assert (await answer.content.read()).endswith(b"data: [DONE]\n\n")


async def test_a_bad_file_is_refused_and_the_last_good_state_serves_on(serve, engine, caplog) -> None:
    lb = await serve(await engine())
    digest = lb.balancer.serving.current.digest
    caplog.set_level("CRITICAL", "spillway.config")
    lb.write(
        "apiVersion: spillway.dev/v1alpha1\nkind: ModelPool\nmetadata: {name: local}\n"
        "spec: {models: [{name: m}], source: {}}\n"
    )
    await lb.until(lambda: lb.sample("spillway_config_reloads_total", result="refused") == 1)
    assert lb.balancer.serving.current.digest == digest
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{lb.url}/v1/chat/completions", json=ask(False)) as answer,
    ):
        assert answer.status == 200


async def test_no_request_fails_while_files_change(serve, engine, objects) -> None:
    engines = [await engine() for _ in range(3)]
    lb = await serve(*engines)
    statuses: list[int] = []

    async def client_of(session: aiohttp.ClientSession, done: asyncio.Event) -> None:
        while not done.is_set():
            async with session.post(f"{lb.url}/v1/chat/completions", json=ask(len(statuses) % 2 == 0, 8)) as answer:
                body = await answer.read()
                whole = b"[DONE]" in body or "choices" in json.loads(body)
                statuses.append(answer.status if whole else 0)

    async with aiohttp.ClientSession() as session:
        done = asyncio.Event()
        clients = [asyncio.ensure_future(client_of(session, done)) for _ in range(8)]
        for number in range(1, 4):
            strategy = ["LeastLoad", "RoundRobin", "Adaptive"][number % 3]
            lb.write(
                objects.pool("local", *engines[: number % 3 + 1], dispatch={"strategy": strategy}),
                objects.route("local"),
            )
            await lb.until(lambda n=number: lb.sample("spillway_config_reloads_total", result="taken") == n)
        done.set()
        await asyncio.gather(*clients)
    assert set(statuses) == {200}


async def test_invented_model_names_add_no_series(serve, engine) -> None:
    lb = await serve(await engine())
    async with aiohttp.ClientSession() as client:
        async with client.post(f"{lb.url}/v1/chat/completions", json=ask(False) | {"model": "x"}) as answer:
            assert answer.status == 404
        before = lb.series()
        for number in range(0, 10_000, 10):
            bodies = [ask(False) | {"model": f"x{number + i}"} for i in range(10)]
            for answer in await asyncio.gather(*(client.post(f"{lb.url}/v1/chat/completions", json=b) for b in bodies)):
                assert answer.status == 404
                answer.release()
    assert lb.series() == before


async def test_a_client_that_leaves_frees_the_engine_at_once(serve, engine) -> None:
    one = await engine(speed=0.01)  # seconds of silent prefill
    lb = await serve(one)
    async with aiohttp.ClientSession() as client:
        task = asyncio.ensure_future(client.post(f"{lb.url}/v1/chat/completions", json=ask(True)))
        await lb.until(lambda: lb.in_flight == 1)
        task.cancel()
        await lb.until(lambda: lb.in_flight == 0)
    await lb.until(lambda: lb.sample("spillway_attempts_total", reason="client-gone") == 1)
