"""Last good versions: what has become bad goes on as it was, as far as that can be had, and harms nobody."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.compile import Cluster, compile_snapshot
from spillway_api.snapshot import Snapshot, digest

POOL = "spec.rules[0].tiers[0].pools[0]"
ONE_TIER = {"spec.rules[0].tiers[1]": "ABSENT", "spec.rules[0].tiers[0].spill": "ABSENT"}
ALL = {"spec.allowedRoutes": {"from": "All"}}


def compiled(objects, last=None, *, unreadable=(), gateway="default"):
    cluster = Cluster(last_good=last, unreadable=unreadable)
    return compile_snapshot(objects, gateway, lambda _secret, _key: True, cluster)


def routes(of):
    return {route.name: route for route in of.snapshot.routes}


def targets(route):
    return [target.pool for rule in route.rules for tier in rule.tiers for target in tier.targets]


@pytest.fixture
def policy(built):
    """`policy("name", "pool", models...)`: a policy of one tier with one pool."""

    def make(name, pool, *models, **edits):
        return built(
            "policy",
            {**ONE_TIER, "metadata.name": name, f"{POOL}.name": pool, "spec.models": list(models or [name]), **edits},
        )

    return make


@pytest.fixture
def pools(built):
    return [built("pool"), built("provider")]


def test_a_policy_edited_to_a_bad_state_goes_on_with_its_route(built, pools):
    before = compiled([*pools, built("policy")])
    edits = {f"{POOL}.name": "gone", "spec.timeouts": {"total": "7m"}, "spec.models": ["chat", "more"]}
    after = compiled([*pools, built("policy", edits)], before.memory)
    assert after.snapshot == before.snapshot
    assert after.kept == {"default/chat"}
    assert [(problem.object, problem.reason) for problem in after.problems] == [
        ("RoutePolicy/default/chat", "PoolNotFound")
    ]


def test_and_back_again(built, pools):
    before = compiled([*pools, built("policy")])
    bad = compiled([*pools, built("policy", {f"{POOL}.name": "gone"})], before.memory)
    good = compiled([*pools, built("policy", {"spec.models": ["new"]})], bad.memory)
    assert good.kept == frozenset()
    assert routes(good)["default/chat"].models == ("new",)


def test_a_policy_that_never_was_good_serves_what_it_can(built, pools):
    first = compiled([*pools, built("policy", {f"{POOL}.name": "gone"})], Snapshot("default", (), ()))
    assert first.kept == frozenset()
    assert targets(routes(first)["default/chat"]) == ["default/openai"]


def test_a_policy_that_is_gone_is_gone(built, pools):
    before = compiled([*pools, built("policy")])
    assert compiled(pools, before.memory).snapshot.routes == ()


def test_a_policy_that_moved_to_another_gateway_is_gone_from_this_one(built, pools):
    before = compiled([*pools, built("policy")])
    moved = built("policy", {"spec.gateways": ["edge"], f"{POOL}.name": "gone"})
    assert compiled([*pools, moved], before.memory).snapshot.routes == ()


def test_what_is_good_is_never_taken_from_the_last_version(built, pools):
    before = compiled([*pools, built("policy")])
    edited = [*pools, built("policy", {"spec.models": ["other"]})]
    assert compiled(edited, before.memory) == compiled(edited)


def test_names_that_others_have_taken_are_dropped(policy, pools):
    before = compiled([*pools, policy("a", "llama", "x", "y")])
    bad = policy("a", "gone", "z")
    after = compiled([*pools, bad, policy("b", "openai", "y")], before.memory)
    assert routes(after)["default/a"].models == ("x",)
    assert routes(after)["default/b"].models == ("y",)


def test_with_all_its_names_taken_nothing_is_kept(policy, pools):
    before = compiled([*pools, policy("a", "llama", "x")])
    after = compiled([*pools, policy("a", "gone", "z"), policy("b", "openai", "x")], before.memory)
    assert set(routes(after)) == {"default/b"}
    assert after.kept == frozenset()
    assert [pool.name for pool in after.snapshot.pools] == ["default/openai"]


def test_the_present_version_of_a_policy_without_a_last_good_one_holds_its_names_too(policy, pools):
    """Bad as both are, a public name has one route only, else it would depend on their order which one answers."""
    before = compiled([*pools, policy("a", "llama", "x", "y")])
    half = {f"{POOL}": {"name": "openai"}, "spec.rules[0].tiers[0].pools[1]": {"name": "gone"}}
    after = compiled([*pools, policy("a", "gone", "z"), policy("b", "openai", "y", **half)], before.memory)
    assert routes(after)["default/a"].models == ("x",)
    assert routes(after)["default/b"].models == ("y",)
    assert after.kept == {"default/a"}


def test_who_keeps_nothing_falls_back_on_its_present_version_and_may_take_a_name_with_it(policy, pools):
    before = compiled([*pools, policy("a", "llama", "x"), policy("b", "llama", "w")])
    half = {f"{POOL}": {"name": "openai"}, "spec.rules[0].tiers[0].pools[1]": {"name": "gone"}}
    objects = [policy("a", "llama", "w", **half), policy("b", "gone", "q"), policy("c", "llama", "x")]
    after = compiled([*pools, *objects], before.memory)
    assert {name: route.models for name, route in routes(after).items()} == {"default/a": ("w",), "default/c": ("x",)}
    assert after.kept == frozenset()


def test_a_conflict_keeps_the_old_route(policy, pools):
    one, two = policy("a", "llama", "x"), policy("b", "openai", "y")
    before = compiled([*pools, one, two])
    after = compiled([*pools, one, policy("b", "llama", "x", "z")], before.memory)
    assert [problem.reason for problem in after.problems] == ["ModelNameConflict"]
    assert after.snapshot == before.snapshot
    assert after.kept == {"default/b"}


def test_pools_that_are_gone_are_trimmed_and_the_tier_before_keeps_its_requests(built, pools):
    before = compiled([*pools, built("policy")])
    after = compiled([pools[0], built("policy")], before.memory)
    route = routes(after)["default/chat"]
    assert targets(route) == ["default/llama"]
    assert route.rules[0].tiers[0].spill is None
    assert [pool.name for pool in after.snapshot.pools] == ["default/llama"]


def test_with_every_pool_gone_the_route_is_gone(built, pools):
    before = compiled([*pools, built("policy")])
    assert compiled([built("policy")], before.memory).snapshot == Snapshot("default", (), ())


def test_a_tier_that_is_left_with_pools_of_no_weight_is_gone(built, pools):
    weights = {f"{POOL}.weight": 0, "spec.rules[0].tiers[0].pools[1]": {"name": "other"}}
    other = built("pool", {"metadata.name": "other"})
    before = compiled([*pools, other, built("policy", weights)])
    after = compiled([*pools, built("policy", weights)], before.memory)
    assert targets(routes(after)["default/chat"]) == ["default/openai"]


@pytest.mark.parametrize(("model", "edits"), [("llama-8b", {}), (None, {"spec.models": ["llama-8b"]})])
def test_a_model_that_its_pool_no_longer_has_is_trimmed(model, edits, built, pools):
    named = {f"{POOL}.model": model} if model else {}
    policy = built("policy", {**named, **edits})
    before = compiled([*pools, policy])
    changed = built("pool", {"spec.models": [{"name": "one"}, {"name": "two"}]})
    after = compiled([changed, pools[1], policy], before.memory)
    assert targets(routes(after)["default/chat"]) == ["default/openai"]


def test_a_pool_changes_under_a_route_that_is_kept(built, pools):
    """Facts of pools are always today's: only intent has a last good version."""
    before = compiled([*pools, built("policy")])
    bad = built("policy", {"spec.models": ["chat", "chat2"], f"{POOL}.name": "gone"})
    moved = built("pool", {"spec.source.static.endpoints[0].url": "http://10.9.9.9:1"})
    after = compiled([moved, pools[1], bad], before.memory)
    assert after.snapshot.routes == before.snapshot.routes
    assert after.snapshot.pools[0].endpoints[0].url == "http://10.9.9.9:1"


