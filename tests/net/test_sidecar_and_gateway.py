"""A sidecar, its gateway and the operator of both, as they are and on sockets: what the three make of one request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.net.test_accepting import rig
from tests.net.test_consumers import CLOSED, secret
from tests.operator.rig import Rig, token_of

from spillway_balancer.app import Balancer, Settings
from spillway_balancer.net.credentials import Credentials
from spillway_balancer.net.filesource import judge
from spillway_balancer.net.operator_source import Where
from spillway_balancer.net.sidecar import Sidecar

__all__ = ["rig"]

POD = token_of("default", "shop-1", "team")
SERVED_BY = "x-spillway-served-by"


class Both:
    """`car` in front of `gateway`; both follow the operator."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig = rig
        self._folder = folder
        self.gateway: Balancer
        self.car: Balancer

    async def start(self) -> None:
        folder, secrets = self._folder, self._folder / "secrets"
        for account in ("a", "ann"):
            (secrets / account).mkdir(parents=True)
            (secrets / account / "api-key").write_text(f"sk-{account}")
        (folder / "ca.crt").write_bytes(self.rig.made.authority)
        (folder / "gateway").write_text(token_of("chat", "pod-1"))
        (folder / "pod").write_text(POD)
        where = Where(self._operator, "chat", folder / "gateway", folder / "ca.crt")
        self.gateway = Balancer(Settings(operator=where, gateway="chat", port=0, seed=1, secrets=secrets))
        await self.gateway.start()
        beside = Sidecar(f"http://127.0.0.1:{self.gateway.port}", folder / "pod")
        where = Where(self._operator, "chat", folder / "pod", folder / "ca.crt", beside)
        self.car = Balancer(Settings(operator=where, gateway="chat", port=0, seed=1))
        await self.car.start()

    @property
    def _operator(self) -> str:
        return f"https://localhost:{self.rig.server.port}"

    def shows(self, token: str) -> None:
        """The sidecar shows this to the gateway from now on."""
        (self._folder / "pod").write_text(token)

    async def take(self, *docs: dict[str, Any]) -> None:
        """These objects are in force in both."""
        file = self._folder / "objects.yaml"
        for doc in docs:
            if doc["kind"] == "RoutePolicy":
                doc["spec"]["gateways"] = ["chat"]
        file.write_text(yaml.safe_dump_all(docs))
        judged = judge((file,), "chat", Credentials(self._folder / "secrets"))
        assert judged.snapshot is not None, judged.errors
        digest = self.rig.publish(judged.snapshot)
        await self.rig.until(lambda: (one := self.rig.subscriber("pod-1")) is not None and one.digest == digest)
        await self.until(lambda: self.rig.server.sidecars("chat") == {"Current": 1})

    @staticmethod
    async def until(check: Callable[[], Any]) -> None:
        async with asyncio.timeout(15):
            while not check():  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.005)


def sample(one: Balancer, name: str, **labels: str) -> float:
    samples = [each for family in one.telemetry.registry.collect() for each in family.samples]
    return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())


@pytest.fixture
async def both(rig: Rig, tmp_path: Path) -> AsyncIterator[Both]:
    one = Both(rig, tmp_path)
    await one.start()
    yield one
    for balancer in (one.car, one.gateway):
        await one.until(lambda balancer=balancer: not balancer.proxy.in_flight)
        endpoints = [each for pool in balancer.serving.current.pools.values() for each in pool.endpoints.values()]
        assert not [each.name for each in endpoints if each.load.in_flight], "no lease is held"
        await balancer.stop()


World = Callable[..., Awaitable[tuple[Any, Any]]]


@pytest.fixture
def world(both: Both, objects: Any, endpoint: Any) -> World:
    """Engines that anybody may ask, and behind them a cloud that takes a key."""

    async def start(
        *more: dict[str, Any],
        near: Any = None,
        far: Any = None,
        first: dict[str, Any] | None = None,
        behind: dict[str, Any] | None = None,
        pool: dict[str, Any] | None = None,
        cloud: dict[str, Any] | None = None,
        **spec: Any,
    ) -> tuple[Any, Any]:
        one, other = await endpoint(near), await endpoint(far)
        tiers = [
            {"name": "near", "pools": [{"name": "engines"}], **(first or {})},
            {"name": "far", "pools": [{"name": "cloud"}], "enterOn": ["Capacity", "Transient"], **(behind or {})},
        ]
        await both.take(
            objects.pool("engines", one, **(pool or {})),
            objects.provider("cloud", f"{other.url}/v1", "a", **(cloud or {})),
            objects.route(tiers=tiers, **spec),
            *more,
        )
        return one, other

    return start


