"""A sidecar before the real operator: what it serves from, at once and later, and what it says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace
from tests.net.operators import PATIENCE, pool, route, state
from tests.operator.rig import Rig, served, token_of

from spillway_api import stream
from spillway_api.sidecars import Asked, reached, remote_name, unknown_world, view
from spillway_api.snapshot import Snapshot, digest
from spillway_balancer.app import Balancer, Settings
from spillway_balancer.net.operator_source import Where
from spillway_balancer.net.sidecar import Sidecar

URL = "http://gateway.test:80"
REMOTE = remote_name("chat")
Start = Callable[..., Awaitable[Balancer]]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with served() as one:
        yield one


@pytest.fixture
async def start(rig: Rig, tmp_path: Path) -> AsyncIterator[Start]:
    started: list[Balancer] = []
    (tmp_path / "ca.crt").write_bytes(rig.made.authority)

    async def begin(*routes: str, pod: str = "pod-1", port: int | None = None, **settings: Any) -> Balancer:
        (tmp_path / "token").write_text(token_of("default", pod, "team"))
        url = f"https://localhost:{port or rig.server.port}"
        where = Where(url, "chat", tmp_path / "token", tmp_path / "ca.crt", Sidecar(URL, None, routes))
        kept = {"operator": where, "gateway": "chat", "port": 0, "seed": 1, "state": tmp_path / "state"}
        one = Balancer(Settings(**(kept | settings)))
        started.append(one)
        await one.start()
        return one

    yield begin
    for one in started:
        await one.stop()


def world(*urls: str) -> Snapshot:
    return state(
        pool("a", *urls), pool("b", "http://b:1"), route("a"), route("b", name="b", models=("b",)), gateway="chat"
    )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


async def page(lb: Balancer, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{lb.admin_port}{path}") as answer:
        return answer.status, await answer.text()


async def test_with_nothing_all_is_the_gateway_s_and_it_is_ready_at_once(start) -> None:
    lb = await start(port=1, admin_port=0)  # where no operator is
    assert lb.serving.current.spec == reached(unknown_world("chat"), URL)
    assert await page(lb, "/readyz") == (200, "ready\n")
    assert lb.serving.current.partial


async def test_it_takes_its_view_and_what_changes_in_it(rig, start) -> None:
    rig.publish(whole := world("http://x:1"))
    asked = Asked(None, frozenset({"default/chat"}))
    lb = await start("default/chat")
    await until(lambda: lb.serving.current.spec == reached(view(whole, asked), URL))
    await until(lambda: rig.server.sidecars("chat") == {"Current": 1})  # by the digest of what was sent
    rig.publish(changed := world("http://x:1", "http://y:1"))
    await until(lambda: lb.serving.current.spec == reached(view(changed, asked), URL))
    await until(lambda: rig.server.sidecars("chat") == {"Current": 1})
    assert all(each.partial for each in lb.serving.current.pools.values())


async def test_a_restarted_one_serves_its_last_state_without_an_operator_and_is_sent_nothing_with_one(
    rig, start, tmp_path
) -> None:
    rig.publish(whole := world("http://x:1"))
    first = await start()
    await until(lambda: rig.server.sidecars("chat") == {"Current": 1})
    await first.stop()
    kept = stream.unpack((tmp_path / "state" / "snapshot.json.gz").read_bytes())
    assert kept.snapshot == view(whole, Asked())  # without the gateway's URL, which may be another next time
    assert kept.digest == digest(kept.snapshot)
    alone = await start(port=1)
    assert alone.serving.current.spec == reached(kept.snapshot, URL)
    await alone.stop()
    sent = rig.server.messages_sent
    again = await start()
    assert again.serving.current.spec == reached(kept.snapshot, URL)
    await until(lambda: rig.server.sidecars("chat") == {"Current": 1})
    assert rig.server.messages_sent == sent


async def test_a_state_that_cannot_be_served_from_is_no_worse_than_none(start, tmp_path) -> None:
    broken = replace(view(world("http://x:1"), Asked()), pools=())
    bad = stream.Saved(digest(broken), 1.0, broken)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "snapshot.json.gz").write_bytes(stream.pack(bad))
    lb = await start(port=1)
    assert lb.serving.current.spec == reached(unknown_world("chat"), URL)


async def test_an_operator_that_takes_no_sidecars_leaves_all_to_the_gateway(rig, start, caplog) -> None:
    caplog.set_level(logging.INFO, "spillway.config")
    rig.publish(world("http://x:1"))
    lb = await start(pod="")
    await until(lambda: "it takes no sidecars, or none with this token" in caplog.text)
    assert lb.serving.current.spec == reached(unknown_world("chat"), URL)


async def test_it_says_nothing_until_a_pool_from_zero_is_wanted(rig, start) -> None:
    asleep = replace(pool("a"), wakes=True)
    rig.publish(state(asleep, route("a"), gateway="chat"))
    heard: list[stream.Report] = []
    real, told = rig.server._hear_beside, heard.append

    def hear(connection, gateway, said) -> None:
        if isinstance(said, stream.Report):
            told(said)
        real(connection, gateway, said)

    rig.server._hear_beside = hear
    lb = await start()
    await until(lambda: "default/a" in lb.serving.current.pools)
    async with aiohttp.ClientSession() as session:
        asked = asyncio.create_task(
            session.post(f"http://127.0.0.1:{lb.port}/v1/chat/completions", json={"model": "chat", "messages": []})
        )
        await rig.until(lambda: rig.server.wanted("chat") == {"default/a"})
        asked.cancel()
    assert heard == [stream.Report(wanted=("default/a",))]


async def test_pages_are_where_probes_come(start) -> None:
    lb = await start(port=1, admin_host="127.0.0.2", admin_port=0)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.2:{lb.admin_port}/healthz") as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://127.0.0.1:{lb.admin_port}/healthz")
