"""Requests that two servers could read differently are refused, and the connection is left in order or closed."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys

import pytest

CHAT = b"POST /v1/chat/completions HTTP/1.1\r\n"
BODY = b'{"model":"chat","messages":[{"role":"user","content":"zebra-prompt-text"}]}'
JSON = b"content-type: application/json\r\n"
FRAMED = JSON + b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)

REFUSED = {
    "version 0.9": (b"GET /v1/models HTTP/0.9\r\nhost: x\r\n\r\n", 505, 400),
    "version 2.0": (CHAT.replace(b"1.1", b"2.0") + b"host: x\r\n" + FRAMED + b"\r\n" + BODY, 505, 400),
    "version 1.2": (CHAT.replace(b"1.1", b"1.2") + b"host: x\r\n" + FRAMED + b"\r\n" + BODY, 505, 400),
    "no version": (b"GET /v1/models\r\n\r\n", 505, 400),
    "trace": (b"TRACE /v1/models HTTP/1.1\r\nhost: x\r\n\r\n", 405),
    "trace elsewhere": (b"TRACE /metrics HTTP/1.1\r\nhost: x\r\n\r\n", 405),
    "connect": (b"CONNECT other:443 HTTP/1.1\r\nhost: x\r\n\r\n", 405, 400),
    "gzip, chunked": (CHAT + b"host: x\r\n" + JSON + b"transfer-encoding: gzip, chunked\r\n\r\n" + CHUNKED, 400),
    "chunked, gzip": (CHAT + b"host: x\r\n" + JSON + b"transfer-encoding: chunked, gzip\r\n\r\n" + CHUNKED, 400),
    "chunked twice": (CHAT + b"host: x\r\n" + JSON + b"transfer-encoding: chunked\r\n" * 2 + b"\r\n" + CHUNKED, 400),
    "xchunked": (CHAT + b"host: x\r\n" + JSON + b"transfer-encoding: xchunked\r\n\r\n" + CHUNKED, 400),
    "chunked in 1.0": (CHAT.replace(b"1.1", b"1.0") + JSON + b"transfer-encoding: chunked\r\n\r\n" + CHUNKED, 400),
    "length and chunked": (CHAT + b"host: x\r\n" + FRAMED + b"transfer-encoding: chunked\r\n\r\n" + CHUNKED, 400),
    "chunked and length": (
        CHAT + b"host: x\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n" + JSON + b"\r\n" + CHUNKED,
        400,
    ),
    "two lengths": (CHAT + b"host: x\r\n" + FRAMED + b"content-length: 3\r\n\r\n" + BODY, 400),
    "equal lengths": (
        CHAT + b"host: x\r\n" + FRAMED + b"content-length: %d\r\n\r\n" % len(BODY) + BODY,
        400,
    ),
    "list of lengths": (CHAT + b"host: x\r\n" + JSON + b"content-length: 3, 3\r\n\r\n" + BODY, 400),
    "signed length": (CHAT + b"host: x\r\n" + JSON + b"content-length: +%d\r\n\r\n" % len(BODY) + BODY, 400),
    "negative length": (CHAT + b"host: x\r\n" + JSON + b"content-length: -1\r\n\r\n" + BODY, 400),
    "hex length": (CHAT + b"host: x\r\n" + JSON + b"content-length: 0x10\r\n\r\n" + BODY, 400),
    "huge length": (CHAT + b"host: x\r\n" + JSON + b"content-length: %d\r\n\r\n" % 2**70 + BODY, 400, 413),
    "no host": (CHAT + FRAMED + b"\r\n" + BODY, 400),
    "two hosts": (CHAT + b"host: x\r\nhost: y\r\n" + FRAMED + b"\r\n" + BODY, 400),
    "two content types": (CHAT + b"host: x\r\n" + FRAMED + b"content-type: text/plain\r\n\r\n" + BODY, 400),
    "folded header": (CHAT + b"host: x\r\nx-a: b\r\n c\r\n" + FRAMED + b"\r\n" + BODY, 400),
    "space before colon": (CHAT + b"host: x\r\ncontent-length : 3\r\n" + FRAMED + b"\r\n" + BODY, 400),
    "space before name": (CHAT + b" host: x\r\n" + FRAMED + b"\r\n" + BODY, 400),
    "bare LF after header": (CHAT + b"host: x\n" + FRAMED + b"\r\n" + BODY, 400),
    "bare LF everywhere": (b"GET /v1/models HTTP/1.1\nhost: x\n\n", 400),
    "bare LF in value": (CHAT + b"host: x\r\nx-a: b\nx-c: d\r\n" + FRAMED + b"\r\n" + BODY, 400),
    "bare CR in value": (CHAT + b"host: x\r\nx-a: b\rc\r\n" + FRAMED + b"\r\n" + BODY, 400),
    "NUL in value": (CHAT + b"host: x\r\nx-a: b\0c\r\n" + FRAMED + b"\r\n" + BODY, 400),
    "NUL in name": (CHAT + b"host: x\r\nx\0a: b\r\n" + FRAMED + b"\r\n" + BODY, 400),
    "no header name": (CHAT + b"host: x\r\n: b\r\n" + FRAMED + b"\r\n" + BODY, 400),
    "bad chunk size": (CHAT + b"host: x\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\nzz\r\n" + BODY, 400),
    "negative chunk size": (CHAT + b"host: x\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\n-1\r\n" + BODY, 400),
    "chunk longer than said": (
        CHAT + b"host: x\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\n3\r\n" + BODY + b"\r\n0\r\n\r\n",
        400,
    ),
    "huge chunk size": (
        CHAT + b"host: x\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\n" + BODY,
        400,
        413,
    ),
    "gzip body": (CHAT + b"host: x\r\ncontent-encoding: gzip\r\n" + FRAMED + b"\r\n" + BODY, 415),
    "br body": (CHAT + b"host: x\r\ncontent-encoding: br\r\n" + FRAMED + b"\r\n" + BODY, 415),
    "identity and gzip": (CHAT + b"host: x\r\ncontent-encoding: identity, gzip\r\n" + FRAMED + b"\r\n" + BODY, 415),
    "line too long": (b"GET /v1/models?" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 400, 414),
    "header too long": (b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 100_000 + b"\r\n\r\n", 400, 431),
    "too many headers": (b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 1000 + b"\r\n", 400, 431),
    "TLS": (bytes.fromhex("16030100c8010000c40303") + b"\x00" * 64 + b"\r\n\r\n", 400),
    "not HTTP": (b"EHLO example.org\r\n\r\n", 400),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_ambiguous_http_is_refused_and_never_reaches_an_endpoint(serve, endpoint, dial, case) -> None:
    engine = await endpoint()
    lb = await serve(engine)
    request, *statuses = REFUSED[case]
    client = await dial(lb)
    await client.send(request)
    reply = await client.reply()
    assert reply.status in statuses, reply
    assert reply.error["type"] == "invalid_request_error"
    assert reply.header("content-type") == "application/json"
    assert engine.calls == []
    if reply.header("connection") == "close":
        # Nothing of what follows may be taken for a second request.
        assert await client.closed() == b""
    else:
        assert (await client.get("/v1/models")).status == 200


@pytest.mark.parametrize("case", [case for case in REFUSED if REFUSED[case][1] == 400])
async def test_a_request_behind_an_ambiguous_one_is_not_served(serve, endpoint, dial, case) -> None:
    """What follows a message whose end is in doubt may be the body of it: nobody can say."""
    engine = await endpoint()
    client = await dial(await serve(engine))
    await client.send(REFUSED[case][0] + client.request(body=client.chat_body()))
    assert (await client.reply()).status in REFUSED[case][1:]
    await client.closed()
    assert engine.calls == []


@pytest.mark.parametrize("page", ["/metrics", "/healthz", "/v1/models"])
@pytest.mark.parametrize("case", ["version 2.0", "gzip, chunked", "length and chunked", "two hosts", "no host"])
async def test_every_page_is_as_strict(serve, endpoint, dial, page, case) -> None:
    client = await dial(await serve(await endpoint()))
    request, *statuses = REFUSED[case]
    await client.send(request.replace(b"POST /v1/chat/completions", b"GET " + page.encode()))
    assert (await client.reply()).status in statuses


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/chat/completions", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/models", 404, "not_found"),
        ("POST", "/v1/files", 404, "not_found"),
        ("GET", "/v1/files", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("POST", "/metrics", 404, "not_found"),
        ("GET", "/v1/models/nobody", 404, "model_not_found"),
        ("GET", "/v1/../metrics", 404, "not_found"),
        ("OPTIONS", "*", 404, "not_found"),
    ],
)
async def test_what_is_not_served_is_said_in_openai_shape(serve, endpoint, dial, method, target, status, code) -> None:
    client = await dial(await serve(await endpoint()))
    for _ in range(2):  # the connection stays usable
        await client.send(client.request(target, method=method))
        reply = await client.reply()
        assert (reply.status, reply.error["code"]) == (status, code)


async def test_a_bomb_is_refused_by_its_header_alone(serve, endpoint, dial) -> None:
    client = await dial(await serve(await endpoint()))
    bomb = gzip.compress(b"0" * (10 << 20))
    reply = await client.post(
        "/v1/chat/completions", bomb, [("content-encoding", "gzip"), ("content-type", "application/json")]
    )
    assert (reply.status, reply.error["code"]) == (415, "unsupported_content_encoding")
    assert (await client.chat()).status == 200


async def test_identity_is_no_encoding(serve, endpoint, dial) -> None:
    client = await dial(await serve(await endpoint()))
    assert (await client.chat([("content-encoding", "identity")])).status == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_413_and_the_connection_is_closed(serve, endpoint, dial, chunked) -> None:
    engine = await endpoint()
    client = await dial(await serve(engine, max_body=100_000))
    body = json.dumps(client.chat_body(user="x" * 100_000)).encode()
    if chunked:
        head = CHAT + b"host: x\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\n"
        pieces = [body[at : at + 30_000] for at in range(0, len(body), 30_000)]
        await client.send(head + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n")
    else:
        await client.send(client.request(body=body, headers=[("content-type", "application/json")]))
    reply = await client.reply()
    assert (reply.status, reply.error["code"]) == (413, "body_too_large")
    assert reply.header("connection") == "close"
    assert await client.closed() == b""
    assert engine.calls == []


async def test_a_length_over_the_limit_is_413_before_a_byte_of_the_body(serve, endpoint, dial) -> None:
    client = await dial(await serve(await endpoint(), max_body=100_000))
    await client.send(CHAT + b"host: x\r\n" + JSON + b"content-length: 100001\r\n\r\n")
    assert (await client.reply()).status == 413


async def test_a_body_of_exactly_the_limit_is_served(serve, endpoint, dial) -> None:
    client = await dial(await serve(await endpoint(), max_body=100_000))
    body = json.dumps(client.chat_body(user="")).encode()
    body = json.dumps(client.chat_body(user="x" * (100_000 - len(body)))).encode()
    assert len(body) == 100_000
    assert (await client.post("/v1/chat/completions", body)).status == 200


async def test_a_body_of_32_mib_is_served(serve, endpoint, dial) -> None:
    engine = await endpoint()
    client = await dial(await serve(engine))
    filler = "words of a very long prompt, " * 1_140_000
    body = json.dumps(client.chat_body(user="u", filler=filler)).encode()
    assert 31 << 20 < len(body) <= 32 << 20
    assert (await client.post("/v1/chat/completions", body)).status == 200
    assert len(engine.calls[0].body) == len(body) + len("demo") - len("chat")


@pytest.mark.parametrize("piece", [b"zz\r\n", b"-1\r\n", b"3\r\nabcd\r\n", b"5\nhello\n", b"\r\n"])
async def test_a_bad_chunk_in_the_midst_of_a_body_ends_the_request(serve, endpoint, dial, monkeypatch, piece) -> None:
    """aiohttp tells a handler that is reading nothing of it; the body's deadline does."""
    monkeypatch.setattr("spillway_balancer.net.proxy.BODY_IDLE_SECONDS", 0.1)
    engine = await endpoint()
    client = await dial(await serve(engine))
    await client.send(CHAT + b"host: x\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\n")
    await client.turn()
    await client.send(b"9\r\n" + BODY[:9] + b"\r\n")
    await client.turn()
    await client.send(piece)
    reply = await client.reply()
    assert reply.status in (400, 408)
    assert reply.header("connection") == "close"
    assert await client.closed() == b""
    assert engine.calls == []


def test_aiohttp_without_its_c_parser_is_not_served_with(objects, tmp_path) -> None:
    """aiohttp falls back silently to a parser in Python, which is slow and reads some requests otherwise."""
    file = tmp_path / "spillway.json"
    file.write_text(json.dumps(objects.pool("local", "http://127.0.0.1:1")))
    code = "from spillway_balancer.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "-f", str(file), "--port", "0"],
        env={**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "C parser" in done.stderr
    assert "Traceback" not in done.stderr
