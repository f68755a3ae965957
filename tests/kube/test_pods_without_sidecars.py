"""Pods that lack their sidecar, on a real API server: how they are watched, what is written to them, who sees it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.kube.access import until
from tests.kube.objects import deployment
from tests.kube.operating import Installation, of_the_chart
from tests.kube.plane import ControlPlane, free_port
from tests.kube.pretend import PretendNode
from tests.kube.processes import OperatorProcess
from tests.operator.rig import running

from spillway_operator import podwatch
from spillway_operator.cluster import ApiError, Cluster
from spillway_operator.injection import LABEL, Sidecar
from spillway_operator.lacking import CONDITION, Lack, Shown, condition, seen
from spillway_operator.podwatch import PodWatch, Scope

SIDECAR = Sidecar("image", "https://operator:9443", {"default": "http://gateway"})
REFUSED = Lack("Refused", "it cannot have one")
TIME = "2026-05-01T12:00:00Z"


def client(name, own="true", **spec):
    labels = {} if own is None else {LABEL: own}
    body = {"terminationGracePeriodSeconds": 0, "containers": [{"name": "web", "image": "web"}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": body}


@pytest.fixture
async def asked(plane):
    """The API server, as the administrator."""
    cluster = await Cluster.connect(plane.kubeconfig)
    yield cluster
    await cluster.close()


def watch_of(asked, namespace, heard, selector=f"{LABEL}=true", silence=70.0):
    scope, dice = Scope(namespace, selector), random.Random(7)
    return PodWatch(asked, scope, lambda pod: seen(pod, (), SIDECAR), heard.set, dice, silence)


def pod_of(plane, namespace, name):
    return plane.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")


def conditions(plane, namespace, name):
    found = pod_of(plane, namespace, name)["status"].get("conditions") or ()
    return {each["type"]: (each["status"], each.get("reason")) for each in found}


@pytest.mark.parametrize("own", ["true", None])
async def test_pods_are_listed_in_pages_and_then_watched(plane, namespace, asked, monkeypatch, own):
    monkeypatch.setattr(podwatch, "CHUNK", 2)
    plane.apply(*(client(f"p{number}", own) for number in range(5)), client("other", "false"), namespace=namespace)
    selector = f"!{LABEL}" if own is None else f"{LABEL}=true"
    heard = asyncio.Event()
    watch = watch_of(asked, namespace, heard, selector)

    async def comes(*names):
        async with asyncio.timeout(20):
            while {pod.name for pod in watch.pods.values()} != set(names):
                heard.clear()
                await heard.wait()

    async with running(watch.run()):
        await comes("p0", "p1", "p2", "p3", "p4")
        assert watch.listed
        plane.apply(client("p5", own), namespace=namespace)
        await comes("p0", "p1", "p2", "p3", "p4", "p5")
        plane.kubectl("delete", "pod", "-n", namespace, "p0", "p1")
        await comes("p2", "p3", "p4", "p5")
        watch.left.clear()
        plane.kubectl("label", "pod", "-n", namespace, "p2", f"{LABEL}=false", "--overwrite")
        await comes("p3", "p4", "p5")
        assert [pod.name for pod in watch.left.values()] == ["p2"]
        pod = next(iter(watch.pods.values()))
        assert pod.asked == ("" if own is None else pod.created)


async def test_a_watch_from_too_long_ago_lists_anew(plane, namespace, asked):
    plane.apply(client("web"), namespace=namespace)
    heard = asyncio.Event()
    watch = watch_of(asked, namespace, heard)
    watch._version = "1"
    async with running(watch.run()), asyncio.timeout(20):
        await heard.wait()
    assert [pod.name for pod in watch.pods.values()] == ["web"]


async def test_a_silent_watch_is_opened_anew(plane, namespace, asked, caplog):
    heard = asyncio.Event()
    watch = watch_of(asked, namespace, heard, silence=0.5)
    async with running(watch.run()), asyncio.timeout(20):
        await heard.wait()
        heard.clear()
        await asyncio.sleep(1.0)
        plane.apply(client("web"), namespace=namespace)
        await heard.wait()
    assert [pod.name for pod in watch.pods.values()] == ["web"]
    assert "no answer within 0.5 s" in caplog.text


async def test_a_condition_is_put_beside_those_of_others_and_taken_away(plane, namespace, asked):
    plane.apply(client("web"), namespace=namespace)
    found = pod_of(plane, namespace, "web")
    uid, path = found["metadata"]["uid"], f"/api/v1/namespaces/{namespace}/pods/web/status"
    theirs = {"type": "example.com/Theirs", "status": "True", "lastTransitionTime": TIME}
    patch = {"status": {"conditions": [theirs]}}
    plane.api.call("PATCH", path, patch, kind="application/strategic-merge-patch+json")

    async def write(*conditions, uid=uid, name="web"):
        body = {"metadata": {"uid": uid}, "status": {"conditions": list(conditions)}}
        await asked.apply_status("v1", "pods", namespace, name, body)

    before = conditions(plane, namespace, "web")
    await write(condition(REFUSED, None, TIME))
    assert conditions(plane, namespace, "web") == before | {CONDITION: ("False", "Refused")}
    there = seen(pod_of(plane, namespace, "web"), (), SIDECAR)
    assert there is not None
    assert there.shown == Shown("Refused", "it cannot have one", TIME)
    version = pod_of(plane, namespace, "web")["metadata"]["resourceVersion"]
    await write(condition(REFUSED, there.shown, "2026-05-02T12:00:00Z"))
    assert pod_of(plane, namespace, "web")["metadata"]["resourceVersion"] == version
    with pytest.raises(ApiError, match="field is immutable") as caught:
        await write(condition(REFUSED, None, TIME), uid="11111111-2222-3333-4444-555555555555")
    assert caught.value.status == 422
    await write()
    assert conditions(plane, namespace, "web") == before
    await write(condition(REFUSED, None, TIME), name="gone")
    names = [each["metadata"]["name"] for each in plane.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]]
    assert names == ["web"]


# ---- an operator with sidecars to give, whose webhook no API server reaches


@pytest.fixture(scope="module")
def installed(
    plane: ControlPlane, node: PretendNode, helm: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    render = of_the_chart(helm, {"sidecars": {"enabled": True}}, free_port())
    with Installation(plane, tmp_path_factory.mktemp("lacking"), render=render) as installed:
        installed.operator()
        yield installed


@pytest.fixture
def leader(installed: Installation) -> OperatorProcess:
    (leader,) = (each for each in installed.operators if each.running)
    until(lambda: leader.leads, "the operator leads")
    return leader


def counted(leader: OperatorProcess, namespace: str, reason: str) -> int:
    labels = f'{{namespace="{namespace}",reason="{reason}"}}'
    return int(leader.metric(f"spillway_operator_pods_without_sidecar{labels}") or 0)


def told(plane, namespace, name):
    found = pod_of(plane, namespace, name)["status"].get("conditions") or ()
    return next(((each["reason"], each["message"]) for each in found if each["type"] == CONDITION), ("", ""))


def events(plane, namespace):
    items = plane.api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
    return sorted(
        (each["regarding"]["name"], each["type"], each["note"].partition(":")[0], "series" in each)
        for each in items
        if each["reason"] == "NoSidecar"
    )


def test_a_pod_without_its_sidecar_is_shown_until_it_is_gone(plane, installed, leader, namespace):
    web = deployment("web", 2, **{LABEL: "true"})
    plane.apply(web, client("host", hostNetwork=True), client("not", "false"), namespace=namespace)
    until(lambda: counted(leader, namespace, "MissedWebhook") == 2, "the Pods are counted")
    assert counted(leader, namespace, "Refused") == 1
    until(lambda: len(events(plane, namespace)) == 3, "events tell of them")
    names = [each["metadata"]["name"] for each in plane.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]]
    assert {name.partition("-")[0]: told(plane, namespace, name)[0] for name in names} == {
        "web": "MissedWebhook",
        "host": "Refused",
        "not": "",
    }
    assert "it has the network of its node" in told(plane, namespace, "host")[1]
    assert {each[1:] for each in events(plane, namespace)} == {
        ("Warning", "MissedWebhook", False),
        ("Warning", "Refused", False),
    }
    described = plane.kubectl("describe", "pod", "-n", namespace, "host")
    assert "spillway.dev/Sidecar" in described
    assert "NoSidecar" in described
    plane.kubectl("scale", "deployment", "web", "--replicas=0", "-n", namespace)
    plane.kubectl("delete", "pod", "host", "-n", namespace)
    until(lambda: f'namespace="{namespace}"' not in leader.metrics, "none is left")
    assert "lack a sidecar (MissedWebhook)" in leader.log


def test_a_pod_that_was_there_before_its_namespace_asked_is_told_so(plane, installed, leader, namespace):
    plane.apply(client("old", None), namespace=namespace)
    plane.kubectl("label", "namespace", namespace, f"{LABEL}=true")
    until(lambda: counted(leader, namespace, "CreatedBefore") == 1, "it is counted")
    until(lambda: told(plane, namespace, "old")[0] == "CreatedBefore", "it is told")
    until(lambda: events(plane, namespace) == [("old", "Normal", "CreatedBefore", False)], "an event tells")
    time.sleep(3.0)  # so much younger than the label, by clocks of whole seconds
    plane.apply(client("new", None), namespace=namespace)
    until(lambda: told(plane, namespace, "new")[0] == "MissedWebhook", "a later one is not")
    plane.kubectl("label", "namespace", namespace, f"{LABEL}-")
    until(lambda: told(plane, namespace, "old") == told(plane, namespace, "new") == ("", ""), "nobody asks any more")
    assert counted(leader, namespace, "CreatedBefore") == 0


def test_another_leader_writes_nothing_that_stands_there(plane, installed, leader, namespace):
    plane.apply(*(client(f"p{number}") for number in range(30)), namespace=namespace)
    until(lambda: len(events(plane, namespace)) == 30, "all are told")

    def writes():
        asked = (each for each in plane.audit(installed.user) if each.namespace == namespace)
        return Counter((each.resource, each.verb) for each in asked if each.verb in ("patch", "create"))

    before = writes()
    assert before == {("pods", "patch"): 30, ("events", "create"): 30}
    installed.operator()
    leader.close()
    (other,) = (each for each in installed.operators if each.running)
    until(lambda: other.leads and counted(other, namespace, "MissedWebhook") == 30, "the other one sees them")
    time.sleep(3.0)  # in which it would have written
    assert writes() == before
