"""The plan: snapshots, children and statuses from a view, case by case."""

from __future__ import annotations

import pytest
import tests.operator.objects as make
from tests.operator.balancers import Balancer, says
from tests.operator.fleets import NOON, Fleet

from spillway_api.prices import Prices
from spillway_api.stream import PoolReport, TierReport
from spillway_api.types import Price
from spillway_operator.facts import GatewayFacts
from spillway_operator.plan import boot_config_map, saved_in, snapshot_of
from spillway_operator.statuses import worth_writing

LLAMA, OPENAI, CHAT = "ModelPool/default/llama", "ModelPool/default/openai", "RoutePolicy/default/chat"
USUAL = (
    make.model_pool("llama"),
    make.model_pool("openai", make.provider("openai", "groq"), models=("gpt-mini",)),
    make.route_policy("chat", "llama", "openai"),
)
FACTS = GatewayFacts("default", "spillway-gateway", "uid-7", "spillway-gateway", 2)
WELL = {
    "Accepted": ("True", "Accepted"),
    "ResolvedRefs": ("True", "ResolvedRefs"),
    "Programmed": ("True", "Programmed"),
}


def names(pool):
    return [endpoint.name for endpoint in pool.endpoints]


# ---- well


def test_all_is_well():
    fleet = Fleet().see(*USUAL).acknowledge()
    assert fleet.conditions(LLAMA) == {**WELL, "Ready": ("True", "EndpointsReady")}
    assert fleet.conditions(OPENAI) == {**WELL, "Ready": ("True", "EndpointsReady")}
    assert fleet.conditions(CHAT) == {**WELL, "Ready": ("True", "Programmed"), "Spilling": ("False", "NotSpilling")}
    assert fleet.status(CHAT)["tierSummary"] == "default: tier-llama=Open tier-openai=Open"
    openai = fleet.status(OPENAI)
    assert (openai["endpointSummary"], openai["sourceType"], openai["engine"]) == ("2/2", "Provider", "OpenAI")
    assert openai["attachedRoutes"] == 1


def test_what_providers_charge_goes_into_the_snapshot():
    """Balancers need no table: who asks the operator is told the price."""
    pools = make.model_pool("openai", make.provider("openai", "groq"), models=("gpt-5-mini",))
    view = Fleet().see(pools, make.route_policy("chat", "openai")).view("default")
    own = Prices({"OpenAI": {"gpt-5-mini": Price(input="0.20")}})
    for prices, amount in ((Prices(), "0.25"), (own, "0.20")):
        (pool,) = snapshot_of(view._replace(prices=prices)).snapshot.pools
        assert pool.models[0].price.input == amount


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (None, "Static"),
        (make.provider("openai"), "Provider"),
        (make.pods(), "Pods"),
        (make.behind(), "Service"),
        ({"inferencePool": {"name": "vllm"}}, "InferencePool"),
    ],
)
def test_the_kind_of_a_source_is_shown(source, name):
    assert Fleet().see(make.model_pool(source=source)).status(LLAMA)["sourceType"] == name


def test_nobody_has_acknowledged_yet():
    fleet = Fleet().see(*USUAL)
    assert fleet.condition(CHAT, "Programmed") == fleet.condition(CHAT, "Ready") == ("False", "PartiallyProgrammed")
    assert "0 of 2 balancers" in fleet.message(CHAT, "Programmed")
    assert fleet.condition(LLAMA, "Ready") == ("True", "EndpointsReady")


def test_an_edit_is_programmed_when_all_have_it_and_what_it_leaves_alone_stays_so():
    fleet = Fleet().see(*USUAL).acknowledge()
    fleet.see(*USUAL[:2], make.route_policy("chat", "openai", generation=2), make.route_policy("more", models=("m",)))
    assert fleet.condition(CHAT, "Programmed") == ("False", "PartiallyProgrammed")
    assert fleet.condition(OPENAI, "Programmed") == ("True", "Programmed")
    fleet.acknowledge()
    assert fleet.condition(CHAT, "Programmed") == ("True", "Programmed")


