"""Laws of the plan, over clusters in which anything may be missing, wrong or unreadable."""

from __future__ import annotations

import base64
import copy

import tests.operator.objects as make
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operator.balancers import Balancer, says
from tests.operator.fleets import NOON, SECRETS, Fleet, stored

from spillway_api.snapshot import encode
from spillway_api.stream import PoolReport, TierReport
from spillway_operator.plan import boot_config_map, credentials_secret, saved_in
from spillway_operator.statuses import worth_writing

few = settings(max_examples=40)

POOLS, POLICIES = ("p0", "p1", "p2"), ("r0", "r1", "r2")
GATEWAYS = ("default", "edge")
SOURCES = (
    None,
    make.pods(),
    make.pods(8000, 8001, selector={"matchExpressions": [{"key": "app", "operator": "Exists"}]}),
    make.behind(),
    make.behind(81),
    make.provider("openai", "groq"),
    make.provider("nobody"),
    {"inferencePool": {"name": "vllm"}},
    {"static": {"endpoints": [{"name": "a", "url": "http://x:99999"}, {"name": "b", "url": "http://y:1"}]}},
)
AUTHS = ({}, {}, {"auth": {"secretRef": {"name": "engine"}}}, {"auth": {"secretRef": {"name": "nobody"}}})
AROUND = (
    make.pod("a"),
    make.pod("b", "10.0.0.2", ready=False),
    make.pod("c", "10.0.0.3", annotations={"spillway.dev/weight": "heavy"}),
    make.service(),
    make.endpoint_slice("s", make.at("a", "10.0.0.1", ready=True), make.at("b", "10.0.0.2", ready=False)),
    make.inference_pool(),
    make.namespace("default"),
)


def unreadable(body):
    return {**body, "spec": {"models": 5}}


@st.composite
def pools(draw, name):
    source = draw(st.sampled_from(SOURCES))
    auth = {} if source and "provider" in source else draw(st.sampled_from(AUTHS))
    models = draw(st.sampled_from([("m",), ("m", "n"), ("x",)]))
    body = make.model_pool(name, source, models=models, **auth)
    return unreadable(body) if draw(st.integers(0, 9)) == 0 else body


@st.composite
def policies(draw, name):
    tiers = draw(st.lists(st.sampled_from((*POOLS, "gone")), min_size=1, max_size=3, unique=True))
    gateways = draw(st.lists(st.sampled_from((*GATEWAYS, "lost")), min_size=1, unique=True))
    models = tuple(draw(st.lists(st.sampled_from([name, "m", "shared"]), min_size=1, unique=True)))
    body = make.route_policy(name, *tiers, models=models, gateways=gateways)
    return unreadable(body) if draw(st.integers(0, 9)) == 0 else body


@st.composite
def clusters(draw):
    """Objects of one moment."""
    there = [draw(pools(name)) for name in draw(st.lists(st.sampled_from(POOLS), unique=True))]
    there += [draw(policies(name)) for name in draw(st.lists(st.sampled_from(POLICIES), unique=True))]
    there += draw(st.lists(st.sampled_from(AROUND), unique_by=lambda body: (body["kind"], body["metadata"]["name"])))
    return there


@st.composite
def balancers(draw):
    """What a gateway's balancers may have said, digests apart."""
    names = st.lists(st.sampled_from(["a:8000", "one", "openai", "groq"]), max_size=2).map(tuple)
    tiers = [
        TierReport(f"default/{policy}", "default", f"tier-{pool}", draw(st.sampled_from(["Open", "Spilling"])), 1, 20)
        for policy in POLICIES[:2]
        for pool in POOLS[:2]
    ]
    parts = [
        PoolReport(f"default/{pool}", "vLLM", draw(names), draw(names), draw(names), "Stale") for pool in POOLS[:2]
    ]
    return [Balancer(f"b{number}", report=draw(st.sampled_from([None, says(*parts, *tiers)]))) for number in range(2)]


