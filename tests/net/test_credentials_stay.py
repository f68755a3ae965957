"""Keys of accounts: each goes to its own account's host and nowhere else, and into nothing that a balancer says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.conftest import Say as say  # by its full name, as pytest has imported it

MARK = "sk-okapi-"
CLIENTS = [("authorization", f"Bearer {MARK}client"), ("x-api-key", f"{MARK}client"), ("api-key", f"{MARK}client")]
EXPLAIN = ("x-spillway-explain", "1")


class Host:
    """Where an account lives: answers as it is told, and keeps every key that it is shown."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.behave: Callable[[Any], Any] = say.well()
        self.shown: set[str] = set()
        self.asked = 0
        self.url = ""

    async def __call__(self, call: Any) -> None:
        self.asked += 1
        text = " ".join([call.target, *(f"{name} {value}" for name, value in call.headers)])
        self.shown |= {word for word in text.split() if MARK in word}
        await self.behave(call)

    @property
    def key(self) -> str:
        return f"{MARK}{self.name}"


def later(seconds: float) -> Any:
    async def behave(call: Any) -> None:
        await asyncio.sleep(seconds)
        await say.well()(call)

    return behave


def answers(data: bytes) -> Any:
    async def behave(call: Any) -> None:
        call.write(data)

    return behave


@pytest.fixture
async def world(serve, endpoint, objects, tmp_path: Path):
    """Two providers in a tier that hedges, a third behind it, and a mirror: each at its own host, with its own key."""
    hosts = {name: Host(name) for name in ("one", "two", "last", "copy", "thief")}
    for host in hosts.values():
        host.url = (await endpoint(host)).url
    pools = [objects.provider(name, hosts[name].url, name) for name in ("one", "two", "last", "copy")]
    pools[1]["spec"]["source"]["provider"]["type"] = "AzureOpenAI"
    for name in ("one", "two", "last", "copy"):
        (tmp_path / "keys" / name).mkdir(parents=True)
        (tmp_path / "keys" / name / "api-key").write_text(hosts[name].key)
    first = {
        "name": "first",
        "select": "InOrder",
        "pools": [{"name": "one"}, {"name": "two"}],
        "hedge": {"after": "100ms", "maxPercent": 100},
    }
    every = ["Capacity", "Transient", "Auth", "Config", "ContextLength", "ContentPolicy", "Budget"]
    tiers = [first, {"name": "behind", "pools": [{"name": "last"}], "enterOn": every}]
    mirror = {"pool": {"name": "copy"}, "percent": 100}
    route = objects.route(tiers=tiers, mirror=mirror, explain={"auditLogPercent": 100})
    lb = await serve(docs=[*pools, route], secrets=tmp_path / "keys", record=tmp_path / "records.jsonl")
    return lb, hosts


ECHO = json.dumps({"error": {"message": f"Incorrect API key provided: {MARK}one", "code": "invalid_api_key"}}).encode()
FAULTS = {
    "nothing": say.well(),
    "a slow one, which is hedged": later(0.4),
    "a refusal that quotes the key": answers(say.message(401, ECHO, x_seen=f"{MARK}one")),
    "a server error that quotes the key": answers(say.message(500, ECHO)),
    "a cut": say.steps(say.RESET),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_key_is_shown_to_its_own_host_alone_and_said_nowhere(world, dial, caplog, tmp_path, fault) -> None:
    lb, hosts = world
    hosts["one"].behave = FAULTS[fault]
    said = []
    for stream in (True, False):
        reply = await (await dial(lb)).chat([*CLIENTS, EXPLAIN], stream=stream)
        said.append(f"{reply.status} {reply.headers} {reply.body!r}")
        assert reply.status == 200
    await lb.until(lambda: hosts["copy"].asked == 2 and lb.in_flight == 0)
    async with aiohttp.ClientSession() as session, session.get(f"{lb.url}/metrics") as page:
        said.append(await page.text())
    await lb.balancer.recorder.close()
    said += [(tmp_path / "records.jsonl").read_text(), caplog.text]
    for host in hosts.values():
        assert host.shown == ({host.key} if host.asked else set()), host.name
    assert hosts["thief"].asked == 0
    assert not [text for text in said if MARK in text]


async def test_when_all_fail_no_answer_that_quotes_a_key_reaches_the_client(world, dial) -> None:
    lb, hosts = world
    for host in hosts.values():
        host.behave = answers(say.message(401, ECHO, x_seen=f"{MARK}one"))
    reply = await (await dial(lb)).chat([*CLIENTS, EXPLAIN])
    assert reply.status >= 400
    assert MARK not in f"{reply.headers} {reply.body!r}"
    await lb.until(lambda: hosts["copy"].asked == 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_key_does_not_follow_a_redirect(world, dial, status) -> None:
    lb, hosts = world
    location = f"{hosts['thief'].url}/v1/chat/completions"
    for name in ("one", "two", "last", "copy"):
        hosts[name].behave = answers(say.message(status, b"", location=location))
    await (await dial(lb)).chat(CLIENTS)
    await lb.until(lambda: hosts["copy"].asked == 1 and lb.in_flight == 0)
    assert hosts["thief"].asked == 0
    assert hosts["one"].shown == {hosts["one"].key}
