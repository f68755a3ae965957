"""What of a message's headers goes on to the other side, on real sockets and in both directions."""

from __future__ import annotations

import gzip
import os

import pytest

SECRET = "sk-quagga-key"


async def forwarded(serve, endpoint, dial, headers: list[tuple[str, str]]):
    engine = await endpoint()
    client = await dial(await serve(engine))
    assert (await client.chat(headers)).status == 200
    return engine.calls[0]


HOP_BY_HOP = [
    ("connection", "keep-alive"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("proxy-authorization", "Basic zzz"),
    ("te", "trailers"),
    ("trailer", "x-checksum"),
    ("upgrade", "h2c"),
    ("http2-settings", "AAMAAABkAAQAAP__"),
]


@pytest.mark.parametrize(("name", "value"), HOP_BY_HOP)
async def test_headers_of_the_one_connection_stay_on_it(serve, endpoint, dial, name, value) -> None:
    call = await forwarded(serve, endpoint, dial, [(name, value)])
    assert call.header(name) is None
    assert call.header("connection") is None


async def test_nominated_headers_stay_on_the_connection(serve, endpoint, dial) -> None:
    headers = [
        ("Connection", "X-One, close-ish"),
        ("X-One", "1"),
        ("connection", "x-two"),
        ("X-Two", "2"),
        ("X-3", "3"),
    ]
    call = await forwarded(serve, endpoint, dial, headers)
    assert (call.header("x-one"), call.header("x-two"), call.header("x-3")) == (None, None, "3")


@pytest.mark.parametrize("name", ["content-type", "Content-Length", "HOST", "content-length, content-type, host"])
async def test_nobody_nominates_away_what_a_message_needs(serve, endpoint, dial, name) -> None:
    call = await forwarded(serve, endpoint, dial, [("connection", name)])
    assert call.header("content-type") == "application/json"
    assert call.header("content-length") == str(len(call.body))
    assert call.header("host") is not None
    assert call.json()["model"] == "demo"


async def test_nobody_nominates_away_the_pools_credential(serve, endpoint, dial, tmp_path, objects, say) -> None:
    engine = await endpoint()
    (tmp_path / "engine-key").mkdir()
    (tmp_path / "engine-key" / "api-key").write_text(say.KEY + "\n")
    lb = await serve(engine, pool={"auth": {"secretRef": {"name": "engine-key"}}}, secrets=tmp_path)
    client = await dial(lb)
    assert (await client.chat([("connection", "authorization"), ("authorization", "Bearer mine")])).status == 200
    assert engine.calls[0].header("authorization") == f"Bearer {say.KEY}"


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "cookie",
        "openai-organization",
        "openai-project",
        "proxy-authorization",
        "x-forwarded-for",
        "x-forwarded-host",
        "forwarded",
        "x-real-ip",
        "x-spillway-anything",
    ],
)
async def test_who_the_client_is_never_reaches_an_endpoint(serve, endpoint, dial, name) -> None:
    call = await forwarded(serve, endpoint, dial, [(name.title(), f"Bearer {SECRET}")])
    assert not [pair for pair in call.headers if SECRET in pair[1] or pair[0] == name]


async def test_other_headers_go_on_as_they_are(serve, endpoint, dial) -> None:
    headers = [("X-Request-Id", "r-1"), ("User-Agent", "tests/1"), ("traceparent", "00-1-2-01"), ("x-empty", "")]
    call = await forwarded(serve, endpoint, dial, [*headers, ("X-Twice", "a"), ("x-twice", "b")])
    for name, value in headers:
        assert call.header(name.lower()) == value
    assert [value for name, value in call.headers if name == "x-twice"] == ["a", "b"]
    assert call.header("accept-encoding") == "identity"


