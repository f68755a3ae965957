"""When sidecars are told of loads: never all at one moment, bad news at once, and who is slow what is new by then."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.operator.rig import snapshot_of

from spillway_api import stream
from spillway_api.sidecars import Asked
from spillway_api.snapshot import Route, RouteRule, RouteTier, Snapshot, Target, digest
from spillway_api.stream import EndpointLoad, Loads, PoolLoad
from spillway_api.types import Retry, Timeouts
from spillway_operator.connections import Connection, Gateway, Version
from spillway_operator.sharing import A_SECOND, LEADER, SPREAD, TICK, Sharing


def routed(**sizes: int) -> Snapshot:
    """Each pool with a route of its name."""
    pools = snapshot_of("chat", **sizes).pools
    routes = tuple(
        Route(
            pool.name,
            (pool.name,),
            (RouteRule("all", (RouteTier("t", (Target(pool.name),), "Weighted", ()),)),),
            Timeouts(),
            Retry(),
        )
        for pool in pools
    )
    return Snapshot("chat", pools, routes)


def version(snapshot: Snapshot, at: float = 1.0) -> Version:
    return Version(digest(snapshot), at, snapshot)


class Replica:
    """An operator's sharing by a clock that is set, with sidecars whose words are taken by hand."""

    def __init__(self, sidecars: int = 0) -> None:
        self.now = 100.0
        self.gateway = Gateway(version(routed(a=2, b=2)))
        self.sharing = Sharing(lambda: {"chat": self.gateway}, lambda: self.now, random.Random(1))
        for _ in range(sidecars):
            self.add()

    def add(self, *routes: str) -> Connection:
        name = f"team/pod-{len(self.gateway.sidecars)}"
        view = self.gateway.view(Asked(None, frozenset(routes)))
        one = self.gateway.sidecars[name] = Connection(None, name, view, None)  # type: ignore[arg-type]
        return one

    def hear(self, *loads: EndpointLoad, pool: str = "default/a", whole: bool = False) -> None:
        pools = (PoolLoad(pool, loads),) if loads else ()
        self.sharing.hear("", "chat", "gw-1", Loads(pools, whole))

    async def run(self, seconds: float, running: float | None = None) -> list[int]:
        """How many have been told in each tick, when a gateway speaks every second; all take it at once."""
        told = []
        for tick in range(round(seconds / TICK)):
            if running is not None and tick % 10 == 0:
                running += 1
                self.hear(EndpointLoad("e0", running=running))
            told.append(await self.tick())
            self.now += TICK
        return told

    async def tick(self) -> int:
        before = self.sharing.messages_sent
        await self.sharing.tick()
        for each in self.gateway.sidecars.values():
            self.taken(each)
        return self.sharing.messages_sent - before

    @staticmethod
    def taken(one: Connection) -> list[Any]:
        words = []
        while not one._words.empty():
            words.append(stream.from_operator(stream_text(one._words.get_nowait())))
        return words


def stream_text(data: bytes) -> bytes:
    return stream.unpacked(data) if stream.is_packed(data) else data


async def test_who_came_in_one_moment_is_soon_told_at_different_ones() -> None:
    replica = Replica(300)
    told = await replica.run(20, running=0)
    assert told[0] == 300  # they have heard nothing at all
    assert max(told[100:]) < 100
    assert sum(told[100:]) == pytest.approx(300 * 10, rel=SPREAD)


async def test_of_thousands_each_is_told_less_often() -> None:
    replica = Replica(3 * A_SECOND)
    told = await replica.run(12, running=0)
    assert sum(told[60:]) / 6 == pytest.approx(A_SECOND, rel=0.25)


async def test_that_an_endpoint_is_unhealthy_all_hear_at_once() -> None:
    replica = Replica(200)
    await replica.run(5, running=0)
    replica.hear(EndpointLoad("e0", running=9.0, healthy=False))
    before = replica.sharing.messages_sent
    await replica.sharing.tick()
    assert replica.sharing.messages_sent - before == 200
    last = [replica.taken(each)[-1] for each in replica.gateway.sidecars.values()]
    assert {each.pools[0].endpoints[0].healthy for each in last} == {False}


async def test_who_takes_nothing_is_sent_no_more_until_it_does_and_then_all_that_is_new() -> None:
    replica = Replica()
    slow = replica.add()
    replica.hear(EndpointLoad("e0", running=1.0), EndpointLoad("e1", running=1.0), whole=True)
    for running in (2.0, 3.0, 4.0):
        await replica.sharing.tick()
        replica.now += 2.0
        replica.hear(EndpointLoad("e0", running=running))
    assert slow._words.qsize() == 1
    first = replica.taken(slow)[0]
    assert first.whole
    await replica.sharing.tick()
    then = replica.taken(slow)[0]
    assert not then.whole
    assert [each.running for each in then.pools[0].endpoints] == [4.0]


async def test_that_all_is_as_it_was_is_told_as_long_as_a_gateway_says_so() -> None:
    replica = Replica()
    one = replica.add()
    replica.hear(EndpointLoad("e0", running=1.0), whole=True)
    await replica.sharing.tick()
    assert replica.taken(one)[0].whole
    replica.now += 2.0
    await replica.sharing.tick()
    assert not replica.taken(one)  # nobody has said so
    replica.hear()
    await replica.sharing.tick()
    assert replica.taken(one) == [Loads()]


async def test_a_view_that_has_grown_is_told_of_all_that_it_has() -> None:
    replica = Replica()
    one = replica.add("default/a", "default/c")
    for pool in ("default/a", "default/b", "default/c"):
        replica.hear(EndpointLoad("e0", running=1.0), pool=pool)
    await replica.sharing.tick()
    assert [each.pool for each in replica.taken(one)[0].pools] == ["default/a"]
    replica.gateway.publish(version(routed(a=2, b=2, c=1), 2.0))
    replica.now += 2.0
    replica.hear()
    await replica.sharing.tick()
    told = replica.taken(one)[0]
    assert told.whole
    assert sorted(each.pool for each in told.pools) == ["default/a", "default/c"]


async def test_gateways_are_asked_while_there_are_sidecars_anywhere() -> None:
    replica = Replica()
    gateway = replica.gateway.connections["gw-1"] = Connection(None, "gw-1", replica.gateway, None)  # type: ignore[arg-type]
    await replica.sharing.tick()
    assert not replica.taken(gateway)
    replica.sharing.count("operator-1", {"chat": 2})
    await replica.sharing.tick()
    assert replica.taken(gateway) == [stream.Share(1.0)]
    replica.sharing.count(LEADER, {"chat": 1})
    replica.sharing.count("operator-1", {})
    await replica.sharing.tick()
    assert not replica.taken(gateway)
    assert replica.sharing.sidecars() == {"chat": 1}
    assert replica.sharing.sidecars(without=LEADER) == {}
    replica.sharing.count(LEADER, {})
    await replica.sharing.tick()
    assert replica.taken(gateway) == [stream.Share(0.0)]
