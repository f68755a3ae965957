"""Followers tell the leader of their subscribers: two replicas, each on a real socket with real TLS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operator.rig import SERVICE, Rig, running, snapshot_of, token_file, token_of

from spillway_api import stream
from spillway_operator import relay
from spillway_operator.relay import Gone, Relay, Seen, Told, decode, encode
from spillway_operator.subscribers import OWN, Roster, Subscriber

REPORT = stream.Report((stream.PoolReport("default/a", ejected=("e0",)),))


class Replica:
    """A rig with its relay; `leader` is what its Leadership would say."""

    def __init__(self, rig: Rig, folder) -> None:
        self.rig = rig
        self.leader: str | None = None
        file = token_file(folder, "operator", rig.name)
        self.relay = Relay(rig.server, lambda: self.leader, lambda: rig.tls.authority, SERVICE, file)

    def follow(self, leader: str | None) -> None:
        self.leader = leader
        self.relay.leader_changed()


@pytest.fixture
async def replicas(rig: Callable, tmp_path):
    made = [Replica(await rig(name=f"operator-{index}"), tmp_path) for index in range(2)]
    for replica in made:
        replica.rig.publish(snapshot_of("chat", a=1))
    async with running(*(replica.relay.run() for replica in made)):
        yield made


async def test_the_leader_knows_the_subscribers_of_its_followers(replicas):
    leader, follower = replicas
    current = leader.rig.server.published("chat")
    early = await follower.rig.subscribe("pod-early")
    await early.take()
    follower.follow(leader.rig.address)
    await leader.rig.until(lambda: leader.rig.subscriber("pod-early"))
    late, own = await follower.rig.subscribe("pod-late"), await leader.rig.subscribe("pod-own")
    await late.say(REPORT)
    await leader.rig.until(lambda: leader.rig.subscriber("pod-late") and leader.rig.subscriber("pod-late").report)
    await leader.rig.until(lambda: leader.rig.subscriber("pod-early").digest == current)
    assert leader.rig.subscriber("pod-late") == Subscriber("pod-late", "chat", None, None, REPORT)
    assert [one.balancer for one in leader.rig.server.subscribers("chat")] == ["pod-early", "pod-late", "pod-own"]
    assert [one.balancer for one in follower.rig.server.subscribers("chat")] == ["pod-early", "pod-late"]
    await late.say(stream.Refused(current, "no"))
    await leader.rig.until(lambda: leader.rig.subscriber("pod-late").refused == (current, "no"))
    await late.socket.close()
    await leader.rig.until(lambda: leader.rig.subscriber("pod-late") is None)
    assert leader.rig.server.connected == 1
    await own.socket.close()


async def test_leadership_moves_and_the_relay_turns_round(replicas):
    first, second = replicas
    for replica in replicas:
        await replica.rig.subscribe(f"pod-of-{replica.rig.name}")
    second.follow(first.rig.address)
    await first.rig.until(lambda: len(first.rig.server.subscribers("chat")) == 2)
    second.follow(None)  # it leads itself now
    first.follow(second.rig.address)
    await second.rig.until(lambda: len(second.rig.server.subscribers("chat")) == 2)
    await first.rig.until(lambda: len(first.rig.server.subscribers("chat")) == 1)
    assert first.relay.connected


async def test_a_follower_that_ends_is_forgotten_and_one_that_comes_back_says_all_again(replicas):
    leader, follower = replicas
    follower.follow(leader.rig.address)
    await follower.rig.subscribe("pod-1")
    await leader.rig.until(lambda: leader.rig.subscriber("pod-1"))
    follower.follow(None)
    await leader.rig.until(lambda: not leader.rig.server.subscribers("chat"))
    follower.follow(leader.rig.address)
    await leader.rig.until(lambda: leader.rig.subscriber("pod-1"))


async def test_a_leader_that_is_away_is_looked_for_again(rig, tmp_path, monkeypatch, refusing):
    monkeypatch.setattr(relay, "AGAIN", (0.01, 0.02))
    follower = Replica(await rig(name="operator-1"), tmp_path)
    follower.rig.publish(snapshot_of("chat", a=1))
    await follower.rig.subscribe("pod-1")
    follower.follow(refusing.removeprefix("http://"))
    leader = await rig(name="operator-0")
    async with running(follower.relay.run()):
        await asyncio.sleep(0.05)
        assert not follower.relay.connected
        follower.leader = leader.address  # without being told: it looks by itself
        await leader.until(lambda: leader.subscriber("pod-1"))
        (session,) = leader.server._followers._sockets.values()
        await session.close()
        await leader.until(lambda: not leader.server.subscribers("chat"))
        await leader.until(lambda: leader.subscriber("pod-1"))


async def test_a_leader_that_is_not_the_service_is_told_nothing(rig, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(relay, "AGAIN", (0.01, 0.02))
    impostor, follower = await rig(), await rig(name="operator-1")
    file = token_file(tmp_path, "operator", "operator-1")
    other = Relay(follower.server, lambda: impostor.address, lambda: follower.tls.authority, "spillway.infra.svc", file)
    async with running(other.run()):
        while "cannot tell the leader" not in caplog.text:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.01)
    assert impostor.tokens.reviews == 0
    assert "zebra" not in caplog.text


async def test_a_leader_that_is_away_is_said_to_be_once_and_not_for_every_try(rig, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(relay, "AGAIN", (0.001, 0.001))
    follower = Replica(await rig(name="operator-1"), tmp_path)
    with socket.socket() as nobody:  # bound, and deaf
        nobody.bind(("127.0.0.1", 0))
        follower.follow(f"127.0.0.1:{nobody.getsockname()[1]}")
        async with running(follower.relay.run()):
            while "cannot tell the leader" not in caplog.text:  # noqa: ASYNC110 - a log has no event
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
    lines = [record.getMessage() for record in caplog.records if "cannot tell" in record.getMessage()]
    assert len(lines) == 1
    assert "SSLContext" not in lines[0]
    assert "Connect call failed" in lines[0]


async def test_a_leader_that_is_gone_is_not_waited_for_once_there_is_another(rig, tmp_path, monkeypatch):
    monkeypatch.setattr(relay, "CONNECT", 3600.0)
    follower = Replica(await rig(name="operator-1"), tmp_path)
    follower.rig.publish(snapshot_of("chat", a=1))
    await follower.rig.subscribe("pod-1")
    leader = await rig(name="operator-0")
    tried = asyncio.Event()

    async def swallow(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tried.set()  # and no word of TLS
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    swallowing = await asyncio.start_server(swallow, "127.0.0.1", 0)
    follower.follow(f"127.0.0.1:{swallowing.sockets[0].getsockname()[1]}")
    async with running(follower.relay.run()):
        await tried.wait()
        follower.follow(leader.address)
        await leader.until(lambda: leader.subscriber("pod-1"))
    gone.set()
    swallowing.close()


async def test_only_the_operator_relays(rig):
    one = await rig()
    for token, status in (
        (token_of("chat", "pod-1"), 403),
        (token_of("operator", ""), 403),  # bound to no Pod: whose subscribers would these be?
        ("quokka", 401),
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await one.dial(token, relay.PATH)
        assert caught.value.status == status


async def test_news_are_told_at_a_pace_and_only_the_last_of_them(rig, tmp_path):
    leader, follower = await rig(), Replica(await rig(name="operator-1"), tmp_path)
    follower.rig.publish(snapshot_of("chat", a=1))
    balancer = await follower.rig.subscribe("pod-1")
    follower.follow(leader.address)
    async with running(follower.relay.run()):
        await leader.until(lambda: leader.subscriber("pod-1"))
        for count in range(300):
            await balancer.say(stream.Report((stream.PoolReport("default/a", metrics_message=str(count)),)))
        last = stream.Report((stream.PoolReport("default/a", metrics_message="299"),))
        await leader.until(lambda: leader.subscriber("pod-1").report == last)
    assert len(leader.changes) < 20


def test_what_is_told_comes_back_as_it_was():
    told = Told((Seen("chat", "pod-1", "d", ("e", "no"), REPORT),), (Gone("chat", "pod-2"),))
    assert decode(encode(told)) == told
    assert relay.subscriber(relay.seen(Subscriber("p", "g", "d", ("e", "no"), REPORT))) == Subscriber(
        "p", "g", "d", ("e", "no"), REPORT
    )
    with pytest.raises(msgspec.DecodeError):
        decode(b"nonsense")


SOURCES, GATEWAYS, BALANCERS = (OWN, "r1", "r2"), ("chat", "other"), ("p1", "p2", "p3")
MOVES = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(SOURCES), st.sampled_from(GATEWAYS), st.sampled_from(BALANCERS),
              st.sampled_from(("d1", "d2"))),
    st.tuples(st.just("drop"), st.sampled_from(SOURCES), st.sampled_from(GATEWAYS), st.sampled_from(BALANCERS)),
    st.tuples(st.just("forget"), st.sampled_from(SOURCES)),
)  # fmt: skip


@given(st.lists(MOVES, max_size=60))
def test_the_roster_is_the_latest_arrival_of_each_balancer(moves):
    roster, arrived = Roster(), {}  # the model: entries in order of arrival
    for what, source, *rest in moves:
        if what == "put":
            gateway, balancer, digest = rest
            told = Subscriber(balancer, gateway, digest)
            assert roster.put(source, told) == (arrived.get((source, gateway, balancer)) != told)
            arrived[source, gateway, balancer] = told
        elif what == "drop":
            assert roster.drop(source, *rest) == (arrived.pop((source, *rest), None) is not None)
        else:
            gone = [key for key in arrived if key[0] == source]
            assert roster.forget(source) == {key[1] for key in gone}
            for key in gone:
                del arrived[key]
        for gateway in GATEWAYS:
            latest = {balancer: told for (_, at, balancer), told in arrived.items() if at == gateway}
            assert roster.of(gateway) == tuple(latest[name] for name in sorted(latest))
        for known in SOURCES:
            assert roster.keys(known) == {(at, balancer) for by, at, balancer in arrived if by == known}
            assert roster.count(known) == len(roster.keys(known))
