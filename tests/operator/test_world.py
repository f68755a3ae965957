"""What the operator knows of the cluster: which pools a change concerns, and that no other is looked up again."""

from __future__ import annotations

import pytest
import tests.operator.objects as make

from spillway_operator import facts


def item(world, name):
    (only,) = [pool.item for pool in world.pools() if pool.name == name]
    return only


@pytest.fixture
def world():
    return make.world(
        make.model_pool("by-labels", make.pods()),
        make.model_pool("by-service", make.behind()),
        make.model_pool("by-inference", {"inferencePool": {"name": "vllm"}}),
        make.model_pool("static"),
        make.model_pool("far", make.pods(), namespace="team"),
        {**make.model_pool("unreadable"), "spec": None},
        make.pod("a"),
        make.pod("a", namespace="team"),
        make.service(),
        make.endpoint_slice("s", make.at("a", "10.0.0.1", ready=True)),
        make.inference_pool(),
        make.namespace("team", tier="a"),
        make.route_policy(),
    )


def concerned(world, *those):
    return sorted(name for _, name in world.concerned(*those))


def test_a_pod_concerns_the_pools_that_select_it(world):
    assert concerned(world, facts.pod(make.pod("new"))) == ["by-inference", "by-labels"]
    assert world.concerned(facts.pod(make.pod("new", namespace="team"))) == [("team", "far")]
    assert concerned(world, facts.pod(make.pod("web", labels={"app": "web"}))) == []


def test_a_pod_that_changes_its_labels_concerns_those_that_it_leaves(world):
    here, there = make.pod("a"), make.pod("a", labels={"app": "web"})
    for before, after in ((here, there), (there, here)):
        assert concerned(world, facts.pod(before), facts.pod(after)) == ["by-inference", "by-labels"]


def test_services_slices_and_inference_pools_concern_those_that_name_them(world):
    assert concerned(world, facts.service(make.service())) == ["by-service"]
    assert concerned(world, None, facts.endpoint_slice(make.endpoint_slice("t"))) == ["by-service"]
    assert concerned(world, facts.inference_pool(make.inference_pool()), None) == ["by-inference"]
    others = [facts.service(make.service("web")), facts.endpoint_slice(make.endpoint_slice("t", service="web"))]
    assert [concerned(world, other) for other in others] == [[], []]
    assert concerned(world, facts.inference_pool(make.inference_pool("web"))) == []


def test_nothing_concerns_nobody(world):
    assert world.concerned() == world.concerned(None, None) == []


def test_what_was_found_is_remembered_until_something_concerns_it(world):
    pools = [item(world, name) for name in ("by-labels", "by-service", "static")]
    before = [world.found(pool) for pool in pools]
    assert all(world.found(pool) is seen for pool, seen in zip(pools, before, strict=True))
    world.concerned(facts.pod(make.pod("new")))
    assert [world.found(pool) is seen for pool, seen in zip(pools, before, strict=True)] == [False, True, True]


def test_an_edited_pool_is_looked_up_anew(world):
    pool = item(world, "by-labels")
    assert len(world.found(pool).discovered.endpoints) == 1
    edited = facts.model_pool(make.model_pool("by-labels", make.pods(8000, 8001))).item
    assert len(world.found(edited).discovered.endpoints) == 2


def test_a_pool_that_is_gone_is_forgotten(world):
    pool = item(world, "by-labels")
    before = world.found(pool)
    world.forget("default", "by-labels")
    world.forget("default", "never-was")
    assert world.found(pool) is not before


def test_labels_of_namespaces(world):
    assert world.labels("team") == {"tier": "a"}
    assert world.labels("unknown") == {}


def test_what_there_is_none_of(world):
    assert world.service("default", "web") is None
    assert world.inference_pool("team", "vllm") is None
    assert list(world.pods("empty")) == list(world.slices("default", "web")) == []
    assert [policy.name for policy in world.policies()] == ["chat"]
