"""Snapshots from the operator, over the config stream: taken in force, acknowledged, and kept on disk.

Whatever the operator does, or does not do, the last good state serves on. The protocol stands in
`spillway_api.stream`; docs/life-of-a-snapshot.md tells the story.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic
from typing import Protocol

import aiohttp
import msgspec
from aiohttp import WSMsgType

from spillway_api import stream
from spillway_api.snapshot import Snapshot

from . import received
from .leasing import Leasing
from .received import OtherBase, State, Unreadable
from .sidecar import Sidecar
from .slices import made

log = logging.getLogger("spillway.config")

CONNECT_SECONDS = 10.0
"""For connecting, TLS and the handshake together."""
REPORT_SECONDS = 10.0
"""Between two reports when nothing changes state."""
LOOK_SECONDS = 1.0
"""How often it is looked whether something has; reports come no faster."""


class Backoff:
    """How long to wait before the next try: full jitter on an exponential (Brooker, "Exponential Backoff And Jitter",
    2015), so that a fleet that has lost its operator does not come back in step."""

    LEAST = 0.2
    MOST = 10.0

    def __init__(self) -> None:
        self._tries = 0

    def pause(self, lived: float, dice: random.Random) -> float:
        """Seconds to wait after a connection that lived so long, 0 for none. One that lived longer than the longest
        pause has shown that all is well, and the next pause is of the shortest again."""
        if lived > self.MOST:
            self._tries = 0
        most = min(self.MOST, self.LEAST * 2.0**self._tries)
        self._tries = min(self._tries + 1, 30)
        return dice.uniform(0.0, most)


@dataclass(frozen=True, slots=True)
class Where:
    """How the operator is reached."""

    url: str
    """https://host:port"""
    gateway: str
    token_file: Path | None = None
    ca_file: Path | None = None
    """None trusts what the system trusts."""
    sidecar: Sidecar | None = None
    """None: it is the gateway, or a part of it."""


class Talker(Protocol):
    """Speaks with the operator of something beside snapshots."""

    async def talk(self, send: Callable[[stream.FromBalancer], Awaitable[None]]) -> None:
        """Say what there is to say on a new connection, until cancelled. Raises ConnectionError."""

    def hear(self, said: stream.FromOperator) -> None:
        """What the operator says; most of it is for others."""


class Failed(Exception):
    """There is no connection; the text says why, without anything secret."""