def test_a_balancer_that_refuses_says_why():
    fleet = Fleet().see(*USUAL).acknowledge(1)
    mark = fleet.progress["default"].digest
    fleet.balancers["default"] += (Balancer("old", "before", refused=(mark, "no strategy Adaptive")),)
    assert "1 of 2 balancers of gateway default; refused: no strategy Adaptive" in fleet.message(CHAT, "Programmed")


# ---- gateways


def test_each_gateway_has_its_routes_and_the_pools_that_they_lead_to():
    edge = make.route_policy("edge", "openai", models=("edge",), gateways=["edge"])
    both = make.route_policy("both", "openai", models=("both",), gateways=["default", "edge"])
    fleet = Fleet("default", "edge").see(*USUAL, edge, both).acknowledge()
    assert fleet.routes("default").keys() == {"default/chat", "default/both"}
    assert fleet.routes("edge").keys() == {"default/edge", "default/both"}
    assert fleet.pools("edge").keys() == {"default/openai"}
    reached = [(each["name"], each["programmedReplicas"]) for each in fleet.status(OPENAI)["gateways"]]
    assert reached == [("default", 2), ("edge", 2)]
    assert [each["name"] for each in fleet.status(LLAMA)["gateways"]] == ["default"]
    assert fleet.status(OPENAI)["attachedRoutes"] == 3
    assert fleet.condition("RoutePolicy/default/both", "Ready") == ("True", "Programmed")


def test_a_gateway_that_is_not_there():
    lost = make.route_policy("chat", "llama", gateways=["default", "edge"])
    fleet = Fleet().see(make.model_pool("llama"), lost).acknowledge()
    assert fleet.condition(CHAT, "Accepted") == fleet.condition(CHAT, "Ready") == ("False", "UnknownGateway")
    assert "edge" in fleet.message(CHAT, "Accepted")
    assert fleet.condition(CHAT, "Programmed") == ("True", "Programmed")
    assert fleet.routes().keys() == {"default/chat"}


def test_a_policy_for_unknown_gateways_alone():
    fleet = Fleet().see(make.model_pool("llama"), make.route_policy("chat", "llama", gateways=["edge"]))
    assert fleet.conditions(CHAT)["Programmed"] == ("False", "NoGateway")
    assert fleet.condition(LLAMA, "Programmed") == ("False", "Pending")


def test_without_any_gateway():
    fleet = Fleet().see(*USUAL)
    fleet.progress.clear()
    assert fleet.condition(CHAT, "Ready") == ("False", "UnknownGateway")
    assert fleet.condition(LLAMA, "Programmed") == ("False", "Pending")


def test_a_gateway_whose_deployment_has_just_gone():
    fleet = Fleet().see(*USUAL).acknowledge()
    fleet.facts.clear()
    assert fleet.condition(CHAT, "Programmed") == fleet.condition(LLAMA, "Programmed") == ("False", "NoGateway")


# ---- pools that no route leads to


def test_a_pool_without_a_route_waits_for_one_and_shows_what_it_has():
    fleet = Fleet().see(make.model_pool("llama", make.pods()), make.pod("a"), make.pod("b", ready=False))
    assert fleet.condition(LLAMA, "Programmed") == ("False", "Pending")
    assert fleet.condition(LLAMA, "Ready") == ("True", "EndpointsReady")
    assert fleet.status(LLAMA)["endpointSummary"] == "1/2"