@st.composite
def fleets(draw):
    """An operator that has seen a few moments, with the objects of the last."""
    fleet = Fleet(*GATEWAYS, secrets=SECRETS)
    moments = draw(st.lists(clusters(), min_size=1, max_size=3))
    for bodies in moments:
        fleet.see(*bodies)
        if draw(st.booleans()):
            for name, progress in fleet.progress.items():
                fleet.balancers[name] = tuple(
                    each._replace(digest=draw(st.sampled_from([None, progress.digest]))) for each in draw(balancers())
                )
    fleet.settling = draw(st.booleans())
    return fleet, moments[-1]


def shown(fleet, now=NOON):
    return {key: each.status for key, each in fleet.statuses(now).items()}


def served(fleet):
    return {name: encode(progress.compiled.snapshot) for name, progress in fleet.progress.items()}


def children(fleet):
    return [
        child
        for name, facts in fleet.facts.items()
        for progress in [fleet.progress[name]]
        for child in (
            boot_config_map(facts, "spillway", progress.saved),
            credentials_secret(facts, "spillway", progress.compiled.snapshot, fleet.value),
        )
    ]


@few
@given(fleets())
def test_planning_twice_gives_the_same_plan(given):
    fleet, bodies = given
    before = served(fleet), shown(fleet), children(fleet)
    digests = {name: progress.digest for name, progress in fleet.progress.items()}
    fleet.see(*copy.deepcopy(bodies))
    assert (served(fleet), shown(fleet), children(fleet)) == before
    assert {name: progress.digest for name, progress in fleet.progress.items()} == digests


@few
@given(fleets())
def test_applying_then_planning_gives_nothing_to_write(given):
    fleet, bodies = given
    written = fleet.statuses()
    fleet.see(*stored(bodies, written))
    for key, each in fleet.statuses(NOON + 3600).items():
        assert each.status == written[key].status
        assert not worth_writing(each.watched.status, each.status, float("inf"))


