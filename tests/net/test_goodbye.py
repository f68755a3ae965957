"""The end of a balancer's life: every answer says go, still accepting; then closed, and streams end whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from tests.conftest import Say as say  # by its full name, as pytest has imported it

LINGER = 0.6


class Port:
    """Something to dial."""

    def __init__(self, port: int) -> None:
        self.port = port


@pytest.fixture
async def leaving() -> AsyncIterator[Callable[[Coroutine[Any, Any, bool]], asyncio.Task[bool]]]:
    tasks: list[asyncio.Task[bool]] = []

    def start(work: Coroutine[Any, Any, bool]) -> asyncio.Task[bool]:
        tasks.append(asyncio.get_running_loop().create_task(work))
        return tasks[-1]

    yield start
    await asyncio.gather(*tasks)


async def refused(server: Any) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_while_lingering_new_and_idle_connections_are_served_and_told_to_close(
    serve, endpoint, dial, leaving
) -> None:
    lb = await serve(await endpoint(), linger_seconds=LINGER, admin_port=0)
    idle = await dial(lb)
    assert (await idle.chat()).header("connection") is None
    admin = Port(lb.balancer.admin_port)
    task = leaving(lb.balancer.drain())
    await asyncio.sleep(0)
    assert (await (await dial(admin)).get("/readyz")).status == 503
    assert (await (await dial(admin)).get("/healthz")).status == 200
    fresh = await dial(lb)
    for client in (fresh, idle):
        reply = await client.chat()
        assert (reply.status, reply.text, reply.header("connection")) == (200, "hello", "close")
        assert await client.closed() == b""
    error = await (await dial(lb)).get("/v1/unheard-of")
    assert (error.status, error.header("connection")) == (404, "close")
    assert not task.done()
    assert await task
    assert await refused(lb)
    assert (await (await dial(admin)).get("/readyz")).body == b"draining\n"


async def test_an_idle_connection_is_not_closed_as_long_as_new_ones_are_accepted(
    serve, endpoint, dial, leaving
) -> None:
    """An answer that began before said that its connection stays: its client may trust that until it is told else."""
    go_on = asyncio.Event()
    server = await endpoint()
    server.plan.append(
        say.steps(
            say.SSE + say.chunks(say.role(), say.word("hel")), go_on, say.chunks(say.word("lo"), say.DONE) + say.END
        )
    )
    lb = await serve(server, linger_seconds=LINGER)
    client = await dial(lb)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    head = await client.head()
    assert head.header("connection") is None
    task = leaving(lb.balancer.drain())
    await asyncio.sleep(0)
    go_on.set()
    assert (await client.rest(head)).text == "hello"
    reply = await client.chat()
    assert (reply.status, reply.header("connection")) == (200, "close")
    assert not task.done()


async def test_an_answer_that_has_not_begun_says_that_it_is_the_last_one(serve, endpoint, dial, leaving) -> None:
    go_on = asyncio.Event()
    server = await endpoint()
    server.plan.append(say.steps(go_on, say.completion()))
    lb = await serve(server, linger_seconds=LINGER)
    client = await dial(lb)
    await client.send(client.request("/v1/chat/completions", client.chat_body()))
    await server.call()
    leaving(lb.balancer.drain())
    await asyncio.sleep(0)
    go_on.set()
    reply = await client.reply()
    assert (reply.status, reply.text, reply.header("connection")) == (200, "hello", "close")


async def test_a_stream_under_way_ends_whole_after_the_listener_has_closed(serve, endpoint, dial, leaving) -> None:
    go_on = asyncio.Event()
    server = await endpoint()
    server.plan.append(
        say.steps(
            say.SSE + say.chunks(say.role(), say.word("hel")), go_on, say.chunks(say.word("lo"), say.DONE) + say.END
        )
    )
    lb = await serve(server)
    client = await dial(lb)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    head = await client.head()
    task = leaving(lb.balancer.drain())
    async with asyncio.timeout(15):
        while not await refused(lb):
            pass
    assert not task.done()
    go_on.set()
    reply = await client.rest(head)
    assert reply.whole
    assert reply.text == "hello"
    assert await client.closed() == b""
    assert await task


async def test_what_does_not_end_in_time_is_cut_and_told_so(serve, endpoint, dial, leaving) -> None:
    server = await endpoint(say.steps(say.SSE + say.chunks(say.role(), say.word("hel")), say.HANG))
    lb = await serve(server, drain_seconds=0.05)
    client = await dial(lb)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    head = await client.head()
    assert not await leaving(lb.balancer.drain())
    reply = await client.rest(head)
    assert reply.text == "hel"
    assert b"stream_interrupted" in reply.body
    assert b"[DONE]" not in reply.body
    assert await client.closed() == b""
    assert lb.in_flight == 0
    assert lb.sample("spillway_requests_total", code="502") == 1


async def test_what_has_not_begun_in_time_is_closed(serve, endpoint, dial, leaving) -> None:
    lb = await serve(await endpoint(say.steps(say.HANG)), drain_seconds=0.05)
    client = await dial(lb)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    await lb.until(lambda: lb.in_flight == 1)
    assert not await leaving(lb.balancer.drain())
    client.close()


async def test_own_pages_are_on_the_admin_port_alone(serve, endpoint, dial) -> None:
    lb = await serve(await endpoint(), admin_port=0)
    data, admin = await dial(lb), await dial(Port(lb.balancer.admin_port))
    unknown = await data.get("/v1/unheard-of")
    for page in ("/metrics", "/healthz", "/readyz"):
        there, here = await admin.get(page), await data.get(page)
        assert there.status == 200
        assert (here.status, here.body) == (404, unknown.body.replace(b"/v1/unheard-of", page.encode()))
    assert (await admin.get("/v1/models")).status == 404
    assert (await (await dial(Port(lb.balancer.admin_port))).chat()).status == 404


async def test_without_an_admin_port_they_are_where_clients_are(serve, endpoint, dial) -> None:
    lb = await serve(await endpoint())
    client = await dial(lb)
    assert [(await client.get(page)).status for page in ("/metrics", "/healthz", "/readyz")] == [200, 200, 200]


async def test_what_comes_by_a_kept_connection_as_the_last_one_ends_is_not_cut(serve, endpoint, leaving) -> None:
    proxy = (await serve(await endpoint())).balancer.proxy
    proxy.in_flight = 1
    task = leaving(proxy.drain(10.0))
    await asyncio.sleep(0)
    proxy._idle.set()  # the last one has ended, and another has begun before anybody has seen it
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    proxy.in_flight = 0
    proxy._idle.set()
    assert await task


async def test_what_has_come_as_nothing_is_under_way_is_served(serve, endpoint, dial, leaving) -> None:
    lb = await serve(await endpoint())
    client = await dial(lb)
    assert (await client.chat()).status == 200
    (connection,) = lb.balancer._servers[0].connections
    task = leaving(lb.balancer.drain())
    await asyncio.sleep(0)
    connection.data_received(client.request(body=client.chat_body()))
    assert await task
    assert lb.balancer.proxy.in_flight == 0
    assert (await client.reply()).status == 200