KEYED = {"secretRef": {"name": "openai"}}
PROXY = {"url": "http://proxy:3128", "secretRef": {"name": "nobody"}}
PROXIED = {"provider": {"type": "OpenAI", "accounts": [{"name": "main", **KEYED}], "proxy": PROXY}}
REGIONS = ({"name": "one", "region": "eu/west", **KEYED}, {"name": "two", "region": "eu-west-1", **KEYED})
NOWHERE = {"provider": {"type": "Bedrock", "accounts": list(REGIONS)}}
UNUSABLE = {"static": {"endpoints": [{"name": "a", "url": "http://x:99999"}, {"name": "b", "url": "http://y:1"}]}}


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize(
    ("pool", "summary"),
    [
        (make.model_pool(source=make.provider("openai", "nobody")), "1/1"),
        (make.model_pool(source=UNUSABLE), "1/1"),
        (make.model_pool(auth={"secretRef": {"name": "nobody"}}), "0/0"),
        (make.model_pool(auth={"secretRef": {"name": "engine"}}), "1/1"),
        (make.model_pool(source=make.pods(), auth={"secretRef": {"name": "nobody"}}), "0/0"),
        (make.model_pool(source=make.pods()), "1/1"),
        (make.model_pool(tls={"caConfigMapRef": {"name": "nobody"}}), "0/0"),
        (make.model_pool(source=make.provider("openai"), tls={"caConfigMapRef": {"name": "nobody"}}), "0/0"),
        (make.model_pool(source=PROXIED), "0/0"),
        (make.model_pool(source=NOWHERE), "1/1"),
    ],
)
def test_a_pool_counts_the_same_endpoints_with_and_without_a_route(pool, summary, used):
    fleet = Fleet().see(pool, make.pod("a"), *([make.route_policy("chat", "llama")] if used else []))
    assert fleet.status(LLAMA)["endpointSummary"] == summary


# ---- references


def test_a_missing_secret_leaves_its_account_out_and_the_pool_lives_on():
    pool = make.model_pool("openai", make.provider("openai", "nobody"))
    fleet = Fleet().see(pool, make.route_policy("chat", "openai")).acknowledge()
    assert names(fleet.pools()["default/openai"]) == ["openai"]
    assert fleet.condition(OPENAI, "ResolvedRefs") == ("False", "SecretNotFound")
    assert 'no Secret "nobody"' in fleet.message(OPENAI, "ResolvedRefs")
    assert fleet.condition(OPENAI, "Ready") == ("True", "EndpointsReady")


def test_a_secret_without_the_key():
    source = make.provider("openai")
    source["provider"]["accounts"][0]["secretRef"]["key"] = "token"
    fleet = Fleet().see(make.model_pool("openai", source), make.route_policy("chat", "openai"))
    assert fleet.condition(OPENAI, "ResolvedRefs") == ("False", "SecretKeyNotFound")
    assert 'Secret "openai" has no key "token"' in fleet.message(OPENAI, "ResolvedRefs")
    assert fleet.condition(OPENAI, "Ready") == ("False", "NoEndpoints")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (make.behind(), "ServiceNotFound"),
        (make.behind(81, "there"), "PortNotFound"),
        ({"inferencePool": {"name": "vllm"}}, "InferencePoolNotFound"),
    ],
)
def test_what_a_source_names_is_not_there(source, reason):
    fleet = Fleet().see(make.model_pool(source=source), make.service("there"), make.route_policy()).acknowledge()
    assert fleet.condition(LLAMA, "ResolvedRefs") == ("False", reason)
    assert fleet.condition(LLAMA, "Ready") == ("False", "NoEndpoints")
    assert fleet.condition(CHAT, "Accepted") == ("True", "Accepted")
    assert fleet.condition(CHAT, "Ready") == ("False", "AllPoolsUnready")


def test_a_pool_of_another_namespace_is_used_only_where_it_is_allowed():
    far = {"name": "t", "pools": [{"name": "shared", "namespace": "team"}]}
    for allowed, expected in (
        ({"from": "Same"}, ("False", "NotAllowedByPool")),
        ({"from": "All"}, ("True", "Accepted")),
        ({"from": "Selector", "selector": {"matchLabels": {"tier": "a"}}}, ("True", "Accepted")),
        ({"from": "Selector", "selector": {"matchLabels": {"tier": "b"}}}, ("False", "NotAllowedByPool")),
    ):
        pool = make.model_pool("shared", namespace="team", allowedRoutes=allowed)
        fleet = Fleet().see(pool, make.route_policy("chat", far), make.namespace("default", tier="a")).acknowledge()
        assert fleet.condition(CHAT, "Accepted") == expected


