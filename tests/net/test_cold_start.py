"""Pools that are scaled to zero, over real sockets: requests are held for them, and others go on meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from msgspec.structs import replace

from spillway_balancer.core.cold import is_wanted


class Bed:
    """A balancer whose pool `local` can be put to sleep and woken, as the operator's snapshots do it."""

    def __init__(self, lb: Any) -> None:
        self.lb = lb
        self._awake = lb.balancer.serving.current.spec

    def sleep(self) -> None:
        pools = (
            replace(each, endpoints=(), wakes=True) if each.name == "default/local" else each for each in self.spec
        )
        self.lb.balancer.serving.swap(replace(self._awake, pools=tuple(pools)))

    def wake(self) -> None:
        pools = (replace(each, wakes=True) if each.name == "default/local" else each for each in self.spec)
        self.lb.balancer.serving.swap(replace(self._awake, pools=tuple(pools)))

    @property
    def spec(self) -> Any:
        return self._awake.pools

    @property
    def wanted(self) -> bool:
        return is_wanted(self.lb.balancer.serving.current.pools["default/local"], time.monotonic())

    @property
    def waiting(self) -> float:
        return float(self.lb.sample("spillway_queue_requests"))


@pytest.fixture
async def bed(serve: Any, endpoint: Any, objects: Any) -> Any:
    """`await bed(spill, queue)`: a tier `home` that sleeps, and with `spill` a tier `away` behind it."""

    async def make(spill: Any = None, **queue: Any) -> Bed:
        home, away = await endpoint(), await endpoint()
        tiers: list[dict[str, Any]] = [{"name": "home", "pools": [{"name": "local"}]}]
        if spill is not None:
            tiers[0]["spill"] = spill
            tiers.append({"name": "away", "pools": [{"name": "other"}]})
        docs = [objects.pool("local", home), objects.pool("other", away), objects.route(tiers=tiers, queue=queue)]
        made = Bed(await serve(docs=docs))
        made.sleep()
        return made

    return make


def tier_of(lb: Any) -> dict[str, float]:
    return {name: lb.sample("spillway_tier_requests_total", tier=name) for name in ("home", "away")}


async def test_requests_wait_for_a_pool_that_is_being_woken_longer_than_for_others(bed, dial) -> None:
    made = await bed(maxWait="50ms")
    assert not made.wanted
    tasks = [asyncio.create_task((await dial(made.lb)).chat()) for _ in range(5)]
    await made.lb.until(lambda: made.waiting == 5)
    assert made.wanted
    await asyncio.sleep(0.1)
    made.wake()
    assert {reply.status for reply in await asyncio.gather(*tasks)} == {200}
    assert tier_of(made.lb) == {"home": 5.0, "away": 0.0}


async def test_who_has_waited_long_enough_for_it_is_told_so(bed, dial) -> None:
    made = await bed(coldStartMaxWait="100ms")
    reply = await (await dial(made.lb)).chat()
    assert (reply.status, reply.error["code"]) == (503, "queue_timeout")


async def test_hold_keeps_requests_though_another_tier_is_open(bed, dial) -> None:
    made = await bed({"whenCold": "Hold"})
    task = asyncio.create_task((await dial(made.lb)).chat())
    await made.lb.until(lambda: made.waiting == 1)
    made.wake()
    assert (await task).status == 200
    assert tier_of(made.lb) == {"home": 1.0, "away": 0.0}


async def test_spill_serves_elsewhere_and_wakes(bed, dial) -> None:
    made = await bed({"whenCold": "Spill"})
    assert (await (await dial(made.lb)).chat()).status == 200
    assert made.wanted
    assert tier_of(made.lb) == {"home": 0.0, "away": 1.0}


async def test_hold_then_spill_goes_on_when_its_time_is_over_whoever_waits_before(bed, dial) -> None:
    made = await bed({"whenCold": "HoldThenSpill", "holdFor": "300ms"})
    began = time.monotonic()
    tasks = [asyncio.create_task((await dial(made.lb)).chat())]
    await made.lb.until(lambda: made.waiting == 1)
    await asyncio.sleep(0.1)
    tasks.append(asyncio.create_task((await dial(made.lb)).chat()))
    await made.lb.until(lambda: made.waiting == 2)
    assert [(await task).status for task in tasks] == [200, 200]
    assert 0.4 <= time.monotonic() - began < 3.0
    assert tier_of(made.lb) == {"home": 0.0, "away": 2.0}


async def test_who_is_held_is_served_at_home_when_it_wakes_in_time(bed, dial) -> None:
    made = await bed({"whenCold": "HoldThenSpill", "holdFor": "10s"})
    task = asyncio.create_task((await dial(made.lb)).chat())
    await made.lb.until(lambda: made.waiting == 1)
    made.wake()
    assert (await task).status == 200
    assert tier_of(made.lb) == {"home": 1.0, "away": 0.0}


@pytest.mark.parametrize("most", [0, 1])
async def test_where_there_is_no_room_to_hold_it_a_request_goes_on_at_once(bed, dial, most) -> None:
    made = await bed({"whenCold": "HoldThenSpill", "holdFor": "10s"}, maxRequests=most)
    held = [asyncio.create_task((await dial(made.lb)).chat()) for _ in range(most)]
    await made.lb.until(lambda: made.waiting == most)
    assert (await (await dial(made.lb)).chat()).status == 200
    assert tier_of(made.lb) == {"home": 0.0, "away": 1.0}
    made.wake()
    assert {reply.status for reply in await asyncio.gather(*held)} <= {200}
