"""From watch events to wakes, through kopf's own indices: who is woken, for what, and who sleeps on."""

from __future__ import annotations

import asyncio
import copy
from collections import Counter

import pytest
import tests.operator.objects as make
from hypothesis import given
from hypothesis import strategies as st
from tests.operator.kopfs import OF, Wakes

from spillway_operator import watching
from spillway_operator.sources import find

NOBODY, CONFIG, STATUS = (0, 0), (1, 0), (0, 1)


@pytest.fixture
async def wakes():
    """A cluster with a pool by labels and one behind a Service, listed."""
    wakes = Wakes()
    await wakes.start()
    there = [
        make.model_pool("by-labels", make.pods()),
        make.model_pool("by-service", make.behind()),
        make.route_policy("chat", "by-labels"),
        make.pod("a"),
        make.service(),
        make.endpoint_slice("s", make.at("a", "10.0.0.1", ready=True)),
        make.namespace("default"),
    ]
    assert await wakes.listed(*there) == CONFIG
    return wakes


def pool(wakes, name="by-labels"):
    return next(each for each in wakes.world.pools() if each.name == name)


def endpoints(wakes, name="by-labels"):
    return [each.name for each in wakes.world.found(pool(wakes, name).item).discovered.endpoints]


def with_status(body, **status):
    return {**copy.deepcopy(body), "status": status}


async def test_the_first_listing_wakes_once_whatever_it_brings():
    wakes = Wakes()
    await wakes.start()
    assert not wakes.watching.synced
    assert await wakes.listed(*(make.pod(f"p{number}") for number in range(20)), make.model_pool()) == CONFIG
    assert wakes.watching.synced


async def test_the_world_is_there_from_the_start_and_shows_the_indices():
    wakes = Wakes()
    assert wakes.watching.world is None
    await wakes.start()
    assert list(wakes.world.pools()) == []
    await wakes.event(make.model_pool("llama"), None)
    assert [each.name for each in wakes.world.pools()] == ["llama"]


async def test_an_index_that_nobody_needs_holds_nothing():
    wakes = Wakes(namespaces=("team",))
    await wakes.start()
    await wakes.event(make.model_pool())
    assert "namespaces" not in wakes.indexers
    assert wakes.world.labels("default") == {}


async def test_a_relisting_of_what_is_known_wakes_nobody(wakes):
    for body in (make.pod("a"), make.service(), make.route_policy("chat", "by-labels"), make.namespace("default")):
        assert await wakes.event(body, None) == NOBODY


async def test_a_heartbeat_wakes_nobody(wakes):
    beat = make.pod("a")
    beat["metadata"]["resourceVersion"] = "9"
    beat["status"]["conditions"][1]["lastProbeTime"] = "2026-01-01T00:00:00Z"
    assert await wakes.event(beat) == NOBODY


async def test_a_pod_that_gets_ready_is_an_endpoint_at_once(wakes):
    assert await wakes.event(make.pod("b", "10.0.0.2", ready=False), "ADDED") == CONFIG
    assert endpoints(wakes) == ["a:8000"]
    assert await wakes.event(make.pod("b", "10.0.0.2")) == CONFIG
    assert endpoints(wakes) == ["a:8000", "b:8000"]


async def test_a_pod_that_goes_is_an_endpoint_no_more(wakes):
    assert endpoints(wakes) == ["a:8000"]
    assert await wakes.event(make.pod("a", terminating=True)) == CONFIG
    assert endpoints(wakes) == []
    assert await wakes.event(make.pod("a", terminating=True), "DELETED") == CONFIG
    assert list(wakes.world.pods("default")) == []


async def test_pods_that_no_pool_selects_wake_nobody(wakes):
    web = make.pod("web", labels={"app": "web"})
    assert await wakes.event(web, "ADDED") == NOBODY
    assert await wakes.event(make.pod("web", labels={"app": "web"}, ready=False)) == NOBODY
    assert await wakes.event(web, "DELETED") == NOBODY
    assert await wakes.event(make.pod("far", namespace="team"), "ADDED") == NOBODY


