"""A balancer that follows an operator over TLS and WebSocket: whatever that one does, the last good state serves."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.net.operators import PATIENCE, TOKEN, Authority, Operator, pool, route, saved, state

from spillway_api import snapshot, stream
from spillway_api.snapshot import RouteTier, Target
from spillway_api.types import Dispatch, Metrics
from spillway_balancer.app import Balancer, Settings
from spillway_balancer.net import saved as saving
from spillway_balancer.net.operator_source import Where


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "operator")


@pytest.fixture
async def operator(authority: Authority) -> AsyncIterator[Operator]:
    one = Operator(authority)
    await one.start()
    yield one
    await one.stop()


class Following:
    """A balancer that follows the operator, and what a client gets of it."""

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer
        self.url = f"http://127.0.0.1:{balancer.port}"

    async def ask(self) -> tuple[int, str]:
        """Status, and who answered (or the code of the error)."""
        body = {"model": "chat", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{self.url}/v1/chat/completions", json=body) as answer,
        ):
            value = json.loads(await answer.read())
            if answer.status != 200:
                return answer.status, str(value["error"]["code"])
            return answer.status, str(value["choices"][0]["message"]["content"])

    async def ready(self) -> int:
        async with aiohttp.ClientSession() as client, client.get(f"{self.url}/readyz") as answer:
            return answer.status

    def sample(self, name: str, **labels: str) -> float | None:
        families = self.balancer.telemetry.registry.collect()
        found = [each for family in families for each in family.samples if each.name == name]
        values = [each.value for each in found if labels.items() <= each.labels.items()]
        return sum(values) if values else None

    @property
    def digest(self) -> str:
        return self.balancer.serving.current.digest

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - what is waited for is state of the balancer, which tells nobody
                await asyncio.sleep(0.005)


Follow = Callable[..., Awaitable[Following]]


@pytest.fixture
def served(endpoint: Any, say: Any) -> Callable[[str], Awaitable[Any]]:
    """`await served("first")`: an endpoint whose answers say so."""
    return lambda name: endpoint(say.well(name))


@pytest.fixture
async def follow(operator: Operator, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Follow]:
    """`await follow()`: a balancer of the operator's. Its token may be said nowhere in the end."""
    caplog.set_level(logging.DEBUG, "spillway")
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    started: list[Balancer] = []

    async def start(ca_file: Path | None = operator.authority.ca_file, **settings: Any) -> Following:
        where = Where(operator.url, settings.get("gateway", "default"), token_file, ca_file)
        balancer = Balancer(Settings(operator=where, port=0, seed=1, **settings))
        await balancer.start()
        started.append(balancer)
        return Following(balancer)

    yield start
    for balancer in started:
        await balancer.stop()
    said = [record.getMessage() + (record.exc_text or "") for record in caplog.get_records("call")]
    for balancer in started:
        said += [str(family.samples) for family in balancer.telemetry.registry.collect()]
    assert not [line for line in said if "okapi" in line]


async def test_not_ready_until_a_snapshot_is_there_and_then_it_serves(operator, follow, served) -> None:
    lb = await follow()
    talk = await operator.talk()
    assert (await talk.next(stream.Hello)).digest is None
    assert await lb.ready() == 503
    assert await lb.ask() == (503, "no_ready_endpoint")
    assert lb.sample("spillway_config_connected") == 1
    operator.now = state(pool("local", (await served("first")).url), route("local"))
    await talk.say(stream.Full(operator.digest, operator.at, operator.now))
    await talk.taken(operator.digest)
    assert await lb.ready() == 200
    assert await lb.ask() == (200, "first")
    assert lb.sample("spillway_config_info", digest=operator.digest) == 1


async def test_a_delta_is_in_force_when_it_is_acknowledged(operator, follow, served) -> None:
    first, second = await served("first"), await served("second")
    operator.now = state(pool("local", first.url), pool("other"), route("local"))
    lb = await follow()
    talk = await operator.talk()
    await talk.taken(operator.digest)
    other = lb.balancer.serving.current.pools["default/other"]
    await talk.taken(await operator.change(state(pool("local", second.url), pool("other"), route("local"))))
    assert lb.digest == operator.digest
    assert await lb.ask() == (200, "second")
    assert lb.balancer.serving.current.pools["default/other"] is other
    await talk.taken(await operator.change(state(pool("other"))))
    assert await lb.ask() == (404, "model_not_found")
    assert lb.sample("spillway_config_reloads_total", result="taken") == 3


