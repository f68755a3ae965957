"""Sidecars on the config stream: who may be one, what it is given, and that nothing else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.operator.rig import PATIENCE, Rig, running, snapshot_of, token_file, token_of

from spillway_api import stream
from spillway_api.sidecars import Asked, remote_name, view
from spillway_api.snapshot import Consumer, Consumers, Route, RouteRule, RouteTier, Snapshot, Target
from spillway_api.types import Limits, Retry, Timeouts
from spillway_operator import connections, sockets
from spillway_operator.relay import Relay

REMOTE = remote_name("chat")
KEYS = Consumers({}, (Consumer("ann", "team/ann", "key"),))


def policy(name: str, pool: str, **more: Any) -> Route:
    tier = RouteTier("t", (Target(f"default/{pool}"),), "Weighted", (), limits=more.pop("limits", None))
    return Route(name, (name.replace("/", "-"),), (RouteRule("r", (tier,)),), Timeouts(), Retry(), **more)


def world(asleep: tuple[str, ...] = (), **sizes: int) -> Snapshot:
    """Pools a, b, … as `snapshot_of` makes them, each with a route `team/NAME` and one of others, `other/NAME`."""
    plain = snapshot_of("chat", **sizes)
    routes = [policy(f"{space}/{name}", name) for space in ("other", "team") for name in sorted(sizes)]
    return Snapshot("chat", woken(plain, asleep), tuple(routes))


def woken(plain: Snapshot, asleep: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(
        msgspec.structs.replace(each, wakes=True) if each.name.partition("/")[2] in asleep else each
        for each in plain.pools
    )


async def eventually(check: Callable[[], Any]) -> None:
    """What a sidecar says changes nothing that anybody could wait for."""
    async with asyncio.timeout(PATIENCE):
        while not check():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


async def test_a_sidecar_is_given_its_view_and_what_changes_in_it(rig):
    one: Rig = await rig()
    whole = world(a=1, b=1)
    one.publish(whole)
    sidecar = await one.beside("pod-1", "a")
    full = await sidecar.take()
    asked = Asked(None, frozenset({"team/a"}))  # a name without a namespace is of the Pod's
    assert sidecar.snapshot == view(whole, asked)
    assert isinstance(full, stream.Full)
    assert full.at == 1001.0
    assert [route.name for route in sidecar.snapshot.routes] == [REMOTE, "team/a"]
    one.publish(world(a=1, b=2))  # nothing of it is in this view
    one.publish(changed := world(a=2, b=2))
    delta = await sidecar.take()
    assert isinstance(delta, stream.Delta)
    assert [pool.name for pool in delta.pools] == ["default/a"]
    assert sidecar.snapshot == view(changed, asked)
    assert one.server.messages_sent == 2
    await eventually(lambda: one.server.sidecars("chat") == {"Current": 1})


async def test_who_comes_back_with_the_same_is_sent_nothing(rig):
    one: Rig = await rig()
    one.publish(whole := world(a=1))
    await one.beside("pod-1", has=view(whole, Asked()))
    await eventually(lambda: one.server.sidecars("chat") == {"Current": 1})
    assert one.server.messages_sent == 0


async def test_equal_questions_are_one_view_and_one_encoding(rig):
    one: Rig = await rig()
    one.publish(world(a=3, b=3))
    known = one.server._gateways["chat"]
    first, second = await one.beside("pod-1", "b", "team/a"), await one.beside("pod-2", "team/a", "team/b")
    other = await one.beside("pod-3", "a", namespace="other")
    for each in (first, second, other):
        await each.take()
    assert known.views == 2
    assert first.digest == second.digest != other.digest
    assert known.sidecars["team/pod-1"].feed is known.sidecars["team/pod-2"].feed
    await asyncio.gather(first.socket.close(), second.socket.close())
    await eventually(lambda: known.views == 1)  # what nobody asks for any more is not kept


async def test_pods_of_one_name_in_two_namespaces_are_two(rig):
    one: Rig = await rig()
    one.publish(world(a=1))
    gateways = await one.subscribe("pod-1")
    red, blue = await one.beside("pod-1", namespace="red"), await one.beside("pod-1", namespace="blue")
    again = await one.beside("pod-1", namespace="blue")
    await again.take()
    assert await blue.closed() == sockets.REPLACED
    await red.take()
    await gateways.take()
    assert sum(one.server.sidecars("chat").values()) == 2
    assert one.server.connected == 1


async def test_statuses_hear_nothing_of_sidecars(rig):
    one: Rig = await rig()
    digest = one.publish(world(a=1))
    gateways = await one.subscribe("pod-1")
    await gateways.take()
    await one.until(lambda: one.subscriber("pod-1").digest == digest)
    one.changes.clear()
    sidecar = await one.beside("pod-2")
    await sidecar.take()
    told = stream.Report((stream.PoolReport("default/a", ejected=("e0",)),), wanted=("default/a", "default/none"))
    await sidecar.say(told)  # of a pool that need not be woken, and of one that is not there
    await sidecar.say(stream.Loads((stream.PoolLoad("default/a", (stream.EndpointLoad("e0", waiting=9.0),)),)))
    await sidecar.say(stream.Refused("d", "no"))
    await eventually(lambda: one.server.sidecars("chat") == {"Current": 1})
    await sidecar.socket.close()
    await eventually(lambda: not one.server.sidecars("chat"))
    assert one.changes == []
    assert [each.balancer for each in one.server.subscribers("chat")] == ["pod-1"]
    assert one.server.wanted("chat") == set()


async def test_what_sidecars_want_is_woken_and_told_to_the_leader(rig, tmp_path):
    leader, follower = await rig(), await rig(name="operator-1")
    for each in (leader, follower):
        each.publish(world(("a",), a=0, b=1))
    file = token_file(tmp_path, "operator", "operator-1")
    service = "spillway-operator.infra.svc"
    relay = Relay(follower.server, lambda: leader.address, lambda: leader.tls.authority, service, file)
    async with running(relay.run()):
        sidecar = await follower.beside("pod-1")
        await sidecar.take()
        await sidecar.say(stream.Report(wanted=("default/a", "default/b")))
        await leader.until(lambda: leader.server.wanted("chat") == {"default/a"})
        assert leader.server.subscribers("chat") == ()
        assert leader.server.sidecars("chat") == {}  # each replica counts its own
        await sidecar.say(stream.Report())
        await leader.until(lambda: leader.server.wanted("chat") == set())
        for _ in range(2):
            await sidecar.say(stream.Report(wanted=("default/a",)))
            await leader.until(lambda: leader.server.wanted("chat"))
            sidecar = await follower.beside("pod-1")  # which wants nothing, in the place of the one before
            await leader.until(lambda: not leader.server.wanted("chat"))
        await sidecar.say(stream.Report(wanted=("default/a",)))
        await leader.until(lambda: leader.server.wanted("chat"))
        await sidecar.socket.close()
        await leader.until(lambda: not leader.server.wanted("chat"))


@pytest.mark.parametrize(
    ("routes", "given"),
    [("All", [REMOTE, "other/a", "team/a"]), ("Same", [REMOTE, "team/a"])],
)
async def test_which_routes_sidecars_may_have_is_the_operator_s_to_say(rig, routes, given):
    one: Rig = await rig(sidecars=routes)
    whole = world(a=1)
    kept = policy("team/kept", "a", consumers=KEYS)
    one.publish(Snapshot("chat", whole.pools, (*whole.routes, kept)))
    for named in ((), ("other/a", "a", "kept", "none")):
        sidecar = await one.beside(f"pod-{len(named)}", *named)
        await sidecar.take()
        assert [route.name for route in sidecar.snapshot.routes] == given


@pytest.mark.parametrize(
    ("routes", "pod", "gateway", "status"),
    [
        ("None", "pod-1", "chat", 403),
        ("None", "pod-1", "nowhere", 403),  # who may have none does not learn which there are
        ("All", "", "chat", 403),
        ("Same", "pod-1", "nowhere", 404),
    ],
)
async def test_who_may_not_is_told_at_the_door_and_after_the_hello(rig, routes, pod, gateway, status):
    one: Rig = await rig(sidecars=routes)
    one.publish(world(a=1))
    token = token_of("default", pod, "team")
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await one.dial(token, f"{stream.PATH}?gateway={gateway}&sidecar=1")
    assert caught.value.status == status
    socket = await one.dial(token)
    await socket.send_str(stream.encode(stream.Hello(gateway, None, "test", True)).decode())
    assert (await socket.receive(timeout=PATIENCE)).data == 4000 + status
    assert one.server.refusals == 2


async def test_a_sidecar_cannot_have_what_is_the_gateway_s(rig):
    """Neither by leaving out that it is one, nor by saying one thing at the door and another after it."""
    one: Rig = await rig()
    one.publish(world(a=1))
    token = token_of("default", "pod-1", "team")
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await one.dial(token, f"{stream.PATH}?gateway=chat")
    socket = await one.dial(token, f"{stream.PATH}?gateway=chat&sidecar=1")
    await socket.send_str(stream.encode(stream.Hello("chat", None, "test")).decode())
    assert (await socket.receive(timeout=PATIENCE)).data == sockets.FORBIDDEN


async def test_a_question_has_an_end(rig):
    one: Rig = await rig()
    one.publish(world(a=1))
    sidecar = await one.beside("pod-1", *(f"r{number}" for number in range(1001)))
    assert await sidecar.closed() == sockets.BAD


async def test_a_gateway_that_goes_lets_its_sidecars_go(rig):
    one: Rig = await rig()
    one.publish(world(a=1))
    sidecar = await one.beside("pod-1")
    await sidecar.take()
    one.server.withdraw("chat")
    assert await sidecar.closed() == sockets.MISSING
    assert one.server.sidecars("chat") == {}


async def test_of_many_that_refuse_the_log_has_one_line(rig, caplog):
    one: Rig = await rig()
    one.publish(world(a=1))
    for pod in ("pod-1", "pod-2"):
        sidecar = await one.beside(pod)
        message = await sidecar.hear()
        await sidecar.say(stream.Refused(message.digest, "cannot\nbe"))
    await eventually(lambda: one.server.sidecars("chat") == {"Refused": 2})
    assert [each.getMessage() for each in caplog.records if "refuses" in each.getMessage()] == [
        "team/pod-1, a sidecar of gateway chat, refuses: 'cannot\\nbe'"
    ]
    one.publish(world(a=2))
    full = await sidecar.take()
    assert isinstance(full, stream.Full)  # nothing leans on what was refused


async def test_a_sidecar_that_takes_nothing_holds_up_nobody_and_thousands_rest(rig, monkeypatch):
    one: Rig = await rig()
    one.publish(world(a=1))
    busy, quick = await one.beside("pod-busy"), await one.beside("pod-quick")
    await quick.take()
    async with running(quick.follow()):
        for size in range(2, 200):
            one.publish(world(a=size % 7 + 1))
            await asyncio.sleep(0)
        last = view(world(a=50), Asked())
        one.publish(world(a=50))
        await eventually(lambda: quick.snapshot == last)
        await busy.take()
        assert isinstance(await busy.take(), stream.Delta)
        assert busy.snapshot == last
    monkeypatch.setattr(connections, "SHARE", 0.05)
    loop = asyncio.get_running_loop()
    for size in (2, 3):
        one.publish(world(a=size))
        begun = loop.time()
        await busy.take()
    assert loop.time() - begun >= 0.09  # two sidecars: a tenth of a second after the one before


async def test_a_tier_that_is_counted_for_all_is_the_gateway_s(rig):
    one: Rig = await rig()
    limited = policy("team/x", "a", limits=Limits(requests_per_minute=5))
    one.publish(Snapshot("chat", snapshot_of("chat", a=1).pools, (limited,)))
    sidecar = await one.beside("pod-1")
    await sidecar.take()
    assert [pool.name for pool in sidecar.snapshot.pools] == [REMOTE]
