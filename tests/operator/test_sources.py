"""Endpoints of a pool: names and references as the API promises them, source by source, and laws over all."""

from __future__ import annotations

import pytest
import tests.operator.objects as make
from hypothesis import given
from hypothesis import strategies as st

from spillway_api.types import matches
from spillway_operator import facts
from spillway_operator.sources import NOTHING, find, selector_of

at = make.at


def found(source, *bodies):
    pool = facts.model_pool(make.model_pool(source=source)).item
    return find(pool, make.world(*bodies))


def urls(result):
    return {each.name: each.url for each in result.discovered.endpoints}


def weights(result):
    return {each.name: each.weight for each in result.discovered.endpoints}


def counts(result):
    return len(result.discovered.endpoints), result.not_ready, result.draining


def problem(result):
    (only,) = result.discovered.problems
    return only


# ---- Pods


def test_a_ready_pod_is_an_endpoint_by_its_name_and_port():
    result = found(make.pods(), make.pod("vllm-0", "10.0.0.7"))
    assert urls(result) == {"vllm-0:8000": "http://10.0.0.7:8000"}
    assert weights(result) == {"vllm-0:8000": 100}
    assert counts(result) == (1, 0, 0)


@pytest.mark.parametrize("ready", [False, None])
def test_a_pod_that_is_not_ready_waits(ready):
    assert counts(found(make.pods(), make.pod(ready=ready))) == (0, 1, 0)


def test_a_pod_without_an_address_waits():
    assert counts(found(make.pods(), make.pod(address=None))) == (0, 1, 0)
    assert counts(found(make.pods(), make.pod(address=""))) == (0, 1, 0)


def test_a_terminating_pod_drains_however_ready_it_is():
    assert counts(found(make.pods(), make.pod(terminating=True))) == (0, 0, 1)
    assert counts(found(make.pods(), make.pod(terminating=True, ready=False))) == (0, 0, 0)


def test_a_pod_that_comes_back_elsewhere_keeps_its_name():
    before, after = (urls(found(make.pods(), make.pod("vllm-0", address))) for address in ("10.0.0.7", "10.0.0.9"))
    assert before.keys() == after.keys()
    assert before != after


def test_a_stranger_on_a_used_address_has_a_name_of_its_own():
    before, after = (urls(found(make.pods(), make.pod(name, "10.0.0.7"))) for name in ("vllm-a", "vllm-b"))
    assert not before.keys() & after.keys()


def test_every_port_of_every_pod_is_an_endpoint():
    result = found(make.pods(8001, 8000), make.pod("b", "10.0.0.2"), make.pod("a"), make.pod("c", ready=False))
    assert list(urls(result)) == ["a:8000", "a:8001", "b:8000", "b:8001"]
    assert counts(result) == (4, 2, 0)


def test_https_and_ipv6():
    result = found(make.pods(scheme="https"), make.pod("a", "fd00::7"))
    assert urls(result) == {"a:8000": "https://[fd00::7]:8000"}


@pytest.mark.parametrize("pod", [make.pod(ready=False), make.pod(terminating=True), make.pod()])
def test_of_a_pool_with_somebody_nothing_is_to_be_explained(pod):
    assert found(make.pods(), pod).why == ""


def test_pods_of_other_labels_and_other_namespaces_are_none_of_the_pools():
    others = make.pod("other", labels={"app": "web"}), make.pod("far", namespace="team"), make.pod("bare", labels={})
    result = found(make.pods(), *others)
    assert result == NOTHING._replace(why="no running Pod of the namespace has the labels of its selector")


EXPRESSIONS = [
    ("In", ["a", "b"], {"x"}),
    ("NotIn", ["a"], {"y", "bare"}),
    ("Exists", None, {"x", "y"}),
    ("DoesNotExist", None, {"bare"}),
]


@pytest.mark.parametrize(("operator", "values", "expected"), EXPRESSIONS)
def test_match_expressions(operator, values, expected):
    demand = {"key": "tier", "operator": operator, **({"values": values} if values else {})}
    there = [make.pod(name, labels=labels) for name, labels in (("x", {"tier": "a"}), ("y", {"tier": "c"}))]
    result = found(make.pods(selector={"matchExpressions": [demand]}), *there, make.pod("bare", labels={}))
    assert {name.removesuffix(":8000") for name in urls(result)} == expected


def test_labels_and_expressions_hold_together():
    selector = {"matchLabels": {"app": "vllm"}, "matchExpressions": [{"key": "old", "operator": "DoesNotExist"}]}
    old = make.pod("old", labels={"app": "vllm", "old": ""})
    assert list(urls(found(make.pods(selector=selector), make.pod("new"), old))) == ["new:8000"]