async def test_who_reconnects_with_the_current_digest_is_told_nothing_and_deltas_go_on(operator, follow) -> None:
    operator.now = state(pool("local", "http://127.0.0.1:1"), route("local"))
    lb = await follow()
    talk = await operator.talk()
    await talk.taken(operator.digest)
    await talk.close()
    talk = await operator.talk(2)
    assert (await talk.next(stream.Hello)).digest == operator.digest
    runtime = lb.balancer.serving.current
    await talk.taken(await operator.change(state(pool("local", "http://127.0.0.1:2"), route("local"))))
    assert lb.balancer.serving.current is not runtime
    assert lb.sample("spillway_config_reloads_total") == 2


async def test_what_changed_while_away_comes_whole_and_leaves_the_rest_as_it_is(operator, follow) -> None:
    operator.now = state(pool("a", "http://x:1"), pool("b", "http://x:1"), route("a", "b"))
    lb = await follow()
    talk = await operator.talk()
    await talk.taken(operator.digest)
    before = lb.balancer.serving.current.pools
    operator.now = state(pool("a", "http://x:1"), pool("b", "http://y:1"), route("a", "b"))
    await talk.close()
    await (await operator.talk(2)).taken(operator.digest)
    after = lb.balancer.serving.current.pools
    assert after["default/a"] is before["default/a"]
    assert after["default/b"].endpoints["e1"].url == "http://y:1"


async def test_a_delta_to_another_state_brings_a_whole_snapshot(operator, follow) -> None:
    operator.now = state(pool("local", "http://x:1"), route("local"))
    lb = await follow()
    talk = await operator.talk()
    await talk.taken(operator.digest)
    operator.now = state(pool("local", "http://y:1"), route("local"))
    await talk.say(stream.Delta("of-somebody-else", operator.digest, 2000.0, operator.now.pools))
    again = await operator.talk(2)
    assert (await again.next(stream.Hello)).digest is None
    await again.taken(operator.digest)
    assert lb.digest == operator.digest


async def test_an_operator_of_another_authority_is_not_believed(operator, follow, tmp_path: Path, caplog) -> None:
    operator.now = state(pool("local", "http://x:1"), route("local"))
    lb = await follow(ca_file=Authority(tmp_path, "stranger").ca_file)
    await lb.until(lambda: "its certificate is not trusted" in caplog.text)
    assert not operator.talks
    assert not lb.balancer.serving.ready
    assert lb.sample("spillway_config_connected") == 0


async def test_refusals_at_the_door_are_tried_again_and_logged_once_each(operator, follow, caplog) -> None:
    operator.now = state(pool("local", "http://x:1"), route("local"))
    operator.statuses = [401, 401, 403, 503, 503]
    lb = await follow()
    await (await operator.talk()).taken(operator.digest)
    lines = [record.getMessage() for record in caplog.records if "no config stream" in record.getMessage()]
    assert [line.split(": ", 1)[1].split(";")[0] for line in lines] == [
        "it refuses our token (401)",
        "it does not take us for a balancer of this gateway (403)",
        "it is not ready yet (503)",
    ]
    assert await lb.ready() == 200


async def test_a_token_that_is_rotated_is_shown_at_the_next_connect(operator, follow, tmp_path: Path) -> None:
    operator.now = state(pool("local", "http://x:1"), route("local"))
    await follow()
    talk = await operator.talk()
    assert talk.token == TOKEN
    await talk.taken(operator.digest)
    operator.token = f"{TOKEN}-the-second"
    (tmp_path / "token").write_text(operator.token)
    await talk.close()
    assert (await operator.talk(2)).token == f"{TOKEN}-the-second"


async def test_an_authority_that_is_rotated_is_believed_at_the_next_connect(
    operator, follow, tmp_path: Path, authority: Authority
) -> None:
    operator.now = state(pool("local", "http://x:1"), route("local"))
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(authority.ca_file.read_bytes())
    await follow(ca_file=ca_file)
    await (await operator.talk()).taken(operator.digest)
    second = Authority(tmp_path, "second")
    ca_file.write_bytes(second.ca_file.read_bytes())
    await operator.stop()
    operator.authority = second
    await operator.start()
    await operator.talk(2)


BROKEN = pool("local", "http://x:1", metrics=Metrics(mode="None", stale_after="soon"))
"""It can be read, and no runtime can be built of it."""


