"""Compile in a cluster: endpoints that were found, and pools of other namespaces."""

from __future__ import annotations

import pytest

from spillway_api.compile import Cluster, Discovered, compile_snapshot
from spillway_api.snapshot import Credential, Endpoint, Target

FOUND = (Endpoint("qwen-0:8000", "http://10.1.0.1:8000", 50), Endpoint("qwen-1:8000", "http://10.1.0.2:8000"))
POOL = "spec.rules[0].tiers[0].pools[0]"
ONE_TIER = {"spec.rules[0].tiers[1]": "ABSENT", "spec.rules[0].tiers[0].spill": "ABSENT"}


def everything_there(_secret: str, _key: str) -> bool:
    return True


def found(*endpoints, problems=()):
    return Cluster(discovered=lambda _pool: Discovered(endpoints, problems))


def policy_to(built, name, **edits):
    return built("policy", {**ONE_TIER, f"{POOL}.name": name, **edits})


@pytest.mark.parametrize("base", ["pods", "service", "inference"])
def test_what_was_found_becomes_the_endpoints(base, built):
    pool = built(base)
    objects = [pool, policy_to(built, pool.metadata.name)]
    compiled = compile_snapshot(objects, "default", everything_there, found(*FOUND))
    assert compiled.problems == ()
    assert compiled.snapshot.pools[0].endpoints == FOUND
    assert compiled.snapshot.pools[0].provider is None


def test_only_pools_whose_endpoints_are_not_written_down_are_asked_for(built):
    asked = []

    def discovered(pool):
        asked.append(pool.metadata.name)
        return Discovered()

    objects = [built(base) for base in ("pool", "provider", "pods", "service", "inference")]
    compile_snapshot(objects, "default", everything_there, Cluster(discovered=discovered))
    assert asked == ["engines", "pooled", "served"]


def test_found_endpoints_carry_the_credential_of_the_pool(built):
    auth = {"spec.auth": {"secretRef": {"name": "k", "key": "token"}, "header": "X-Key", "prefix": ""}}
    objects = [built("pods", auth), policy_to(built, "engines")]
    (pool,) = compile_snapshot(objects, "default", everything_there, found(*FOUND)).snapshot.pools
    credential = Credential("default/k", "token", "X-Key", "")
    assert [endpoint.credential for endpoint in pool.endpoints] == [credential] * 2
    assert [(endpoint.name, endpoint.weight) for endpoint in pool.endpoints] == [
        ("qwen-0:8000", 50),
        ("qwen-1:8000", 100),
    ]


def test_without_the_secret_no_found_endpoint_is_sent_requests_that_it_would_refuse(built):
    objects = [built("pods", {"spec.auth": {"secretRef": {"name": "k"}}}), policy_to(built, "engines")]
    compiled = compile_snapshot(objects, "default", lambda _secret, _key: False, found(*FOUND))
    assert compiled.snapshot.pools[0].endpoints == ()
    assert [(each.object, each.reason, each.fatal) for each in compiled.problems] == [
        ("ModelPool/default/engines", "SecretNotFound", False)
    ]


def test_what_is_amiss_with_a_source_is_passed_on_and_takes_no_route_away(built):
    objects = [built("service"), policy_to(built, "served")]
    amiss = ("spec.source.service.name", "ServiceNotFound", 'no Service "engines" in namespace default')
    compiled = compile_snapshot(objects, "default", everything_there, found(problems=(amiss,)))
    (problem,) = compiled.problems
    assert problem == ("ModelPool/default/served", *amiss, False)
    assert [route.name for route in compiled.snapshot.routes] == ["default/chat"]
    assert compiled.snapshot.pools[0].endpoints == ()


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ({"pods": {"selector": {"matchLabels": {"a": "b"}}, "ports": [1]}}, "spec.source.pods"),
        ({"service": {"name": "a", "port": 80}}, "spec.source.service"),
        ({"inferencePool": {"name": "a"}}, "spec.source.inferencePool"),
    ],
)
def test_outside_a_cluster_nothing_is_found_and_that_is_said(source, path, built):
    objects = [built("pods", {"spec.source": source}), policy_to(built, "engines")]
    compiled = compile_snapshot(objects, "default", everything_there)
    (problem,) = compiled.problems
    assert problem[:3] == ("ModelPool/default/engines", path, "NoEndpoints")
    assert not problem.fatal
    assert compiled.snapshot.pools[0].endpoints == ()


