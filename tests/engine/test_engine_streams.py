"""Streams on raw sockets: framing, clients that leave, and every fault at every stage."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from spillway_balancer.engine.faults import Refuse

END = b"0\r\n\r\n"


def contents(stream: bytes) -> int:
    """Content chunks in a stream of chat events."""
    return stream.count(b'"delta":{"content":"') - stream.count(b'"delta":{"content":""')


async def test_headers_come_at_once_and_the_role_with_the_first_token(serve: Any, raw: Any) -> None:
    server = await serve(speed=0.5)
    client = await raw(server)
    client.chat(stream=True, max_tokens=2, messages=[{"role": "user", "content": "x" * 4000}])
    head = await client.until(b"\r\n\r\n")
    assert b"HTTP/1.1 200" in head
    assert b"text/event-stream" in head
    assert b"chunked" in head
    assert server.engine.pacer.timing.computed_tokens == 0  # the prompt of 1,000 tokens takes half a second
    body = await client.until(END)
    assert body.index(b'"role":"assistant"') < body.index(b'"delta":{"content":"')


async def test_old_http_gets_plain_bytes_and_a_close(serve: Any, raw: Any) -> None:
    client = await raw(await serve())
    body = {"model": "demo", "messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 3}
    client.ask("POST", "/v1/chat/completions", body, version="1.0")
    head, _, stream = (await client.rest()).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert stream.startswith(b"data: {")
    assert stream.endswith(b"data: [DONE]\n\n")
    assert contents(stream) == 3


async def test_a_connection_serves_stream_after_stream(serve: Any, raw: Any) -> None:
    client = await raw(await serve())
    for tokens in (1, 5, 2):
        client.chat(stream=True, max_tokens=tokens)
        assert contents(await client.until(END)) == tokens


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_place_at_once(serve: Any, raw: Any, until: Any, stream: bool) -> None:
    server = await serve(speed=1)
    timing = server.engine.pacer.timing
    client = await raw(server)
    client.chat(stream=stream, max_tokens=2000)
    await until(lambda: timing.running == 1)
    client.writer.close()
    await until(lambda: timing.running == 0)
    assert timing.pool.used == 0
    assert timing.cancelled == 1
    await until(lambda: server.engine.in_flight == 0)


async def test_leaving_while_waiting_frees_the_queue(serve: Any, raw: Any, until: Any) -> None:
    server = await serve(speed=1)
    timing = server.engine.pacer.timing
    clients = [await raw(server) for _ in range(40)]
    for client in clients:
        client.chat(stream=True, max_tokens=1000)
    await until(lambda: timing.running == 32 and timing.waiting == 8)
    for client in clients:
        client.writer.close()
    await until(lambda: timing.running == timing.waiting == 0)
    assert timing.pool.used == 0


async def test_hundreds_of_streams_at_once(serve: Any, raw: Any) -> None:
    server = await serve(profile="provider", speed=20)

    async def one() -> int:
        client = await raw(server)
        client.chat(stream=True, max_tokens=20)
        return contents(await client.until(END))

    assert await asyncio.gather(*(one() for _ in range(300))) == [20] * 300


# ---- faults ---------------------------------------------------------------------------------------------------


async def test_reset_on_accept(serve: Any, raw: Any) -> None:
    server = await serve(faults={"kind": "reset", "stage": "accept", "count": 1})
    with pytest.raises(ConnectionResetError):
        await (await raw(server)).rest()
    client = await raw(server)
    client.chat(max_tokens=1)
    assert b" 200 " in await client.until(b"\r\n\r\n")


async def test_stall_on_accept_then_serves(serve: Any, raw: Any) -> None:
    server = await serve(faults={"kind": "stall", "stage": "accept", "seconds": 0.4, "count": 1})
    client = await raw(server)
    client.chat(max_tokens=1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.readexactly(1), 0.05)
    assert b" 200 " in await client.until(b"\r\n\r\n")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("stage", "head", "role", "chunks"),
    [
        ("before-headers", 0, 0, 0),
        ("after-headers", 1, 0, 0),
        ("after-role-chunk", 1, 1, 0),
        ("mid-stream", 1, 1, 3),
    ],
)
async def test_reset_at_each_stage(
    serve: Any, raw: Any, until: Any, stage: str, head: int, role: int, chunks: int, stream: bool
) -> None:
    server = await serve(faults={"kind": "reset", "stage": stage, "chunks": 3}, speed=5)
    client = await raw(server)
    client.chat(stream=stream, max_tokens=50)
    got, end = await client.everything()
    assert isinstance(end, ConnectionResetError)
    assert got.count(b"HTTP/1.1 200") == head
    if stream:
        assert got.count(b'"role":"assistant"') == role
        assert contents(got) == chunks
    await until(lambda: server.engine.pacer.timing.running == 0)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("stage", ["before-headers", "after-headers", "after-role-chunk", "mid-stream"])
async def test_after_a_stall_all_is_there(serve: Any, raw: Any, stage: str, stream: bool) -> None:
    server = await serve(faults={"kind": "stall", "stage": stage, "chunks": 3, "seconds": 0.15})
    loop = asyncio.get_running_loop()
    client = await raw(server)
    began = loop.time()
    client.chat(stream=stream, max_tokens=20)
    if stream:
        body = await client.until(END)
        assert contents(body) == 20
        assert b"[DONE]" in body
    else:
        assert b'"completion_tokens":20' in await client.until(b"}}}")
    assert loop.time() - began >= 0.14  # uvloop's clock counts in milliseconds


async def test_a_stall_without_end_lasts_until_the_client_leaves(serve: Any, raw: Any, until: Any) -> None:
    server = await serve(faults={"kind": "stall", "stage": "mid-stream", "chunks": 2})
    client = await raw(server)
    client.chat(stream=True, max_tokens=20)
    got, end = await client.everything(silence=0.4)
    assert isinstance(end, TimeoutError)
    assert contents(got) == 2
    client.writer.close()
    await until(lambda: server.engine.in_flight == 0)


async def test_frozen_engine_health_and_all(serve: Any, raw: Any) -> None:
    server = await serve(faults={"kind": "stall", "stage": "before-headers", "paths": ["/"]})
    for path in ("/health", "/metrics", "/v1/models"):
        client = await raw(server)
        client.ask("GET", path)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.readexactly(1), 0.05)


@pytest.mark.parametrize(
    ("how", "whole", "ended"), [("close", 2, False), ("mid-event", 2, False), ("no-done", 2, True)]
)
async def test_cut_mid_stream(serve: Any, raw: Any, how: str, whole: int, ended: bool) -> None:
    server = await serve(faults={"kind": "cut", "chunks": 2, "how": how})
    client = await raw(server)
    client.chat(stream=True, max_tokens=20)
    if ended:
        stream = await client.until(END)
    else:
        stream = await client.rest()  # closed in order
        assert not stream.endswith(END)
    assert stream.count(b'"finish_reason":null}]}\n\n') == whole + 1  # and the role chunk
    assert b"[DONE]" not in stream
    assert stream.rstrip(b"\r\n").endswith(b"}") == (how == "close")


async def test_cut_in_a_whole_answer(serve: Any, raw: Any) -> None:
    server = await serve(faults={"kind": "cut"})
    client = await raw(server)
    client.chat(max_tokens=20)
    head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    announced = int(head.lower().split(b"content-length: ")[1].split()[0])
    assert 0 < len(body) < announced


async def test_error_inside_a_stream_is_the_sdks_error(serve: Any, sdk: Any) -> None:
    client = sdk(await serve(faults={"kind": "error-event", "chunks": 3, "message": "engine died"}))
    stream = await client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "x"}], max_tokens=20, stream=True
    )
    for _ in range(4):  # the role, three pieces
        assert (await anext(stream)).choices
    with pytest.raises(openai.APIError, match="engine died"):
        await anext(stream)


async def test_malformed_bodies_and_events(serve: Any, raw: Any, session: Any) -> None:
    server = await serve(faults={"kind": "malformed", "chunks": 2})
    client = await raw(server)
    client.chat(stream=True, max_tokens=5)
    stream = await client.until(END)
    assert b'data: {"choices":[{"index":0,"delta":{"content":\n\n' in stream
    assert b"[DONE]" in stream
    async with session.get(f"{server.url}/v1/models") as response:
        assert response.status == 200
        with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
            await response.json()


async def test_status_with_headers_and_body_for_a_share(serve: Any, sdk: Any, session: Any) -> None:
    server = await serve(
        faults=[
            {"kind": "status", "status": 429, "headers": {"retry-after": "7"}, "percent": 50},
            {"kind": "status", "status": 503, "body": "busy", "percent": 50, "count": 5},
        ]
    )
    seen: dict[int, int] = {}
    for _ in range(60):
        async with session.get(f"{server.url}/v1/models") as response:
            seen[response.status] = seen.get(response.status, 0) + 1
            if response.status == 429:
                assert response.headers["retry-after"] == "7"
                assert (await response.json())["error"]["code"] == 429
            elif response.status == 503:
                assert await response.text() == "busy"
    assert seen[503] == 5
    assert 15 < seen[429] < 45
    assert seen[200] == 60 - seen[429] - 5


async def test_refuse_and_back(serve: Any, raw: Any, session: Any, until: Any) -> None:
    server = await serve(control_port=0)
    assert server.control_url != server.url
    open_before = await raw(server)
    open_before.chat(max_tokens=1)
    await open_before.until(b"}}}")
    async with session.put(f"{server.control_url}/sim/faults", json={"kind": "refuse"}) as response:
        assert response.status == 200
    with pytest.raises(ConnectionRefusedError):
        await raw(server)
    open_before.chat(max_tokens=1)
    with pytest.raises(ConnectionResetError):
        await open_before.rest()
    async with session.delete(f"{server.control_url}/sim/faults") as response:
        assert response.status == 204
    client = await raw(server)
    client.ask("GET", "/health")
    assert b" 200 " in await client.until(b"\r\n\r\n")


async def test_refuse_ends_by_itself(serve: Any, raw: Any, until: Any) -> None:
    server = await serve()
    await server.set_faults([Refuse(lasts=0.3)])
    with pytest.raises(ConnectionRefusedError):
        await raw(server)
    await until(lambda: server.listening)
    await raw(server)


async def test_slow_slows_every_step(serve: Any, session: Any, raw: Any) -> None:
    server = await serve(speed=10)
    async with session.put(f"{server.url}/sim/faults", json={"kind": "slow", "factor": 4}) as response:
        assert (await response.json())[0]["fault"]["factor"] == 4
    loop = asyncio.get_running_loop()
    client = await raw(server)
    began = loop.time()
    client.chat(max_tokens=40)
    await client.until(b"}}}")
    assert loop.time() - began > 40 * 0.024 * 4 / 10  # a step of the profile takes 24 ms


async def test_health_and_metrics_faults(serve: Any, session: Any) -> None:
    server = await serve()

    async def get(path: str) -> tuple[int, str]:
        async with session.get(server.url + path) as response:
            return response.status, await response.text()

    async def put(faults: Any) -> None:
        async with session.put(f"{server.url}/sim/faults", json=faults) as response:
            assert response.status == 200

    await put([{"kind": "health", "count": 2}, {"kind": "metrics", "page": "absurd", "value": "-1"}])
    assert [(await get("/health"))[0] for _ in range(3)] == [503, 503, 200]
    assert 'vllm:num_requests_running{engine="0",model_name="demo"} -1\n' in (await get("/metrics"))[1]
    await put({"kind": "metrics"})
    assert (await get("/metrics"))[0] == 404
    await put({"kind": "metrics", "page": "empty"})
    assert await get("/metrics") == (200, "")
    await put({"kind": "metrics", "page": "garbage"})
    assert "<html>" in (await get("/metrics"))[1]


async def test_switches_answer_for_bad_faults(serve: Any, session: Any) -> None:
    server = await serve(faults={"kind": "health"})
    async with session.put(f"{server.url}/sim/faults", json={"kind": "boom"}) as response:
        assert response.status == 400
        assert "kinds are" in (await response.json())["error"]["message"]
    async with session.get(f"{server.url}/sim/faults") as response:  # what was armed still is
        assert [one["fault"]["kind"] for one in await response.json()] == ["health"]
