"""Where copies go: the pool of a mirror is referred to as those of tiers are, and serves nobody by it."""

from __future__ import annotations

import pytest

from spillway_api.compile import Cluster, compile_snapshot
from spillway_api.snapshot import Mirror, Target, decode, encode


def compiled(objects, last=None):
    return compile_snapshot(objects, "default", lambda _secret, _key: True, Cluster(last_good=last))


@pytest.fixture
def world(built):
    """`world({edits})`: two pools, a third one that only copies go to, and a policy that mirrors to it."""

    def make(edits=None, third=None):
        trial = built("pool", {"metadata.name": "trial", **(third or {})})
        policy = built("mirrored", {"spec.mirror.pool.name": "trial", **(edits or {})})
        return [built("pool"), built("provider"), trial, policy]

    return make


def test_the_pool_of_a_mirror_is_in_the_snapshot_and_in_no_tier(world):
    made = compiled(world({"spec.mirror.pool.model": "llama-8b"}))
    assert not made.problems
    (route,) = made.snapshot.routes
    assert route.mirror == Mirror(Target("default/trial", "llama-8b"), 5)
    assert "default/trial" in [pool.name for pool in made.snapshot.pools]
    assert "default/trial" not in [t.pool for rule in route.rules for tier in rule.tiers for t in tier.targets]
    assert [target.pool for target in route.targets()] == ["default/llama", "default/openai", "default/trial"]
    assert decode(encode(made.snapshot)) == made.snapshot


def test_a_route_without_a_mirror_reads_as_before(world, built):
    (route,) = compiled([built("pool"), built("provider"), built("policy")]).snapshot.routes
    assert route.mirror is None
    assert b"mirror" not in encode(compiled([built("pool"), built("provider"), built("policy")]).snapshot)


@pytest.mark.parametrize(
    ("edits", "third", "path", "reason"),
    [
        ({"spec.mirror.pool.name": "tryal"}, {}, "spec.mirror.pool.name", "PoolNotFound"),
        ({"spec.mirror.pool.model": "gone"}, {}, "spec.mirror.pool.model", "ModelNotInPool"),
        (
            {"spec.mirror.pool.namespace": "team"},
            {"metadata.namespace": "team"},
            "spec.mirror.pool",
            "NotAllowedByPool",
        ),
    ],
)
def test_what_is_amiss_with_a_mirror(world, edits, third, path, reason):
    made = compiled(world(edits, third))
    assert [(problem.path, problem.reason, problem.fatal) for problem in made.problems] == [(path, reason, True)]
    (route,) = made.snapshot.routes
    assert route.mirror is None  # what can be served is served
    assert route.models == ("chat",)


def test_a_pool_of_another_namespace_that_allows_it(world):
    made = compiled(
        world({"spec.mirror.pool.namespace": "team"}, {"metadata.namespace": "team", "spec.allowedRoutes.from": "All"})
    )
    assert not made.problems
    assert made.snapshot.routes[0].mirror == Mirror(Target("team/trial"), 5)


def test_a_policy_that_has_become_bad_goes_on_with_its_mirror(world):
    before = compiled(world())
    after = compiled(world({"spec.mirror.pool.name": "gone"}), before.memory)
    assert after.kept == {"default/chat"}
    assert after.snapshot == before.snapshot


def test_and_without_it_when_its_pool_is_gone(world):
    before = compiled(world())
    objects = [each for each in world() if each.metadata.name != "trial"]
    after = compiled(objects, before.memory)
    assert [problem.reason for problem in after.problems] == ["PoolNotFound"]
    assert after.kept == {"default/chat"}
    assert after.snapshot.routes[0].mirror is None
    assert after.snapshot.routes[0].models == ("chat",)
