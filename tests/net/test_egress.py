"""How endpoints are reached, over sockets: authorities of one's own, proxies, and names that lead astray."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

from spillway_balancer.net.credentials import Credentials
from spillway_balancer.net.dialling import Dialler, NotDialled, Way, context_of, origin_of, said
from spillway_balancer.net.upstream import ConnectionPool

LOG_IN = "someone:secret-of-the-proxy"


class Company:
    """An authority, and what it has certified."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.pem = self.ca.cert_pem.bytes().decode()

    def context(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names).configure_cert(context)
        return context


class Secure:
    """Answers whatever it is asked by TLS, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[web.BaseRequest] = []
        self.port = 0

    async def start(self, context: ssl.SSLContext) -> None:
        self._runner = web.ServerRunner(web.Server(self._answer))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        message = {"role": "assistant", "content": "by TLS"}
        return web.json_response({"id": "a", "model": "m", "choices": [{"index": 0, "message": message}]})


class Tunnels:
    """A proxy that makes tunnels, for who may log in."""

    def __init__(self, log_in: str | None) -> None:
        self._log_in = log_in
        self.asked: list[str] = []
        self.answer = b"HTTP/1.1 200 Connection established\r\n\r\n"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            self.asked.append(head[0])
            wanted = None if self._log_in is None else base64.b64encode(self._log_in.encode()).decode()
            if wanted is not None and f"proxy-authorization: Basic {wanted}" not in head:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
                return
            host, _, port = head[0].split()[1].rpartition(":")
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", int(port))  # whatever the host is
            del host
            writer.write(self.answer)
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
def company() -> Company:
    return Company()


@pytest.fixture
async def secure(company: Company) -> AsyncIterator[Any]:
    started: list[Secure] = []

    async def start(*names: str) -> Secure:
        one = Secure()
        await one.start(company.context(*names))
        started.append(one)
        return one

    yield start
    for one in started:
        await one.stop()


@pytest.fixture
async def proxy() -> AsyncIterator[Tunnels]:
    one = Tunnels(LOG_IN)
    await one.start()
    yield one
    await one.stop()


def config_map(text: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": text}}


async def ask(lb: Any) -> tuple[int, str]:
    body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
    async with aiohttp.ClientSession() as session, session.post(f"{lb.url}/v1/chat/completions", json=body) as answer:
        return answer.status, await answer.text()


OWN = {"tls": {"caConfigMapRef": {"name": "ca"}}}


async def test_endpoints_of_a_companys_own_authority_are_believed(serve, objects, secure, company) -> None:
    server = await secure("localhost")
    pool = objects.pool("local", f"https://localhost:{server.port}", **OWN)
    lb = await serve(docs=[config_map(company.pem), pool, objects.route("local")])
    status, text = await ask(lb)
    assert status == 200, text
    assert "by TLS" in text


@pytest.mark.parametrize(
    ("names", "tls", "why"),
    [
        (("localhost",), None, "its certificate is not believed: unable to get local issuer certificate"),
        (("elsewhere",), OWN["tls"], "its certificate is not believed: Hostname"),
        (
            ("localhost",),
            {**OWN["tls"], "serverName": "llm.internal"},
            "its certificate is not believed: Hostname mism",
        ),
    ],
    ids=["the system does not know it", "another's certificate", "another name was asked for"],
)
async def test_who_is_not_believed_gets_nothing(serve, objects, secure, company, caplog, names, tls, why) -> None:
    server = await secure(*names)
    settings = {} if tls is None else {"tls": tls}
    settings["health"] = {"passive": {"consecutiveFailures": 1, "maxEjectedPercent": 100}}
    pool = objects.pool("local", f"https://localhost:{server.port}", **settings)
    lb = await serve(docs=[config_map(company.pem), pool, objects.route("local")])
    status, _ = await ask(lb)
    assert status == 503
    assert not server.requests
    (told,) = {each.getMessage() for each in caplog.records if "ejected" in each.getMessage()}
    assert told.startswith(f"endpoint default/local/e1 is ejected: connect: {why}")


@pytest.mark.parametrize("tls", [{**OWN["tls"], "serverName": "llm.internal"}, {"insecureSkipVerify": True}])
async def test_an_endpoint_known_by_its_address_is_asked_for_by_a_name_or_believed_blindly(
    serve, objects, secure, company, tls
) -> None:
    server = await secure("llm.internal")
    pool = objects.pool("local", f"https://127.0.0.1:{server.port}", tls=tls)
    lb = await serve(docs=[config_map(company.pem), pool, objects.route("local")])
    status, text = await ask(lb)
    assert status == 200, text


async def test_a_changed_authority_is_in_force_for_new_connections(serve, objects, secure, company) -> None:
    server = await secure("localhost")
    pool = objects.pool("local", f"https://localhost:{server.port}", **OWN)
    lb = await serve(docs=[config_map(Company().pem), pool, objects.route("local")])
    assert (await ask(lb))[0] == 503
    lb.write(config_map(company.pem), pool, objects.route("local"))
    await lb.until(lambda: lb.balancer.serving.current.pools["default/local"].spec.trust.authorities == company.pem)
    assert (await ask(lb))[0] == 200


async def test_probes_go_the_same_way(serve, objects, secure, company) -> None:
    server = await secure("llm.internal")
    tls = {**OWN["tls"], "serverName": "llm.internal"}
    health = {"active": {"mode": "HTTP", "path": "/health", "interval": "100ms"}}
    metrics = {"mode": "Prometheus", "interval": "100ms"}
    pool = objects.pool("local", f"https://127.0.0.1:{server.port}", tls=tls, health=health, metrics=metrics)
    lb = await serve(docs=[config_map(company.pem), pool, objects.route("local")])
    await lb.until(lambda: {"/health", "/metrics"} <= {each.path for each in server.requests})


async def test_a_probe_follows_no_redirect(serve, objects, say, endpoint) -> None:
    server = await endpoint()
    server.pages["/health"] = say.message(302, location=f"{server.url}/elsewhere")
    health = {"active": {"mode": "HTTP", "path": "/health", "interval": "50ms"}}
    lb = await serve(docs=[objects.pool("local", server.url, health=health), objects.route("local")])
    await lb.until(lambda: lb.endpoint("e1").probe.healthy)  # as kubelet has it
    assert not server.calls


def proxied(objects: Any, url: str, proxy: Tunnels) -> dict[str, Any]:
    way = {"url": proxy.url, "secretRef": {"name": "proxy"}}
    return objects.provider("local", url, "main", source={"provider": {"proxy": way}}, **OWN)


async def test_a_provider_is_reached_through_a_proxy(
    serve, objects, secure, company, proxy, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("SPILLWAY_SECRET_MAIN_API_KEY", "key-of-the-account")
    monkeypatch.setenv("SPILLWAY_SECRET_PROXY_API_KEY", LOG_IN)
    server = await secure("api.example.com")
    pool = proxied(objects, f"https://api.example.com:{server.port}/v1", proxy)
    lb = await serve(docs=[config_map(company.pem), pool, objects.route("local")])
    for _ in range(3):
        status, text = await ask(lb)
        assert status == 200, text
    assert proxy.asked == [f"CONNECT api.example.com:{server.port} HTTP/1.1"]  # one tunnel, kept
    (request, *_) = server.requests
    assert request.headers["authorization"] == "Bearer key-of-the-account"
    assert "proxy-authorization" not in request.headers


@pytest.mark.parametrize(
    ("secret", "answer", "why"),
    [
        ("wrong:secret", None, "the proxy answered 407"),
        (LOG_IN, b"HTTP/1.1 200 OK\r\n\r\nextra", "the proxy said more than that it is connected"),
        (LOG_IN, b"SSH-2.0-OpenSSH\r\n\r\n", "the proxy gave no answer of HTTP"),
        (LOG_IN, b"HTTP/1.1 200 OK\r\nx: " + b"a" * 9000, "the proxy gave no answer of HTTP"),
    ],
)
async def test_a_proxy_that_refuses_is_told_apart(
    serve, objects, company, proxy, monkeypatch, caplog, secure, secret, answer, why
) -> None:
    monkeypatch.setenv("SPILLWAY_SECRET_MAIN_API_KEY", "key-of-the-account")
    monkeypatch.setenv("SPILLWAY_SECRET_PROXY_API_KEY", secret)
    proxy.answer = answer or proxy.answer
    server = await secure("api.example.com")
    pool = proxied(objects, f"https://api.example.com:{server.port}/v1", proxy)
    pool["spec"]["health"] = {"passive": {"consecutiveFailures": 1, "maxEjectedPercent": 100}}
    lb = await serve(docs=[config_map(company.pem), pool, objects.route("local")])
    assert (await ask(lb))[0] == 503
    assert f"endpoint default/local/main is ejected: connect: {why}" in [each.getMessage() for each in caplog.records]
    assert not [each for each in caplog.records if secret in each.getMessage()]
    assert not server.requests


# -- names


class Names:
    """Answers for names, another address each time."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0

    async def __call__(self, host: str, port: int, **_: Any) -> Any:
        at = self.addresses[min(self.asked, len(self.addresses) - 1)]
        self.asked += 1
        family = socket.AF_INET6 if ":" in at else socket.AF_INET
        place = (at, port, 0, 0) if ":" in at else (at, port)
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place)]


