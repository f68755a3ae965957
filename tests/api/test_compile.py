"""Compile: what becomes of objects together, each problem, and that their order never matters."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.compile import Problem, compile_snapshot
from spillway_api.snapshot import Credential, Endpoint, Target, decode, digest, encode
from spillway_api.types import Model, Price

TIER = "spec.rules[0].tiers[0].pools[0]"
TWO_MODELS = {"spec.models": [{"name": "small", "upstreamName": "org/small"}, {"name": "large"}]}


def everything_there(_secret: str, _key: str) -> bool:
    return True


def nothing_there(_secret: str, _key: str) -> bool:
    return False


@pytest.fixture
def world(built):
    """Two pools and the policy that uses them; edits by the name of the base."""

    def make(pool=None, provider=None, policy=None):
        return [built("pool", pool), built("provider", provider), built("policy", policy)]

    return make


def reasons(compiled):
    return [(problem.object, problem.path, problem.reason, problem.fatal) for problem in compiled.problems]


def test_objects_that_fit_become_pools_and_a_route(world):
    compiled = compile_snapshot(world(), "default", everything_there)
    assert compiled.problems == ()
    snapshot = compiled.snapshot
    assert [pool.name for pool in snapshot.pools] == ["default/llama", "default/openai"]
    llama, openai = snapshot.pools
    assert (llama.provider, openai.provider) == (None, "OpenAI")
    credential = Credential("default/engine-key", "api-key", "Authorization", "Bearer ")
    assert llama.endpoints == (Endpoint("a", "http://10.0.0.1:8000", 100, credential),)
    credential = Credential("default/openai-key", "api-key", "Authorization", "Bearer ")
    assert openai.endpoints == (Endpoint("main", "https://api.openai.com/v1", 100, credential),)
    assert llama.models[0].upstream_name == "llama-8b"
    (route,) = snapshot.routes
    assert (route.name, route.models) == ("default/chat", ("chat",))
    local, cloud = route.rules[0].tiers
    assert local.targets == (Target("default/llama", None, 100),)
    assert local.spill is not None
    assert cloud.spill is None


def test_what_a_model_is_reaches_the_balancer(world):
    price = {"input": "0.25", "cachedInput": "0.025", "output": "2.00"}
    compiled = compile_snapshot(world(provider={"spec.models[0].price": price}), "default", everything_there)
    model = decode(encode(compiled.snapshot)).pools[1].models[0]
    assert model == Model("gpt-mini", "gpt-mini", price=Price("0.25", "0.025", "2.00", "USD"))


def test_urls_lose_their_trailing_slash_and_nothing_else(world):
    provider = {"spec.source.provider.baseURL": "https://host/v1/"}
    pool = {"spec.source.static.endpoints[0].url": "http://host:1/base/"}
    first, second = compile_snapshot(world(pool, provider), "default", everything_there).snapshot.pools
    assert (first.endpoints[0].url, second.endpoints[0].url) == ("http://host:1/base", "https://host/v1")


def test_auth_of_a_pool_has_its_own_header(world):
    pool = {"spec.auth": {"secretRef": {"name": "k", "key": "token"}, "header": "X-Key", "prefix": ""}}
    compiled = compile_snapshot(world(pool), "default", everything_there)
    assert compiled.snapshot.pools[0].endpoints[0].credential == Credential("default/k", "token", "X-Key", "")


def test_a_missing_pool_is_left_out_and_named(world):
    compiled = compile_snapshot(world(policy={f"{TIER}.name": "lama"}), "default", everything_there)
    assert reasons(compiled) == [("RoutePolicy/default/chat", f"{TIER}.name", "PoolNotFound", True)]
    assert compiled.problems[0].message == 'no ModelPool "lama" in namespace default; did you mean "llama"?'
    (tier,) = compiled.snapshot.routes[0].rules[0].tiers
    assert tier.name == "cloud"
    assert [pool.name for pool in compiled.snapshot.pools] == ["default/openai"]


def test_a_pool_of_another_namespace_is_not_found(world):
    compiled = compile_snapshot(world(pool={"metadata.namespace": "other"}), "default", everything_there)
    assert reasons(compiled) == [("RoutePolicy/default/chat", f"{TIER}.name", "PoolNotFound", True)]


def test_a_tier_with_nowhere_left_to_spill_keeps_its_requests(world):
    objects = world()
    compiled = compile_snapshot([objects[0], objects[2]], "default", everything_there)
    (tier,) = compiled.snapshot.routes[0].rules[0].tiers
    assert (tier.name, tier.spill) == ("local", None)


def test_a_route_without_any_pool_is_no_route(built):
    compiled = compile_snapshot([built("policy")], "default", everything_there)
    assert compiled.snapshot.routes == compiled.snapshot.pools == ()
    assert len(compiled.problems) == 2


def test_a_tier_whose_only_weight_is_gone_is_gone(world):
    policy = {f"{TIER}.weight": 0, "spec.rules[0].tiers[0].pools[1]": {"name": "gone"}}
    compiled = compile_snapshot(world(policy=policy), "default", everything_there)
    assert [tier.name for tier in compiled.snapshot.routes[0].rules[0].tiers] == ["cloud"]


@pytest.mark.parametrize(
    ("policy", "path", "message"),
    [
        (
            {f"{TIER}.model": "smal"},
            f"{TIER}.model",
            'ModelPool "llama" has no model "smal"; it has "small", "large"',
        ),
        ({}, TIER, 'ModelPool "llama" has no model "chat"; set model to one of "small", "large"'),
        (
            {"spec.models": ["chat", "gpt-*"]},
            TIER,
            'ModelPool "llama" has no model "chat" or "gpt-*"; set model to one of "small", "large"',
        ),
    ],
)
def test_a_model_that_the_pool_lacks(policy, path, message, world):
    compiled = compile_snapshot(world(TWO_MODELS, policy=policy), "default", everything_there)
    assert compiled.problems == (Problem("RoutePolicy/default/chat", path, "ModelNotInPool", message, True),)
    assert [tier.name for tier in compiled.snapshot.routes[0].rules[0].tiers] == ["cloud"]


@pytest.mark.parametrize(
    "policy",
    [
        {f"{TIER}.model": "small"},
        {"spec.models": ["small"]},
        {"spec.models": ["*"]},
        {"spec.models": ["sm*", "unknown"]},
    ],
)
def test_a_model_that_the_pool_has(policy, world):
    compiled = compile_snapshot(world(TWO_MODELS, policy=policy), "default", everything_there)
    assert compiled.problems == ()
    assert len(compiled.snapshot.routes[0].rules[0].tiers) == 2


def test_a_name_that_no_pool_serves_is_named(built):
    policy = {
        "spec.models": ["small", "other"],
        "spec.rules[0].tiers[1]": "ABSENT",
        "spec.rules[0].tiers[0].spill": "ABSENT",
    }
    compiled = compile_snapshot([built("pool", TWO_MODELS), built("policy", policy)], "default", everything_there)
    assert reasons(compiled) == [("RoutePolicy/default/chat", "spec.models[1]", "ModelNotInPool", True)]
    assert compiled.snapshot.routes[0].models == ("small",)


def test_a_name_belongs_to_the_oldest(world, built):
    young = built(
        "policy",
        {
            "metadata.name": "a-young",
            "metadata.creationTimestamp": "2025-02-01T00:00:00Z",
            "spec.models": ["new", "chat"],
        },
    )
    old = built("policy", {"metadata.name": "z-old", "metadata.creationTimestamp": "2025-01-01T00:00:00Z"})
    third = built("policy", {"metadata.name": "third", "spec.models": ["new"]})
    compiled = compile_snapshot([*world()[:2], young, old, third], "default", everything_there)
    assert [route.name for route in compiled.snapshot.routes] == ["default/third", "default/z-old"]
    assert reasons(compiled) == [("RoutePolicy/default/a-young", "spec.models[1]", "ModelNameConflict", True)]
    assert "belongs to RoutePolicy/default/z-old" in compiled.problems[0].message


def test_among_equals_the_first_name_wins(world, built):
    compiled = compile_snapshot([*world(), built("policy", {"metadata.name": "another"})], "default", everything_there)
    assert [route.name for route in compiled.snapshot.routes] == ["default/another"]


def test_the_same_name_on_another_gateway_is_no_conflict(world, built):
    other = built("policy", {"metadata.name": "other", "spec.gateways": ["edge"]})
    objects = [*world(), other]
    for gateway, name in (("default", "default/chat"), ("edge", "default/other")):
        compiled = compile_snapshot(objects, gateway, everything_there)
        assert compiled.problems == ()
        assert [route.name for route in compiled.snapshot.routes] == [name]
        assert compiled.snapshot.gateway == gateway


def test_a_gateway_without_routes_has_an_empty_snapshot(world):
    compiled = compile_snapshot(world(), "nobody", everything_there)
    assert (compiled.snapshot.pools, compiled.snapshot.routes, compiled.problems) == ((), (), ())


def test_missing_secrets_leave_out_endpoints_and_the_pools_live_on(world):
    provider = {
        "spec.source.provider.accounts": [
            {"name": "first", "secretRef": {"name": "first-key"}},
            {"name": "second", "secretRef": {"name": "second-key", "key": "token"}},
            {"name": "open"},
        ]
    }
    asked = []

    def secrets(secret, key):
        asked.append((secret, key))
        return secret == "default/second-key"

    compiled = compile_snapshot(world(provider=provider), "default", secrets)
    assert asked == [
        ("default/engine-key", "api-key"),
        ("default/first-key", "api-key"),
        ("default/second-key", "token"),
    ]
    llama, openai = compiled.snapshot.pools
    assert llama.endpoints == ()
    assert [endpoint.name for endpoint in openai.endpoints] == ["second", "open"]
    assert openai.endpoints[1].credential is None
    assert reasons(compiled) == [
        ("ModelPool/default/llama", "spec.auth.secretRef", "SecretNotFound", False),
        ("ModelPool/default/openai", "spec.source.provider.accounts[0].secretRef", "SecretNotFound", False),
    ]
    assert 'account "first" is left out' in compiled.problems[1].message


@pytest.mark.parametrize(
    "url", ["http://host:99999", "http://host:0", "http://host/a b", "http://host?", "http://a:1:2", 'http://a"b/']
)
def test_a_url_that_cannot_be_dialled_is_invalid(url, world):
    compiled = compile_snapshot(world({"spec.source.static.endpoints[0].url": url}), "default", everything_there)
    path = "spec.source.static.endpoints[0].url"
    assert reasons(compiled) == [("ModelPool/default/llama", path, "Invalid", True)]
    assert compiled.snapshot.pools[0].endpoints == ()


def test_no_secret_is_ever_in_a_snapshot(world):
    """There is no way for one to get in: compile is told that a Secret exists, never what it holds."""
    written = encode(compile_snapshot(world(), "default", everything_there).snapshot)
    assert b'"secret":"default/openai-key"' in written


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), secrets=st.sampled_from([everything_there, nothing_there]))
def test_the_order_of_objects_never_matters(seed, secrets, built):
    objects = [
        built("pool"),
        built("pool", {"metadata.name": "two", **TWO_MODELS}),
        built("pool", {"metadata.namespace": "team"}),
        built("provider"),
        built("policy"),
        built("policy", {"metadata.name": "clash", "spec.models": ["x", "chat"]}),
        built(
            "policy",
            {"metadata.name": "old", "metadata.creationTimestamp": "2024-01-01T00:00:00Z", "spec.models": ["x"]},
        ),
        built("policy", {"metadata.name": "missing", "spec.models": ["y"], f"{TIER}.name": "nowhere"}),
        built("policy", {"metadata.namespace": "team", "spec.models": ["z"]}),
        built("policy", {"metadata.name": "models", "spec.models": ["small"], f"{TIER}.name": "two"}),
        built("pool", {"spec.engine": "vLLM"}),  # the same name again: files refuse it, here it must only be stable
    ]
    expected = compile_snapshot(objects, "default", secrets)
    random.Random(seed).shuffle(objects)
    compiled = compile_snapshot(iter(objects), "default", secrets)
    assert compiled == expected
    assert encode(compiled.snapshot) == encode(expected.snapshot)
    assert digest(compiled.snapshot) == digest(expected.snapshot)
