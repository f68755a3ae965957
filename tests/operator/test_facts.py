"""What is kept of an object: enough to decide by, equal when nothing that matters has changed, whatever is missing."""

from __future__ import annotations

import copy

import pytest
import tests.operator.objects as make
from hypothesis import given
from hypothesis import strategies as st

from spillway_operator import facts
from spillway_operator.facts import GatewayFacts, InferencePoolFacts, PodFacts, SliceEndpoint, SliceFacts


def test_a_pod():
    body = make.pod("a", "10.0.0.1", annotations={"spillway.dev/weight": "50"})
    expected = PodFacts("default", "a", "10.0.0.1", True, False, make.LABELS, {"spillway.dev/weight": "50"})
    assert facts.pod(body) == expected


def test_a_pod_that_was_only_just_made():
    body = {"metadata": {"name": "a", "namespace": "default"}}
    assert facts.pod(body) == PodFacts("default", "a", None, False, False, {}, {})


@pytest.mark.parametrize("nothing", [None, {}])
def test_what_is_null_is_missing(nothing):
    body = {"metadata": {"name": "a", "namespace": "d", "labels": nothing, "annotations": nothing}, "status": nothing}
    assert facts.pod(body) == PodFacts("d", "a", None, False, False, {}, {})


def test_a_heartbeat_of_a_pod_is_no_other_fact():
    before = make.pod("a")
    after = copy.deepcopy(before)
    after["metadata"] |= {"resourceVersion": "77", "managedFields": [{}]}
    after["status"]["conditions"][1] |= {"lastProbeTime": "2026-01-01T00:00:09Z"}
    after["status"]["startTime"] = "2026-01-01T00:00:00Z"
    assert facts.pod(before) == facts.pod(after)


def test_long_annotations_are_not_kept():
    body = make.pod(annotations={"last-applied": "{" * 9000, "spillway.dev/weight": "1000"})
    assert facts.pod(body).annotations == {"spillway.dev/weight": "1000"}


def test_facts_of_a_pod_hold_nothing_of_the_watch():
    body = make.pod(labels={"a": "1"})
    seen = facts.pod(body)
    body["metadata"]["labels"]["a"] = "2"
    assert seen.labels == {"a": "1"}


def test_a_slice():
    body = make.endpoint_slice(
        "s",
        make.at("b", "10.0.0.2", "10.0.0.9", ready=False, serving=True, terminating=True),
        make.at("a", "10.0.0.1", ready=True),
        ports={"http": 8000, "none": None},
    )
    ends = SliceEndpoint("b", "10.0.0.2", False, True, True)
    assert facts.endpoint_slice(body) == SliceFacts(
        "default", "s", "vllm", "IPv4", {"http": 8000}, (SliceEndpoint("a", "10.0.0.1", True, True, False), ends)
    )


def test_the_order_of_a_slices_endpoints_is_no_fact():
    one, two = make.at("a", "10.0.0.1", ready=True), make.at("b", "10.0.0.2", ready=True)
    there, back = make.endpoint_slice("s", one, two), make.endpoint_slice("s", two, one)
    assert facts.endpoint_slice(there) == facts.endpoint_slice(back)


def test_a_slice_of_no_service():
    body = {"metadata": {"name": "s", "namespace": "d"}, "addressType": "IPv4", "endpoints": None}
    assert facts.endpoint_slice(body) == SliceFacts("d", "s", "", "IPv4", {}, ())


def test_a_service_and_one_without_a_spec():
    assert facts.service(make.service("s", ("http", 80), ("", 81))).ports == (("http", 80), ("", 81))
    assert facts.service({"metadata": {"name": "s", "namespace": "d"}}).ports == ()


def test_an_inference_pool_and_one_without_a_spec():
    body = make.inference_pool("p", 8000, 8001)
    assert facts.inference_pool(body) == InferencePoolFacts("default", "p", make.LABELS, (8000, 8001))
    bare = {"metadata": {"name": "p", "namespace": "d"}}
    assert facts.inference_pool(bare) == InferencePoolFacts("d", "p", {}, ())


