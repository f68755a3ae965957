"""A config stream on a real socket with real TLS, and clients for it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from spillway_api import stream
from spillway_api.snapshot import Endpoint, Pool, Snapshot, digest
from spillway_api.types import Capacity, Dispatch, Health, Metrics, Model
from spillway_operator.certificates import Made, ServingTls, needed, service_names, trust_in
from spillway_operator.cluster import ApiError
from spillway_operator.identity import Caller, Identity
from spillway_operator.routes import Routes
from spillway_operator.stream import StreamServer
from spillway_operator.subscribers import Subscriber

PATIENCE = 20.0
NAMES = service_names("spillway-operator", "infra")
SERVICE = NAMES[2]


def token_of(account: str, pod: str, namespace: str = "infra", ends: float = 1 << 40) -> str:
    """As a ServiceAccount's is, of three parts with claims in the second; the Tokens below know whose it is."""
    said = {"exp": ends, "a": account, "p": pod, "n": namespace}
    claims = base64.urlsafe_b64encode(json.dumps(said).encode()).decode()
    return f"quagga.{claims.rstrip('=')}.zebra"


class Tokens:
    """What an API server says of tokens; `away` it says nothing."""

    def __init__(self) -> None:
        self.away = False
        self.reviews = 0
        self.waits: asyncio.Event | None = None

    async def review_token(self, token: str, audience: str) -> dict[str, Any]:
        self.reviews += 1
        if self.waits is not None:
            await self.waits.wait()
        if self.away:
            raise ApiError(0, "Unreachable", "refused")
        start, _, rest = token.partition(".")
        if start != "quagga":
            return {"authenticated": False, "error": "bad token"}
        claims = json.loads(base64.urlsafe_b64decode(rest.split(".")[0] + "==="))
        user = {
            "username": f"system:serviceaccount:{claims['n']}:{claims['a']}",
            "uid": f"uid-{claims['a']}",
            "extra": {"authentication.kubernetes.io/pod-name": [claims["p"]]} if claims["p"] else {},
        }
        return {"authenticated": True, "user": user, "audiences": [audience]}


def snapshot_of(gateway: str, **sizes: int) -> Snapshot:
    """Pools by name with so many endpoints each."""
    pools = (_pool(f"default/{name}", size) for name, size in sorted(sizes.items()))
    return Snapshot(gateway, tuple(pools), ())


def _pool(name: str, size: int) -> Pool:
    endpoints = tuple(Endpoint(f"e{index}", f"http://10.0.{index // 250}.{index % 250}:8000") for index in range(size))
    models = (Model("m"),)
    return Pool(name, models, "vLLM", None, endpoints, Dispatch(), Capacity(), Metrics(), Health())