def dialler(*addresses: str, **environ: str) -> tuple[Dialler, Names]:
    names = Names(*addresses)
    return Dialler(asyncio.get_running_loop(), Credentials(), environ, names), names


@pytest.mark.parametrize(
    ("address", "external", "why"),
    [
        ("169.254.169.254", False, "its name leads to a link-local address or a metadata service"),
        ("::ffff:169.254.169.254", False, "its name leads to a link-local address or a metadata service"),
        ("10.96.0.1", False, "its name leads to the Kubernetes API"),
        ("127.0.0.1", True, "its name leads to an address of this machine"),
    ],
)
async def test_a_name_that_leads_astray_is_not_followed(address: str, external: bool, why: str) -> None:
    far, _ = dialler(address, KUBERNETES_SERVICE_HOST="10.96.0.1")
    pool = ConnectionPool(far)
    with pytest.raises(NotDialled) as refused:
        await pool.dial(origin_of("http://api.example.com", Way(external)), 5.0)
    assert said(refused.value) == why


@pytest.mark.parametrize("way", [None, Way(True), Way(True, proxy=None)])
async def test_an_address_that_is_nobodys_endpoint_is_not_dialled_either(way: Way | None) -> None:
    far, names = dialler()
    with pytest.raises(NotDialled, match="its address is a link-local address"):
        await ConnectionPool(far).dial(origin_of("http://[fe80::1]:80", way), 5.0)
    assert not names.asked