# ---- last good versions


def test_a_policy_edited_to_a_bad_state_and_back():
    fleet = Fleet().see(*USUAL).acknowledge()
    before = fleet.routes()["default/chat"]
    fleet.see(*USUAL[:2], make.route_policy("chat", "gone", generation=2))
    assert fleet.routes()["default/chat"] == before
    assert fleet.condition(CHAT, "ResolvedRefs") == fleet.condition(CHAT, "Ready") == ("False", "PoolNotFound")
    assert fleet.condition(CHAT, "Programmed") == ("False", "Pending")
    assert "its last good version goes on serving" in fleet.message(CHAT, "Ready")
    assert fleet.status(CHAT)["tierSummary"] == "default: tier-llama=Open tier-openai=Open"
    fleet.see(*USUAL[:2], make.route_policy("chat", "llama", "openai", generation=3)).acknowledge()
    assert fleet.condition(CHAT, "Ready") == ("True", "Programmed")


def test_a_rule_that_does_not_compile_is_told_with_its_column_and_the_last_good_version_serves():
    policy = make.route_policy("chat", "llama", "openai")
    (last,) = policy["spec"]["rules"]
    rules = [{**last, "name": "premium", "when": 'headers["x-tier"] == "premium"'}, last]
    fleet = Fleet().see(*USUAL[:2], edited(policy, rules, 1)).acknowledge()
    assert fleet.condition(CHAT, "Accepted") == ("True", "Accepted")
    assert fleet.status(CHAT)["tierSummary"].startswith("premium: tier-llama=Open tier-openai=Open; ")
    before = fleet.routes()["default/chat"]
    fleet.see(*USUAL[:2], edited(policy, [{**rules[0], "when": "tokens.inptu > 3"}, last], 2))
    assert fleet.routes()["default/chat"] == before
    assert fleet.condition(CHAT, "Accepted") == fleet.condition(CHAT, "Ready") == ("False", "InvalidExpression")
    said = 'spec.rules[0].when: line 1, column 7: there is no "tokens.inptu" (did you mean "tokens.input"?)'
    assert said in fleet.message(CHAT, "Accepted")


def test_what_guards_make_of_a_policy_is_told():
    eu = {"jurisdictions": ["EU"]}
    home = make.model_pool("llama", dataHandling=eu)
    sometimes = {"name": "sometimes", "when": 'headers["x-a"] == "b"', "require": {"jurisdictions": ["CH"]}}
    always = {"name": "always", "require": eu}
    fleet = Fleet().see(home, USUAL[1], make.route_policy("chat", "llama", "openai", guards=[always])).acknowledge()
    assert fleet.status(CHAT)["tierSummary"] == "default: tier-llama=Open tier-openai=Unavailable"
    assert fleet.conditions(CHAT) == {**WELL, "Ready": ("True", "Programmed"), "Spilling": ("False", "NotSpilling")}
    fleet.see(home, USUAL[1], make.route_policy("chat", "llama", "openai", guards=[sometimes], generation=2))
    fleet.acknowledge()
    assert fleet.conditions(CHAT) == {**WELL, "Ready": ("True", "Programmed"), "Spilling": ("False", "GuardRefuses")}
    assert 'no pool of this policy passes "sometimes"' in fleet.message(CHAT, "Spilling")
    fleet.see(*USUAL[:2], make.route_policy("chat", "llama", "openai", guards=[always], generation=3)).acknowledge()
    assert fleet.conditions(CHAT) == {**WELL, "Ready": ("False", "NoOpenTier"), "Spilling": ("False", "GuardRefuses")}
    assert 'no pool of this policy passes "always"' in fleet.message(CHAT, "Ready")