def test_a_pool_that_no_longer_allows_a_namespace_is_left_by_its_routes_at_once(built, pools):
    """The owner of a pool has the last word: a last good version is no way around it."""
    policy = built("policy", {"metadata.namespace": "team", f"{POOL}.namespace": "default", **ONE_TIER})
    before = compiled([built("pool", ALL), policy])
    assert list(routes(before)) == ["team/chat"]
    after = compiled([built("pool"), policy], before.memory)
    assert [problem.reason for problem in after.problems] == ["NotAllowedByPool"]
    assert after.snapshot == Snapshot("default", (), ())


def test_objects_that_cannot_be_read_go_on_as_they_were(built, pools):
    before = compiled([*pools, built("policy")])
    names = ("ModelPool/default/llama", "RoutePolicy/default/chat")
    assert compiled([pools[1]], before.snapshot, unreadable=names).snapshot == before.snapshot
    assert compiled([*pools], before.snapshot, unreadable=names[1:]).kept == {"default/chat"}
    after = compiled([pools[1], built("policy")], before.snapshot, unreadable=names[:1])
    assert (after.snapshot, after.problems, after.kept) == (before.snapshot, (), frozenset())


def test_a_pool_that_cannot_be_read_allows_whom_it_allowed_and_nobody_new(built):
    old = built("policy", {"metadata.namespace": "team", f"{POOL}.namespace": "default", **ONE_TIER})
    before = compiled([built("pool", ALL), old])
    new = built(
        "policy", {"metadata.namespace": "new", f"{POOL}.namespace": "default", **ONE_TIER, "spec.models": ["n"]}
    )
    after = compiled([old, new], before.snapshot, unreadable=["ModelPool/default/llama"])
    assert after.snapshot == before.snapshot
    assert after.kept == {"team/chat"}