async def test_what_cannot_be_served_from_is_refused_and_the_last_good_state_stays(operator, follow, served) -> None:
    one = await served("first")
    operator.now = good = state(pool("local", one.url), route("local"))
    lb = await follow()
    talk = await operator.talk()
    await talk.taken(operator.digest)
    runtime = lb.balancer.serving.current
    digest = await operator.change(state(BROKEN, route("local")))
    refused = await talk.next(stream.Refused)
    assert refused.digest == digest
    assert "ValueError" in refused.message
    assert lb.balancer.serving.current is runtime
    assert await lb.ask() == (200, "first")
    # The next delta is laid upon what was refused.
    mended = state(good.pools[0], route("local"), route("local", name="more", models=("more",)))
    await talk.taken(await operator.change(mended))
    assert lb.digest == snapshot.digest(mended)
    assert lb.sample("spillway_config_reloads_total", result="refused") == 1
    assert len(operator.talks) == 1


async def test_what_cannot_be_read_is_refused_and_the_next_change_comes_whole(operator, follow) -> None:
    operator.now = good = state(pool("local", "http://x:1"), route("local"))
    lb = await follow()
    talk = await operator.talk()
    await talk.taken(operator.digest)
    newer = pool("local", "http://x:1", dispatch=Dispatch(strategy="Unheard"))  # type: ignore[arg-type]
    digest = await operator.change(state(newer, route("local")))
    assert (await talk.next(stream.Refused)).digest == digest
    assert lb.digest == snapshot.digest(good)
    await operator.change(state(pool("local", "http://y:1"), route("local")))
    await (await operator.talk(2)).taken(operator.digest)
    assert lb.digest == operator.digest


async def test_what_is_not_what_its_digest_says_is_refused(operator, follow) -> None:
    operator.now = good = state(pool("local", "http://x:1"), route("local"))
    lb = await follow()
    talk = await operator.talk()
    await talk.taken(operator.digest)
    other = state(pool("local", "http://y:1"), route("local"))
    await talk.say(stream.Full("another-digest", 2000.0, other))
    assert "digest" in (await talk.until(stream.Refused, lambda said: said.digest == "another-digest")).message
    await talk.say(stream.Full(snapshot.digest(state(gateway="them")), 2000.0, state(gateway="them")))
    assert "'them'" in (await talk.next(stream.Refused)).message
    await talk.say(b'{"type":"snapshot","digest":"d","at":1,"snapshot":{"gateway":"default","pools":[{}],"routes":[]}}')
    assert (await talk.next(stream.Refused)).digest == "d"
    await talk.say(b"this is not JSON")
    assert (await talk.next(stream.Refused)).digest == ""
    assert lb.digest == snapshot.digest(good)
    assert lb.sample("spillway_config_reloads_total", result="refused") == 4


async def test_a_newer_operator_may_say_more_than_is_understood(operator, follow, served) -> None:
    """Fields that are not known change the digest, and nothing else; so do kinds of messages."""
    one, two = await served("first"), await served("second")

    def newer(*parts: Any) -> tuple[dict[str, Any], str]:
        whole = msgspec.to_builtins(state(*parts))
        for each in whole["pools"]:
            each["zeta"] = {"new": True}
        of = snapshot.hashlib.sha256(b"default")
        for kind in ("pools", "routes"):
            of.update(kind.encode())
            for part in whole[kind]:
                of.update(snapshot.hashlib.sha256(msgspec.json.encode(part, order="deterministic")).digest())
        return whole, of.hexdigest()

    lb = await follow()
    talk = await operator.talk()
    whole, base = newer(pool("local", one.url), route("local"))
    await talk.say(msgspec.json.encode({"type": "weather", "sunny": True}))
    full = {"type": "snapshot", "digest": base, "at": 1.0, "snapshot": whole, "mood": "good"}
    await talk.say(msgspec.json.encode(full, order="deterministic"))
    await talk.taken(base)
    assert await lb.ask() == (200, "first")
    whole, digest = newer(pool("local", two.url), route("local"))
    delta = {"type": "delta", "base": base, "digest": digest, "at": 2.0, "pools": whole["pools"]}
    await talk.say(msgspec.json.encode(delta, order="deterministic"))
    await talk.taken(digest)
    assert await lb.ask() == (200, "second")
    await talk.close()
    assert (await (await operator.talk(2)).next(stream.Hello)).digest == digest