def test_a_guard_that_does_not_compile_is_told_with_its_column_and_the_last_good_guards_serve_on():
    eu = {"name": "eu-only", "when": "tokens.input > 0", "require": {"jurisdictions": ["EU"]}}
    home = make.model_pool("llama", dataHandling={"jurisdictions": ["EU"]})
    fleet = Fleet().see(home, make.route_policy("chat", guards=[eu])).acknowledge()
    before = fleet.routes()["default/chat"]
    fleet.see(home, make.route_policy("chat", guards=[{**eu, "when": "tokens.inptu > 0"}], generation=2))
    assert fleet.routes()["default/chat"] == before
    assert fleet.condition(CHAT, "Accepted") == fleet.condition(CHAT, "Ready") == ("False", "InvalidExpression")
    said = 'spec.guards[0].when: line 1, column 7: there is no "tokens.inptu" (did you mean "tokens.input"?)'
    assert said in fleet.message(CHAT, "Accepted")
    new = Fleet().see(home, make.route_policy("chat", guards=[{**eu, "when": "tokens.inptu > 0"}]))
    (guard,) = new.routes()["default/chat"].guards  # without a good version: it is served, and holds always
    assert guard.when == "tokens.inptu > 0"


def edited(policy, rules, generation):
    return {
        **policy,
        "metadata": {**policy["metadata"], "generation": generation},
        "spec": {**policy["spec"], "rules": rules},
    }


def test_objects_that_cannot_be_read_go_on_as_they_were():
    fleet = Fleet().see(*USUAL).acknowledge()
    before = fleet.progress["default"].digest
    fleet.see(*({**body, "spec": {"models": 5}} for body in USUAL))
    assert fleet.progress["default"].digest == before
    for key in (LLAMA, CHAT):
        assert fleet.condition(key, "Accepted") == ("False", "Invalid")
        assert fleet.condition(key, "Programmed") == ("False", "Pending")
    assert "Expected" in fleet.message(LLAMA, "Accepted")


def test_a_new_operator_goes_on_with_what_the_one_before_put_away():
    old = Fleet().see(*USUAL)
    new = Fleet()
    new.progress["default"].seed(saved_in(boot_config_map(FACTS, "spillway", old.progress["default"].saved)))
    new.see(*USUAL[:2], make.route_policy("chat", "gone", generation=2))
    assert new.routes() == old.routes()


# ---- what balancers say


def reporting(fleet, *parts, of=1, gateway="default"):
    mark = fleet.progress[gateway].digest
    report = says(*parts)
    fleet.balancers[gateway] = tuple(
        Balancer(f"b{number}", mark, report=report if number < of else says()) for number in range(2)
    )
    return fleet


def test_ejected_unhealthy_and_refused_endpoints_are_counted():
    report = PoolReport("default/openai", ejected=("openai",), refused=("groq", "left-over"))
    fleet = reporting(Fleet().see(*USUAL), report)
    assert fleet.status(OPENAI)["endpoints"] == {"total": 2, "ready": 0, "unhealthy": 0, "ejected": 1, "draining": 0}
    assert fleet.condition(OPENAI, "Ready") == ("False", "AllEjected")
    assert fleet.status(CHAT)["tierSummary"] == "default: tier-llama=Open tier-openai=Unavailable"


def test_refused_credentials():
    fleet = reporting(Fleet().see(*USUAL), PoolReport("default/openai", refused=("groq", "openai")))
    assert fleet.condition(OPENAI, "Ready") == ("False", "CredentialsRefused")


def test_the_engine_and_the_metrics_that_balancers_found():
    report = PoolReport("default/llama", engine="vLLM", metrics="UnknownNames", metrics_message="no waiting")
    fleet = reporting(Fleet().see(*USUAL), report)
    assert fleet.status(LLAMA)["engine"] == "vLLM"
    assert fleet.condition(LLAMA, "MetricsHealthy") == ("False", "UnknownNames")
    assert fleet.message(LLAMA, "MetricsHealthy") == "no waiting"


