"""New connections: which address a name may lead to, through which proxy, and whom TLS believes.

The address that was looked at is the one that is dialled: a name that is resolved again for the connection itself
could lead elsewhere by then (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypedDict, TypeVar
from urllib.parse import urlsplit

from aiohappyeyeballs import AddrInfoType, start_connection
from aiohttp.abc import AbstractResolver, ResolveResult

from spillway_api.snapshot import Pool, Proxy, Trust

from ..wire.addresses import forbidden, literal
from .credentials import Credentials

MAX_PROXY_HEAD: Final = 8 * 1024
"""Bytes of a proxy's answer to CONNECT."""

_NEXT_FAMILY: Final = 0.25
"""Seconds after which the next address is tried beside one that is silent. RFC 8305, section 5."""

_LOCAL: Final = "localhost"


class Way(NamedTuple):
    """How a pool's endpoints are reached, where there is more to it than their addresses."""

    external: bool = False
    """A provider: its name must not lead to this machine."""
    trust: Trust | None = None
    proxy: Proxy | None = None


class Origin(NamedTuple):
    """Where connections go. Those of two pools that are reached in different ways are not shared."""

    host: str
    port: int
    tls: bool
    way: Way | None = None

    @property
    def authority(self) -> str:
        """The value of a Host header."""
        return self._named(443 if self.tls else 80)

    @property
    def tunnel(self) -> str:
        """What a proxy is asked to connect to."""
        return self._named(None)

    def _named(self, default: int | None) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default else f"{host}:{self.port}"


def way_of(pool: Pool) -> Way | None:
    """How the endpoints of a pool are reached; None for own ones whose address says all."""
    if pool.provider is None and pool.trust is None:
        return None
    return Way(pool.provider is not None, pool.trust, pool.proxy)


@lru_cache(maxsize=8192)
def origin_of(url: str, way: Way | None = None) -> Origin:
    """Origin of an absolute http or https URL; raises ValueError on any other."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not an absolute http or https URL: {url!r}")
    tls = parts.scheme == "https"
    return Origin(parts.hostname, parts.port or (443 if tls else 80), tls, way)


class NotDialled(OSError):
    """No connection was tried, or a proxy refused it; the text says why, without credentials."""


Lookup = Callable[..., Awaitable[Sequence[AddrInfoType]]]
"""As `loop.getaddrinfo`."""

Dialled = TypeVar("Dialled", bound=asyncio.Protocol)


class Dialler:
    """Makes connections. Raises OSError: of DNS, TCP, TLS, a proxy, or since an address is nobody's endpoint."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        credentials: Credentials,
        environ: Mapping[str, str] = os.environ,
        lookup: Lookup | None = None,
    ) -> None:
        """`lookup`: who resolves names, in the place of the system."""
        self.loop = loop
        self._lookup = lookup or loop.getaddrinfo
        self._credentials = credentials
        api = environ.get("KUBERNETES_SERVICE_HOST")
        self._here: frozenset[str] = frozenset() if api is None else frozenset({api})

    async def dial(self, origin: Origin, protocol: Callable[[], Dialled]) -> Dialled:
        """A connection to an origin, TLS and proxy included."""
        way = origin.way or Way()
        context, name = None, None
        if origin.tls:
            context = context_of(way.trust)
            name = (way.trust and way.trust.server_name) or origin.host
        if way.proxy is not None:
            self._refuse_literal(origin)  # a name is the proxy's to resolve
            near = origin_of(way.proxy.url)
            sock = await self._connect(near.host, near.port, False)
            try:
                await self._tunnel(sock, origin, way.proxy)
            except BaseException:
                sock.close()
                raise
        elif literal(origin.host) is not None:  # nothing to resolve: endpoints of our own are mostly this
            self._refuse_literal(origin)
            found = await self.loop.create_connection(
                protocol, origin.host, origin.port, ssl=context, server_hostname=name
            )
            return found[1]
        else:
            sock = await self._connect(origin.host, origin.port, way.external)
        try:
            _, connection = await self.loop.create_connection(protocol, sock=sock, ssl=context, server_hostname=name)
        except BaseException:
            sock.close()
            raise
        return connection

    async def resolve(self, host: str, port: int, external: bool, family: int = 0) -> list[AddrInfoType]:
        """The addresses of a name at which it may be dialled. Raises NotDialled where none is left."""
        found = await self._lookup(host, port, family=family, type=socket.SOCK_STREAM)
        why = "no address"
        fit: list[AddrInfoType] = []
        for each in found:
            reason = forbidden(str(each[4][0]), self._here, external and host != _LOCAL)
            if reason is None:
                fit.append(each)
            else:
                why = reason
        if not fit:
            raise NotDialled(f"its name leads to {why}")
        return fit

    def _refuse_literal(self, origin: Origin) -> None:
        if literal(origin.host) is not None and (why := forbidden(origin.host, self._here)) is not None:
            raise NotDialled(f"its address is {why}")

    async def _connect(self, host: str, port: int, external: bool) -> socket.socket:
        infos = await self.resolve(host, port, external)
        return await start_connection(infos, happy_eyeballs_delay=_NEXT_FAMILY, interleave=1, loop=self.loop)

    async def _tunnel(self, sock: socket.socket, origin: Origin, proxy: Proxy) -> None:
        """Ask an HTTP proxy for a tunnel. RFC 9110, section 9.3.6."""
        head = [f"CONNECT {origin.tunnel} HTTP/1.1\r\nhost: {origin.tunnel}\r\n".encode()]
        if proxy.credential is not None:
            value = log_in(proxy, self._credentials)
            if value is None:
                raise NotDialled("the log-in at the proxy is not here yet")
            head.append(f"proxy-authorization: {value}\r\n".encode())
        await self.loop.sock_sendall(sock, b"".join((*head, b"\r\n")))
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = await self.loop.sock_recv(sock, MAX_PROXY_HEAD)
            answer += piece
            if not piece or len(answer) > MAX_PROXY_HEAD:
                raise NotDialled("the proxy gave no answer of HTTP")
        status = answer.split(b"\r\n", 1)[0].split(b" ")
        code = status[1].decode("latin-1") if len(status) > 1 else ""
        if not status[0].startswith(b"HTTP/1.") or not (code.isascii() and code.isdecimal() and len(code) == 3):
            raise NotDialled("the proxy gave no answer of HTTP")
        if not code.startswith("2"):
            raise NotDialled(f"the proxy answered {code}")
        if not answer.endswith(b"\r\n\r\n"):  # who is asked speaks second, in TLS and in HTTP
            raise NotDialled("the proxy said more than that it is connected")


