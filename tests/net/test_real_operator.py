"""Balancer and operator as they are, face to face: what each means by the config stream, the other one understands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.net.operators import PATIENCE, pool, route, state
from tests.operator.rig import Rig, served, token_of

from spillway_api import stream
from spillway_api.types import Metrics
from spillway_balancer.app import Balancer, Settings
from spillway_balancer.net.operator_source import Where


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with served() as one:
        yield one


Follow = Callable[..., Awaitable[Balancer]]


@pytest.fixture
async def follow(rig: Rig, tmp_path: Path) -> AsyncIterator[Follow]:
    started: list[Balancer] = []
    (tmp_path / "ca.crt").write_bytes(rig.made.authority)

    async def start(gateway: str = "chat", account: str = "chat") -> Balancer:
        (tmp_path / "token").write_text(token_of(account, "pod-1"))
        url = f"https://localhost:{rig.server.port}"
        where = Where(url, gateway, tmp_path / "token", tmp_path / "ca.crt")
        one = Balancer(Settings(operator=where, gateway=gateway, port=0, seed=1, state=tmp_path / "state"))
        started.append(one)
        await one.start()
        return one

    yield start
    for one in started:
        await one.stop()


def has(rig: Rig, digest: str) -> Callable[[], bool]:
    return lambda: (known := rig.subscriber("pod-1")) is not None and known.digest == digest


async def test_snapshot_delta_refusal_and_what_comes_after_it(rig, follow) -> None:
    digest = rig.publish(state(pool("a", "http://x:1"), route("a"), gateway="chat"))
    lb = await follow()
    await rig.until(has(rig, digest))
    assert lb.serving.current.digest == digest
    changed = rig.publish(state(pool("a", "http://x:1", "http://y:1"), route("a"), gateway="chat"))
    await rig.until(has(rig, changed))
    assert lb.serving.current.digest == changed
    broken = pool("a", "http://x:1", metrics=Metrics(mode="None", stale_after="soon"))
    bad = rig.publish(state(broken, route("a"), gateway="chat"))
    await rig.until(lambda: rig.subscriber("pod-1").refused)
    assert lb.serving.current.digest == changed
    mended = rig.publish(state(pool("a", "http://z:1"), route("a"), gateway="chat"))
    await rig.until(has(rig, mended))
    assert bad != lb.serving.current.digest == mended


async def test_what_it_reports_arrives(rig, follow) -> None:
    rig.publish(state(pool("a", endpoints=()), route("a"), gateway="chat"))
    await follow()
    await rig.until(lambda: (known := rig.subscriber("pod-1")) is not None and known.report and known.report.tiers)
    assert rig.subscriber("pod-1").report.tiers == (stream.TierReport("default/chat", "all", "only", "Unavailable"),)


async def test_after_a_restart_with_its_disk_it_is_told_nothing(rig, follow) -> None:
    digest = rig.publish(state(pool("a", "http://x:1"), route("a"), gateway="chat"))
    lb = await follow()
    await rig.until(has(rig, digest))
    await lb.stop()
    await rig.until(lambda: rig.subscriber("pod-1") is None)
    sent = rig.server.messages_sent
    await follow()
    await rig.until(has(rig, digest))
    assert rig.server.messages_sent == sent


async def test_who_is_of_another_gateway_is_told_so_at_the_door(rig, follow, caplog) -> None:
    rig.publish(state(pool("a", "http://x:1"), route("a"), gateway="chat"))
    lb = await follow(account="stranger")
    async with asyncio.timeout(PATIENCE):
        while "no config stream" not in caplog.text:  # noqa: ASYNC110 - a log wakes nobody
            await asyncio.sleep(0.005)
    assert "it does not take us for a balancer of this gateway (403)" in caplog.text
    assert not lb.serving.ready
