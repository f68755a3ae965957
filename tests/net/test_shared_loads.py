"""Loads on their whole way: engines, a gateway that scrapes them, the real operator, and sidecars that do not."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import pytest
from tests.net.operators import PATIENCE, pool, route, state
from tests.operator.rig import Rig, Tokens, running, token_file, token_of

from spillway_api import stream
from spillway_api.stream import EndpointLoad, Loads, PoolLoad
from spillway_api.types import ActiveHealth, Dispatch, Health, Metrics
from spillway_balancer.app import Balancer, Settings
from spillway_balancer.engine.faults import Scope
from spillway_balancer.net.operator_source import Where
from spillway_balancer.net.sidecar import Sidecar
from spillway_operator.certificates import needed, service_names
from spillway_operator.relay import Relay

METRICS = Metrics(mode="Prometheus", interval="100ms", stale_after="2s")
PROBES = Health(active=ActiveHealth(mode="HTTP", interval="100ms", timeout="1s", unhealthy_threshold=2))
SERVICE = "spillway-operator.infra.svc"
NAMES = (*service_names("spillway-operator", "infra"), "localhost")


class Town:
    """Gateways and sidecars of one operator, or of several."""

    def __init__(self, folder: Path, rig: Rig) -> None:
        self.folder = folder
        self.rig = rig
        self.started: list[Balancer] = []
        (folder / "ca.crt").write_bytes(rig.made.authority)

    async def gateway(self, pod: str = "gw-1", rig: Rig | None = None) -> Balancer:
        return await self._start("chat", pod, "infra", rig)

    async def sidecar(self, pod: str, gateway_url: str = "http://gateway.test:80", rig: Rig | None = None) -> Balancer:
        return await self._start("default", pod, "team", rig, Sidecar(gateway_url))

    async def _start(
        self, account: str, pod: str, namespace: str, rig: Rig | None, sidecar: Sidecar | None = None
    ) -> Balancer:
        token = self.folder / f"token-{pod}"
        token.write_text(token_of(account, pod, namespace))
        url = f"https://localhost:{(rig or self.rig).server.port}"
        where = Where(url, "chat", token, self.folder / "ca.crt", sidecar)
        one = Balancer(Settings(operator=where, gateway="chat", port=0, seed=len(self.started)))
        self.started.append(one)
        await one.start()
        await until(lambda: "default/a" in one.serving.current.pools)
        return one


def sample(lb: Balancer, name: str) -> float:
    families = lb.telemetry.registry.collect()
    return sum(each.value for family in families for each in family.samples if each.name == name)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


async def ask(lb: Balancer, model: str = "chat", tokens: int = 1) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": f"hello {random.random()}"}], "max_tokens": tokens}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{lb.port}/v1/chat/completions", json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
        await answer.read()


def listened(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Paths that the engine is asked for, from now on."""
    paths, real = Counter[str](), engine.engine.switches.strike

    def strike(scope: Scope, path: str, now: float) -> Any:
        if scope is Scope.REQUEST:
            paths[path] += 1
        return real(scope, path, now)

    monkeypatch.setattr(engine.engine.switches, "strike", strike)
    return paths


def load_at(lb: Balancer, endpoint: str) -> int:
    return lb.serving.current.pools["default/a"].endpoints[endpoint].load.requests(monotonic(), 2.0)


Start = Callable[..., Awaitable[Rig]]


@pytest.fixture
async def operators() -> AsyncIterator[Start]:
    """`await operators(name)`: replicas of one operator, with one authority and the same tokens."""
    made, tokens, started = needed(None, NAMES, datetime.now(UTC)), Tokens(), list[Rig]()
    assert made is not None

    async def start(name: str = "operator-0") -> Rig:
        one = Rig(made, name=name, tokens=tokens)
        await one.start()
        started.append(one)
        return one

    yield start
    for one in started:
        await one.stop()


@pytest.fixture
async def town(operators: Start, tmp_path: Path) -> AsyncIterator[Town]:
    one = Town(tmp_path, await operators())
    yield one
    for each in one.started:
        with contextlib.suppress(RuntimeError):
            await each.stop()


def world(*urls: str, **spec: Any) -> Any:
    """Pool `a` of these engines, and `alone` of the first of them."""
    settings: dict[str, Any] = {"metrics": METRICS, "health": PROBES, "dispatch": Dispatch(strategy="LeastLoad")}
    settings |= spec
    return state(
        pool("a", *urls, **settings),
        pool("alone", urls[0], **settings),
        route("a"),
        route("alone", name="alone", models=("alone",)),
        gateway="chat",
    )