def test_a_namespace():
    assert facts.namespace(make.namespace("team", tier="a")) == facts.NamespaceFacts("team", {"tier": "a"})
    assert facts.namespace({"metadata": {"name": "team"}}).labels == {}


def test_the_gateway_of_a_deployment():
    body = make.deployment("spillway-gateway", "default", 3, "spillway-gateway")
    expected = GatewayFacts("default", "spillway-gateway", "uid-of-spillway-gateway", "spillway-gateway", 3)
    assert facts.gateway(body) == expected


def test_what_a_deployment_leaves_out_is_kubernetes_default():
    seen = facts.gateway(make.deployment(replicas=None))
    assert seen is not None
    assert (seen.service_account, seen.replicas) == ("default", 1)
    asleep = facts.gateway(make.deployment(replicas=0))
    assert asleep is not None
    assert asleep.replicas == 0


@pytest.mark.parametrize("gateway", [None, ""])
def test_a_deployment_without_the_label_is_no_gateway(gateway):
    assert facts.gateway(make.deployment(gateway=gateway)) is None


# ---- our own objects


def test_a_pool_as_it_is_written():
    seen = facts.model_pool(make.model_pool("llama", generation=7, status={"observedGeneration": 6}))
    assert (seen.key, seen.generation, seen.unreadable) == ("ModelPool/default/llama", 7, "")
    assert seen.status == {"observedGeneration": 6}
    assert seen.item is not None
    assert seen.item.metadata.name == "llama"
    assert seen.item.spec.models[0].name == "llama-8b"


def test_fields_of_a_newer_operator_are_ignored():
    body = make.model_pool(ofTheFuture={"targetRef": {"name": "x"}})
    body["spec"]["models"][0]["ofTheFuture"] = {"input": "0.25"}
    seen = facts.model_pool(body)
    assert seen.unreadable == ""
    assert seen.item == facts.model_pool(make.model_pool()).item


def test_an_unreadable_one_is_known_by_name_and_says_what_is_wrong():
    body = make.route_policy(models="chat")
    body["spec"]["models"] = 5
    seen = facts.route_policy(body)
    assert seen.item is None
    assert seen.key == "RoutePolicy/default/chat"
    assert "array" in seen.unreadable
    assert "spec.models" in seen.unreadable


@pytest.mark.parametrize("spec", [None, "", [], {}, {"source": None}])
def test_whatever_stands_in_the_spec_it_is_read_or_unreadable(spec):
    seen = facts.model_pool({**make.model_pool(), "spec": spec})
    assert seen.item is None
    assert seen.unreadable


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["models", "rules", "source", "tiers", "name", "pods"]), inner, max_size=3
            )
        ),
        max_leaves=12,
    )
)
def test_no_spec_makes_the_operator_fail(spec):
    for read, body in ((facts.model_pool, make.model_pool()), (facts.route_policy, make.route_policy())):
        seen = read({**body, "spec": spec})
        assert (seen.item is None) == bool(seen.unreadable)


def test_a_status_that_is_null_and_metadata_without_a_generation():
    body = make.model_pool() | {"status": None}
    del body["metadata"]["generation"], body["metadata"]["uid"]
    seen = facts.model_pool(body)
    assert (seen.status, seen.generation, seen.uid) == ({}, 0, "")


def test_the_status_that_is_kept_is_not_the_watchs_own():
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    seen = facts.model_pool(make.model_pool(status=status))
    status["conditions"][0]["status"] = "False"
    assert seen.status["conditions"][0]["status"] == "True"


def test_two_versions_of_metadata_nobody_reads_are_the_same_item():
    before, after = make.model_pool(), make.model_pool(status={"observedGeneration": 1})
    after["metadata"] |= {"resourceVersion": "5", "annotations": {"a": "b"}, "managedFields": []}
    assert facts.model_pool(before).item == facts.model_pool(after).item
