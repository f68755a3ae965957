"""The operator fails over one object: that object is told, serves on as it did, and all others never notice."""

from __future__ import annotations

import asyncio
import logging

import pytest
import tests.operator.objects as make
from tests.operator.bench import Bench
from tests.operator.clock import run
from tests.operator.fleets import Fleet, stored

from spillway_operator import plan, world

ONE, OTHER = "ModelPool/default/one", "ModelPool/default/other"
MINE, YOURS = "RoutePolicy/default/mine", "RoutePolicy/default/yours"
CLUSTER = [
    make.model_pool("one", make.pods()),
    make.model_pool("other", make.pods(), models=("n",)),
    make.route_policy("mine", "one", models=("m",)),
    make.route_policy("yours", "other", models=("n",)),
    make.pod("a"),
]


@pytest.fixture
def fleet():
    """All is well with two pools, each with a policy."""
    fleet = Fleet().see(*CLUSTER).acknowledge()
    assert all(fleet.condition(key, "Ready")[0] == "True" for key in (ONE, OTHER, MINE, YOURS))
    return fleet


@pytest.fixture
def fails(monkeypatch):
    """`fails(module, function)`: from now on it does, for the pool `one` and the policy `mine`."""

    def fail(module, name):
        work = getattr(module, name)

        def failing(*given):
            subject = next(each for each in given if hasattr(each, "name") or hasattr(each, "metadata"))
            own = subject.metadata.name if hasattr(subject, "metadata") else subject.name
            if own in ("one", "mine"):
                raise IndexError("sk-quagga")
            return work(*given)

        monkeypatch.setattr(module, name, failing)

    return fail


def test_a_source_over_which_it_fails_keeps_its_endpoints(fleet, fails):
    before = fleet.progress["default"].compiled.snapshot
    fails(world, "find")
    fleet.see(*CLUSTER, make.pod("b", "10.0.0.2")).acknowledge()
    after = {pool.name: len(pool.endpoints) for pool in fleet.progress["default"].compiled.snapshot.pools}
    assert after == {"default/one": 1, "default/other": 2}
    assert {pool.name: len(pool.endpoints) for pool in before.pools} == {"default/one": 1, "default/other": 1}
    assert fleet.condition(ONE, "Accepted") == ("False", "Internal")
    assert all(fleet.condition(key, "Ready")[0] == "True" for key in (OTHER, MINE, YOURS))


@pytest.mark.parametrize(("name", "key"), [("_pool_sight", ONE), ("_route_sight", MINE)])
def test_a_status_over_which_it_fails_stays_but_for_what_is_said_of_that(fleet, fails, name, key):
    shown = fleet.statuses()
    there = {each: shown[each].status for each in shown}
    fails(plan, name)
    fleet.see(*stored(CLUSTER, shown)).acknowledge()
    for each, before in there.items():
        if each != key:
            assert fleet.status(each) == before
    status = fleet.status(key)
    told = {each["type"]: each for each in status["conditions"]}
    assert (told["Accepted"]["status"], told["Accepted"]["reason"]) == ("False", "Internal")
    assert "IndexError at test_faults_of_ours.py" in told["Accepted"]["message"]
    assert "quagga" not in str(status)
    kept = {each["type"]: each for each in there[key]["conditions"]}
    assert {name: each for name, each in told.items() if name != "Accepted"} == {
        name: each for name, each in kept.items() if name != "Accepted"
    }


def test_the_log_tells_of_it_once_and_the_operator_goes_on(monkeypatch, fails, caplog):
    async def main():
        bench = await Bench(monkeypatch).start()
        await asyncio.sleep(5)
        bench.api.objects = [*CLUSTER]
        fails(world, "find")
        for _ in range(5):
            bench.see(*CLUSTER)
            await asyncio.sleep(2)
        assert bench.api.conditions(ONE)["Accepted"] == ("False", "Internal")
        assert bench.api.conditions(YOURS)["Ready"] == ("True", "Programmed")
        await bench.it.queue.close()

    with caplog.at_level(logging.ERROR):
        run(main())
    assert [each.getMessage().partition(" (")[0] for each in caplog.records] == [
        f"{ONE}: Spillway failed over this object"
    ]