async def test_sidecars_avoid_the_engine_that_others_fill_and_ask_no_engine_how_it_is(
    town, engine, monkeypatch
) -> None:
    engines = [await engine(name=name, speed=1.0, profile="h100-llama3-8b") for name in ("full", "free")]
    asked = {name: listened(each, monkeypatch) for name, each in zip(("full", "free"), engines, strict=True)}
    town.rig.publish(world(*(each.url for each in engines)))
    gateway = await town.gateway()
    beside = [await town.sidecar(f"pod-{number}") for number in range(3)]
    others = [asyncio.create_task(ask(gateway, "alone", 100_000)) for _ in range(8)]
    await until(lambda: all(load_at(lb, "e1") == 8 for lb in beside))
    assert all(load_at(lb, "e2") == 0 for lb in beside)
    assert all(lb.serving.current.pools["default/a"].endpoints["e1"].dialect == "vLLM" for lb in beside)
    await asyncio.gather(*(ask(lb) for lb in beside for _ in range(4)))
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    assert asked["full"]["/v1/chat/completions"] == 8
    assert asked["free"]["/v1/chat/completions"] == 12
    pages = sum(each["/metrics"] for each in asked.values())
    assert (
        0 < pages <= sample(gateway, "spillway_scrapes_total") + len(engines) * 2
    )  # one each for either pool is going on
    assert all(sample(lb, "spillway_scrapes_total") == 0 for lb in beside)
    await gateway.stop()
    for each in asked.values():
        each.clear()
    await asyncio.gather(*(ask(lb) for lb in beside))  # that goes on
    assert {path for each in asked.values() for path in each} == {"/v1/chat/completions"}
    await until(lambda: all(not load_at(lb, "e1") for lb in beside))  # nobody says so any more


async def test_what_the_gateway_s_probes_find_is_known_at_once_and_forgotten_with_the_gateway(town, engine) -> None:
    alive, dead = await engine(), await engine()
    town.rig.publish(world(dead.url, alive.url))
    gateway, lb = await town.gateway(), await town.sidecar("pod-1")
    at_hand = lb.serving.current.pools["default/a"]
    await until(lambda: [each.probe.healthy for each in at_hand.endpoints.values()] == [True, True])
    await dead.stop()
    await until(lambda: gateway.serving.current.pools["default/a"].endpoints["e1"].probe.healthy is False)
    begun = monotonic()
    await until(lambda: at_hand.endpoints["e1"].probe.healthy is False)
    assert monotonic() - begun < 0.9  # and not with the next message
    await gateway.stop()
    await until(lambda: at_hand.endpoints["e1"].probe.healthy is None)
    assert monotonic() - begun > 2.0


async def test_without_sidecars_no_gateway_is_asked_and_without_them_again_none_shares(town) -> None:
    town.rig.publish(world("http://127.0.0.1:9"))
    gateway = await town.rig.subscribe("gw-1")
    await gateway.take()
    said: list[Any] = []

    async def listen() -> None:
        while True:
            said.append(stream.from_operator(await gateway.socket.receive_str()))

    async with running(listen()):
        await town.rig.server.sharing.tick()
        assert not said
        lb = await town.sidecar("pod-1")
        await until(lambda: said == [stream.Share(1.0)])
        await lb.stop()
        await until(lambda: said == [stream.Share(1.0), stream.Share(0.0)])


async def test_loads_come_to_the_sidecars_of_other_replicas(town, operators, engine, tmp_path) -> None:
    leader, third = town.rig, await operators("operator-2")
    follower = await operators("operator-1")
    relays = [
        Relay(
            each.server,
            lambda: leader.address,
            lambda: leader.made.authority,
            SERVICE,
            token_file(tmp_path, "operator", each.name),
        )
        for each in (follower, third)
    ]
    async with running(*(each.run() for each in relays)):
        await until(lambda: all(each.connected for each in relays))
        one = await engine()
        for rig in (leader, follower, third):
            rig.publish(world(one.url))
        await town.gateway(rig=follower)
        here, there = await town.sidecar("pod-1"), await town.sidecar("pod-2", rig=third)
        for lb in (here, there):
            await until(lambda lb=lb: lb.serving.current.pools["default/a"].endpoints["e1"].probe.healthy)
        late = await town.sidecar("pod-3", rig=follower)
        await until(lambda: late.serving.current.pools["default/a"].endpoints["e1"].probe.healthy)
        for rig in (leader, follower, third):
            await until(lambda rig=rig: rig.server.sharing.sidecars() == {"chat": 3})
        await here.stop()
        await until(lambda: third.server.sharing.sidecars() == {"chat": 2})


async def test_a_sidecar_is_told_of_no_pool_that_is_not_in_its_view_and_may_tell_nothing(town) -> None:
    town.rig.publish(world("http://127.0.0.1:9"))
    gateway, lb = await town.rig.subscribe("gw-1"), await town.rig.beside("pod-1", "default/alone")
    assert isinstance(await lb.take(), stream.Full)
    told = Loads(
        tuple(PoolLoad(f"default/{name}", (EndpointLoad("e1", running=3.0),)) for name in ("a", "alone")), True
    )
    await gateway.say(told)
    said = stream.from_operator(await lb.socket.receive_str(timeout=PATIENCE))
    assert isinstance(said, Loads)
    assert said.whole
    assert [each.pool for each in said.pools] == ["default/alone"]
    await lb.say(Loads((PoolLoad("default/alone", (EndpointLoad("e1", running=99.0),)),), True))
    await gateway.say(Loads((PoolLoad("default/alone", (EndpointLoad("e1", running=4.0),)),)))
    said = stream.from_operator(await lb.socket.receive_str(timeout=PATIENCE))
    assert isinstance(said, Loads)
    assert [each.running for pool in said.pools for each in pool.endpoints] == [4.0]