class Rig:
    """A StreamServer; gateway G belongs to the ServiceAccount G, and `operator` relays."""

    def __init__(
        self, made: Made, *, name: str = "operator-0", tokens: Tokens | None = None, sidecars: Routes = "All"
    ) -> None:
        self.name = name
        self.made = made
        self.tokens = tokens or Tokens()
        self.changes: list[str] = []
        self.changed = asyncio.Event()
        self.server = StreamServer(
            Identity(self.tokens, stream.AUDIENCE),
            lambda caller, gateway: caller.namespace == "infra" and caller.service_account == gateway,
            self._note,
            relays=self._relays,
            sidecars=sidecars,
        )
        self.server.synced = True
        self.tls = ServingTls(self._secret)
        self.versions = 0
        self._sockets: list[aiohttp.ClientWebSocketResponse] = []
        self._stack = contextlib.AsyncExitStack()

    def _note(self, gateway: str) -> None:
        self.changes.append(gateway)
        self.changed.set()

    @staticmethod
    def _relays(caller: Caller) -> bool:
        return (caller.namespace, caller.service_account) == ("infra", "operator")

    async def _secret(self) -> dict[str, Any]:
        return {"data": self.made.data()}

    async def start(self) -> None:
        self.tls.use(await self._secret())
        await self.server.start("127.0.0.1", 0, self.tls.context)
        self.session = await self._stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )

    async def stop(self) -> None:
        await asyncio.gather(*(socket.close() for socket in self._sockets))
        await self._stack.aclose()
        await self.server.stop()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def publish(self, snapshot: Snapshot) -> str:
        """Publishes; its digest."""
        self.versions += 1
        named = digest(snapshot)
        self.server.publish(snapshot.gateway, snapshot, named, 1000.0 + self.versions)
        return named

    async def until(self, check: Callable[[], Any]) -> None:
        """Waits until something holds that depends on subscribers."""
        async with asyncio.timeout(PATIENCE):
            while not check():
                self.changed.clear()
                await self.changed.wait()

    async def dial(
        self,
        token: str,
        path: str = stream.PATH,
        *,
        authority: bytes | None = None,
        service: str = SERVICE,
    ) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket as it is after the upgrade. Raises what aiohttp raises."""
        socket = await self.session.ws_connect(
            f"wss://{self.address}{path}",
            headers={"Authorization": f"Bearer {token}"},
            ssl=trust_in(authority or self.made.authority),
            server_hostname=service,
            max_msg_size=stream.MAX_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=0.5),
        )
        self._sockets.append(socket)  # a client that nobody holds is closed
        return socket

    async def subscribe(self, pod: str, gateway: str = "chat", has: Snapshot | None = None) -> Balancer:
        """A balancer that has said hello, and perhaps what it serves from."""
        one = Balancer(await self.dial(token_of(gateway, pod)), pod)
        one.snapshot, one.digest = has, has and digest(has)
        await one.say(stream.Hello(gateway, one.digest, "test"))
        await self.until(lambda: self.subscriber(pod, gateway))
        return one

    async def beside(
        self, pod: str, *routes: str, namespace: str = "team", gateway: str = "chat", has: Snapshot | None = None
    ) -> Balancer:
        """A sidecar that has said hello."""
        path = f"{stream.PATH}?gateway={gateway}&sidecar=1"
        one = Balancer(await self.dial(token_of("default", pod, namespace), path), pod)
        one.snapshot, one.digest = has, has and digest(has)
        await one.say(stream.Hello(gateway, one.digest, "test", True, routes))
        return one

    def subscriber(self, pod: str, gateway: str = "chat") -> Subscriber | None:
        """What the server knows of a balancer."""
        return next((one for one in self.server.subscribers(gateway) if one.balancer == pod), None)


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Rig]:
    """One that balancers find at localhost as well as by its Service."""
    made = needed(None, (*NAMES, "localhost"), datetime.now(UTC))
    assert made is not None
    one = Rig(made)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


class Balancer:
    """A subscriber that applies what it is told."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, pod: str) -> None:
        self.socket = socket
        self.pod = pod
        self.snapshot: Snapshot | None = None
        self.digest: str | None = None

    async def say(self, message: stream.FromBalancer) -> None:
        await self.socket.send_str(stream.encode(message).decode())

    async def hear(self) -> stream.FromOperator:
        """The next message, applied."""
        heard = await self.socket.receive(timeout=PATIENCE)
        if heard.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            raise TypeError(f"no message: {heard}")
        packed = heard.type is aiohttp.WSMsgType.BINARY
        message = stream.from_operator(stream.unpacked(heard.data) if packed else heard.data)
        if isinstance(message, stream.Full):
            self.snapshot = message.snapshot
        else:
            assert self.snapshot is not None
            assert message.base == self.digest
            self.snapshot = stream.applied(self.snapshot, message)
        self.digest = message.digest
        assert digest(self.snapshot) == message.digest
        return message

    async def take(self) -> stream.FromOperator:
        """The next message, applied and acknowledged."""
        message = await self.hear()
        await self.say(stream.Ack(message.digest))
        return message

    async def follow(self) -> None:
        """Takes whatever comes until the connection ends."""
        with contextlib.suppress(TypeError):  # a message that is no text: the end
            while True:
                await self.take()

    async def closed(self) -> int | None:
        """Reads until the server closes; the code."""
        async with asyncio.timeout(PATIENCE):
            async for _ in self.socket:
                pass
        return self.socket.close_code


@contextlib.asynccontextmanager
async def running(*coroutines: Any) -> AsyncIterator[None]:
    """Runs things in the background for the time of the block."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def token_file(folder: Path, account: str, pod: str) -> Path:
    """A projected token."""
    file = folder / f"token-{pod}"
    file.write_text(token_of(account, pod))
    return file