@pytest.mark.parametrize("weight", [1, 50, 1000])
def test_a_pod_says_its_weight_by_annotation(weight):
    annotated = make.pod(annotations={"spillway.dev/weight": str(weight)})
    assert weights(found(make.pods(8000, 8001), annotated)) == {"vllm-0:8000": weight, "vllm-0:8001": weight}


@pytest.mark.parametrize("weight", ["0", "1001", "-5", "1.5", "", "heavy", "²", "٣", " 5", "99999999"])
def test_a_wrong_weight_counts_as_100_and_is_told(weight):
    result = found(make.pods(), make.pod("vllm-0", annotations={"spillway.dev/weight": weight}))
    assert weights(result) == {"vllm-0:8000": 100}
    path, reason, message = problem(result)
    assert (path, reason) == ("spec.source.pods.weightAnnotation", "Invalid")
    assert f'"vllm-0": spillway.dev/weight is "{weight}"' in message
    assert "1 to 1000" in message


def test_the_annotation_may_have_another_name():
    annotated = make.pod(annotations={"gpu": "300", "spillway.dev/weight": "5"})
    assert weights(found(make.pods(weightAnnotation="gpu"), annotated)) == {"vllm-0:8000": 300}


def test_nobody_asks_the_weight_of_a_pod_that_takes_nothing():
    annotated = make.pod(ready=False, annotations={"spillway.dev/weight": "heavy"})
    assert found(make.pods(), annotated).discovered.problems == ()


def test_of_two_pods_of_one_name_one_is_an_endpoint():
    """A watch that was away for long may have missed that the first one went."""
    result = found(make.pods(), make.pod("vllm-0", "10.0.0.1"), make.pod("vllm-0", "10.0.0.2", uid="new"))
    assert [each.name for each in result.discovered.endpoints] == ["vllm-0:8000"]


# ---- Services


def test_the_ready_addresses_behind_a_service():
    part = make.endpoint_slice("s", at("a", "10.0.0.1", ready=True), at("b", "10.0.0.2", ready=False))
    result = found(make.behind(), make.service(), part)
    assert urls(result) == {"a:8000": "http://10.0.0.1:8000"}
    assert counts(result) == (1, 1, 0)


def test_serving_and_terminating_is_draining():
    ends = at("a", "10.0.0.1", ready=False, serving=True, terminating=True)
    gone = at("b", "10.0.0.2", ready=False, serving=False, terminating=True)
    assert counts(found(make.behind(), make.service(), make.endpoint_slice("s", ends, gone))) == (0, 0, 1)


def test_terminating_is_no_endpoint_even_where_the_service_publishes_unready_ones():
    """With publishNotReadyAddresses a slice says ready of what terminates."""
    odd = at("a", "10.0.0.1", ready=True, serving=True, terminating=True)
    assert counts(found(make.behind(), make.service(), make.endpoint_slice("s", odd))) == (0, 0, 1)


@pytest.mark.parametrize("conditions", [{}, {"ready": None}, {"ready": None, "serving": None, "terminating": None}])
def test_absent_conditions_count_as_ready(conditions):
    part = make.endpoint_slice("s", at("a", "10.0.0.1", **conditions))
    assert counts(found(make.behind(), make.service(), part)) == (1, 0, 0)


def test_conditions_may_be_missing_altogether():
    part = make.endpoint_slice("s", {"addresses": ["10.0.0.1"]})
    assert urls(found(make.behind(), make.service(), part)) == {"10.0.0.1:8000": "http://10.0.0.1:8000"}


def test_serving_absent_is_what_ready_says():
    ends = make.endpoint_slice("s", at("a", "10.0.0.1", ready=True, terminating=True))
    assert counts(found(make.behind(), make.service(), ends)) == (0, 0, 1)
    gone = make.endpoint_slice("s", at("a", "10.0.0.1", ready=False, terminating=True))
    assert counts(found(make.behind(), make.service(), gone)) == (0, 0, 0)


@pytest.mark.parametrize("port", ["http", 80])
def test_a_port_by_name_or_by_number(port):
    there = make.service("vllm", ("metrics", 9000), ("http", 80))
    part = make.endpoint_slice("s", at("a", "10.0.0.1", ready=True), ports={"metrics": 9001, "http": 8000})
    assert list(urls(found(make.behind(port), there, part))) == ["a:8000"]


def test_a_port_that_is_not_there_names_those_that_are():
    there = make.service("vllm", ("metrics", 9000), ("http", 80))
    path, reason, message = problem(found(make.behind("https"), there))
    assert (path, reason) == ("spec.source.service.port", "PortNotFound")
    assert message == 'Service "vllm" has no port "https"; it has 9000 (metrics), 80 (http)'


