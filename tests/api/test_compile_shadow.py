"""Policies in Shadow claim no name, and are in the snapshot as what they are."""

from __future__ import annotations

import pytest

from spillway_api.compile import Cluster, compile_snapshot
from spillway_api.snapshot import decode, encode

OLD = "2020-01-01T00:00:00Z"
POOL = "spec.rules[0].tiers[0].pools[0].name"


def compiled(objects, last=None):
    return compile_snapshot(objects, "default", lambda _secret, _key: True, Cluster(last_good=last))


def modes(made):
    return {route.name: (route.mode, route.models) for route in made.snapshot.routes}


@pytest.fixture
def pools(built):
    return [built("pool"), built("provider")]


@pytest.fixture
def shadow(built):
    def make(name="trial", **edits):
        edits = {"metadata.name": name, "metadata.creationTimestamp": OLD, "spec.mode": "Shadow", **edits}
        return built("policy", edits)

    return make


def test_a_shadow_shares_the_names_of_others_and_of_other_shadows(pools, built, shadow):
    made = compiled([*pools, built("policy"), shadow("one"), shadow("two")])
    assert not made.problems
    assert modes(made) == {
        "default/chat": ("Enforce", ("chat",)),
        "default/one": ("Shadow", ("chat",)),
        "default/two": ("Shadow", ("chat",)),
    }
    assert decode(encode(made.snapshot)) == made.snapshot


def test_policies_that_decide_conflict_as_before(pools, built, shadow):
    made = compiled([*pools, built("policy"), shadow(), built("policy", {"metadata.name": "clash"})])
    assert [(problem.object, problem.reason) for problem in made.problems] == [
        ("RoutePolicy/default/clash", "ModelNameConflict")
    ]


def test_a_route_that_decides_reads_as_before(pools, built):
    assert b"Enforce" not in encode(compiled([*pools, built("policy")]).snapshot)


def test_a_shadow_that_has_become_bad_looks_on_as_it_was(pools, built, shadow):
    before = compiled([*pools, built("policy"), shadow()])
    after = compiled([*pools, built("policy"), shadow(**{POOL: "gone"})], before.memory)
    assert after.kept == {"default/trial"}
    assert after.snapshot == before.snapshot


def test_a_policy_that_was_taken_back_into_shadow_gives_its_names_free(pools, built, shadow):
    before = compiled([*pools, shadow(**{"spec.mode": "Enforce"})])
    after = compiled([*pools, built("policy"), shadow()], before.memory)
    assert modes(after)["default/chat"] == ("Enforce", ("chat",))
    assert modes(after)["default/trial"] == ("Shadow", ("chat",))


def test_a_bad_policy_whose_last_good_version_decided_goes_on_deciding(pools, built, shadow):
    """And holds its name: another one that came meanwhile for it would be its rival and not its successor."""
    before = compiled([*pools, shadow(**{"spec.mode": "Enforce"})])
    after = compiled([*pools, shadow(**{POOL: "gone"})], before.memory)
    assert after.kept == {"default/trial"}
    assert modes(after)["default/trial"] == ("Enforce", ("chat",))
