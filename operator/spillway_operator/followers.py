"""The other replicas of the operator, as the one that leads serves them: what each tells it, and what it passes on.

The wire is in `relay`. What a follower has said is forgotten when its connection ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Final

import msgspec
from aiohttp import web

from spillway_api.ledger import Books
from spillway_api.stream import Loads

from . import relay
from .sharing import LEADER, Sharing
from .sockets import BAD, REPLACED, Rejected, close, send
from .subscribers import Roster

MAX_BYTES: Final = 64 << 20
"""Largest message of a follower."""

_log = logging.getLogger("spillway_operator.stream")


class Followers:
    """Those that are connected to this replica."""

    def __init__(
        self,
        roster: Roster,
        sharing: Sharing,
        changed: Callable[[str], None],
        read: Callable[[str, str, str, Books], None],
        spawn: Callable[[Coroutine[object, object, None]], None],
    ) -> None:
        """What they say goes to `roster`, and `changed(gateway)` is called; loads go to `sharing`, and what is spent to
        `read(follower, gateway, balancer, books)`. `spawn` begins something that nobody waits for."""
        self._roster = roster
        self._sharing = sharing
        self._changed = changed
        self._read = read
        self._spawn = spawn
        self._sockets: dict[str, web.WebSocketResponse] = {}
        sharing.follow(self._pass_loads, self._pass_counts)

    async def serve(self, socket: web.WebSocketResponse, follower: str) -> None:
        """One connection, until it ends."""
        if (older := self._sockets.get(follower)) is not None:
            self._forget(follower)
            self._spawn(close(older, REPLACED, "the follower has connected anew"))
        self._sockets[follower] = socket
        _log.info("%s tells us of its subscribers", follower)
        self._pass_all(follower)
        try:
            await self._merge(socket, follower)
        except Rejected as why:
            await close(socket, why.code, why.reason)
        finally:
            if self._sockets.get(follower) is socket:
                del self._sockets[follower]
                self._forget(follower)
                _log.info("%s has ended its relay (%s)", follower, socket.close_code)

    def say(self, follower: str, passed: relay.Passed) -> None:
        """Something for it to pass on. Nothing happens when it has gone."""
        socket = self._sockets.get(follower)
        if socket is not None:
            self._spawn(send(socket, relay.encode(passed)))

    async def _merge(self, socket: web.WebSocketResponse, follower: str) -> None:
        async for message in socket:
            try:
                told = relay.decode(message.data)
            except (msgspec.DecodeError, TypeError):
                raise Rejected(BAD, "this is no message of a relay") from None
            if self._sockets.get(follower) is not socket:
                return
            changed = {one.gateway for one in told.here if self._roster.put(follower, relay.subscriber(one))}
            changed |= {one.gateway for one in told.gone if self._roster.drop(follower, one.gateway, one.balancer)}
            for gateway in sorted(changed):
                self._changed(gateway)
            for brought in told.books:
                self._read(follower, brought.gateway, brought.balancer, brought.books)
            for shared in told.loads:
                self._sharing.hear(follower, shared.gateway, shared.balancer, shared.loads)
            if told.sidecars is not None:
                self._sharing.count(follower, told.sidecars)

    def _forget(self, follower: str) -> None:
        self._sharing.count(follower, {})
        for gateway in sorted(self._roster.forget(follower)):
            self._changed(gateway)

    def _pass_loads(self, way: str, gateway: str, balancer: str, loads: Loads) -> None:
        """To all; what the leader has said they know."""
        if self._sockets and way != LEADER:
            data = relay.encode(relay.Passed(gateway, balancer, loads=loads))
            for follower, socket in self._sockets.items():
                if follower != way:
                    self._spawn(send(socket, data))

    def _pass_counts(self) -> None:
        for follower in self._sockets:
            self.say(follower, relay.Passed(sidecars=self._sharing.sidecars(without=follower)))

    def _pass_all(self, follower: str) -> None:
        """To one that has come."""
        for gateway, balancer, loads in self._sharing.known(lambda way: way not in (follower, LEADER)):
            self.say(follower, relay.Passed(gateway, balancer, loads=loads))
        self._pass_counts()