BUSY = {"spill": {"inFlightPerEndpoint": {"start": 0, "full": 1}, "smoothing": "0s", "minDwell": "0s", "by": "Request"}}
"""A tier that every further request leaves as long as one is there."""


async def busy(say: Any, dial: Any, both: Both, near: Any) -> tuple[Any, asyncio.Event]:
    """The sidecar has one request at the engine, which ends with the event."""
    end = asyncio.Event()
    near.plan.append(say.steps(say.SSE + say.chunks(say.role(), say.word("x")), end, say.chunks(say.DONE) + say.END))
    client = await dial(both.car)
    await client.send(client.request(body=client.chat_body(stream=True)))
    await near.call()
    return client, end


async def test_what_takes_no_key_takes_no_gateway(both, world, dial) -> None:
    near, far = await world()
    for stream in (False, True):
        reply = await (await dial(both.car)).chat(stream=stream)
        assert (reply.status, reply.text, reply.header(SERVED_BY)) == (200, "hello", None)
    assert (len(near.calls), len(far.calls)) == (2, 0)
    assert sample(both.gateway, "spillway_requests_total") == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_what_does_is_entered_by_the_gateway_where_the_sidecar_is(both, world, dial, say, stream) -> None:
    near, far = await world(near=say.steps(say.error(503)))
    reply = await (await dial(both.car)).chat(stream=stream)
    assert (reply.status, reply.text, reply.header(SERVED_BY)) == (200, "hello", "gateway")
    assert (len(near.calls), len(far.calls)) == (1, 1), "the gateway has not asked the engine again"
    assert far.calls[0].header("authorization") == "Bearer sk-a"
    assert sample(both.gateway, "spillway_forwarded_requests_total", vouched="known") == 1


async def test_one_budget_of_attempts_for_both(both, world, dial, say) -> None:
    retry = {"attempts": 3, "budgetPercent": 100, "backoffBase": "1ms", "retryStatusCodes": [500]}
    down = say.steps(say.error(500))
    near, far = await world(near=down, far=down, retry=retry)
    reply = await (await dial(both.car)).chat()
    assert reply.status in (500, 503)
    assert len(near.calls) + len(far.calls) <= 3
    assert far.calls


async def test_one_deadline_for_both(both, world, dial, say) -> None:
    hangs = say.steps(say.HANG)
    times = {"connect": "400ms", "firstByte": "400ms", "total": "1s"}
    near, far = await world(near=hangs, far=hangs, timeouts=times, retry={"retryOn": ["FirstByteTimeout"]})
    begun = asyncio.get_running_loop().time()
    reply = await (await dial(both.car)).chat()
    assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")
    assert asyncio.get_running_loop().time() - begun < 5
    assert (len(near.calls), len(far.calls)) == (1, 1)


@pytest.mark.parametrize(
    "limits",
    [{"maxSharePercent": 0}, {"requestsPerMinute": 1}, {"budget": {"amount": "0.000001", "period": "Day"}}],
    ids=["share", "rate", "budget"],
)
async def test_what_left_for_load_comes_home_where_the_cloud_s_limits_keep_it_out(
    both, world, dial, say, limits
) -> None:
    price = {"models": [{"name": "cloud-mini", "price": {"input": "1", "output": "1"}}]}
    near, far = await world(first=BUSY, behind={"limits": limits}, cloud=price, queue={"maxWait": "20s"})
    holds, end = await busy(say, dial, both, near)
    client = await dial(both.car)
    begun = asyncio.get_running_loop().time()
    for _ in range(3):
        assert (await client.chat(max_tokens=10)).status == 200
    assert asyncio.get_running_loop().time() - begun < 5, "and has waited for nobody"
    came = len(far.calls)
    assert came == (1 if "requestsPerMinute" in limits else 0)
    assert len(near.calls) == 4 - came
    given_back = sample(both.car, "spillway_attempts_total", pool="@gateway/chat", reason="saturated")
    assert given_back == 3 - came
    end.set()
    assert (await holds.reply()).status == 200


async def test_where_home_is_full_it_waits_in_line_at_home(both, world, dial, say) -> None:
    near, far = await world(
        first=BUSY,
        behind={"limits": {"maxSharePercent": 0}},
        pool={"capacity": {"maxInFlightPerEndpoint": 1}},
        queue={"maxWait": "20s"},
    )
    _, end = await busy(say, dial, both, near)
    client = await dial(both.car)
    waiting = asyncio.create_task(client.chat())
    await both.until(lambda: sample(both.car, "spillway_queue_requests") == 1)
    assert sample(both.gateway, "spillway_queue_requests") == 0
    end.set()
    assert (await waiting).text == "hello"
    assert (len(near.calls), len(far.calls)) == (2, 0)
    assert sample(both.car, "spillway_attempts_total", pool="@gateway/chat") == 1, "and asks the gateway no more"