async def test_when_the_operator_is_gone_all_goes_on_until_it_is_back(operator, follow, served, caplog) -> None:
    operator.now = state(pool("local", (await served("first")).url), route("local"))
    lb = await follow()
    await (await operator.talk()).taken(operator.digest)
    await operator.stop()
    await lb.until(lambda: "cannot connect" in caplog.text)
    assert lb.sample("spillway_config_connected") == 0
    assert await lb.ready() == 200
    assert await lb.ask() == (200, "first")
    await operator.start()
    assert (await (await operator.talk(2)).next(stream.Hello)).digest == operator.digest


async def test_saved_state_serves_at_once_whether_or_not_the_operator_answers(
    operator, follow, served, tmp_path: Path
) -> None:
    operator.now = state(pool("local", (await served("first")).url), route("local"))
    kept = tmp_path / "state"
    lb = await follow(state=kept)
    await (await operator.talk()).taken(operator.digest)
    await lb.balancer.stop()  # writes what is still to be written
    await operator.stop()
    lb = await follow(state=kept)
    assert await lb.ready() == 200
    assert await lb.ask() == (200, "first")
    await operator.start()
    talk = await operator.talk(2)
    assert (await talk.next(stream.Hello)).digest == operator.digest
    await talk.taken(await operator.change(state(pool("local", "http://x:1"), route("local"))))


@pytest.mark.parametrize(
    ("kept_at", "boot_at", "serves"), [(1.0, 2.0, "boot"), (3.0, 2.0, "kept"), (None, 2.0, "boot")]
)
async def test_of_the_saved_state_and_the_boot_file_the_later_one_is_taken(
    operator, follow, served, tmp_path: Path, kept_at, boot_at, serves
) -> None:
    engines = {name: await served(name) for name in ("kept", "boot")}
    states = {name: state(pool("local", each.url), route("local")) for name, each in engines.items()}
    if kept_at is not None:
        saving.write(tmp_path / "state", saved(states["kept"], kept_at))
    (tmp_path / "boot.gz").write_bytes(stream.pack(saved(states["boot"], boot_at)))
    lb = await follow(state=tmp_path / "state", boot=tmp_path / "boot.gz")
    assert await lb.ask() == (200, serves)
    assert (await (await operator.talk()).next(stream.Hello)).digest == snapshot.digest(states[serves])


async def test_a_saved_state_of_a_newer_program_serves_and_is_asked_for_again(operator, follow, tmp_path) -> None:
    """Its digest counts fields that were lost when they were put away: a delta could not be laid upon it."""
    known = state(pool("local", "http://x:1"), route("local"))
    (tmp_path / "boot.gz").write_bytes(stream.pack(stream.Saved("of-a-newer-operator", 1.0, known)))
    lb = await follow(boot=tmp_path / "boot.gz")
    assert lb.balancer.serving.ready
    assert (await (await operator.talk()).next(stream.Hello)).digest is None


async def test_a_saved_state_that_cannot_be_served_from_is_passed_over(operator, follow, tmp_path) -> None:
    saving.write(tmp_path, saved(state(BROKEN, route("local")), 1.0))
    operator.now = state(pool("local", "http://x:1"), route("local"))
    lb = await follow(state=tmp_path)
    await (await operator.talk()).taken(operator.digest)
    assert lb.digest == operator.digest


async def test_a_snapshot_of_thousands_comes_through(operator, follow) -> None:
    pools = [
        pool(f"p{number:04}", *(f"http://10.0.{number % 250}.{i}:8000" for i in range(5))) for number in range(1000)
    ]
    routes = [route(f"p{number % 1000:04}", name=f"r{number:04}", models=(f"m{number}",)) for number in range(2000)]
    operator.now = state(*pools, *routes)
    lb = await follow()
    talk = await operator.talk()
    await talk.taken(operator.digest)
    runtime = lb.balancer.serving.current
    assert (len(runtime.pools), len(runtime.routes.all)) == (1000, 2000)
    await talk.taken(await operator.change(state(pool("p0000", "http://y:1"), *pools[1:], *routes)))
    after = lb.balancer.serving.current
    assert sum(after.pools[name] is not each for name, each in runtime.pools.items()) == 1