def test_a_tier_that_spills():
    tiers = [TierReport("default/chat", "default", "tier-llama", "Spilling", 1, 36)]
    fleet = reporting(Fleet().see(*USUAL), *tiers)
    assert fleet.status(CHAT)["tierSummary"] == "default: tier-llama=Spilling(18%) tier-openai=Open"
    assert fleet.condition(CHAT, "Spilling") == ("True", "Load")


def test_what_is_unhealthy_for_one_gateway_is_told():
    both = make.route_policy("both", "openai", models=("both",), gateways=["default", "edge"])
    fleet = Fleet("default", "edge").see(USUAL[1], both).acknowledge()
    reporting(fleet, PoolReport("default/openai", unhealthy=("groq",)), gateway="edge")
    assert fleet.status(OPENAI)["endpointSummary"] == "1/2"


def test_ready_not_ready_and_draining_pods():
    pods = make.pod("a"), make.pod("b", ready=False), make.pod("c", terminating=True)
    fleet = Fleet().see(make.model_pool("llama", make.pods()), make.route_policy(), *pods).acknowledge()
    status = fleet.status(LLAMA)
    assert status["endpointSummary"] == "1/2"
    assert status["endpoints"] == {"total": 2, "ready": 1, "unhealthy": 0, "ejected": 0, "draining": 1}


# ---- a leader that has only just begun


def test_a_settling_leader_does_not_lower_programmed():
    fleet = Fleet().see(*USUAL).acknowledge()
    written = fleet.statuses()
    objects = [{**body, "status": written[_key(body)].status} for body in USUAL]
    new = Fleet().see(*objects)
    new.settling = True
    for key, each in new.statuses().items():
        assert each.status == written[key].status
    new.settling = False
    assert new.condition(CHAT, "Programmed") == ("False", "PartiallyProgrammed")


def test_a_settling_leader_believes_nothing_of_another_generation():
    fleet = Fleet().see(*USUAL).acknowledge()
    status = fleet.status(CHAT)
    new = Fleet().see(*USUAL[:2], make.route_policy("chat", "llama", generation=2, status=status))
    new.settling = True
    assert new.condition(CHAT, "Programmed") == ("False", "PartiallyProgrammed")


def test_a_settling_leader_holds_what_rests_on_reports_until_all_have_reported():
    ejected = PoolReport("default/openai", ejected=("openai", "groq"), metrics="Stale", metrics_message="old")
    fleet = reporting(Fleet().see(*USUAL).acknowledge(), ejected)
    written = fleet.statuses()
    assert fleet.condition(OPENAI, "Ready") == ("False", "AllEjected")
    new = Fleet().see(*({**body, "status": written[_key(body)].status} for body in USUAL)).acknowledge()
    new.settling = True
    for key in (OPENAI, CHAT):
        assert new.status(key)["conditions"] == written[key].status["conditions"]
    reporting(new, *())  # now they have, and find nothing amiss
    assert new.condition(OPENAI, "Ready") == ("True", "EndpointsReady")
    assert "MetricsHealthy" not in new.conditions(OPENAI)


def _key(body):
    return f"{body['kind']}/{body['metadata']['namespace']}/{body['metadata']['name']}"


# ---- statuses are stable


def test_written_and_read_back_nothing_is_left_to_write():
    fleet = Fleet().see(*USUAL).acknowledge()
    for body in USUAL:
        status = fleet.status(_key(body))
        again = Fleet().see(*(each if each is not body else {**body, "status": status} for each in USUAL)).acknowledge()
        written = again.statuses(NOON + 3600)[_key(body)]
        assert written.status == status
        assert not worth_writing(written.watched.status, written.status, float("inf"))
