"""A client that divides its bytes as badly as TCP allows is answered like any other."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
async def lb(serve, endpoint):
    return await serve(await endpoint())


@pytest.mark.parametrize("stream", [False, True])
async def test_one_byte_at_a_time(lb, dial, stream) -> None:
    client = await dial(lb)
    await client.send(client.request(body=client.chat_body(stream=stream)), apart=True)
    reply = await client.reply()
    assert (reply.status, reply.text) == (200, "hello")


async def test_a_request_cut_in_two_anywhere(lb, dial) -> None:
    client = await dial(lb)
    request = client.request(body=client.chat_body())
    for cut in range(1, len(request)):
        await client.send(request[:cut])
        await client.turn()
        await client.send(request[cut:])
        reply = await client.reply()
        assert (reply.status, reply.text) == (200, "hello"), cut


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_chunked_request_bodies_arrive_whole_and_framed_by_length(serve, endpoint, dial, size) -> None:
    engine = await endpoint()
    client = await dial(await serve(engine))
    body = json.dumps(client.chat_body(user="x" * 5000)).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    await client.send((head + "transfer-encoding: chunked\r\n\r\n").encode())
    for at in range(0, len(body), size):
        piece = body[at : at + size]
        await client.send(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
    await client.send(b"0\r\nx-trailer: ignored\r\n\r\n")
    assert (await client.reply()).text == "hello"
    (call,) = engine.calls
    assert call.header("transfer-encoding") is None
    assert call.header("x-trailer") is None
    sent = json.loads(body)
    assert call.json() == {**sent, "model": "demo"}


async def test_pipelined_requests_are_answered_in_order(serve, endpoint, dial) -> None:
    engine = await endpoint()
    client = await dial(await serve(engine))
    wanted = [(stream, f"user-{number}") for number, stream in enumerate([False, True, True, False] * 5)]
    await client.send(
        b"".join(client.request(body=client.chat_body(stream=stream, user=user)) for stream, user in wanted)
        + client.request("/v1/models")
    )
    for stream, _ in wanted:
        reply = await client.reply()
        assert (reply.status, reply.text, reply.streamed) == (200, "hello", stream)
    assert (await client.reply()).json()["data"][0]["id"] == "chat"
    assert [call.json()["user"] for call in engine.calls] == [user for _, user in wanted]


async def test_a_connection_serves_many_requests_and_so_does_one_to_the_endpoint(serve, endpoint, dial) -> None:
    engine = await endpoint()
    client = await dial(await serve(engine))
    for number in range(20):
        reply = await client.chat(stream=bool(number % 2))
        assert reply.text == "hello"
        assert reply.header("connection") is None
    assert engine.connections == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kept", ["", "connection: keep-alive"])
async def test_http_1_0_gets_no_chunks_and_an_end_by_close(lb, dial, stream, kept) -> None:
    client = await dial(lb)
    headers = [("connection", "keep-alive")] if kept else []
    await client.send(client.request(body=client.chat_body(stream=stream), headers=headers, version="HTTP/1.0"))
    reply = await client.reply()
    assert reply.header("transfer-encoding") is None
    assert reply.header("connection") == "close"
    assert reply.text == "hello"
    assert await client.closed() == b""


async def test_expect_100_continue_is_answered_before_the_body_is_sent(lb, dial) -> None:
    client = await dial(lb)
    body = json.dumps(client.chat_body()).encode()
    request = client.request(body=body, headers=[("expect", "100-continue"), ("content-type", "application/json")])
    head = request.removesuffix(body)
    await client.send(head)
    assert (await client.head()).line == "HTTP/1.1 100 Continue"
    await client.send(body)
    assert (await client.reply()).text == "hello"
    # A body that does not wait for it needs no 100 any more.
    await client.send(request)
    assert (await client.reply()).status == 200


async def test_http_1_0_is_never_told_to_continue(lb, dial) -> None:
    client = await dial(lb)
    body = json.dumps(client.chat_body()).encode()
    headers = [("expect", "100-continue"), ("content-type", "application/json")]
    await client.send(client.request(body=body, headers=headers, version="HTTP/1.0").removesuffix(body))
    await client.turn()
    await client.send(body)
    assert (await client.head()).status == 200


async def test_a_refused_request_is_not_told_to_continue(lb, dial) -> None:
    client = await dial(lb)
    headers = [("expect", "100-continue"), ("content-encoding", "gzip")]
    await client.send(client.request(body=b"x" * 100, headers=headers).removesuffix(b"x" * 100))
    assert (await client.head()).status == 415


async def test_head_has_the_headers_of_get_and_no_body(lb, dial) -> None:
    client = await dial(lb)
    for page in ("/v1/models", "/healthz", "/readyz", "/metrics"):
        got = await client.get(page)
        await client.send(client.request(page, method="HEAD"))
        reply = await client.reply("HEAD")
        assert (reply.status, reply.header("content-type")) == (got.status, got.header("content-type"))
    assert (await client.get("/healthz")).body == b"ok\n"


@pytest.mark.parametrize("target", ["/v1/chat/completions?api-version=1&x=%2e", "http://other/v1/chat/completions"])
async def test_queries_and_absolute_targets(serve, endpoint, dial, target) -> None:
    engine = await endpoint()
    client = await dial(await serve(engine))
    assert (await client.post(target, client.chat_body())).status == 200
    assert engine.calls[0].target == "/v1/chat/completions"
    assert engine.calls[0].header("host") == f"127.0.0.1:{engine.port}"