async def test_reports_tell_at_once_what_changes_state(operator, follow, engine, refusing) -> None:
    one = await engine()
    tiers = (
        RouteTier("own", (Target("default/down"),), "Weighted", ()),
        RouteTier("next", (Target("default/up"),), "Weighted", ("Capacity",)),
    )
    scraped = Metrics(mode="Prometheus", interval="100ms", stale_after="30s")
    operator.now = state(pool("up", one.url, metrics=scraped), pool("down", refusing, probed=True), route(tiers=tiers))
    await follow()
    talk = await operator.talk()

    def told(report: stream.Report) -> bool:
        pools = {each.pool: each for each in report.pools}
        down, up = pools.get("default/down"), pools.get("default/up")
        return bool(down and down.unhealthy and up and up.engine == "vLLM" and up.metrics == "Ok")

    report = await talk.until(stream.Report, told)
    assert report.tiers == (stream.TierReport("default/chat", "all", "own", "Unavailable"),)
    await talk.taken(await operator.change(state(pool("up", one.url), route("up"))))
    report = await talk.until(stream.Report, lambda said: len(said.pools) == 1)
    assert report == stream.Report((stream.PoolReport("default/up", "vLLM"),))


async def test_an_endpoint_that_refuses_its_credential_is_reported(operator, follow, engine, tmp_path: Path) -> None:
    cloud = await engine(api_key="good")
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "default_cloud_key").write_text("bad")
    credential = snapshot.Credential("default/cloud", "key", "Authorization", "Bearer ")
    account = snapshot.Endpoint("account", f"{cloud.url}/v1", 100, credential)
    operator.now = state(pool("cloud", provider="OpenAICompatible", endpoints=(account,)), route("cloud"))
    lb = await follow(secrets=folder)
    talk = await operator.talk()
    await talk.taken(operator.digest)
    assert (await lb.ask())[0] == 503
    report = await talk.until(stream.Report, lambda said: said.pools)
    assert report.pools == (stream.PoolReport("default/cloud", refused=("account",)),)
    (folder / "default_cloud_key").write_text("good-and-better")
    await talk.until(stream.Report, lambda said: not said.pools)
    (folder / "default_cloud_key").unlink()
    await lb.until(lambda: lb.balancer.credentials.header(credential) == b"")
    assert (await lb.ask())[0] == 503


async def test_an_operator_without_a_heartbeat_is_left(operator, follow, monkeypatch, caplog) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT", 0.1)
    operator.heartbeat = None
    operator.now = state(pool("local", "http://x:1"), route("local"))
    lb = await follow()
    talk = await operator.talk()
    await talk.taken(operator.digest)
    talk.transport.pause_reading()  # it hears no ping
    again = await operator.talk(2)
    assert (await again.next(stream.Hello)).digest == operator.digest
    assert "no heartbeat" in caplog.text
    assert lb.balancer.serving.ready


async def test_an_account_whose_key_is_not_mounted_yet_gets_no_request_until_it_is(
    operator, follow, served, tmp_path: Path
) -> None:
    """kubelet brings a new key into the Pod up to a minute after the snapshot that speaks of it."""
    (tmp_path / "secrets").mkdir()
    cloud, spare = await served("cloud"), await served("spare")
    credential = snapshot.Credential("default/cloud", "key", "Authorization", "Bearer ")
    account = snapshot.Endpoint("account", cloud.url, 100, credential)
    tiers = (
        RouteTier("cloud", (Target("default/cloud"),), "Weighted", ()),
        RouteTier("spare", (Target("default/spare"),), "Weighted", ("Capacity", "Transient")),
    )
    operator.now = state(pool("cloud", endpoints=(account,)), pool("spare", spare.url), route(tiers=tiers))
    lb = await follow(secrets=tmp_path / "secrets")
    talk = await operator.talk()
    await talk.taken(operator.digest)
    assert await lb.ask() == (200, "spare")
    assert not cloud.calls
    told = await talk.until(stream.Report, lambda report: any(each.refused for each in report.pools))
    assert [each.refused for each in told.pools] == [("account",)]
    (tmp_path / "secrets" / "default_cloud_key").write_text("sk-1")
    (waiting,) = lb.balancer.serving.current.pools["default/cloud"].endpoints.values()
    await lb.until(lambda: waiting.keyed)
    assert await lb.ask() == (200, "cloud")
    assert cloud.calls[0].header("authorization") == "Bearer sk-1"
    await talk.until(stream.Report, lambda report: not any(each.refused for each in report.pools))