def test_what_cannot_be_read_and_never_was_served_is_missing(built, pools):
    after = compiled(pools, unreadable=["ModelPool/default/x", "RoutePolicy/default/y"])
    assert after.snapshot == Snapshot("default", (), ())


# Laws, over a small world in which everything can go wrong.

BREAKS = {
    "pool": {f"{POOL}.name": "gone"},
    "second pool": {"spec.rules[0].tiers[0].pools[1]": {"name": "gone"}},
    "model": {f"{POOL}.model": "unheard-of"},
    "namespace": {f"{POOL}.namespace": "closed"},
    "other name": {"spec.models": ["m9"], f"{POOL}.name": "gone"},
    "taken name": {"spec.models": ["m0", "m9"]},
    "unserved name": {f"{POOL}.name": "two", "spec.models": ["small", "unheard-of"]},
}
TWO = {"metadata.name": "two", "spec.models": [{"name": "small"}, {"name": "large"}]}
NAMES = ("p0", "p1", "p2", "p3")


def world(built):
    """Four policies, each with a name of its own; `m0` is that of the oldest."""
    of_team = {"metadata.namespace": "closed", "metadata.name": "llama"}
    return [built("pool"), built("pool", TWO), built("provider"), built("pool", of_team)]


def stated(built, at, **edits):
    stamp = f"2025-01-0{at + 1}T00:00:00Z"
    base = {**ONE_TIER, "metadata.name": NAMES[at], "metadata.creationTimestamp": stamp, "spec.models": [f"m{at}"]}
    return built("policy", base | edits)


@settings(max_examples=60, deadline=None)
@given(broken=st.integers(1, 3), how=st.sampled_from(sorted(BREAKS)), unreadable=st.booleans())
def test_a_broken_policy_never_changes_a_route_its_own_or_another(broken, how, unreadable, built):
    good = [*world(built), *(stated(built, at) for at in range(4))]
    before = compiled(good)
    assert before.problems == ()
    edited = [*good[:4], *(stated(built, at, **(BREAKS[how] if at == broken else {})) for at in range(4))]
    if unreadable:
        after = compiled(
            good[: 4 + broken] + good[5 + broken :], before.snapshot, unreadable=[f"RoutePolicy/default/p{broken}"]
        )
    else:
        after = compiled(edited, before.memory)
    assert after.snapshot == before.snapshot
    assert after.kept == {f"default/p{broken}"}