LABELS = {"shop": {"team": "blue"}, "lab": {"team": "red"}, "bare": {}}
SELECTED = {"from": "Selector", "selector": {"matchLabels": {"team": "blue"}}}
ALLOWED = [
    (None, "default", True),
    (None, "shop", False),
    ({"from": "Same"}, "shop", False),
    ({"from": "Same"}, "default", True),
    ({"from": "All"}, "shop", True),
    ({"from": "All"}, "nobody-knows", True),
    (SELECTED, "shop", True),
    (SELECTED, "lab", False),
    (SELECTED, "bare", False),
    (SELECTED, "nobody-knows", False),
    (SELECTED, "default", True),
    ({"from": "Selector", "selector": {}}, "lab", True),
]


@pytest.mark.parametrize(("allowed", "namespace", "may"), ALLOWED)
def test_a_pool_says_whose_routes_may_use_it(allowed, namespace, may, built):
    pool = built("pool", {"spec.allowedRoutes": allowed} if allowed else {})
    policy = built("policy", {**ONE_TIER, "metadata.namespace": namespace, f"{POOL}.namespace": "default"})
    cluster = Cluster(labels=lambda name: LABELS.get(name, {}))
    compiled = compile_snapshot([pool, policy], "default", everything_there, cluster)
    if may:
        assert compiled.problems == ()
        (route,) = compiled.snapshot.routes
        assert route.name == f"{namespace}/chat"
        assert route.rules[0].tiers[0].targets == (Target("default/llama"),)
        assert [pool.name for pool in compiled.snapshot.pools] == ["default/llama"]
    else:
        (problem,) = compiled.problems
        assert problem[:3] == (f"RoutePolicy/{namespace}/chat", POOL, "NotAllowedByPool")
        assert problem.fatal
        assert compiled.snapshot.pools == compiled.snapshot.routes == ()


def test_a_pool_is_looked_for_where_the_reference_says_and_nowhere_else(built):
    own = built("pool", {"spec.models": [{"name": "own"}]})
    other = built("pool", {"metadata.namespace": "shared", "spec.allowedRoutes": {"from": "All"}})
    for namespace, pool in ((None, "default/llama"), ("default", "default/llama"), ("shared", "shared/llama")):
        edits = {} if namespace is None else {f"{POOL}.namespace": namespace}
        compiled = compile_snapshot([own, other, policy_to(built, "llama", **edits)], "default", everything_there)
        assert [each.name for each in compiled.snapshot.pools] == [pool]


def test_an_unknown_pool_elsewhere_names_the_namespace(built):
    objects = [built("pool"), policy_to(built, "llama", **{f"{POOL}.namespace": "shared"})]
    (problem,) = compile_snapshot(objects, "default", everything_there).problems
    assert (problem.path, problem.reason) == (f"{POOL}.name", "PoolNotFound")
    assert problem.message == 'no ModelPool "llama" in namespace shared'


@pytest.mark.parametrize(("allowed", "hint"), [("All", '; did you mean "llama"?'), ("Same", "")])
def test_a_hint_names_no_pool_that_its_reader_may_not_use(allowed, hint, built):
    pool = built("pool", {"metadata.namespace": "shared", "spec.allowedRoutes": {"from": allowed}})
    objects = [pool, policy_to(built, "lama", **{f"{POOL}.namespace": "shared"})]
    (problem,) = compile_snapshot(objects, "default", everything_there).problems
    assert problem.message == f'no ModelPool "lama" in namespace shared{hint}'


def missing(_secret: str, _key: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("cluster", "edits", "secrets", "wakes"),
    [
        (found(), {}, everything_there, True),
        (found(*FOUND), {}, everything_there, True),
        (found(), {"spec.scaling.fromZero": "Disabled"}, everything_there, False),
        (found(*FOUND), {"spec.auth": {"secretRef": {"name": "k"}}}, missing, False),
        (found(problems=(("spec.source.service.name", "ServiceNotFound", "no Service"),)), {}, everything_there, False),
        (Cluster(), {}, everything_there, False),
    ],
    ids=["asleep", "awake", "left alone", "without its credential", "without its source", "from files"],
)
def test_a_pool_is_woken_only_where_sleep_is_what_ails_it(built, cluster, edits, secrets, wakes):
    objects = [built("scaled", edits), policy_to(built, "scaled")]
    (pool,) = compile_snapshot(objects, "default", secrets, cluster).snapshot.pools
    assert pool.wakes is wakes


def test_from_files_it_is_said_that_nobody_wakes_it(built):
    compiled = compile_snapshot([built("scaled"), policy_to(built, "scaled")], "default", everything_there)
    assert [problem.message.rpartition(", ")[2] for problem in compiled.problems] == ["and nobody wakes it"]