async def test_a_pod_that_leaves_the_selector(wakes):
    endpoints(wakes)
    assert await wakes.event(make.pod("a", labels={"app": "web"})) == CONFIG
    assert endpoints(wakes) == []


async def test_a_pod_that_comes_back_under_its_name_before_its_end_is_told(wakes):
    """Events of two uids come over two workers of kopf: the end of the old one may be heard last."""
    assert await wakes.event(make.pod("a", "10.0.0.9", uid="new"), "ADDED") == CONFIG
    assert await wakes.event(make.pod("a"), "DELETED") == CONFIG
    (only,) = wakes.world.found(pool(wakes).item).discovered.endpoints
    assert (only.name, only.url) == ("a:8000", "http://10.0.0.9:8000")
    await wakes.event(make.pod("a", "10.0.0.9", uid="new", ready=False))
    assert endpoints(wakes) == []


async def test_a_change_of_slices_wakes_for_the_pools_behind_the_service(wakes):
    two = make.endpoint_slice("s", make.at("a", "10.0.0.1", ready=True), make.at("b", "10.0.0.2", ready=True))
    assert await wakes.event(two) == CONFIG
    assert endpoints(wakes, "by-service") == ["a:8000", "b:8000"]
    turned = copy.deepcopy(two)
    turned["endpoints"].reverse()
    assert await wakes.event(turned) == NOBODY
    assert await wakes.event(make.endpoint_slice("other", service="web"), "ADDED") == NOBODY
    assert await wakes.event(two, "DELETED") == CONFIG
    assert endpoints(wakes, "by-service") == []


async def test_a_slice_that_moves_to_another_service(wakes):
    endpoints(wakes, "by-service")
    moved = make.endpoint_slice("s", make.at("a", "10.0.0.1", ready=True), service="web")
    assert await wakes.event(moved) == CONFIG
    assert endpoints(wakes, "by-service") == []


async def test_a_service_that_comes_and_goes(wakes):
    assert await wakes.event(make.service(), "DELETED") == CONFIG
    assert wakes.world.found(pool(wakes, "by-service").item).discovered.problems[0][1] == "ServiceNotFound"
    assert await wakes.event(make.service(), "ADDED") == CONFIG
    assert endpoints(wakes, "by-service") == ["a:8000"]


async def test_an_inference_pool_that_comes_late_and_turns_elsewhere(wakes):
    await wakes.event(make.model_pool("by-inference", {"inferencePool": {"name": "vllm"}}), "ADDED")
    assert wakes.world.found(pool(wakes, "by-inference").item).discovered.problems[0][1] == "InferencePoolNotFound"
    assert await wakes.event(make.inference_pool(), "ADDED") == CONFIG
    assert endpoints(wakes, "by-inference") == ["a:8000"]
    assert await wakes.event(make.inference_pool(labels={"app": "web"})) == CONFIG
    assert endpoints(wakes, "by-inference") == []
    assert await wakes.event(make.pod("w", labels={"app": "web"}), "ADDED") == CONFIG
    assert endpoints(wakes, "by-inference") == ["w:8000"]


async def test_labels_of_a_namespace_may_open_pools_and_nothing_else_of_it_counts(wakes):
    assert await wakes.event(make.namespace("default", team="a")) == CONFIG
    noted = make.namespace("default", team="a")
    noted["metadata"]["annotations"] = {"note": "x"}
    assert await wakes.event(noted) == NOBODY
    assert await wakes.event(make.namespace("team"), "ADDED") == CONFIG
    assert await wakes.event(make.namespace("team"), "DELETED") == CONFIG


# ---- our own objects


async def test_a_status_alone_wakes_statuses_and_keeps_the_item(wakes):
    before = pool(wakes)
    found = wakes.world.found(before.item)
    assert await wakes.event(with_status(make.model_pool("by-labels", make.pods()), observedGeneration=1)) == STATUS
    after = pool(wakes)
    assert after.status == {"observedGeneration": 1}
    assert after.item is before.item
    assert wakes.world.found(after.item) is found
    assert await wakes.event(with_status(make.route_policy("chat", "by-labels"), tierSummary="x")) == STATUS