@few
@given(st.lists(clusters(), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_the_order_of_objects_never_matters(moments, dice):
    one, two = Fleet(*GATEWAYS), Fleet(*GATEWAYS)
    for bodies in moments:
        one.see(*bodies)
        dice.shuffle(bodies)
        two.see(*bodies)
        assert served(one) == served(two)
        assert shown(one) == shown(two)
        assert children(one) == children(two)


@few
@given(fleets())
def test_a_child_comes_back_as_it_was_put_away(given):
    fleet, _ = given
    for name, facts in fleet.facts.items():
        saved = fleet.progress[name].saved
        assert saved_in(boot_config_map(facts, "spillway", saved)) == saved
        assert saved.snapshot.gateway == name


@few
@given(fleets())
def test_no_value_of_a_secret_is_anywhere_but_in_the_secret(given):
    fleet, _ = given
    text = repr([shown(fleet), [progress.compiled for progress in fleet.progress.values()]])
    boots = [boot_config_map(facts, "spillway", fleet.progress[name].saved) for name, facts in fleet.facts.items()]
    for values in SECRETS.values():
        for value in values.values():
            assert value not in text
            assert base64.b64encode(value.encode()).decode() not in repr(boots)
    allowed = {
        endpoint.credential
        for name in fleet.facts
        for pool in fleet.pools(name).values()
        for endpoint in pool.endpoints
    }
    for child in children(fleet):
        if child["kind"] == "Secret":
            assert len(child["data"]) <= len(allowed - {None})


@few
@given(fleets())
def test_every_status_is_one_that_the_conditions_agree_on(given):
    fleet, _ = given
    written = fleet.statuses()
    for key, each in written.items():
        status = each.status
        conditions = {each["type"]: each["status"] for each in status["conditions"]}
        if key.startswith("RoutePolicy") and conditions["Ready"] == "True":
            assert conditions["Accepted"] == conditions["ResolvedRefs"] == conditions["Programmed"] == "True"
        if key.startswith("ModelPool"):
            counts = status["endpoints"]
            assert (conditions["Ready"] == "True") == (counts["ready"] > 0 and each.watched.item is not None)
            assert 0 <= counts["ready"] <= counts["total"]
            assert status["endpointSummary"] == f"{counts['ready']}/{counts['total']}"
        if each.watched.item is None:
            assert conditions["Ready"] == conditions["Accepted"] == conditions["Programmed"] == "False"


# ---- one bad policy harms nobody

GOOD = [make.model_pool("p0"), make.model_pool("p1", make.provider("openai")), make.model_pool("p2", make.pods())]
FAR = make.model_pool("far", namespace="team")
good_policies = st.lists(
    st.tuples(
        st.lists(st.sampled_from(POOLS), min_size=1, max_size=3, unique=True),
        st.lists(st.sampled_from(GATEWAYS), min_size=1, unique=True),
    ),
    min_size=2,
    max_size=4,
)


def broken(body, how):
    """The same policy with a fault; it is the youngest, so that whoever quarrels over a name with it wins."""
    body = copy.deepcopy(body)
    body["metadata"] |= {"generation": 2}
    tiers = body["spec"]["rules"][0]["tiers"]
    match how:
        case "pool gone":
            tiers[0]["pools"] = [{"name": "gone"}]
        case "one pool of two gone":
            tiers[0]["pools"] = [*tiers[0]["pools"], {"name": "gone"}]
        case "no such model":
            tiers[-1]["pools"] = [{"name": "p0", "model": "nobody"}]
        case "not allowed":
            tiers[0]["pools"] = [{"name": "far", "namespace": "team"}]
        case "another's name":
            body["spec"]["models"] = [*body["spec"]["models"], "name-0"]
        case "gateway lost":
            body["spec"]["gateways"] = ["lost"]
        case "unreadable":
            body["spec"]["rules"] = "none"
    return body


FAULTS = (
    "pool gone",
    "one pool of two gone",
    "no such model",
    "not allowed",
    "another's name",
    "gateway lost",
    "unreadable",
)


@few
@given(good_policies, st.sampled_from(FAULTS), st.booleans())
def test_a_problem_in_one_policy_never_changes_anothers_route_or_conditions(choices, fault, was_good):
    routes = [
        make.route_policy(f"r{number}", *tiers, models=(f"name-{number}",), gateways=gateways)
        for number, (tiers, gateways) in enumerate(choices)
    ]
    routes[0]["spec"]["gateways"] = list(GATEWAYS)
    last = routes[-1]
    last["metadata"]["creationTimestamp"] = "2026-02-02T00:00:00Z"
    others = [*GOOD, FAR, make.pod("a"), *routes[:-1]]
    fleet = Fleet(*GATEWAYS).see(*others, *([last] if was_good else [])).acknowledge()
    bad = broken(last, fault)
    key = f"RoutePolicy/default/r{len(routes) - 1}"
    before = [fleet.routes(gateway) for gateway in GATEWAYS], shown(fleet)
    fleet.see(*others, bad).acknowledge()
    after = [fleet.routes(gateway) for gateway in GATEWAYS], shown(fleet)
    own = key.removeprefix("RoutePolicy/")
    for was, now in zip(before[0], after[0], strict=True):
        assert {name: route for name, route in was.items() if name != own} == {
            name: route for name, route in now.items() if name != own
        }
        if was_good and fault != "gateway lost":
            assert now.get(own) == was.get(own)
    for other, status in before[1].items():
        if other.startswith("RoutePolicy") and other != key:
            assert after[1][other] == status
    assert fleet.condition(key, "Ready")[0] == "False"
    fleet.see(*others, {**last, "metadata": {**last["metadata"], "generation": 3}}).acknowledge()
    assert fleet.condition(key, "Programmed") == ("True", "Programmed")
    assert fleet.condition(key, "Accepted") == ("True", "Accepted")
