"""The config stream: what balancers are sent, how fast, who may have it, and what is known of them."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api.snapshots import snapshots
from tests.operator.rig import NAMES, PATIENCE, SERVICE, Balancer, Rig, running, snapshot_of, token_of

from spillway_api import stream
from spillway_api.snapshot import digest
from spillway_operator import connections
from spillway_operator import stream as server
from spillway_operator.certificates import needed


async def refused_with(dialled) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await dialled
    return caught.value.status


async def test_a_new_balancer_gets_the_whole_snapshot_and_then_what_changes(rig):
    one = await rig()
    first = one.publish(snapshot_of("chat", a=2, b=1))
    balancer = await one.subscribe("pod-1")
    whole = await balancer.take()
    assert whole == stream.Full(first, 1001.0, snapshot_of("chat", a=2, b=1))
    await one.until(lambda: one.subscriber("pod-1").digest == first)
    second = one.publish(snapshot_of("chat", a=3, b=1))
    delta = await balancer.take()
    assert isinstance(delta, stream.Delta)
    assert (delta.base, delta.digest, delta.at) == (first, second, 1002.0)
    assert [pool.name for pool in delta.pools] == ["default/a"]
    await one.until(lambda: one.subscriber("pod-1").digest == second)


async def test_a_balancer_that_comes_back_with_the_newest_is_sent_nothing(rig):
    one = await rig()
    old, new = snapshot_of("chat", a=2), snapshot_of("chat", a=3)
    current = one.publish(old)
    balancer = await one.subscribe("pod-1", has=old)
    assert one.subscriber("pod-1").digest == current
    await balancer.say(stream.Report((stream.PoolReport("default/a"),)))
    await one.until(lambda: one.subscriber("pod-1").report)
    one.publish(old)
    assert one.server.messages_sent == 0
    one.publish(new)
    assert isinstance(await balancer.take(), stream.Delta)  # the first that it hears, and against what it had
    assert balancer.snapshot == new


async def test_a_balancer_that_comes_back_with_something_older_gets_the_whole(rig):
    one = await rig()
    one.publish(snapshot_of("chat", a=3))
    balancer = await one.subscribe("pod-1", has=snapshot_of("chat", a=2))
    assert isinstance(await balancer.take(), stream.Full)


async def test_versions_that_pass_while_a_balancer_is_busy_come_as_one_message(rig):
    one = await rig()
    one.publish(snapshot_of("chat", a=1, b=500))
    busy, quick = await one.subscribe("pod-busy"), await one.subscribe("pod-quick")
    await quick.take()
    async with running(quick.follow()):
        for size in range(2, 1002):
            one.publish(snapshot_of("chat", a=size % 7 + 1, b=500))
            await asyncio.sleep(0)
        last = one.publish(snapshot_of("chat", a=50, b=500))
        await one.until(lambda: one.subscriber("pod-quick").digest == last)  # nobody waits for the one that is busy
        await busy.take()
        delta = await busy.take()
    assert isinstance(delta, stream.Delta)
    assert delta.digest == last
    assert one.server.messages_sent > 2
    await one.until(lambda: one.subscriber("pod-busy").digest == last)


async def test_one_that_never_acknowledges_is_not_left_behind_for_ever(rig, monkeypatch):
    monkeypatch.setattr(connections, "ACKNOWLEDGED", 0.05)
    one = await rig()
    one.publish(snapshot_of("chat", a=1))
    silent = await one.subscribe("pod-1")
    await silent.hear()
    last = one.publish(snapshot_of("chat", a=2))
    assert (await silent.hear()).digest == last
    assert one.subscriber("pod-1").digest is None


async def test_two_hundred_subscribers_cost_one_encoding(rig, monkeypatch):
    one = await rig()
    one.publish(snapshot_of("chat", a=100))
    encodings = []
    encode = stream.encode
    balancers = await asyncio.gather(*(one.subscribe(f"pod-{index}") for index in range(200)))
    await asyncio.gather(*(balancer.take() for balancer in balancers))
    await one.until(lambda: all(known.digest for known in one.server.subscribers("chat")))
    monkeypatch.setattr(stream, "encode", lambda message: encodings.append(message) or encode(message))
    last = one.publish(snapshot_of("chat", a=101))
    told = await asyncio.gather(*(balancer.hear() for balancer in balancers))
    assert len(encodings) == 1
    monkeypatch.undo()
    assert {message.digest for message in told} == {last}
    assert one.server.connected == 200
    assert one.server.messages_sent == 400
    assert [known.balancer for known in one.server.subscribers("chat")] == sorted(f"pod-{n}" for n in range(200))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(snapshots(), st.sampled_from(["hear", "refuse", "leave", "none"])), min_size=1, max_size=8))
def test_whatever_passes_the_balancer_ends_with_the_newest(made, story):
    async def play() -> None:
        one = Rig(made)
        await one.start()
        try:
            await _play(one, story)
        finally:
            await one.stop()

    asyncio.run(play())


async def _play(one, story) -> None:
    token = token_of("default", "pod-1")
    balancer: Balancer | None = None
    for snapshot, then in story:
        newest = one.publish(snapshot)
        if balancer is None:
            balancer = Balancer(await one.dial(token), "pod-1")
            await balancer.say(stream.Hello("default", None, "test"))
        if then == "hear" and balancer.digest != newest:
            await balancer.take()
        elif then == "refuse" and balancer.digest != newest:
            message = await balancer.hear()
            await balancer.say(stream.Refused(message.digest, "no"))
            await one.until(lambda said=message.digest: one.subscriber("pod-1", "default").refused == (said, "no"))
            after = one.publish(snapshot_of("default", other=len(story)))
            if after != message.digest:
                assert message.digest == after or await _whole_after(balancer)
        elif then == "leave":
            await balancer.socket.close()
            again = Balancer(await one.dial(token), "pod-1")
            again.snapshot, again.digest = balancer.snapshot, balancer.digest
            await again.say(stream.Hello("default", balancer.digest, "test"))
            balancer = again
    newest = one.server.published("default")
    while balancer.digest != newest:
        await balancer.take()
    assert digest(balancer.snapshot) == newest
    # One that came again with the newest is told nothing, and its hello may not have been heard yet.
    await one.until(lambda: (there := one.subscriber("pod-1", "default")) is not None and there.digest == newest)


async def _whole_after(balancer) -> bool:
    """After a refusal nothing leans on what was refused: it may have been thrown away."""
    return isinstance(await balancer.take(), stream.Full)


async def test_a_refusal_stays_known_until_something_is_in_force_again(rig):
    one = await rig()
    good = one.publish(snapshot_of("chat", a=1))
    balancer = await one.subscribe("pod-1")
    await balancer.take()
    await one.until(lambda: one.subscriber("pod-1").digest == good)
    bad = one.publish(snapshot_of("chat", a=2))
    await balancer.hear()
    await balancer.say(stream.Refused(bad, "x" * 5000))
    await one.until(lambda: one.subscriber("pod-1").refused)
    known = one.subscriber("pod-1")
    assert known.digest == good
    assert known.refused == (bad, "x" * 1024)
    assert one.publish(snapshot_of("chat", a=1)) == good
    assert isinstance(await balancer.take(), stream.Full)
    await one.until(lambda: one.subscriber("pod-1").refused is None)
    assert one.subscriber("pod-1").digest == good


async def test_one_that_could_not_read_what_it_was_sent_gets_a_whole_one_next(rig):
    one = await rig()
    one.publish(snapshot_of("chat", a=1))
    balancer = await one.subscribe("pod-1")
    await balancer.take()
    one.publish(snapshot_of("chat", a=2))
    await balancer.hear()
    await balancer.say(stream.Refused("", "it is torn"))
    last = one.publish(snapshot_of("chat", a=3))
    message = await balancer.take()
    assert isinstance(message, stream.Full)
    assert message.digest == last


async def test_every_news_of_a_balancer_is_told_once(rig):
    one = await rig()
    current = one.publish(snapshot_of("chat", a=1))
    balancer = await one.subscribe("pod-1")
    assert one.changes == ["chat"]
    await balancer.take()
    await one.until(lambda: one.subscriber("pod-1").digest == current)
    report = stream.Report((stream.PoolReport("default/a", unhealthy=("e0",)),))
    for said in (report, report, stream.Ack(current)):
        await balancer.say(said)
    await one.until(lambda: one.subscriber("pod-1").report == report)
    await balancer.socket.close()
    await one.until(lambda: not one.server.subscribers("chat"))
    assert one.changes == ["chat"] * 4  # came, acknowledged, reported, went
    assert one.server.connected == 0


async def test_of_two_connections_of_a_balancer_the_newer_one_counts(rig):
    one = await rig()
    current = one.publish(snapshot_of("chat", a=1))
    older = await one.subscribe("pod-1")
    await older.take()
    newer = Balancer(await one.dial(token_of("chat", "pod-1")), "pod-1")
    await newer.say(stream.Hello("chat", None, "test"))
    assert await older.closed() == server.REPLACED
    await newer.take()
    await one.until(lambda: one.subscriber("pod-1") and one.subscriber("pod-1").digest == current)
    assert one.server.connected == 1


async def test_gateways_do_not_hear_of_each_other(rig):
    one = await rig()
    one.publish(snapshot_of("chat", a=1))
    one.publish(snapshot_of("other", z=1))
    chat, other = await one.subscribe("pod-1"), await one.subscribe("pod-1", "other")
    assert (await chat.take()).snapshot.gateway == "chat"
    assert (await other.take()).snapshot.gateway == "other"
    one.publish(snapshot_of("other", z=2))
    await other.take()
    assert one.server.messages_sent == 3


# ---- who may


async def test_strangers_are_told_so_before_anything_else(rig, caplog):
    caplog.set_level(logging.DEBUG)
    one = await rig()
    one.publish(snapshot_of("chat", a=1))
    assert await refused_with(one.dial("quokka.token")) == 401
    assert await refused_with(one.dial("")) == 401
    assert await refused_with(one.dial(token_of("other", "pod-1"), stream.PATH + "?gateway=chat")) == 403
    assert await refused_with(one.dial(token_of("nowhere", "pod-1"), stream.PATH + "?gateway=nowhere")) == 404
    one.server.synced = False
    assert await refused_with(one.dial(token_of("chat", "pod-1"))) == 503
    one.server.synced = True
    one.tokens.away = True
    assert await refused_with(one.dial(token_of("chat", "pod-2"))) == 503
    assert one.server.refusals == 6
    assert one.server.subscribers("chat") == ()
    for secret in ("quokka", "quagga", "zebra", "PRIVATE KEY"):
        assert secret not in caplog.text


async def test_a_gateway_is_only_for_its_own_service_account(rig):
    one = await rig()
    one.publish(snapshot_of("chat", a=1))
    for account, gateway, code in (
        ("other", "chat", server.FORBIDDEN),
        ("nowhere", "nowhere", server.MISSING),
        ("other", "nowhere", server.FORBIDDEN),  # who may not have it does not learn whether it is there
    ):
        stranger = Balancer(await one.dial(token_of(account, "pod-1")), "pod-1")
        await stranger.say(stream.Hello(gateway, None, "test"))
        assert await stranger.closed() == code
    assert one.server.messages_sent == 0
    assert one.changes == []


async def test_who_says_no_hello_is_let_go(rig, monkeypatch):
    monkeypatch.setattr(server, "HELLO", 0.05)
    one = await rig()
    one.publish(snapshot_of("chat", a=1))
    silent = Balancer(await one.dial(token_of("chat", "pod-1")), "pod-1")
    assert await silent.closed() == server.LATE


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (["no JSON"], server.BAD),
        (['{"type": "ack", "digest": "d"}'], server.BAD),
        ([b"bytes"], server.BAD),
        (["hello", "no JSON"], server.BAD),
        (["hello", "hello"], server.BAD),
        (["hello", b"bytes"], server.BAD),
        (["hello", '{"type": "report", "deep": ' + "[" * 100_000], server.BAD),
    ],
    ids=["no-json", "no-hello", "bytes", "then-no-json", "two-hellos", "then-bytes", "too-deep"],
)
async def test_what_is_no_message_ends_the_connection_and_nothing_else(rig, said, code):
    one = await rig()
    one.publish(snapshot_of("chat", a=1))
    neighbour = await one.subscribe("pod-0")
    odd = Balancer(await one.dial(token_of("chat", "pod-1")), "pod-1")
    for words in said:
        if words == "hello":
            await odd.say(stream.Hello("chat", None, "test"))
        elif isinstance(words, bytes):
            await odd.socket.send_bytes(words)
        else:
            await odd.socket.send_str(words)
    assert await odd.closed() == code
    await neighbour.take()
    await one.until(lambda: one.subscriber("pod-1") is None)


async def test_who_says_too_much_is_cut_off(rig):
    one = await rig()
    one.publish(snapshot_of("chat", a=1))
    loud = await one.subscribe("pod-1")
    await loud.socket.send_str("x" * (server.MAX_BYTES + 1))
    assert await loud.closed() in (1009, 1006)  # 1006: the connection ended while it was still talking
    await one.until(lambda: one.subscriber("pod-1") is None)


async def test_words_of_a_newer_balancer_are_passed_over(rig):
    one = await rig()
    current = one.publish(snapshot_of("chat", a=1))
    balancer = await one.subscribe("pod-1")
    await balancer.socket.send_str(json.dumps({"type": "mood", "value": "fine"}))
    await balancer.socket.send_str(json.dumps({"type": "ack", "digest": current, "took": 3}))
    await one.until(lambda: one.subscriber("pod-1").digest == current)


async def test_a_gateway_that_goes_lets_its_balancers_go(rig):
    one = await rig()
    one.publish(snapshot_of("chat", a=1))
    one.publish(snapshot_of("other", a=1))
    balancer, bystander = await one.subscribe("pod-1"), await one.subscribe("pod-2", "other")
    await balancer.take()
    one.server.withdraw("chat")
    assert one.server.subscribers("chat") == ()
    assert await balancer.closed() == server.MISSING
    one.publish(snapshot_of("chat", a=1))
    again = await one.subscribe("pod-1", has=balancer.snapshot)
    one.publish(snapshot_of("chat", a=2))
    assert isinstance(await again.take(), stream.Delta)
    await bystander.take()


async def test_an_operator_that_stops_lets_everybody_go_at_once(rig, made):
    one = Rig(made)
    await one.start()
    one.publish(snapshot_of("chat", a=1))
    balancers = [await one.subscribe(f"pod-{index}") for index in range(3)]
    deaf = await one.dial(token_of("chat", "pod-deaf"))  # never reads the close
    async with asyncio.timeout(PATIENCE):
        _, *codes = await asyncio.gather(one.server.stop(), *(balancer.closed() for balancer in balancers))
    assert codes == [1001] * 3
    await deaf.close()
    await one.stop()


# ---- TLS


async def test_the_server_is_the_service_and_signed_by_its_authority(rig, made):
    one = await rig()
    one.publish(snapshot_of("chat", a=1))
    token = token_of("chat", "pod-1")
    for service in NAMES:
        await (await one.dial(token, service=service)).close()
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await one.dial(token, service="another.infra.svc")
    strangers = needed(None, (SERVICE,), datetime.now(UTC))
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await one.dial(token, authority=strangers.authority)