async def test_a_client_cannot_add_to_the_header_that_carries_the_pools_credential(
    serve, endpoint, dial, tmp_path, say
) -> None:
    """Of two such headers an engine might read the client's."""
    engine = await endpoint()
    (tmp_path / "engine-key").mkdir()
    (tmp_path / "engine-key" / "api-key").write_text(say.KEY)
    auth = {"secretRef": {"name": "engine-key"}, "header": "X-Engine-Token", "prefix": ""}
    client = await dial(await serve(engine, pool={"auth": auth}, secrets=tmp_path))
    assert (await client.chat([("x-engine-token", "mine")])).status == 200
    assert [value for name, value in engine.calls[0].headers if name == "x-engine-token"] == [say.KEY]


async def test_what_an_endpoint_says_of_its_connection_and_itself_stays_there(serve, endpoint, dial, say) -> None:
    kept = "x-good: yes\r\nx-request-id: r-9\r\nserver: uvicorn\r\n"
    dropped = {
        "connection": "keep-alive, x-nominated",
        "x-nominated": "1",
        "keep-alive": "timeout=5",
        "proxy-authenticate": "Basic",
        "upgrade": "h2c",
        "set-cookie": "a=b",
        "strict-transport-security": "max-age=1",
        "alt-svc": "h3",
        "openai-organization": "org-of-ours",
        "x-spillway-fake": "1",
        "date": "Mon, 01 Jan 2001 00:00:00 GMT",
    }
    said = "".join(f"{name}: {value}\r\n" for name, value in dropped.items())
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{kept}{said}content-length: 2\r\n\r\n{{}}"
    client = await dial(await serve(await endpoint(say.steps(head.encode()))))
    reply = await client.chat()
    assert (reply.status, reply.body) == (200, b"{}")
    assert not [name for name, _ in reply.headers if name in dropped and name != "date"]
    assert "2001" not in (reply.header("date") or "")
    assert (reply.header("x-good"), reply.header("x-request-id"), reply.header("server")) == ("yes", "r-9", "uvicorn")


@pytest.mark.parametrize("name", ["content-type", "content-length", "Content-Encoding"])
async def test_an_endpoint_cannot_nominate_away_what_its_answer_means(serve, endpoint, dial, say, name) -> None:
    answer = say.message(body=b"{}", connection=name)
    client = await dial(await serve(await endpoint(say.steps(answer))))
    reply = await client.chat()
    assert (reply.header("content-type"), reply.header("content-length")) == ("application/json", "2")


@pytest.mark.parametrize("size", [100, 3 << 20])
async def test_a_compressed_answer_goes_through_untouched(serve, endpoint, dial, say, size) -> None:
    packed = gzip.compress(os.urandom(size))
    answer = say.message(body=packed, content_encoding="gzip", content_type="audio/mpeg")
    client = await dial(await serve(await endpoint(say.steps(answer))))
    reply = await client.chat()
    assert reply.header("content-encoding") == "gzip"
    assert reply.body == packed


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(serve, endpoint, dial, say, status) -> None:
    elsewhere = await endpoint()
    engine = await endpoint(say.steps(say.message(status, b"", location=f"{elsewhere.url}/v1/chat/completions")))
    client = await dial(await serve(engine))
    assert (await client.chat()).status == status
    assert elsewhere.connections == 0


async def test_proxies_of_the_environment_are_nobodys_business(serve, endpoint, dial, say, monkeypatch) -> None:
    proxy = await endpoint(say.steps(say.CLOSE))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    engine = await endpoint()
    health = {"active": {"mode": "HTTP", "interval": "100ms"}}
    lb = await serve(engine, pool={"health": health, "metrics": {"mode": "Prometheus", "interval": "100ms"}})
    client = await dial(lb)
    assert (await client.chat()).status == 200
    await lb.until(lambda: lb.endpoint("e1").probe.healthy)
    assert proxy.connections == 0


async def test_an_upgrade_is_declined_and_the_request_served(serve, endpoint, dial) -> None:
    client = await dial(await serve(await endpoint()))
    for upgrade in ("h2c", "websocket"):
        reply = await client.chat([("connection", "upgrade"), ("upgrade", upgrade)])
        assert (reply.status, reply.text) == (200, "hello")