async def test_an_edit_wakes_configuration(wakes):
    endpoints(wakes)
    edited = make.model_pool("by-labels", make.pods(8000, 8001), generation=2)
    assert await wakes.event(edited) == CONFIG
    assert endpoints(wakes) == ["a:8000", "a:8001"]
    assert await wakes.event(make.route_policy("chat", "by-labels", models=("x",), generation=2)) == CONFIG


async def test_another_selector_finds_other_pods(wakes):
    await wakes.event(make.pod("w", labels={"app": "web"}), "ADDED")
    assert endpoints(wakes) == ["a:8000"]
    selector = {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["vllm"]}]}
    assert await wakes.event(make.model_pool("by-labels", make.pods(selector=selector), generation=2)) == CONFIG
    assert endpoints(wakes) == ["w:8000"]


async def test_our_objects_come_and_go(wakes):
    new = make.model_pool("new", make.pods())
    assert await wakes.event(new, "ADDED") == CONFIG
    assert endpoints(wakes, "new") == ["a:8000"]
    assert await wakes.event(new, "DELETED") == CONFIG
    assert [each.name for each in wakes.world.pools()] == ["by-labels", "by-service"]
    assert await wakes.event(make.route_policy("chat", "by-labels"), "DELETED") == CONFIG
    assert list(wakes.world.policies()) == []


async def test_an_object_that_becomes_unreadable_and_readable_again(wakes):
    body = make.model_pool("by-labels", make.pods())
    assert await wakes.event({**body, "spec": {}}) == CONFIG
    assert pool(wakes).item is None
    assert await wakes.event({**with_status(body, observedGeneration=1), "spec": {}}) == STATUS
    assert await wakes.event(make.pod("a", ready=False)) == NOBODY
    assert await wakes.event(body) == CONFIG
    assert endpoints(wakes) == []


async def test_what_was_deleted_and_made_again_is_new(wakes):
    body = make.model_pool("by-labels", make.pods())
    await wakes.event(body, "DELETED")
    assert await wakes.event(body, "ADDED") == CONFIG
    assert endpoints(wakes) == ["a:8000"]


# ---- laws

