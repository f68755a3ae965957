"""Pods that lack their sidecar, on a real API server: how they are watched, what is written to them, who sees it."""

from __future__ import annotations

import asyncio
import random

import pytest
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
