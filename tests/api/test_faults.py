"""A fault of the compilation over one object is told there, and serves nobody worse: not the others, not itself."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spillway_api import compile as compilation
from spillway_api.compile import Cluster, compile_snapshot
from spillway_api.faults import INTERNAL
from spillway_api.known import named
from spillway_api.snapshot import encode

POOL = "spec.rules[0].tiers[0].pools[0]"
ONE_TIER = {"spec.rules[0].tiers[1]": "ABSENT", "spec.rules[0].tiers[0].spill": "ABSENT"}
NAMES = ("a", "b", "c")
faulty = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def world(built):
    """Three pools, and three policies of one pool each."""
    found = []
    for name in NAMES:
        found.append(built("pool", {"metadata.name": name}))
        edits = {**ONE_TIER, "metadata.name": name, f"{POOL}.name": name, "spec.models": [f"model-{name}"]}
        found.append(built("policy", edits | {f"{POOL}.model": "llama-8b"}))
    return found


def compiled(objects, last=None):
    return compile_snapshot(objects, "default", lambda _secret, _key: True, Cluster(last_good=last))


@pytest.fixture
def failing(monkeypatch):
    """`failing(names)`: from now on the compilation fails over the objects of these names (Kind/namespace/name)."""
    of_pool, of_route = compilation.compile_pool, compilation.compile_route

    def fail(names):
        def one(work):
            def compiles(item, *rest):
                made = work(item, *rest)
                if named(item) in names:
                    raise KeyError("sk-quagga-secret")
                return made

            return compiles

        monkeypatch.setattr(compilation, "compile_pool", one(of_pool))
        monkeypatch.setattr(compilation, "compile_route", one(of_route))

    return fail


some = st.frozensets(
    st.sampled_from([f"{kind}/default/{name}" for kind in ("ModelPool", "RoutePolicy") for name in NAMES])
)


def test_all_is_well_without_a_fault(world):
    sound = compiled(world)
    assert len(sound.snapshot.routes) == len(sound.snapshot.pools) == len(NAMES)
    assert not any(problem.fatal for problem in sound.problems)


@faulty
@given(some)
def test_what_served_before_serves_on_to_the_byte(world, failing, names):
    failing(())
    before = compiled(world)
    failing(names)
    after = compiled(world, before.memory)
    assert encode(after.snapshot) == encode(before.snapshot)
    assert after.memory == before.memory
    assert {problem.object for problem in after.problems if problem.reason == INTERNAL} == names
    failing(())
    assert compiled(world, after.memory) == before


@faulty
@given(some)
def test_what_never_served_is_left_out_and_the_others_are_as_without_it(world, failing, names):
    failing(())
    sound = compiled([each for each in world if named(each) not in names])
    failing(names)
    after = compiled(world)
    assert encode(after.snapshot) == encode(sound.snapshot)
    assert {each for each in after.problems if each.object not in names} == set(sound.problems)
    assert {problem.object for problem in after.problems if problem.reason == INTERNAL} == names


def test_a_fault_is_told_with_its_place_and_without_its_words(world, failing):
    failing(("ModelPool/default/a",))
    (problem,) = (each for each in compiled(world).problems if each.reason == INTERNAL)
    assert (problem.object, problem.fatal) == ("ModelPool/default/a", True)
    assert "KeyError at test_faults.py:" in problem.message
    assert "quagga" not in problem.message


def test_consumers_that_cannot_be_looked_up_stay_those_of_before(world, failing, monkeypatch):
    before = compiled(world)

    def fails(route, *rest):
        raise RecursionError

    monkeypatch.setattr(compilation, "refreshed", fails)
    failing(("RoutePolicy/default/a",))
    after = compiled(world, before.memory)
    assert after.snapshot == before.snapshot
    assert [each.object for each in after.problems if each.reason == INTERNAL] == ["RoutePolicy/default/a"] * 2
