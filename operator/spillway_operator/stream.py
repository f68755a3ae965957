"""The config stream's server: every subscriber is brought to the newest snapshot of its gateway, at its own pace.

A subscriber has one message on the way at a time. What changes until it has said that the last one is in force, or
that it refuses it, comes as one difference. So a slow balancer holds back nobody and is never behind by more than one
message; and as the messages are kept by where they lead from and to, thousands of balancers cost one encoding.

Over HTTP the server answers 401 to a token that is nobody's and 503 while it cannot tell or knows no snapshots yet.
What follows from the gateway is said by the code with which the WebSocket is closed, as the gateway stands in the
first message: 4403 it is not this caller's, 4404 there is none, 4408 no hello in time, 4409 the balancer has
connected anew, 4400 a message that is none. A caller that puts `?gateway=` to the path is told 403 and 404 by HTTP;
a sidecar puts `&sidecar=1` to it.

Sidecars (`Hello.sidecar`) are given views of the snapshot, and are counted and not listed: no status depends on them.
All that is heard of them is which pools they want to be woken.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Final

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from spillway_api import stream
from spillway_api.ledger import Books, Grants
from spillway_api.snapshot import Snapshot

from . import followers, relay, sidecars
from .connections import Connection, Feed, Gateway, Version
from .followers import Followers
from .identity import Authenticate, Caller, Unavailable, Unknown
from .routes import Routes
from .sharing import Sharing
from .sockets import BAD, CLOSE, FORBIDDEN, LATE, MISSING, REPLACED, Rejected, close, lean, upgraded
from .subscribers import OWN, Roster, Subscriber

HELLO: Final = 10.0
"""Seconds for the first message, and for handshake and headers before it."""
MAX_BYTES: Final = 4 << 20
"""Largest message of a balancer: a report that names every one of 5,000 endpoints has a tenth of it."""
MAX_BESIDE: Final = 256 << 10
"""Largest message of a sidecar, which has its routes to name and pools that are to be woken."""
MAX_TEXT: Final = 1024
"""Characters of a refusal that are kept."""

_log = logging.getLogger(__name__)

Voucher = Callable[[str, str, stream.Whose, Callable[[stream.Vouched], None]], None]


class StreamServer:
    """Serves `/v1/stream` to balancers and `/v1/relay` to other replicas of the operator."""

    def __init__(
        self,
        authenticate: Authenticate,
        allowed: Callable[[Caller, str], bool],
        changed: Callable[[str], None],
        *,
        relays: Callable[[Caller], bool] = lambda caller: False,
        sidecars: Routes = "None",
    ) -> None:
        """`allowed`: whether a caller may have a gateway's snapshots; `relays`: whether it is the operator itself;
        `sidecars`: which routes they may have.

        `changed(gateway)` is called after a subscriber of it came, went, acknowledged, refused or reported anew.
        """
        self._authenticate = authenticate
        self._allowed = allowed
        self._changed = changed
        self._relays = relays
        self._sidecars = sidecars
        self._gateways: dict[str, Gateway] = {}
        self._roster = Roster()
        self._local: list[Callable[[str, str], None]] = []
        self._readers: list[Callable[[str, str, str, Books], None]] = []
        self._voucher: Voucher | None = None
        self.sharing = Sharing(lambda: self._gateways)
        """What gateways have scraped, for sidecars."""
        self._followers = Followers(self._roster, self.sharing, changed, self._read, self._spawn)
        self._sharing: asyncio.Task[None] | None = None
        self._sockets: set[web.WebSocketResponse] = set()
        self._hanging_up: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self.synced = False
        """Whether all gateways that there are have been published once; to be set by the owner. Until then: 503."""
        self.messages_sent = 0
        self.bytes_sent = 0
        self.connections_made = 0
        self.refusals = 0
        """Connections that were turned away."""

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connected(self) -> int:
        """Gateways' balancers that are connected to this replica."""
        return sum(len(gateway.connections) for gateway in self._gateways.values())

    def sidecars(self, gateway: str) -> Mapping[str, int]:
        """A gateway's sidecars that are connected to this replica, by how they do."""
        known = self._gateways.get(gateway)
        return Counter(each.state for each in known.sidecars.values()) if known else {}

    def publish(self, gateway: str, snapshot: Snapshot, digest: str, at: float) -> None:
        """From now on this is what the gateway's balancers shall serve from. Nothing happens if it is already."""
        known = self._gateways.get(gateway)
        if known is None:
            self._gateways[gateway] = Gateway(Version(digest, at, snapshot))
        else:
            known.publish(Version(digest, at, snapshot))

    def withdraw(self, gateway: str) -> None:
        """There is no such gateway any more; its balancers are let go."""
        known = self._gateways.pop(gateway, None)
        for there in (known.connections, known.sidecars) if known else ():
            while there:
                name, connection = there.popitem()
                self._hang_up(connection.socket, MISSING, "the gateway is gone")
                self._gone(gateway, name)

    def published(self, gateway: str) -> str | None:
        """Digest of what is published for a gateway."""
        known = self._gateways.get(gateway)
        return known.newest.digest if known else None

    def subscribers(self, gateway: str) -> tuple[Subscriber, ...]:
        """The gateway's balancers, those of followers too, by name; without sidecars."""
        return tuple(each for each in self._roster.of(gateway) if not each.sidecar)

    def wanted(self, gateway: str) -> set[str]:
        """Pools that the gateway's balancers and sidecars want to be woken."""
        reports = (each.report for each in self._roster.of(gateway))
        return {pool for report in reports if report is not None for pool in report.wanted}

    def follow_local(self, follower: Callable[[str, str], None]) -> None:
        """Call `follower(gateway, balancer)` after every change of a balancer that is connected to this replica."""
        self._local.append(follower)

    def follow_books(self, reader: Callable[[str, str, str, Books], None]) -> None:
        """Call `reader(source, gateway, balancer, books)` whenever a balancer says what it has spent; the source is OWN
        or the follower that it is connected to."""
        self._readers.append(reader)

    def follow_questions(self, voucher: Voucher) -> None:
        """Call `voucher(gateway, balancer, question, say)` whenever one of a gateway's balancers asks whose a token is;
        `say` answers it. Without anybody to call nobody can say."""
        self._voucher = voucher

    def grant(self, source: str, gateway: str, balancer: str, grants: Grants) -> None:
        """Say this to a balancer, by the way on which it has spoken. Nothing happens when it has gone."""
        if source == OWN:
            known = self._gateways.get(gateway)
            connection = known.connections.get(balancer) if known else None
            if connection is not None:
                connection.say(stream.encode(grants))
        else:
            self._followers.say(source, relay.Passed(gateway, balancer, grants))

    def local_keys(self) -> set[tuple[str, str]]:
        """Gateway and name of the balancers that are connected to this replica."""
        return self._roster.keys(OWN)

    def local(self, gateway: str, balancer: str) -> Subscriber | None:
        """A balancer that is connected to this replica."""
        return self._roster.said(OWN, gateway, balancer)

    async def start(self, host: str, port: int, tls: ssl.SSLContext) -> None:
        """Listens. Raises OSError when it cannot."""
        lean()
        app = web.Application()
        app.router.add_get(stream.PATH, self._stream)
        app.router.add_get(relay.PATH, self._relay)
        # Until the upgrade the keep-alive time is also the one for headers.
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=HELLO, shutdown_timeout=CLOSE)
        await self._runner.setup()
        assert self._runner.server is not None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._runner.server,
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=HELLO,
            ssl_shutdown_timeout=CLOSE,
            backlog=1024,  # a restarted operator is looked for by everybody at once
        )
        self._sharing = loop.create_task(self.sharing.run())

    async def stop(self) -> None:
        """Lets everybody go, so that they look for another replica, and returns when they have gone."""
        if self._server is not None:
            self._server.close()
        if self._sharing is not None:
            self._sharing.cancel()
        for socket in list(self._sockets):
            self._hang_up(socket, WSCloseCode.GOING_AWAY, "the operator stops")
        while self._hanging_up:
            await asyncio.wait(self._hanging_up)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _caller(self, request: web.Request) -> Caller:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = ""
        try:
            return await self._authenticate(token.strip())
        except Unknown:
            raise web.HTTPUnauthorized(
                text="no token of a ServiceAccount for this audience", headers={"WWW-Authenticate": "Bearer"}
            ) from None
        except Unavailable:
            raise web.HTTPServiceUnavailable(
                text="the API server cannot be asked whose token this is", headers={"Retry-After": "5"}
            ) from None

    def _gateway(self, caller: Caller, name: str, sidecar: bool) -> Gateway:
        """The gateway, if the caller may have it, or as a sidecar a view of it. Raises Rejected."""
        # Who may not have it learns nothing of whether it is there.
        if sidecar:
            if why := sidecars.obstacle(caller, self._sidecars):
                raise Rejected(FORBIDDEN, why)
        elif not self._allowed(caller, name):
            raise Rejected(FORBIDDEN, "this ServiceAccount is not the gateway's")
        known = self._gateways.get(name)
        if known is None:
            raise Rejected(MISSING, "no such gateway")
        return known

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        try:
            caller = await self._caller(request)
            if not self.synced:
                raise web.HTTPServiceUnavailable(text="not synced yet", headers={"Retry-After": "1"})
            beside = bool(request.query.get("sidecar"))
            if (asked := request.query.get("gateway")) is not None:
                self._gateway(caller, asked, beside)
        except web.HTTPException:
            self.refusals += 1
            raise
        except Rejected as why:
            self.refusals += 1
            raise (web.HTTPForbidden if why.code == FORBIDDEN else web.HTTPNotFound)(text=why.reason) from None
        async with upgraded(request, MAX_BESIDE if beside else MAX_BYTES, self._sockets) as socket:
            try:
                hello, gateway = await self._hello(socket, caller)
            except Rejected as why:
                self.refusals += 1
                _log.info("turned away %s of %s: %s", caller.pod or "a caller", caller.namespace, why.reason)
                await close(socket, why.code, why.reason)
            else:
                await self._subscribed(socket, caller, hello, gateway)
        return socket

    async def _hello(self, socket: web.WebSocketResponse, caller: Caller) -> tuple[stream.Hello, Gateway]:
        try:
            message = await socket.receive(timeout=HELLO)
        except TimeoutError:
            raise Rejected(LATE, "no hello in time") from None
        if message.type is not WSMsgType.TEXT:
            raise Rejected(BAD, "the first message must be a hello")
        try:
            hello = stream.from_balancer(message.data)
        except msgspec.DecodeError:
            hello = None
        if not isinstance(hello, stream.Hello):
            raise Rejected(BAD, "the first message must be a hello")
        if len(hello.routes) > sidecars.MAX_ROUTES:
            raise Rejected(BAD, f"more than {sidecars.MAX_ROUTES} routes")
        return hello, self._gateway(caller, hello.gateway, hello.sidecar)

    async def _subscribed(
        self, socket: web.WebSocketResponse, caller: Caller, hello: stream.Hello, gateway: Gateway
    ) -> None:
        """From the hello to the end of the connection."""
        if hello.sidecar:
            name, there = sidecars.name_of(caller), gateway.sidecars
            feed: Feed = gateway.view(sidecars.question(caller, hello.routes, self._sidecars))
        else:
            name, there = caller.pod or f"serviceaccount-{caller.service_account}", gateway.connections
            feed = gateway
        connection = Connection(socket, name, feed, hello.digest)
        if (older := there.get(name)) is not None:
            self._hang_up(older.socket, REPLACED, "the balancer has connected anew")
            self._gone(hello.gateway, name)  # so that this is the later arrival, also than a follower's
        there[name] = connection
        self.connections_made += 1
        if not hello.sidecar:
            self._put(Subscriber(name, hello.gateway, hello.digest))
        level = logging.DEBUG if hello.sidecar else logging.INFO
        _log.log(level, "%s of gateway %s is here (version %.64s)", name, hello.gateway, hello.version)
        senders = [asyncio.create_task(self._send(connection)), asyncio.create_task(_speak(connection))]
        try:
            await self._listen(connection, hello.gateway, there)
        except Rejected as why:
            await close(socket, why.code, why.reason)
        finally:
            for sender in senders:
                sender.cancel()
            await asyncio.wait(senders)
            if there.get(name) is connection:
                del there[name]
                self._gone(hello.gateway, name)
                _log.log(level, "%s of gateway %s has gone (%s)", name, hello.gateway, socket.close_code)

    async def _send(self, connection: Connection) -> None:
        with contextlib.suppress(ConnectionError):  # whoever listens sees that too, and ends
            await connection.send_all(self._count)

    async def _listen(self, connection: Connection, gateway: str, there: Mapping[str, Connection]) -> None:
        hear = self._hear if isinstance(connection.feed, Gateway) else self._hear_beside
        async for message in connection.socket:
            if message.type is not WSMsgType.TEXT:
                raise Rejected(BAD, "only text is spoken here")
            try:
                said = stream.from_balancer(message.data)
            except msgspec.ValidationError:
                continue  # JSON of a newer balancer
            except msgspec.DecodeError:
                raise Rejected(BAD, "this is not JSON") from None
            if there.get(connection.balancer) is not connection:
                return  # replaced, and not to be listened to any more
            match said:
                case stream.Ack(digest):
                    connection.heard(digest[:MAX_TEXT])
                case stream.Refused(digest):
                    connection.refuses(digest[:MAX_TEXT])
                case stream.Hello():
                    raise Rejected(BAD, "a second hello")
            hear(connection, gateway, said)

    def _hear(self, connection: Connection, gateway: str, said: stream.FromBalancer) -> None:
        """What one of a gateway's balancers says."""
        known = self._roster.said(OWN, gateway, connection.balancer)
        assert known is not None
        match said:
            case stream.Ack(digest):
                self._put(known._replace(digest=digest[:MAX_TEXT], refused=None))
            case stream.Refused(digest, why):
                self._put(known._replace(refused=(digest[:MAX_TEXT], why[:MAX_TEXT])))
            case stream.Report():
                self._put(known._replace(report=said))
            case Books():
                self._read(OWN, gateway, connection.balancer, said)
            case stream.Loads():
                self.sharing.hear(OWN, gateway, connection.balancer, said)
            case stream.Whose(number):
                if self._voucher is None:
                    connection.say(stream.encode(stream.Vouched(number, "Unavailable")))
                else:
                    self._voucher(gateway, connection.balancer, said, lambda told: connection.say(stream.encode(told)))

    def _hear_beside(self, connection: Connection, gateway: str, said: stream.FromBalancer) -> None:
        """What a sidecar says. Anybody may run one: it is believed in nothing that is not its own matter."""
        match said:
            case stream.Refused(digest, why) if connection.feed.complains(digest):
                _log.warning("%s, a sidecar of gateway %s, refuses: %.200r", connection.balancer, gateway, why)
            case stream.Report(wanted=wanted):
                asleep = sidecars.may_wake(connection.feed.newest.snapshot, wanted)
                if asleep:
                    report = stream.Report(wanted=asleep)
                    self._put(Subscriber(connection.balancer, gateway, report=report, sidecar=True))
                else:
                    self._gone(gateway, connection.balancer)

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        try:
            caller = await self._caller(request)
            if not self._relays(caller) or not caller.pod:
                raise web.HTTPForbidden(text="only the operator relays")
        except web.HTTPException:
            self.refusals += 1
            raise
        async with upgraded(request, followers.MAX_BYTES, self._sockets) as socket:
            await self._followers.serve(socket, caller.pod)
        return socket

    def _read(self, source: str, gateway: str, balancer: str, books: Books) -> None:
        for reader in self._readers:
            reader(source, gateway, balancer, books)

    def _put(self, subscriber: Subscriber) -> None:
        if self._roster.put(OWN, subscriber):
            self._tell(subscriber.gateway, subscriber.balancer)

    def _gone(self, gateway: str, balancer: str) -> None:
        if self._roster.drop(OWN, gateway, balancer):
            self._tell(gateway, balancer)

    def _tell(self, gateway: str, balancer: str) -> None:
        self._changed(gateway)
        for follower in self._local:
            follower(gateway, balancer)

    def _count(self, size: int) -> None:
        self.messages_sent += 1
        self.bytes_sent += size

    def _hang_up(self, socket: web.WebSocketResponse, code: int, reason: str) -> None:
        """Closes a connection from outside of its handler, which then ends."""
        self._spawn(close(socket, code, reason))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._hanging_up.add(task)
        task.add_done_callback(self._hanging_up.discard)


async def _speak(connection: Connection) -> None:
    with contextlib.suppress(ConnectionError):
        await connection.send_words()
