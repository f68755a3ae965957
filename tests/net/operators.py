"""An operator as balancers see it: a real WebSocket server over TLS that speaks `spillway_api.stream`."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import WSMsgType, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from spillway_api import snapshot, stream
from spillway_api.snapshot import Endpoint, Pool, Route, RouteRule, RouteTier, Snapshot, Target
from spillway_api.types import ActiveHealth, Capacity, Dispatch, Health, Metrics, Model, Retry, Timeouts

PATIENCE = 15.0
"""Seconds that a test waits for what should come at once; only a failing test waits so long."""

TOKEN = "token-of-okapi"  # it may turn up nowhere but in the header of a handshake

M = TypeVar("M", bound=msgspec.Struct)


def pool(name: str, *urls: str, metrics: Metrics | None = None, probed: bool = False, **spec: Any) -> Pool:
    """Endpoints e1, e2, … of the model `demo`; neither probed nor scraped unless told."""
    base: dict[str, Any] = {
        "name": f"default/{name}",
        "models": (Model(name="demo"),),
        "engine": "Auto",
        "provider": None,
        "endpoints": tuple(Endpoint(f"e{number}", url) for number, url in enumerate(urls, 1)),
        "dispatch": Dispatch(),
        "capacity": Capacity(),
        "metrics": metrics or Metrics(mode="None"),
        "health": Health(
            active=ActiveHealth(mode="Auto", interval="50ms", unhealthy_threshold=1)
            if probed
            else ActiveHealth(mode="None")
        ),
    }
    return Pool(**{**base, **spec})


def route(*pools: str, name: str = "chat", models: tuple[str, ...] = ("chat",), tiers: Any = None) -> Route:
    """One tier of these pools, or the tiers given."""
    made = tiers or (RouteTier("only", tuple(Target(f"default/{each}") for each in pools), "Weighted", ()),)
    return Route(f"default/{name}", models, (RouteRule("all", made),), Timeouts(), Retry())


def state(*parts: Pool | Route, gateway: str = "default") -> Snapshot:
    pools = sorted((each for each in parts if isinstance(each, Pool)), key=lambda each: each.name)
    routes = sorted((each for each in parts if isinstance(each, Route)), key=lambda each: each.name)
    return Snapshot(gateway, tuple(pools), tuple(routes))


def saved(of: Snapshot, at: float) -> stream.Saved:
    return stream.Saved(snapshot.digest(of), at, of)


class Authority:
    """A certificate authority, and a server's certificate by it, as files."""

    def __init__(self, folder: Path, name: str) -> None:
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
        self.ca_file = folder / f"{name}-ca.crt"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

        def certificate(of: Any, public: Any) -> x509.CertificateBuilder:
            builder = x509.CertificateBuilder().subject_name(of).issuer_name(subject).public_key(public)
            builder = builder.serial_number(x509.random_serial_number())
            day = datetime.timedelta(days=1)
            return builder.not_valid_before(now - day).not_valid_after(now + day)

        own = certificate(subject, key.public_key()).add_extension(x509.BasicConstraints(True, None), True)
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        own = own.add_extension(usage, True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        own = own.add_extension(identifier, False)
        self.ca_file.write_bytes(own.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        server = ec.generate_private_key(ec.SECP256R1())
        named = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        leaf = certificate(x509.Name([]), server.public_key()).add_extension(named, True)
        leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False)
        chain = folder / f"{name}-tls.pem"
        chain.write_bytes(
            leaf.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
            + server.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(chain)


class Talk:
    """One balancer's connection."""

    def __init__(self, request: web.BaseRequest, wire: web.WebSocketResponse, token: str) -> None:
        self._request = request
        self.wire = wire
        self.token = token
        self.over = asyncio.Event()
        self._said: list[Any] = []
        self._more = asyncio.Event()

    def hears(self, message: Any) -> None:
        self._said.append(message)
        self._more.set()

    async def next(self, kind: type[M]) -> M:
        """The next message of this kind; those before it are passed over."""
        async with asyncio.timeout(PATIENCE):
            while True:
                while self._said:
                    message = self._said.pop(0)
                    if isinstance(message, kind):
                        return message
                self._more.clear()
                await self._more.wait()

    async def until(self, kind: type[M], holds: Any) -> M:
        """The first one of which this holds."""
        async with asyncio.timeout(PATIENCE):
            while not holds(message := await self.next(kind)):
                pass
            return message

    async def say(self, message: Any) -> None:
        data = message if isinstance(message, bytes) else stream.encode(message)
        await self.wire.send_str(data.decode())

    async def taken(self, digest: str) -> None:
        """The balancer says that this is in force."""
        await self.until(stream.Ack, lambda ack: ack.digest == digest)

    @property
    def transport(self) -> asyncio.Transport:
        transport = self._request.transport
        assert transport is not None
        return transport

    async def close(self) -> None:
        """Cut the connection, without a word."""
        self.transport.abort()
        async with asyncio.timeout(PATIENCE):
            await self.over.wait()


class Operator:
    """Serves the config stream. `now` is what every balancer should serve; None says nothing to a hello."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.now: Snapshot | None = None
        self.at = 1000.0
        self.statuses: list[int] = []
        """Handshakes to refuse with these, one after the other."""
        self.refused = asyncio.Event()
        self.token = TOKEN
        self.talks: list[Talk] = []
        self.port = 0
        self.heartbeat: float | None = stream.HEARTBEAT
        self._came = asyncio.Event()
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def digest(self) -> str:
        assert self.now is not None
        return snapshot.digest(self.now)

    async def start(self) -> None:
        """On the port of before, where there was one."""
        self._runner = web.ServerRunner(web.Server(self._serve, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.authority.context, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Gone, and its port refuses."""
        if self._runner is not None:
            for talk in self.talks:
                if not talk.over.is_set():
                    await talk.close()
            await self._runner.cleanup()
            self._runner = None

    async def talk(self, number: int = 1) -> Talk:
        """The n-th connection there was, once it is there."""
        async with asyncio.timeout(PATIENCE):
            while len(self.talks) < number:
                self._came.clear()
                await self._came.wait()
        return self.talks[number - 1]

    async def change(self, after: Snapshot) -> str:
        """Send everybody the delta to this; returns its digest."""
        before, base = self.now, self.digest
        assert before is not None
        self.now, self.at = after, self.at + 1
        for talk in self.talks:
            if not talk.over.is_set():
                await talk.say(stream.difference(before, after, base, self.digest, self.at))
        return self.digest

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.path == stream.PATH
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        status = self.statuses.pop(0) if self.statuses else 401 if token != self.token else 0
        if status:
            self.refused.set()
            return web.Response(status=status)
        wire = web.WebSocketResponse(heartbeat=self.heartbeat)
        await wire.prepare(request)
        talk = Talk(request, wire, token)
        try:
            async for message in wire:
                assert message.type is WSMsgType.TEXT
                said = stream.from_balancer(message.data)
                talk.hears(said)
                if isinstance(said, stream.Hello):
                    if self.now is not None and said.digest != self.digest:
                        await talk.say(stream.Full(self.digest, self.at, self.now))
                    self.talks.append(talk)
                    self._came.set()
        finally:
            talk.over.set()
        return wire
