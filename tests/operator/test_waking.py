"""Workloads behind pools: woken from zero when a balancer says that they are wanted, once, and never otherwise."""

from __future__ import annotations

import asyncio

import pytest
import tests.operator.objects as make
from tests.operator.bench import LLAMA, Api, Bench
from tests.operator.clock import run

from spillway_api.stream import Report, TierReport
from spillway_operator.conditions import RouteSight, TierSight, route_ready
from spillway_operator.opinions import Opinions
from spillway_operator.waking import AGAIN_SECONDS

REF = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "vllm"}
SCALE = "Deployment/default/vllm"
WANTED = Report(wanted=("default/llama",))


async def began(monkeypatch, replicas=0, *, pods=(), leads=True, **scaling):
    """A pool whose workload has so many replicas and these Pods."""
    api = Api()
    api.scales = {} if replicas is None else {SCALE: replicas}
    api.objects = [
        make.model_pool("llama", make.pods(), scaling={"targetRef": REF, **scaling}),
        make.route_policy("chat", "llama"),
        *pods,
    ]
    bench = await Bench(monkeypatch, api, leads).start()
    await asyncio.sleep(3)
    return bench


async def asked(bench, report=WANTED, seconds=3.0):
    """The balancers say so."""
    bench.streams.reports["default"] = report
    bench.it.status_changed()
    await asyncio.sleep(seconds)


def test_what_is_wanted_is_woken_once_to_as_many_as_it_says(monkeypatch):
    async def main():
        bench = await began(monkeypatch, wakeReplicas=3)
        assert bench.api.written("Scale") == []
        await asked(bench)
        for _ in range(5):
            await asked(bench)
        assert [body for what, _, body in bench.api.writes if what == "Scale"] == [3]
        assert bench.api.events.count(("ModelPool", "llama", "Normal", "Woken")) == 1
        await bench.it.queue.close()

    run(main())


def test_it_is_woken_within_a_second(monkeypatch):
    async def main():
        bench = await began(monkeypatch)
        before = asyncio.get_running_loop().time()
        await asked(bench)
        (at,) = bench.api.written("Scale")
        assert at - before < 1.0
        await bench.it.queue.close()

    run(main())


def test_what_nobody_wants_is_looked_at_and_left_alone(monkeypatch):
    async def main():
        bench = await began(monkeypatch)
        await asked(bench, Report(wanted=("default/other", "team/llama")), 120.0)
        assert bench.api.written("Scale") == []
        assert bench.api.conditions(LLAMA)["Ready"] == ("False", "ScaledToZero")
        assert bench.api.conditions(LLAMA)["ResolvedRefs"] == ("True", "ResolvedRefs")
        await bench.it.queue.close()

    run(main())


@pytest.mark.parametrize(
    ("replicas", "settings"),
    [(1, {}), (5, {}), (0, {"leads": False}), (0, {"fromZero": "Disabled"})],
    ids=["it has one", "it has more", "another replica leads", "it is not to be woken"],
)
def test_who_is_not_woken(monkeypatch, replicas, settings):
    async def main():
        bench = await began(monkeypatch, replicas, **settings)
        await asked(bench, seconds=60.0)
        assert bench.api.written("Scale") == []
        await bench.it.queue.close()

    run(main())


def test_one_that_was_put_back_to_zero_is_woken_again_but_not_at_once(monkeypatch):
    async def main():
        bench = await began(monkeypatch)
        await asked(bench)
        bench.api.scales[SCALE] = 0
        await asked(bench)
        assert len(bench.api.written("Scale")) == 1
        await asked(bench, seconds=AGAIN_SECONDS + 10.0)
        first, second = bench.api.written("Scale")
        assert second - first >= AGAIN_SECONDS
        await bench.it.queue.close()

    run(main())


def test_a_target_that_is_not_there_is_said_and_comes_later(monkeypatch):
    async def main():
        bench = await began(monkeypatch, None)
        await asked(bench)
        assert bench.api.conditions(LLAMA)["ResolvedRefs"] == ("False", "ScaleTargetNotFound")
        assert bench.api.conditions(LLAMA)["Ready"] == ("False", "NoEndpoints")
        bench.api.scales[SCALE] = 0
        await asked(bench, seconds=10.0)
        assert bench.api.scales[SCALE] == 1
        assert bench.api.conditions(LLAMA)["ResolvedRefs"] == ("True", "ResolvedRefs")
        await bench.it.queue.close()

    run(main())


@pytest.mark.parametrize(("call", "status"), [("scale", 403), ("rescale", 403), ("scale", 500), ("rescale", 500)])
def test_what_the_operator_may_not_do_is_said_and_stops_nothing_else(monkeypatch, call, status):
    async def main():
        bench = await began(monkeypatch)
        bench.api.no[call] = status
        await asked(bench)
        condition = bench.api.conditions(LLAMA)["ResolvedRefs"]
        assert condition == ("False", "ScaleTargetNotFound")
        assert bench.api.written("Scale") == []
        bench.api.no.clear()
        await asked(bench, seconds=AGAIN_SECONDS + 10.0)
        assert bench.api.scales[SCALE] == 1
        await bench.it.queue.close()

    run(main())


def test_of_two_pools_with_one_workload_the_one_that_may_wakes_it(monkeypatch):
    async def main():
        bench = await began(monkeypatch)
        other = make.model_pool("other", make.pods(), scaling={"targetRef": REF, "fromZero": "Disabled"})
        bench.see(*bench.api.objects, other)
        await asked(bench, Report(wanted=("default/other",)))
        assert bench.api.written("Scale") == []
        await asked(bench, Report(wanted=("default/llama", "default/other")))
        assert len(bench.api.written("Scale")) == 1
        await bench.it.queue.close()

    run(main())


def test_a_pool_whose_pods_are_on_their_way_is_not_called_asleep(monkeypatch):
    async def main():
        bench = await began(monkeypatch, 0, pods=[make.pod("a", ready=False)])
        assert bench.api.conditions(LLAMA)["Ready"] == ("False", "NoEndpoints")
        await bench.it.queue.close()

    run(main())


def tier(state):
    return TierReport("default/chat", "default", "local", state)


def test_a_tier_that_some_balancer_calls_cold_and_none_open_is_cold():
    def seen(*states):
        reports = [Report(tiers=(tier(state),)) for state in states]
        return Opinions(reports).tier("default/chat", "default", "local", 0).state

    assert seen("Cold", "Cold") == "Cold"
    assert seen("Cold", "Unavailable") == "Cold"
    assert seen("Unavailable", "Unavailable") == "Unavailable"
    assert seen("Cold", "Spilling") == "Spilling"


def test_a_policy_whose_tiers_sleep_can_be_served():
    def ready(*states):
        tiers = [TierSight("default", state, state, 0, 0) for state in states]
        return route_ready(RouteSight("", (), (), True, False, tiers))

    sleeping, down = ready("Cold", "Unavailable"), ready("Unavailable")
    assert sleeping.reason != "AllPoolsUnready"
    assert down.status == "False"