async def test_the_address_that_was_looked_at_is_the_one_that_is_dialled() -> None:
    """DNS rebinding: asked a second time, the name would lead to a metadata service."""
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    far, names = dialler("127.0.0.1", "169.254.169.254")
    pool = ConnectionPool(far)
    connection = await pool.dial(origin_of(f"http://rebound.example.com:{port}"), 5.0)
    assert names.asked == 1
    connection.close()
    with pytest.raises(NotDialled):
        await pool.dial(origin_of(f"http://rebound.example.com:{port}"), 5.0)
    server.close()


async def test_pools_that_are_reached_in_other_ways_share_no_connections() -> None:
    ways = [None, Way(), Way(True), Way(False, None, None)]
    assert len({origin_of("https://host", way) for way in ways}) == 3
    assert origin_of("https://host").authority == "host"
    assert origin_of("https://host").tunnel == "host:443"


async def test_connection_errors_are_said_in_a_few_words(caplog) -> None:
    caplog.set_level(logging.DEBUG)
    assert said(ConnectionRefusedError(111, "Connection refused")) == "Connection refused"
    assert said(TimeoutError()) == "no connection in time"
    assert said(OSError()) == "OSError"
    assert said(ssl.SSLError(1, "whatever")) == "TLS: broken"
    assert context_of(None) is context_of(None)
