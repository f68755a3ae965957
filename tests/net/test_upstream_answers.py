"""Answers of endpoints that are well-formed but unusual, and what the connection is fit for after them."""

from __future__ import annotations

import asyncio

import pytest
from tests.conftest import Say as say  # by its full name, as pytest has imported it

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
LENGTH = OK + b"content-length: 2\r\n\r\n"


@pytest.fixture
def answered(serve, endpoint, dial):
    async def ask(*steps: bytes | str, stream: bool = False):
        engine = await endpoint(say.steps(*steps))
        lb = await serve(engine)
        client = await dial(lb)
        replies = [await client.chat(stream=stream) for _ in range(2)]
        assert replies[0][2:] == replies[1][2:]
        assert lb.sample("spillway_attempts_total", reason="ok") == 2
        return replies[1], engine

    return ask


async def test_trailers_are_not_taken_for_headers(answered) -> None:
    """Merged into the head they could say anything, such as another type."""
    trailer = b"2\r\n{}\r\n0\r\ncontent-type: text/html\r\nset-cookie: a=b\r\nx-late: 1\r\n\r\n"
    reply, engine = await answered(CHUNKED, trailer)
    assert (reply.body, reply.header("content-type"), reply.header("x-late")) == (b"{}", "application/json", None)
    assert engine.connections == 1


async def test_a_second_answer_behind_the_first_is_nobodys(answered) -> None:
    second = b"HTTP/1.1 500 No\r\nx-second: 1\r\ncontent-length: 4\r\n\r\nevil"
    reply, engine = await answered(LENGTH + b"{}" + second)
    assert (reply.status, reply.body, reply.header("x-second")) == (200, b"{}", None)
    assert engine.connections == 2  # such a connection is not used again


async def test_bytes_behind_an_answer_do_not_spoil_it(answered) -> None:
    reply, engine = await answered(LENGTH + b"{}and more than was said")
    assert (reply.status, reply.body) == (200, b"{}")
    assert engine.connections == 2


async def test_an_answer_nobody_asked_for_closes_an_idle_connection(serve, endpoint, dial) -> None:
    """Else it would be the answer to somebody's next request."""
    engine = await endpoint(say.steps(LENGTH + b"{}", say.PAUSE, LENGTH + b"[]"))
    client = await dial(await serve(engine))
    assert (await client.chat()).body == b"{}"
    await engine.calls[0].gone()
    assert (await client.chat()).body == b"{}"


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nlink: </x>\r\n\r\n"])
@pytest.mark.parametrize("pause", [[], [say.PAUSE]])
async def test_interim_answers_are_passed_over(answered, interim, pause) -> None:
    reply, engine = await answered(interim, *pause, interim, LENGTH + b"{}")
    assert (reply.status, reply.body, reply.header("link")) == (200, b"{}", None)
    assert engine.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{}",
    ],
)
async def test_an_end_by_close_is_an_end(answered, answer) -> None:
    reply, engine = await answered(answer, say.CLOSE)
    assert (reply.body, reply.header("content-length")) == (b"{}", "2")
    assert engine.connections == 2


@pytest.mark.parametrize("head", [LENGTH.replace(b"1.1", b"1.0"), LENGTH[:-2] + b"connection: close\r\n\r\n"])
async def test_a_connection_that_is_not_to_be_kept_is_not(answered, head) -> None:
    _, engine = await answered(head, b"{}", say.HANG)
    assert engine.connections == 2


async def test_an_answer_without_a_body(answered) -> None:
    reply, engine = await answered(b"HTTP/1.1 204 Nothing\r\nx-a: 1\r\n\r\n")
    assert (reply.status, reply.body, reply.header("x-a")) == (204, b"", "1")
    assert engine.connections == 1


async def test_an_answer_in_single_bytes(serve, endpoint, dial) -> None:
    async def drip(call) -> None:
        data = say.SSE + say.chunks(say.role(), say.word("hello"), say.delta("stop"), say.DONE) + say.END
        for at in range(len(data)):
            call.write(data[at : at + 1])
            await asyncio.sleep(0)

    engine = await endpoint(drip)
    client = await dial(await serve(engine))
    for _ in range(2):
        assert (await client.chat(stream=True)).text == "hello"
    assert engine.connections == 1


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 8 << 20])
@pytest.mark.parametrize("chunked", [False, True])
async def test_answers_of_every_size_arrive_whole(serve, endpoint, dial, size, chunked) -> None:
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    pieces = [body[at : at + 65536] for at in range(0, size, 65536)]
    answer = CHUNKED + say.chunks(*pieces) + say.END if chunked else say.message(body=body)
    client = await dial(await serve(await endpoint(say.steps(answer))))
    for _ in range(2):
        reply = await client.chat()
        assert reply.whole
        assert reply.body == body


async def test_answers_are_streamed_as_they_come(serve, endpoint, dial) -> None:
    """Each event reaches the client before the endpoint writes the next one."""
    go_on = asyncio.Event()

    async def step_by_step(call) -> None:
        call.write(say.SSE)
        for number in range(20):
            call.write(say.chunk(say.word(f"{number} ")))
            async with asyncio.timeout(15):
                await go_on.wait()
            go_on.clear()
        call.write(say.chunk(say.DONE) + say.END)

    client = await dial(await serve(await endpoint(step_by_step)))
    await client.send(client.request(body=client.chat_body(stream=True)))
    assert (await client.head()).header("transfer-encoding") == "chunked"
    for number in range(20):
        assert await client.chunk() == say.word(f"{number} ")
        go_on.set()
    assert await client.chunk() == say.DONE
    assert await client.chunk() == b""


async def test_events_before_content_are_held_and_not_lost(serve, endpoint, dial) -> None:
    first = [b": comment\n\n", b'data: {"type": "ping"}\n\n', say.role(), say.delta()]
    rest = [say.word("x"), say.delta("stop"), say.DONE]
    steps = [say.SSE, *map(say.chunk, first), say.PAUSE, say.chunks(*rest), say.END]
    client = await dial(await serve(await endpoint(say.steps(*steps))))
    assert (await client.chat(stream=True)).body == b"".join([*first, *rest])