class OperatorSource:
    """Follows the operator until it is cancelled. Nothing that comes over the wire makes it raise."""

    def __init__(
        self,
        where: Where,
        state: State | None,
        take: Callable[[Snapshot], bool],
        keep: Callable[[stream.Saved], None],
        heard: Callable[[str], None],
        connected: Callable[[bool], None],
        report: Callable[[], Generator[None, None, stream.Report]],
        dice: random.Random,
        leasing: Leasing | None = None,
        talkers: Sequence[Talker] = (),
    ) -> None:
        """`state` is what is in force already. `take` takes a snapshot in force, False if it is already; it may raise
        what it likes. `keep` puts a good state away; `heard` and `connected` count for metrics.
        `report` begins to make a report, in small steps. `leasing` speaks of budgets; None: each counts for itself.
        `talkers` speak of other things."""
        self._where = where
        self._in_force = state
        self._take = take
        self._keep = keep
        self._heard = heard
        self._connected = connected
        self._report = report
        self._dice = dice
        self._leasing = leasing
        self._talkers = tuple(talkers)
        self._last = state  # what the next delta is laid upon: in force, or refused
        self._from_scratch = False
        self._said: str | None = None
        self._lived = 0.0

    async def follow(self) -> None:
        """Connect, listen, and again."""
        backoff = Backoff()
        while True:
            self._lived = 0.0
            try:
                why = await self._once()
            except Failed as failed:
                why = str(failed)
            except TimeoutError:
                why = "no answer in time"
            except Exception as error:
                why = f"the connection broke ({type(error).__name__})"
            self._say(why)
            await asyncio.sleep(backoff.pause(self._lived, self._dice))

    async def _once(self) -> str:
        """One connection. Returns why it is over, or raises that it could not be had."""
        async with (
            asyncio.timeout(CONNECT_SECONDS) as patience,
            aiohttp.ClientSession(trust_env=False) as session,
            await self._dial(session) as wire,
        ):
            patience.reschedule(None)
            begun = monotonic()
            self._connected(True)
            self._say("")
            try:
                return await self._talk(wire)
            finally:
                self._lived = monotonic() - begun
                self._connected(False)

    def _say(self, trouble: str) -> None:
        """A line for every change of state, and none for the attempts in between."""
        if trouble == self._said:
            return
        if trouble:
            log.warning("no config stream from %s: %s; what is in force serves on", self._where.url, trouble)
        else:
            log.info("config stream from %s", self._where.url)
        self._said = trouble

    async def _dial(self, session: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse[bool]:
        trust, token = await asyncio.to_thread(self._papers)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            return await session.ws_connect(
                self._where.url.rstrip("/") + stream.PATH,
                params={"gateway": self._where.gateway} | ({"sidecar": "1"} if self._where.sidecar else {}),
                headers=headers,
                protocols=() if self._leasing is None else (stream.LEASES,),
                ssl=trust,
                heartbeat=stream.HEARTBEAT,
                max_msg_size=stream.MAX_BYTES,
                decode_text=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )
        except aiohttp.WSServerHandshakeError as error:
            statuses = _STATUSES if self._where.sidecar is None else _STATUSES | _BESIDE
            raise Failed(statuses.get(error.status, f"it answers {error.status}")) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise Failed(f"its certificate is not trusted: {_why_not(error.certificate_error)}") from None
        except aiohttp.ClientConnectorSSLError:
            raise Failed("no TLS could be agreed on") from None
        except aiohttp.ClientConnectorError as error:
            raise Failed(f"cannot connect: {error.strerror or type(error.os_error).__name__}") from None

    def _papers(self) -> tuple[ssl.SSLContext, str]:
        """Whom to trust, and what to show: read anew for every connection, since both are rotated."""
        where = self._where
        try:
            trust = ssl.create_default_context(cafile=where.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise Failed(f"{where.ca_file} cannot be used: {error.strerror or 'no certificates'}") from None
        if where.token_file is None:
            return trust, ""
        try:
            token = where.token_file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise Failed(f"{where.token_file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            token = ""
        if not token or not token.isprintable():
            raise Failed(f"{where.token_file} holds no token")
        return trust, token

    async def _talk(self, wire: aiohttp.ClientWebSocketResponse[bool]) -> str:
        """Returns why the conversation is over."""
        self._last = None if self._from_scratch else self._in_force
        digest = self._last.digest if self._last is not None else None
        await _send(wire, self._hello(digest))
        loop = asyncio.get_running_loop()
        talking = [loop.create_task(self._keep_reporting(wire))]
        if self._leasing is not None:
            spoken = wire.protocol == stream.LEASES
            talking.append(loop.create_task(self._leasing.talk(spoken, partial(_send, wire))))
        talking += (loop.create_task(each.talk(partial(_send, wire))) for each in self._talkers)
        try:
            while True:
                message = await wire.receive()
                if message.type in _ENDS:
                    return _why_over(message.type, message.data, message.extra)
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    continue
                try:
                    packed = message.type is WSMsgType.BINARY
                    answer = self._hear(stream.unpacked(message.data) if packed else message.data)
                except ValueError:
                    return "it has sent what cannot be unpacked"
                except OtherBase:
                    self._from_scratch = True
                    return "its change is laid upon another state than ours; asking for a whole one"
                if answer is not None:
                    await _send(wire, answer)
        finally:
            for each in talking:
                each.cancel()
            await asyncio.gather(*talking, return_exceptions=True)

    def _hello(self, digest: str | None) -> stream.Hello:
        sidecar = self._where.sidecar
        routes = sidecar.routes if sidecar is not None else ()
        return stream.Hello(self._where.gateway, digest, _version(), sidecar is not None, routes)

    def _hear(self, data: bytes) -> stream.Ack | stream.Refused | None:
        """Take one message in force, or refuse it. Raises OtherBase."""
        try:
            state = received.after(self._last, data)
            if state is None:
                self._pass_on(data)
                return None
            self._last = state
            gateway = state.snapshot.gateway
            if gateway != self._where.gateway:
                raise Unreadable(
                    f"it is of gateway {gateway!r}, and this is one of {self._where.gateway!r}", _name(state)
                )
        except Unreadable as error:
            return self._refuse(error.digest, str(error))
        try:
            changed = self._take(state.snapshot)
        except Exception as error:
            return self._refuse(_name(state), f"cannot be served from: {type(error).__name__}: {error}"[:500])
        self._in_force = state
        self._from_scratch = False
        self._keep(state.saved)
        self._heard("taken" if changed else "unchanged")
        log.debug("snapshot %s is in force", _name(state)[:12])
        return stream.Ack(_name(state))

    def _pass_on(self, data: bytes) -> None:
        """Something that is no snapshot, to those whom it may be for."""
        with contextlib.suppress(msgspec.DecodeError):  # of a newer operator
            said = stream.from_operator(data)
            if self._leasing is not None:
                self._leasing.hear(said)
            for talker in self._talkers:
                talker.hear(said)

    def _refuse(self, digest: str, message: str) -> stream.Refused:
        log.error(
            "snapshot %s is refused, and the last good one stays in force: %s", digest[:12] or "(unnamed)", message
        )
        self._heard("refused")
        return stream.Refused(digest, message)

    async def _keep_reporting(self, wire: aiohttp.ClientWebSocketResponse[bool]) -> None:
        """How pools and tiers are doing: at once when a state changes, else every ten seconds. Of a sidecar it is only
        told what changes: they are thousands."""
        beside = self._where.sidecar is not None
        told = stream.Report() if beside else None
        at = 0.0
        while True:
            try:
                report = await made(self._report())
                now = monotonic()
                due = told is None or (now - at >= REPORT_SECONDS and not beside)
                if due or (told is not None and _states(report) != _states(told)):
                    await _send(wire, report)
                    told, at = report, now
            except ConnectionError:
                return  # whoever listens sees it too
            except Exception as error:
                log.error("bug: no report could be made: %s", type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)


def _states(report: stream.Report) -> object:
    """What is worth telling at once: not a share that goes up and down with the load, nor that all is full just now,
    nor a count in a sentence."""
    told = [each for each in report.tiers if each.state not in ("Open", "Saturated")]
    return (
        [(each.pool, each.engine, each.unhealthy, each.ejected, each.refused, each.metrics) for each in report.pools],
        [(each.route, each.rule, each.tier, each.state, each.ready) for each in told],
        report.wanted,
    )


async def _send(wire: aiohttp.ClientWebSocketResponse[bool], message: stream.FromBalancer) -> None:
    await wire.send_frame(stream.encode(message), WSMsgType.TEXT)


def _name(state: State) -> str:
    assert state.digest is not None  # what comes over the wire was checked by it
    return state.digest


_ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


def _why_over(kind: WSMsgType, data: object, said: object) -> str:
    if kind is WSMsgType.CLOSE:
        return f"it closed the connection ({data}{f': {said}' if said else ''})"[:200]
    if isinstance(data, aiohttp.ServerTimeoutError):
        return "no heartbeat"
    return "the connection broke"


def _why_not(error: Exception) -> str:
    return str(getattr(error, "verify_message", "") or type(error).__name__)


_STATUSES = {
    401: "it refuses our token (401)",
    403: "it does not take us for a balancer of this gateway (403)",
    404: "it knows no such gateway (404)",
    503: "it is not ready yet (503)",
}
_BESIDE = {
    403: "it takes no sidecars, or none with this token, which must be bound to our Pod (403)",
    404: "it knows no gateway of the name that we have for ours (404)",
}


def _version() -> str:
    try:
        return version("spillway")
    except PackageNotFoundError:
        return "unknown"