def test_a_port_of_a_service_with_one_nameless_port():
    assert problem(found(make.behind("http"), make.service()))[2] == 'Service "vllm" has no port "http"; it has 80'


def test_a_service_without_ports():
    bare = {**make.service(), "spec": {"clusterIP": "None"}}
    assert problem(found(make.behind(), bare))[2] == 'Service "vllm" has no port "80"; it has none'


def test_a_service_that_is_not_there():
    path, reason, message = problem(found(make.behind(), make.service(namespace="team"), make.endpoint_slice("s")))
    assert (path, reason) == ("spec.source.service.name", "ServiceNotFound")
    assert message == 'no Service "vllm" in namespace default'


def test_addresses_beyond_the_first_are_of_the_same_endpoint():
    part = make.endpoint_slice("s", at("a", "10.0.0.1", "10.0.0.2", ready=True))
    assert urls(found(make.behind(), make.service(), part)) == {"a:8000": "http://10.0.0.1:8000"}


def test_without_a_pod_the_hostname_is_the_name_and_then_the_address():
    named = {"addresses": ["10.0.0.1"], "hostname": "gpu-1", "conditions": {"ready": True}}
    part = make.endpoint_slice("s", named, at(None, "10.0.0.2", ready=True))
    assert list(urls(found(make.behind(), make.service(), part))) == ["10.0.0.2:8000", "gpu-1:8000"]


def test_ipv6():
    part = make.endpoint_slice("s", at("a", "fd00::1", ready=True), family="IPv6")
    assert urls(found(make.behind(), make.service(), part)) == {"a:8000": "http://[fd00::1]:8000"}


def test_of_a_pod_with_both_families_the_ipv4_address_is_taken():
    six = make.endpoint_slice("a", at("a", "fd00::1", ready=True), family="IPv6")
    four = make.endpoint_slice("b", at("a", "10.0.0.1", ready=True))
    result = found(make.behind(), make.service(), six, four)
    assert urls(result) == {"a:8000": "http://10.0.0.1:8000"}
    assert counts(result) == (1, 0, 0)


def test_a_pod_in_two_slices_is_one_endpoint():
    parts = [make.endpoint_slice(name, at("a", "10.0.0.1", ready=True)) for name in ("s1", "s2")]
    assert counts(found(make.behind(), make.service(), *parts)) == (1, 0, 0)
    waits = [make.endpoint_slice(name, at("a", "10.0.0.1", ready=False)) for name in ("s1", "s2")]
    assert counts(found(make.behind(), make.service(), *waits)) == (0, 1, 0)


def test_a_named_target_port_may_differ_between_slices():
    """Pods of two revisions whose container port of that name has another number."""
    old = make.endpoint_slice("old", at("a", "10.0.0.1", ready=True), ports={"http": 8000})
    new = make.endpoint_slice("new", at("b", "10.0.0.2", ready=True), ports={"http": 9000})
    none = make.endpoint_slice("none", at("c", "10.0.0.3", ready=True), ports={"metrics": 9001})
    nil = make.endpoint_slice("nil", at("d", "10.0.0.4", ready=True), ports={"http": None})
    result = found(make.behind("http"), make.service("vllm", ("http", 80)), old, new, none, nil)
    assert list(urls(result)) == ["a:8000", "b:9000"]


def test_a_slice_without_endpoints_or_ports():
    empty = {**make.endpoint_slice("s"), "endpoints": None, "ports": None}
    result = found(make.behind(), make.service(), empty)
    assert result == NOTHING._replace(why='no running Pod is behind Service "vllm" at this port')


def test_slices_of_other_services_are_none_of_its():
    other = make.endpoint_slice("s", at("a", "10.0.0.1", ready=True), service="web")
    assert not urls(found(make.behind(), make.service(), other))


# ---- InferencePools

INFERENCE = {"inferencePool": {"name": "vllm"}}


def test_the_pods_that_an_inference_pool_selects():
    result = found(INFERENCE, make.inference_pool("vllm", 8001, 8000), make.pod("a"), make.pod("b", ready=False))
    assert list(urls(result)) == ["a:8000", "a:8001"]
    assert counts(result) == (2, 2, 0)


def test_an_inference_pool_that_is_not_there_says_whence_its_kind_comes():
    path, reason, message = problem(found(INFERENCE, make.pod()))
    assert (path, reason) == ("spec.source.inferencePool.name", "InferencePoolNotFound")
    assert message.startswith('no InferencePool "vllm" in namespace default')
    assert "inference.networking.k8s.io/v1" in message