async def test_a_share_is_one_of_all_requests_those_that_the_gateway_does_not_see_too(both, world, dial, say) -> None:
    near, far = await world(first=BUSY, behind={"limits": {"maxSharePercent": 50}})
    client = await dial(both.car)
    for _ in range(5):
        assert (await client.chat()).status == 200
    assert len(near.calls) == 5
    _, end = await busy(say, dial, both, near)
    for _ in range(8):
        assert (await client.chat()).status == 200
    assert len(far.calls) == 7, "half of the fourteen that the rule has had"
    end.set()


async def test_what_has_failed_here_waits_there(both, world, dial, say) -> None:
    """There is nothing to go back to: the gateway's queue is the place to wait."""
    near, far = await world(
        near=say.steps(say.error(503)), cloud={"capacity": {"maxInFlightPerEndpoint": 1}}, queue={"maxWait": "20s"}
    )
    end = asyncio.Event()
    far.plan.append(say.steps(end, say.completion("first")))
    first, second = await dial(both.car), await dial(both.car)
    one = asyncio.create_task(first.chat())
    await far.call()
    other = asyncio.create_task(second.chat())
    await both.until(lambda: sample(both.gateway, "spillway_queue_requests") == 1)
    end.set()
    assert {(await one).text, (await other).text} == {"first", "hello"}
    assert len(near.calls) == 2


async def test_with_the_token_of_nobody_the_gateway_serves_nothing(both, world, dial, say) -> None:
    _, far = await world(near=say.steps(say.error(503)))
    both.shows("nobody.s.token")
    reply = await (await dial(both.car)).chat()
    assert reply.status == 503
    assert reply.header(SERVED_BY) is None
    assert far.calls == []
    assert sample(both.gateway, "spillway_forwarded_requests_total", vouched="unknown") >= 1


async def test_without_the_operator_both_go_on(both, world, dial, say, rig) -> None:
    _, far = await world(near=say.steps(say.error(503)))
    client = await dial(both.car)
    assert (await client.chat()).header(SERVED_BY) == "gateway"
    await rig.stop()
    assert (await client.chat()).header(SERVED_BY) == "gateway"
    assert len(far.calls) == 2
    both.shows(token_of("default", "shop-2", "team"))  # as after a rotation: nobody can say whose it is
    reply = await client.chat()
    assert (reply.status, reply.header(SERVED_BY)) == (200, "gateway"), "and it is served as anybody's"


async def test_one_copy_for_a_mirror(both, world, dial, say, objects, endpoint) -> None:
    mirror = await endpoint()
    copy = {"pool": {"name": "trial"}, "percent": 100}
    await world(objects.pool("trial", mirror), near=say.steps(say.error(503)), mirror=copy)
    assert (await (await dial(both.car)).chat()).header(SERVED_BY) == "gateway"
    assert sample(both.gateway, "spillway_mirror_requests_total") == 0
    await both.until(lambda: sample(both.car, "spillway_mirror_requests_total", result="ok") == 1)
    assert len(mirror.calls) == 1


async def test_a_policy_that_knows_its_callers_is_the_gateway_s(both, world, dial) -> None:
    near, _ = await world(secret("ann", "sk-ann"), **CLOSED)
    client = await dial(both.car)
    refused = await client.chat()
    assert (refused.status, refused.error["code"], refused.header(SERVED_BY)) == (401, "invalid_api_key", "gateway")
    reply = await client.chat([("authorization", "Bearer sk-ann")])
    assert (reply.status, reply.header(SERVED_BY)) == (200, "gateway")
    assert len(near.calls) == 1
    assert near.calls[0].header("authorization") is None


async def test_a_guard_holds_on_both_sides(both, world, dial, say) -> None:
    guards = [{"name": "eu", "require": {"jurisdictions": ["EU"]}}]
    near, far = await world(
        near=say.steps(say.error(503)), pool={"dataHandling": {"jurisdictions": ["EU"]}}, guards=guards
    )
    reply = await (await dial(both.car)).chat()
    assert (reply.status, reply.error["code"]) == (503, "no_compliant_target")
    assert (len(near.calls), len(far.calls)) == (1, 0)


async def test_a_model_that_nobody_has(both, world, dial) -> None:
    await world()
    reply = await (await dial(both.car)).chat(model="unheard-of")
    assert (reply.status, reply.error["code"], reply.header(SERVED_BY)) == (404, "model_not_found", "gateway")