HISTORIES = st.lists(
    st.tuples(
        st.lists(st.sampled_from([None, *sorted(BREAKS)]), min_size=4, max_size=4),
        st.sets(st.integers(0, 3), max_size=2),
        st.sets(st.integers(0, 3), max_size=2),
    ),
    min_size=1,
    max_size=4,
)
"""States one after the other: how each policy is broken, which pools are gone, which policies cannot be read."""


def replayed(history, built, shuffle=None):
    last = None
    for breaks, gone, unread in history:
        objects = [pool for at, pool in enumerate(world(built)) if at not in gone]
        objects += [stated(built, at, **BREAKS.get(how, {})) for at, how in enumerate(breaks) if at not in unread]
        unreadable = [f"RoutePolicy/default/{NAMES[at]}" for at in unread]
        if shuffle is not None:
            shuffle.shuffle(objects)
            shuffle.shuffle(unreadable)
            if last is not None:
                last = msgspec.structs.replace(last, routes=tuple(shuffle.sample(last.routes, len(last.routes))))
        state = compiled(objects, last, unreadable=unreadable)
        yield objects, unreadable, state
        last = state.snapshot


@settings(max_examples=40, deadline=None)
@given(history=HISTORIES)
def test_compiling_again_with_what_is_served_changes_nothing(history, built):
    for objects, unreadable, state in replayed(history, built):
        again = compiled(objects, state.snapshot, unreadable=unreadable)
        assert again.snapshot == state.snapshot
        assert again.problems == state.problems


@settings(max_examples=40, deadline=None)
@given(history=HISTORIES)
def test_whatever_happened_a_name_has_one_route_and_every_target_a_pool_with_its_model(history, built):
    for _, _, state in replayed(history, built):
        names = [model for route in state.snapshot.routes for model in route.models]
        assert len(names) == len(set(names))
        served = {pool.name: {model.name for model in pool.models} for pool in state.snapshot.pools}
        used = set()
        for route in state.snapshot.routes:
            assert route.models
            for tier in (tier for rule in route.rules for tier in rule.tiers):
                assert any(target.weight for target in tier.targets)
                used |= {target.pool for target in tier.targets}
                assert all(target.model is None or target.model in served[target.pool] for target in tier.targets)
            assert all(rule.tiers[-1].spill is None for rule in route.rules)
        assert used == set(served)
        assert list(state.snapshot.pools) == sorted(state.snapshot.pools, key=lambda pool: pool.name)
        assert list(state.snapshot.routes) == sorted(state.snapshot.routes, key=lambda route: route.name)


@settings(max_examples=30, deadline=None)
@given(history=HISTORIES, seed=st.integers(0, 2**32))
def test_the_order_of_objects_never_matters_with_a_last_good_state_either(history, seed, built):
    shuffled = replayed(history, built, random.Random(seed))
    for (_, _, expected), (_, _, state) in zip(replayed(history, built), shuffled, strict=True):
        assert state == expected
        assert digest(state.snapshot) == digest(expected.snapshot)


def test_what_was_never_good_depends_on_no_history(built, pools):
    """Else a policy would stay without a pool that came after it, until the last of its faults was mended."""
    bad = built("policy", {f"{POOL}.name": "gone"})
    first = compiled([pools[1], bad])
    cluster = [built("pool", {"metadata.name": "gone"}), pools[1], built("policy", {f"{POOL}.name": "gone"})]
    broken = [*cluster[:2], built("policy", {f"{POOL}.name": "gone", "spec.rules[0].tiers[1].pools[0].name": "no"})]
    assert compiled(cluster, first.memory) == compiled(cluster)
    assert compiled(broken, first.memory) == compiled(broken)


def test_a_good_version_is_remembered_whole_while_it_serves_in_part(built, pools):
    before = compiled([*pools, built("policy")])
    without = compiled([pools[1], built("policy", {"spec.rules[0].tiers[1].pools[0].name": "no"})], before.memory)
    assert targets(routes(without)["default/chat"]) == ["default/openai"]
    again = compiled([*pools, built("policy", {"spec.rules[0].tiers[1].pools[0].name": "no"})], without.memory)
    assert again.snapshot == before.snapshot
