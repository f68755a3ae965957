"""A gateway and what sidecars send on to it, with an operator beside it that vouches for them: all as they are, on
sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.net.test_shadow import shadow
from tests.operator.rig import Rig, served, token_of

from spillway_balancer.app import Balancer, Settings
from spillway_balancer.net.credentials import Credentials
from spillway_balancer.net.filesource import judge
from spillway_balancer.net.operator_source import Where
from spillway_balancer.net.vouching import PATIENCE
from spillway_operator.vouching import Vouching

TOKEN = token_of("shop", "shop-1")
LAST_WORD = "x-spillway-served-by"


def handed(tier: str = "", deadline: float = 30.0, token: str = TOKEN, **more: Any) -> list[tuple[str, str]]:
    """The headers of a sidecar that has the rule as the gateway has it; with a tier it names it."""
    rule = {"route": "default/chat", "rule": "all", "tier": tier} if tier else {}
    said = {**rule, **more, "deadline": f"{deadline:.3f}"}
    return [
        ("x-spillway-forwarded", "; ".join(f"{name}={value}" for name, value in said.items())),
        ("x-spillway-pod", f"Bearer {token}"),
    ]


class Gateway:
    def __init__(self, rig: Rig, balancer: Balancer, folder: Path) -> None:
        self.rig = rig
        self.balancer = balancer
        self._folder = folder

    @property
    def port(self) -> int:
        return self.balancer.port

    async def takes(self, *docs: Any) -> None:
        """These objects are in force."""
        file = self._folder / "objects.yaml"
        file.write_text(yaml.safe_dump_all(docs))
        judged = judge((file,), "chat", Credentials(None))
        assert judged.snapshot is not None, judged.errors
        digest = self.rig.publish(judged.snapshot)
        await self.rig.until(lambda: (one := self.rig.subscriber("pod-1")) is not None and one.digest == digest)

    def sample(self, name: str, **labels: str) -> float:
        samples = [each for family in self.balancer.telemetry.registry.collect() for each in family.samples]
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())

    def forwarded(self, vouched: str) -> float:
        return self.sample("spillway_forwarded_requests_total", vouched=vouched)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with served() as one:
        one.server.follow_questions(Vouching(one.tokens).hear)
        yield one


@pytest.fixture
async def gateway(rig: Rig, tmp_path: Path) -> AsyncIterator[Gateway]:
    (tmp_path / "ca.crt").write_bytes(rig.made.authority)
    (tmp_path / "token").write_text(token_of("chat", "pod-1"))
    where = Where(f"https://localhost:{rig.server.port}", "chat", tmp_path / "token", tmp_path / "ca.crt")
    balancer = Balancer(Settings(operator=where, gateway="chat", port=0, seed=1, drain_seconds=0.5))
    await balancer.start()
    yield Gateway(rig, balancer, tmp_path)
    await balancer.stop()


Two = Callable[..., Awaitable[tuple[Any, Any]]]


@pytest.fixture
def two(gateway: Gateway, objects: Any, endpoint: Any) -> Two:
    """In force: a tier `near`, and `far` behind it, of an endpoint each."""

    async def start(*more: Any, near: Any = None, far: Any = None, **spec: Any) -> tuple[Any, Any]:
        one, other = await endpoint(near), await endpoint(far)
        tiers = [
            {"name": "near", "pools": [{"name": "a"}]},
            {"name": "far", "pools": [{"name": "b"}], "enterOn": ["Capacity", "Transient"]},
        ]
        await gateway.takes(
            objects.pool("a", one, capacity={"maxInFlightPerEndpoint": 1}),
            objects.pool("b", other, capacity={"maxInFlightPerEndpoint": 1}),
            objects.route(tiers=tiers, gateways=["chat"], **spec),
            *more,
        )
        return one, other

    return start


async def test_it_enters_the_tier_that_is_named_and_has_the_last_word(gateway, two, dial) -> None:
    near, far = await two()
    client = await dial(gateway)
    for stream in (False, True):
        reply = await client.chat(handed("far"), stream=stream)
        assert (reply.status, reply.text, reply.header(LAST_WORD)) == (200, "hello", "gateway")
    assert (len(near.calls), len(far.calls)) == (0, 2)
    assert not [name for call in far.calls for name, _ in call.headers if name.startswith("x-spillway")]
    reply = await client.chat()
    assert (reply.status, reply.header(LAST_WORD)) == (200, None)
    assert (len(near.calls), len(far.calls)) == (1, 2)
    assert gateway.forwarded("known") == 2
    assert gateway.sample("spillway_tier_requests_total", tier="far", spilled="true") == 2


async def test_what_a_sidecar_has_no_policy_for_begins_where_anybody_s_does(gateway, two, dial) -> None:
    near, _ = await two()
    reply = await (await dial(gateway)).chat(handed())
    assert (reply.status, reply.header(LAST_WORD)) == (200, "gateway")
    assert len(near.calls) == 1


async def test_a_token_that_is_nobody_s_is_refused_and_that_is_no_last_word(gateway, two, dial) -> None:
    near, far = await two()
    reply = await (await dial(gateway)).chat(handed("far", token="nobody.s.token"))
    assert (reply.status, reply.error["code"]) == (401, "invalid_pod_token")
    assert reply.header(LAST_WORD) is None
    assert near.calls == far.calls == []
    assert gateway.forwarded("unknown") == 1


async def test_where_nobody_can_say_whose_it_is_it_is_served_as_any_other(gateway, two, dial, rig) -> None:
    near, far = await two()
    rig.tokens.away = True
    reply = await (await dial(gateway)).chat(handed("far", deadline=0.0))
    assert (reply.status, reply.header(LAST_WORD)) == (200, "gateway")
    assert (len(near.calls), len(far.calls)) == (1, 0)
    assert gateway.forwarded("unavailable") == 1


async def test_so_is_one_that_shows_no_token(gateway, two, dial) -> None:
    near, _ = await two()
    client = await dial(gateway)
    for shown in ([], [("x-spillway-pod", "Basic abc")], [("x-spillway-pod", "Bearer ")]):
        reply = await client.chat([handed("far")[0], *shown])
        assert (reply.status, reply.header(LAST_WORD)) == (200, "gateway")
    assert len(near.calls) == 3
    assert gateway.forwarded("none") == 3


async def test_one_that_is_known_stays_known_without_the_operator_and_a_new_one_waits_for_nobody(
    gateway, two, dial, rig
) -> None:
    near, far = await two()
    client = await dial(gateway)
    await client.chat(handed("far"))
    await rig.stop()
    assert (await client.chat(handed("far"))).header(LAST_WORD) == "gateway"
    await client.chat(handed("far", token=token_of("shop", "shop-2")))
    assert (len(near.calls), len(far.calls)) == (1, 2)


async def test_many_requests_with_one_new_token_ask_once(gateway, two, dial, rig) -> None:
    await two()
    before = rig.tokens.reviews
    clients = [await dial(gateway) for _ in range(20)]
    replies = await asyncio.gather(*(client.chat(handed("far")) for client in clients))
    assert {reply.header(LAST_WORD) for reply in replies} == {"gateway"}
    assert rig.tokens.reviews == before + 1


@pytest.mark.parametrize(("left", "tries"), [(1, 1), (2, 2), (9, 3), (None, 3)])
async def test_no_more_attempts_than_are_left_nor_than_the_policy_has(gateway, two, dial, say, left, tries) -> None:
    retry = {"attempts": 3, "budgetPercent": 100, "backoffBase": "1ms", "retryStatusCodes": [500]}
    down = say.steps(say.error(500))
    near, far = await two(near=down, far=down, retry=retry)
    more = {} if left is None else {"attempts": left}
    reply = await (await dial(gateway)).chat(handed("near", **more))
    assert reply.status in (500, 503)
    assert reply.header(LAST_WORD) == "gateway", "errors too"
    assert len(near.calls) + len(far.calls) == tries


async def test_no_more_time_than_is_left(gateway, two, dial, say) -> None:
    await two(far=say.steps(say.HANG))
    client = await dial(gateway)
    begun = asyncio.get_running_loop().time()
    reply = await client.chat(handed("far", deadline=0.2))
    assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")
    assert reply.header(LAST_WORD) == "gateway"
    assert asyncio.get_running_loop().time() - begun < 5


async def test_time_in_the_queue_is_of_the_same_deadline(gateway, two, dial, say) -> None:
    _, far = await two(far=say.steps(say.HANG), queue={"maxWait": "20s"})
    holds = await dial(gateway)
    await holds.send(holds.request(body=holds.chat_body(), headers=handed("far")))
    await far.call()
    begun = asyncio.get_running_loop().time()
    reply = await (await dial(gateway)).chat(handed("far", deadline=0.2))
    assert reply.status in (503, 504)
    assert reply.header(LAST_WORD) == "gateway"
    assert asyncio.get_running_loop().time() - begun < 5
    assert len(far.calls) == 1


async def test_a_place_in_the_queue_of_a_gateway_that_ends_is_not_the_last_word(gateway, two, dial, say) -> None:
    _, far = await two(far=say.steps(say.HANG), queue={"maxWait": "20s"})
    holds, waits = await dial(gateway), await dial(gateway)
    await holds.send(holds.request(body=holds.chat_body(), headers=handed("far")))
    await far.call()
    waiting = asyncio.create_task(waits.chat(handed("far")))
    async with asyncio.timeout(10):
        while not gateway.sample("spillway_queue_requests"):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.005)
    ending = asyncio.create_task(gateway.balancer.drain())
    reply = await waiting
    assert (reply.status, reply.error["code"]) == (503, "draining")
    assert reply.header(LAST_WORD) is None, "another replica may have room"
    await ending


@pytest.mark.parametrize("said", ["", "deadline=soon", "tier=far; deadline=1", "deadline=1; deadline=2"])
async def test_a_sidecar_that_says_it_badly_is_told(gateway, two, dial, said) -> None:
    near, far = await two()
    reply = await (await dial(gateway)).chat([("x-spillway-forwarded", said), handed()[1]])
    assert (reply.status, reply.error["code"]) == (400, "invalid_forwarded")
    assert reply.header(LAST_WORD) == "gateway"
    assert near.calls == far.calls == []


async def test_what_the_sidecar_has_copied_and_looked_at_is_not_again(gateway, two, dial, objects, endpoint) -> None:
    mirror = await endpoint()
    extra = (objects.pool("m", mirror), shadow(objects, "next", "b", gateways=["chat"]))
    await two(*extra, mirror={"pool": {"name": "m"}, "percent": 100})
    client = await dial(gateway)
    assert (await client.chat(handed("far"))).status == 200
    assert gateway.sample("spillway_mirror_requests_total") == 0
    assert gateway.sample("spillway_shadow_decisions_total") == 0
    assert (await client.chat(handed())).status == 200
    await mirror.call()
    assert len(mirror.calls) == 1
    assert gateway.sample("spillway_shadow_decisions_total") == 1


async def test_the_gateway_s_own_rules_hold(gateway, two, dial, objects) -> None:
    """A limit of the tier that is entered, which is counted for all."""
    near, far = await two()
    tiers = [
        {"name": "near", "pools": [{"name": "a"}]},
        {"name": "far", "pools": [{"name": "b"}], "enterOn": ["Capacity"], "limits": {"requestsPerMinute": 1}},
    ]
    await gateway.takes(
        objects.pool("a", near),
        objects.pool("b", far),
        objects.route(tiers=tiers, gateways=["chat"], queue={"maxWait": "0s"}),
    )
    client = await dial(gateway)
    replies = [await client.chat(handed("far")) for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 429]
    assert [reply.header(LAST_WORD) for reply in replies] == ["gateway"] * 2
    assert (len(near.calls), len(far.calls)) == (0, 1)


async def test_a_balancer_without_an_operator_serves_it_as_any_other(serve, objects, endpoint, dial) -> None:
    near, far = await endpoint(), await endpoint()
    tiers = [
        {"name": "near", "pools": [{"name": "a"}]},
        {"name": "far", "pools": [{"name": "b"}], "enterOn": ["Capacity"]},
    ]
    lb = await serve(docs=[objects.pool("a", near), objects.pool("b", far), objects.route(tiers=tiers)])
    reply = await (await dial(lb)).chat(handed("far", token="nobody.s.token"))
    assert (reply.status, reply.header(LAST_WORD)) == (200, "gateway")
    assert (len(near.calls), len(far.calls)) == (1, 0)


async def test_what_has_a_home_is_given_back_at_once_where_nothing_is_open_to_it(gateway, two, dial, say) -> None:
    _, far = await two(far=say.steps(say.HANG), queue={"maxWait": "20s"})
    holds = await dial(gateway)
    await holds.send(holds.request(body=holds.chat_body(), headers=handed("far", home="yes")))
    await far.call()
    begun = asyncio.get_running_loop().time()
    client = await dial(gateway)
    reply = await client.chat(handed("far", home="yes"))
    assert (reply.status, reply.header(LAST_WORD)) == (503, "nobody")
    waits = await dial(gateway)
    await waits.send(waits.request(body=waits.chat_body(), headers=handed("far")))
    async with asyncio.timeout(10):
        while not gateway.sample("spillway_queue_requests"):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.005)
    reply = await client.chat(handed("far", home="yes"), stream=True)  # it does not stand in line either
    assert (reply.status, reply.header(LAST_WORD)) == (503, "nobody")
    assert asyncio.get_running_loop().time() - begun < 10
    assert gateway.sample("spillway_queue_requests") == 1
    assert len(far.calls) == 1


async def test_what_was_tried_is_not_given_back(gateway, two, dial, say) -> None:
    _, far = await two(far=say.steps(say.error(500)), retry={"attempts": 1})
    reply = await (await dial(gateway)).chat(handed("far", home="yes"))
    assert reply.status in (500, 503)
    assert reply.header(LAST_WORD) == "gateway"
    assert len(far.calls) == 1


async def test_who_has_hardly_any_time_left_waits_no_longer_to_be_known(gateway, two, dial, rig) -> None:
    near, far = await two()
    rig.tokens.waits = asyncio.Event()
    begun = asyncio.get_running_loop().time()
    reply = await (await dial(gateway)).chat(handed("far", deadline=0.05))
    assert asyncio.get_running_loop().time() - begun < PATIENCE / 2
    assert (reply.status, len(near.calls), len(far.calls)) == (200, 1, 0)
    rig.tokens.waits.set()