def test_an_inference_pool_that_selects_nothing_has_nothing():
    result = found(INFERENCE, make.inference_pool(labels={}), make.pod(), make.pod("bare", labels={}))
    assert not urls(result)
    assert result.why.startswith('InferencePool "vllm" has no selector')


# ---- what is given needs no finding


@pytest.mark.parametrize("source", [None, make.provider("main")])
def test_static_endpoints_and_accounts_are_not_found_but_given(source):
    assert found(source, make.pod(), make.service()) is NOTHING


def test_by_which_labels_a_pool_takes_pods():
    def selector(source, *bodies):
        return selector_of(facts.model_pool(make.model_pool(source=source)).item, make.world(*bodies))

    assert selector(make.pods()).match_labels == make.LABELS
    assert selector(INFERENCE, make.inference_pool()).match_labels == make.LABELS
    nothing = [(INFERENCE,), (INFERENCE, make.inference_pool(labels={})), (make.behind(), make.service()), (None,)]
    assert [selector(*each) for each in nothing] == [None] * 4


# ---- laws

NAMES = ("a", "b", "c-0", "c-1")
LABELLINGS = ({"app": "vllm"}, {"app": "vllm", "tier": "x"}, {"app": "web"}, {})
SELECTORS = (
    {"matchLabels": {"app": "vllm"}},
    {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]},
    {"matchLabels": {"app": "vllm"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["x"]}]},
)
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"])
some_pods = st.builds(
    make.pod,
    st.sampled_from(NAMES),
    st.none() | ADDRESSES,
    ready=st.none() | st.booleans(),
    terminating=st.booleans(),
    labels=st.sampled_from(LABELLINGS),
    annotations=st.none() | st.fixed_dictionaries({"spillway.dev/weight": st.sampled_from(["5", "x", "1000"])}),
    uid=st.sampled_from(["", "other"]),
)
sources_by_pods = st.builds(
    lambda selector, ports: make.pods(*ports, selector=selector),
    st.sampled_from(SELECTORS),
    st.lists(st.sampled_from([8000, 8001, 9000]), min_size=1, unique=True),
)


@given(sources_by_pods, st.lists(some_pods, max_size=6), st.randoms(use_true_random=False))
def test_endpoints_of_pods_are_unique_sorted_ready_and_in_no_order_of_arrival(source, bodies, dice):
    result = found(source, *bodies)
    names = [each.name for each in result.discovered.endpoints]
    assert names == sorted(set(names))
    pool = facts.model_pool(make.model_pool(source=source)).item
    good = [
        seen
        for seen in map(facts.pod, bodies)
        if seen.ready and not seen.terminating and seen.address and matches(pool.spec.source.pods.selector, seen.labels)
    ]
    assert set(names) == {f"{seen.name}:{port}" for seen in good for port in source["pods"]["ports"]}
    addresses = {
        each.url.removeprefix("http://").rpartition(":")[0].strip("[]") for each in result.discovered.endpoints
    }
    assert addresses <= {seen.address for seen in good}
    dice.shuffle(bodies)
    assert found(source, *bodies) == result


states = st.fixed_dictionaries({"ready": st.booleans(), "serving": st.booleans(), "terminating": st.booleans()})


@given(
    st.dictionaries(st.sampled_from(NAMES), states),
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(NAMES), unique=True), st.sampled_from(["IPv4", "IPv6"]), st.sampled_from([1, 2])
        ),
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_endpoints_of_slices_are_unique_sorted_ready_and_in_no_order_of_arrival(conditions, slices, dice):
    address = {"IPv4": "10.0.0.1", "IPv6": "fd00::1"}
    bodies = [
        make.endpoint_slice(
            f"s{index}",
            *(at(name, address[family], **conditions[name]) for name in names if name in conditions),
            family=family,
            ports={"": port},
        )
        for index, (names, family, port) in enumerate(slices)
    ]
    result = found(make.behind(), make.service(), *bodies)
    names = [each.name for each in result.discovered.endpoints]
    assert names == sorted(set(names))
    for name in names:
        state = conditions[name.split(":")[0]]
        assert state["ready"]
        assert not state["terminating"]
    everything = {f"{name}:{port}" for names, _, port in slices for name in names if name in conditions}
    draining = sum(conditions[name.split(":")[0]]["terminating"] for name in everything)
    assert len(names) + result.not_ready <= len(everything) - draining
    assert result.draining <= draining
    for body in bodies:
        dice.shuffle(body["endpoints"])
    dice.shuffle(bodies)
    assert found(make.behind(), make.service(), *bodies) == result