NAMES = ("a", "b")
SPACES = ("default", "team")
LABELLINGS = ({"app": "vllm"}, {"app": "web"}, {})
SOURCES = (
    None,
    make.pods(),
    make.pods(selector={"matchLabels": {"app": "web"}}),
    make.pods(selector={"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}),
    make.behind(),
    make.behind(81),
    make.behind(80, "web"),
    {"inferencePool": {"name": "vllm"}},
    {"inferencePool": {"name": "web"}},
)
names, spaces = st.sampled_from(NAMES), st.sampled_from(SPACES)
states = st.fixed_dictionaries({"ready": st.booleans(), "terminating": st.booleans()})
bodies = st.one_of(
    st.builds(
        make.pod,
        names,
        st.sampled_from(["10.0.0.1", "10.0.0.2", None]),
        ready=st.booleans(),
        terminating=st.booleans(),
        labels=st.sampled_from(LABELLINGS),
        namespace=spaces,
        uid=st.sampled_from(["", "again"]),
    ),
    st.builds(
        make.model_pool,
        names,
        st.sampled_from(SOURCES),
        namespace=spaces,
        status=st.sampled_from([None, {"observedGeneration": 1}]),
    ),
    st.builds(
        lambda name, state, service, space: make.endpoint_slice(
            name, make.at("a", "10.0.0.1", **state), service=service, namespace=space
        ),
        names,
        states,
        st.sampled_from(["vllm", "web"]),
        spaces,
    ),
    st.builds(
        lambda name, port, space: make.service(name, ("", port), namespace=space),
        st.sampled_from(["vllm", "web"]),
        st.sampled_from([80, 81]),
        spaces,
    ),
    st.builds(
        lambda name, labels, space: make.inference_pool(name, labels=labels, namespace=space),
        st.sampled_from(["vllm", "web"]),
        st.sampled_from(LABELLINGS),
        spaces,
    ),
)
changes = st.lists(st.tuples(st.sampled_from(["change", "change", "change", "delete"]), bodies), max_size=15)


def identity(body):
    meta = body["metadata"]
    return body["kind"], meta["namespace"], meta["name"], meta["uid"]


@given(changes, st.integers(0, 15))
def test_after_any_changes_what_is_remembered_is_what_would_be_found_now(changes, asked_until):
    wakes = Wakes()
    asyncio.run(wakes.start())
    there = {}
    for number, (what, body) in enumerate(changes):
        if what == "delete":
            gone = there.pop(identity(body), None)
            if gone is None:
                continue
            wakes.delete(gone)
        else:
            there[identity(body)] = body
            wakes.change(body)
        if number < asked_until:
            for each in wakes.world.pools():
                if each.item is not None:
                    wakes.world.found(each.item)
    for each in wakes.world.pools():
        assert wakes.world.found(each.item) == find(each.item, wakes.world)
    fresh = make.world(*there.values())
    for each in fresh.pools():
        assert wakes.world.found(each.item) == fresh.found(each.item)
    assert Counter(each.key for each in wakes.world.pools()) == Counter(each.key for each in fresh.pools())


@given(changes)
def test_whoever_finds_something_else_was_woken(changes):
    wakes = Wakes()
    asyncio.run(wakes.start())
    wakes.change(make.namespace("default"))
    there = {}
    seen: dict[str, object] = {}
    for what, body in changes:
        before = wakes.config
        if what == "delete":
            gone = there.pop(identity(body), None)
            if gone is None:
                continue
            wakes.delete(gone)
        else:
            there[identity(body)] = body
            wakes.change(body)
        now = {each.key: (each.item, wakes.world.found(each.item)) for each in wakes.world.pools()}
        if now != seen:
            assert wakes.config > before
        seen = now


@given(changes)
def test_the_same_again_wakes_nobody(changes):
    wakes = Wakes()
    asyncio.run(wakes.start())
    for _, body in changes:
        wakes.change(body)
        before = wakes.config, wakes.status
        wakes.change(copy.deepcopy(body))
        assert (wakes.config, wakes.status) == before


# ---- what kopf is told


def test_nothing_is_registered_that_writes_to_anybodys_objects():
    registry = Wakes().registry
    assert registry._changing.get_all_handlers() == []
    assert registry._spawning.get_all_handlers() == []
    assert registry._webhooks.get_all_handlers() == []
    assert {handler.id for handler in registry._indexing.get_all_handlers()} == {kind.name for kind in OF.values()}


def test_every_handler_runs_on_the_loop_and_not_in_a_thread():
    registry = Wakes().registry
    handlers = [
        *registry._indexing.get_all_handlers(),
        *registry._watching.get_all_handlers(),
        *registry._activities.get_all_handlers(),
    ]
    assert handlers
    assert all(asyncio.iscoroutinefunction(handler.fn) for handler in handlers)


def test_settings_ask_the_api_server_for_no_more_than_is_needed():
    settings = watching.settings_for("team=ml", 70.0)
    assert settings.posting.enabled is False
    assert settings.watching.inactivity_timeout == 70.0
    selectors = settings.watching.label_selectors
    fields = settings.watching.field_selectors
    assert list(selectors.collect(_resource("", "v1", "pods"))) == ["team=ml"]
    assert list(selectors.collect(_resource("discovery.k8s.io", "v1", "endpointslices"))) == [
        "kubernetes.io/service-name"
    ]
    assert list(fields.collect(_resource("", "v1", "pods"))) == ["status.phase=Running"]
    assert list(fields.collect(_resource("", "v1", "services"))) == []
    without = watching.settings_for(None, 70.0).watching.label_selectors
    assert list(without.collect(_resource("", "v1", "pods"))) == []


def _resource(group, version, plural):
    from kopf._cogs.structs.references import Resource

    return Resource(group, version, plural)
