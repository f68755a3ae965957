"""What the operator asks of a real API server: objects, status, tokens, events, the Lease; and how it is refused."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest
from tests.operator.rig import running

from spillway_api.stream import AUDIENCE
from spillway_operator.cluster import MANAGER, ApiError, Cluster, Conflict, micro_time
from spillway_operator.identity import Caller, Identity, Unavailable, Unknown
from spillway_operator.leadership import Leadership

LEASES = ("coordination.k8s.io/v1", "leases")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
async def asked(plane):
    """The API server, as the administrator."""
    cluster = await Cluster.connect(plane.kubeconfig)
    yield cluster
    await cluster.close()


def config_map(namespace, name="c", **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name}, "data": data}


async def test_apply_owns_what_it_says_and_leaves_the_rest(asked, namespace, plane):
    made = await asked.apply(config_map(namespace, a="1", b="2"))
    assert made["data"] == {"a": "1", "b": "2"}
    plane.kubectl("patch", "-n", namespace, "configmap", "c", "--type=merge", "-p", '{"data":{"b":"9","theirs":"x"}}')
    again = await asked.apply(config_map(namespace, b="3"))
    assert again["data"] == {"b": "3", "theirs": "x"}  # what was said no more is gone, a stranger's claim overruled
    same = await asked.apply(config_map(namespace, b="3"))
    assert same["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]
    assert MANAGER in {field["manager"] for field in same["metadata"]["managedFields"]}


async def test_what_is_not_there_is_none(asked, namespace):
    assert await asked.get("v1", "configmaps", namespace, "nothing") is None
    assert (await asked.get("v1", "configmaps", namespace, "kube-root-ca.crt"))["kind"] == "ConfigMap"


async def test_status_is_applied_apart_from_the_rest(asked, namespace, plane):
    spec = {"models": [{"name": "m"}], "source": {"static": {"endpoints": [{"name": "e", "url": "http://10.0.0.1"}]}}}
    pool = {"apiVersion": "spillway.dev/v1alpha1", "kind": "ModelPool", "metadata": {"name": "p"}, "spec": spec}
    plane.apply(pool, namespace=namespace)
    place = ("spillway.dev/v1alpha1", "modelpools", namespace)
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Fine",
        "message": "",
        "lastTransitionTime": "2026-05-01T12:00:00Z",
    }
    await asked.apply_status(*place, "p", {"status": {"conditions": [condition]}})
    stands = await asked.get(*place, "p")
    assert stands["status"]["conditions"][0]["reason"] == "Fine"
    assert stands["metadata"]["generation"] == 1
    await asked.apply_status(*place, "gone", {"status": {"conditions": [condition]}})
    assert await asked.get(*place, "gone") is None


async def test_a_version_that_has_passed_is_a_conflict(asked, namespace):
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}}
    made = await asked.create(*LEASES, namespace, lease)
    with pytest.raises(Conflict) as caught:
        await asked.create(*LEASES, namespace, lease)
    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")
    await asked.replace(*LEASES, namespace, made | {"spec": {"holderIdentity": "b"}})
    with pytest.raises(Conflict) as caught:
        await asked.replace(*LEASES, namespace, made)
    assert caught.value.reason == "Conflict"


async def test_a_refusal_says_why_but_nothing_of_a_secret(asked, namespace):
    with pytest.raises(ApiError, match=r"metadata\.name") as caught:
        await asked.apply(config_map(namespace, "Not_A_Name"))
    assert caught.value.status == 422
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": namespace, "name": "s"}}
    for wrong in ({"data": {"key": "quagga-not-base64!"}}, {"data": ["quagga"]}, {"type": "quagga", "data": {"?": ""}}):
        with pytest.raises(ApiError) as caught:
            await asked.apply(secret | wrong)
        assert "quagga" not in f"{caught.value!r} {caught.value}"
    value = base64.b64encode(b"quagga").decode()
    assert (await asked.apply(secret | {"data": {"key": value}}))["data"] == {"key": value}


async def test_an_account_without_rights_is_told_so(plane, namespace):
    cluster = await Cluster.connect(plane.kubeconfig_of(namespace, "default"))
    try:
        with pytest.raises(ApiError) as caught:
            await cluster.get("v1", "configmaps", namespace, "c")
        assert (caught.value.status, caught.value.reason) == (403, "Forbidden")
    finally:
        await cluster.close()


async def test_a_log_in_is_read_again_when_it_is_refused(plane, namespace, tmp_path):
    good = plane.kubeconfig.read_text()
    file = tmp_path / "kubeconfig"
    file.write_text(good.replace(plane.api.token, "worn-out"))
    cluster = await Cluster.connect(file)
    try:
        with pytest.raises(ApiError) as caught:
            await cluster.get("v1", "configmaps", namespace, "c")
        assert caught.value.status == 401
        file.write_text(good)
        with pytest.raises(ApiError):  # a retry is the caller's
            await cluster.get("v1", "configmaps", namespace, "c")
        assert await cluster.get("v1", "configmaps", namespace, "c") is None
    finally:
        await cluster.close()


async def test_an_account_of_a_pod_logs_in_with_its_files(plane, namespace, tmp_path, monkeypatch):
    from kubernetes.aio.config import incluster_config

    from spillway_operator import cluster as module

    token = tmp_path / "token"
    token.write_text(plane.token_of(namespace, "default"))
    host, port = plane.url.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(module, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(plane.api.authority))
    cluster = await Cluster.connect()
    try:
        with pytest.raises(ApiError, match=f"system:serviceaccount:{namespace}:default") as caught:
            await cluster.get("v1", "configmaps", namespace, "c")
        assert caught.value.status == 403
    finally:
        await cluster.close()


async def test_nobody_there_is_an_error_as_any_other(plane, tmp_path, refusing):
    file = tmp_path / "kubeconfig"
    file.write_text(plane.kubeconfig.read_text().replace(plane.url, refusing))
    cluster = await Cluster.connect(file)
    try:
        with pytest.raises(ApiError) as caught:
            await cluster.get("v1", "configmaps", "default", "c")
        assert (caught.value.status, caught.value.reason) == (0, "Unreachable")
    finally:
        await cluster.close()
    with pytest.raises(ApiError):
        await Cluster.connect(tmp_path / "nothing")


async def test_an_event_that_comes_again_is_counted(asked, namespace, plane):
    regarding = {"apiVersion": "v1", "kind": "ConfigMap", "namespace": namespace, "name": "c", "uid": "u"}

    def events():
        found = plane.api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
        return sorted((one["note"], (one.get("series") or {}).get("count", 1)) for one in found)

    for minutes in (0, 9, 18):
        await asked.event(regarding, "Warning", "Broken", "it is", NOW + timedelta(minutes=minutes))
    assert events() == [("it is", 3)]
    await asyncio.gather(*(asked.event(regarding, "Warning", "Broken", "twice", NOW) for _ in range(5)))
    assert events() == [("it is", 3), ("twice", 5)]
    await asked.event(regarding, "Warning", "Broken", "it is", NOW + timedelta(minutes=28))
    assert events() == [("it is", 1), ("it is", 3), ("twice", 5)]
    (name,) = {
        one["metadata"]["name"]
        for one in plane.api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
        if one["note"] == "it is" and not one.get("series")
    }
    plane.kubectl("delete", "-n", namespace, "events.events.k8s.io", name)
    await asked.event(regarding, "Warning", "Broken", "it is", NOW + timedelta(minutes=29))
    await asked.event(regarding, "Normal", "Long", "ä" * 3000, NOW)
    assert [count for note, count in events() if note == "it is"] == [1, 3]
    assert max(len(note.encode()) for note, _ in events()) == 1024


def test_times_are_as_kubernetes_writes_them():
    assert micro_time(datetime(2026, 5, 1, 14, tzinfo=UTC) + timedelta(microseconds=7)) == "2026-05-01T14:00:00.000007Z"


# ---- whose token it is


def pod(namespace, name):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }


async def test_a_projected_token_tells_account_and_pod(asked, namespace, plane):
    plane.apply(pod(namespace, "pod-1"), namespace=namespace)
    who = Identity(asked, AUDIENCE)
    account = plane.api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
    uid = account["metadata"]["uid"]
    bound = plane.token_of(namespace, "default", audience=AUDIENCE, pod="pod-1")
    assert await who(bound) == Caller(namespace, "default", "pod-1", uid)
    assert await who(plane.token_of(namespace, "default", audience=AUDIENCE)) == Caller(namespace, "default", "", uid)
    for stranger in (plane.token_of(namespace, "default"), bound[:-6] + "quagga", plane.api.token, "quagga"):
        with pytest.raises(Unknown):
            await who(stranger)


# ---- who leads


async def test_replicas_of_a_real_lease(plane, namespace):
    async with AsyncExitStack() as stack:
        changed = asyncio.Event()
        replicas = []
        for name in ("op-a", "op-b"):
            cluster = await Cluster.connect(plane.kubeconfig)
            stack.push_async_callback(cluster.close)
            replicas.append(Leadership(cluster, namespace, "op", name, f"{name}:9443", changed.set))
        first, second = replicas

        async def until(check):
            async with asyncio.timeout(30):
                while not check():
                    changed.clear()
                    await changed.wait()

        ending = asyncio.create_task(first.run())
        await until(lambda: first.leads)
        async with running(second.run()):
            await until(lambda: second.leader_address == "op-a:9443")
            stands = plane.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/op")
            assert stands["spec"]["holderIdentity"] == "op-a"
            assert stands["spec"]["leaseDurationSeconds"] == 15
            assert stands["metadata"]["annotations"] == {"spillway.dev/address": "op-a:9443"}
            assert not second.leads
            ending.cancel()
            await asyncio.wait([ending])
            assert not first.leads
            await until(lambda: second.leads)
            stands = plane.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/op")
            assert stands["spec"]["leaseTransitions"] == 1
        stands = plane.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/op")
        assert stands["spec"]["holderIdentity"] == ""


async def test_an_api_server_that_starts_anew_costs_no_leadership_and_no_identity(plane, namespace, monkeypatch):
    plane.apply(pod(namespace, "pod-1"), namespace=namespace)
    token = plane.token_of(namespace, "default", audience=AUDIENCE, pod="pod-1")
    now = [0.0]
    async with AsyncExitStack() as stack:
        cluster = await Cluster.connect(plane.kubeconfig)
        stack.push_async_callback(cluster.close)
        who = Identity(cluster, AUDIENCE, clock=lambda: now[0])
        known = await who(token)
        changed = asyncio.Event()
        leadership = Leadership(cluster, namespace, "op", "op-a", "op-a:9443", changed.set)
        task = asyncio.create_task(leadership.run())
        async with asyncio.timeout(30):
            await changed.wait()
        assert leadership.leads
        with plane.away():
            now[0] += 300
            assert await who(token) == known
            with pytest.raises(Unavailable):
                await who("quagga")
        async with asyncio.timeout(60):
            while not leadership.leads:
                changed.clear()
                await changed.wait()
            now[0] += 300
            assert await who(token) == known
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])


def test_no_model_of_the_client_is_loaded():
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, spillway_operator.cluster;"
            "print(sum('.models.' in name or '.client.api.' in name for name in sys.modules))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(told.stdout) == 0