def log_in(proxy: Proxy, credentials: Credentials) -> str | None:
    """The value of Proxy-Authorization, where there is to be one and its secret is here."""
    value = None if proxy.credential is None else credentials.value(proxy.credential)
    return None if value is None else "Basic " + base64.b64encode(value.encode()).decode()


def said(error: Exception) -> str:
    """A failed connection in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {getattr(error, 'reason', None) or 'broken'}"
    if isinstance(error, NotDialled):
        return str(error)
    if isinstance(error, TimeoutError):
        return "no connection in time"
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


@lru_cache(maxsize=256)
def context_of(trust: Trust | None) -> ssl.SSLContext:
    """What TLS believes: the system's authorities, or those of the pool and no others. Reading the system's takes
    20 ms: once. Raises ssl.SSLError where the pool's are no certificates."""
    if trust is not None and trust.insecure_skip_verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    return ssl.create_default_context(cadata=None if trust is None else trust.authorities)


class AskedBy(TypedDict, total=False):
    """Arguments of aiohttp's requests."""

    allow_redirects: bool
    ssl: ssl.SSLContext
    server_hostname: str
    proxy: str
    proxy_headers: dict[str, str]


def asked_by(pool: Pool, credentials: Credentials) -> AskedBy:
    """How aiohttp is to reach the endpoints of a pool, for probes and metrics."""
    way = AskedBy(allow_redirects=False)
    if pool.trust is not None:
        way["ssl"] = context_of(pool.trust)
        if pool.trust.server_name is not None:
            way["server_hostname"] = pool.trust.server_name
    if pool.proxy is not None:
        way["proxy"] = pool.proxy.url
        if (value := log_in(pool.proxy, credentials)) is not None:
            way["proxy_headers"] = {"Proxy-Authorization": value}
    return way


class Resolver(AbstractResolver):
    """Names for aiohttp, with the same look at where they lead."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._dialler.resolve(host, port, False, family)
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=str(at[0]), port=int(at[1]), family=kind, proto=proto, flags=flags)
            for kind, _, proto, _, at in found
        ]

    async def close(self) -> None:
        """Nothing is held."""
