"""What the operator writes: its children, which heal and go with their gateway, and nothing on anybody's objects."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Iterator

import pytest
from tests.kube.access import until
from tests.kube.keys import mount, state_of, telling, told
from tests.kube.listener import Listener
from tests.kube.objects import (
    BLACK_HOLE,
    Reader,
    deployment,
    gone,
    pods,
    policy,
    pool,
    provider,
    secret,
    service,
    static,
)
from tests.kube.operating import GATEWAY, Installation
from tests.kube.plane import ControlPlane
from tests.kube.pretend import PretendNode

from spillway_api.credentials import file_of
from spillway_api.stream import PoolReport, Report
from spillway_operator.plan import saved_in

REFRESH = 2.0
"""Seconds between two looks without a reason; minutes outside of tests."""
ROTATED = 14.0
"""Seconds until a new value of a Secret is with the balancers: 10 to see it, 1 to join others, and some to spare."""
MARKER = "sk-quagga-5f2e1c"


@pytest.fixture(scope="module")
def installed(
    plane: ControlPlane, node: PretendNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    options = ("--refresh", str(REFRESH), "--log-level", "debug")
    with Installation(plane, tmp_path_factory.mktemp("children"), options=options) as installed:
        installed.operator()
        yield installed


def test_nothing_is_left_on_objects_of_users_but_status(
    plane: ControlPlane, mine: Reader, installed: Installation
) -> None:
    space = mine.namespace
    mine.apply(
        deployment("vllm", 2),
        service("engines", "vllm", {"name": "http", "port": 80, "targetPort": 8000}),
        secret("key", **{"api-key": "sk-1"}),
        pool("by-pods", pods("vllm")),
        pool("by-service", {"service": {"name": "engines", "port": "http"}}),
        pool("cloud", provider(("main", "key", "api-key"))),
        policy("chat", f"{space}-chat", "by-pods", "by-service", "cloud"),
    )
    mine.ready("modelpool/by-pods", "modelpool/by-service", "modelpool/cloud", "routepolicy/chat")
    ours = "/apis/spillway.dev/v1alpha1"
    lists = [f"{ours}/namespaces/{space}/{plural}" for plural in ("modelpools", "routepolicies")]
    for path in lists:
        for each in plane.api.get(path)["items"]:
            meta = each["metadata"]
            assert "finalizers" not in meta
            assert "annotations" not in meta
            assert "labels" not in meta
            fields = {entry["manager"]: entry.get("subresource") for entry in meta["managedFields"]}
            assert fields == {"kubectl": None, "spillway-operator": "status"}
    others = [f"/api/v1/namespaces/{space}/{plural}" for plural in ("pods", "services", "secrets", "events")]
    others += [
        f"/apis/apps/v1/namespaces/{space}/deployments",
        f"/apis/discovery.k8s.io/v1/namespaces/{space}/endpointslices",
    ]
    others += [f"/api/v1/namespaces/{space}".rpartition("/")[0]]
    for path in others:
        for each in plane.api.get(path)["items"]:
            managers = {entry["manager"] for entry in each["metadata"].get("managedFields", ())}
            regarding = each.get("reportingComponent")
            assert "spillway-operator" not in managers or regarding == "spillway.dev/operator"
            assert not any("kopf" in key or "zalando" in key for key in each["metadata"].get("annotations") or ())

    began = time.monotonic()
    mine.delete("modelpool", "by-pods")
    assert time.monotonic() - began < 5.0
    assert gone(plane, f"{ours}/namespaces/{space}/modelpools/by-pods")
    # All that it has ever written, by who it is to the API server.
    written = {
        (each.resource, each.subresource, each.namespace == installed.namespace)
        for each in plane.audit(installed.user)
        if each.verb not in ("get", "list", "watch")
    }
    assert written <= {
        ("modelpools", "status", False),
        ("routepolicies", "status", False),
        ("events", "", False),
        ("tokenreviews", "", False),
        ("leases", "", True),
        ("configmaps", "", True),
        ("secrets", "", True),
    }


def test_children_belong_to_their_gateway_and_heal(plane: ControlPlane, mine: Reader, installed: Installation) -> None:
    space = mine.namespace
    mine.apply(
        secret("key", **{"api-key": "sk-1"}),
        pool("cloud", provider(("main", "key", "api-key"))),
        policy("chat", f"{space}-chat", "cloud"),
    )
    mine.ready("routepolicy/chat")
    file = file_of(f"{space}/key", "api-key")

    def whole() -> bool:
        if not installed.has_child("secrets", f"{GATEWAY}-credentials"):
            return False
        data = installed.child("secrets", f"{GATEWAY}-credentials").get("data") or {}
        return bool(data.get(file) == base64.b64encode(b"sk-1").decode())

    def boots() -> bool:
        if not installed.has_child("configmaps", f"{GATEWAY}-boot"):
            return False
        saved = saved_in(installed.child("configmaps", f"{GATEWAY}-boot"))
        return saved is not None and f"{space}/chat" in {route.name for route in saved.snapshot.routes}

    until(lambda: whole() and installed.has_child("configmaps", f"{GATEWAY}-boot"), "both children", 20.0)
    path = f"/apis/apps/v1/namespaces/{installed.namespace}/deployments/{GATEWAY}"
    uid = plane.api.get(path)["metadata"]["uid"]
    children = (("configmaps", f"{GATEWAY}-boot"), ("secrets", f"{GATEWAY}-credentials"))
    for plural, name in children:
        (owner,) = installed.child(plural, name)["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Deployment", GATEWAY, uid)

    # Somebody edits the one and deletes the others.
    core = f"/api/v1/namespaces/{installed.namespace}"
    plane.api.call("PATCH", f"{core}/secrets/{GATEWAY}-credentials", {"data": {file: base64.b64encode(b"x").decode()}})
    plane.api.call("DELETE", f"{core}/configmaps/{GATEWAY}-boot")
    plane.api.call("DELETE", f"{core}/configmaps/spillway-operator-ca")
    until(lambda: installed.has_child("configmaps", "spillway-operator-ca"), "what balancers trust is back", 20.0)
    until(lambda: whole() and boots(), "both have healed", 20.0)
    plane.api.call("DELETE", f"{core}/secrets/{GATEWAY}-credentials")
    plane.api.call("PATCH", f"{core}/configmaps/spillway-operator-ca", {"data": {"ca.crt": "quagga"}})
    until(lambda: whole() and boots(), "the Secret is back", 20.0)
    until(lambda: installed.authority().startswith("-----BEGIN"), "what balancers trust is whole", 20.0)


def test_a_rotated_secret_reaches_the_balancers_and_its_value_nothing_else(
    plane: ControlPlane, mine: Reader, installed: Installation, listener: Listener
) -> None:
    space = mine.namespace
    mine.apply(
        secret("key", **{"api-key": f"{MARKER}-1", "other": f"{MARKER}-unused"}),
        secret("not-used", **{"api-key": f"{MARKER}-unused"}),
        pool("cloud", provider(("main", "key", "api-key"), ("odd", "key", "absent"))),
        pool("own", static(BLACK_HOLE), auth={"secretRef": {"name": "key", "key": "api-key"}}),
        policy("chat", f"{space}-chat", "cloud", "own"),
    )
    mine.ready("routepolicy/chat")
    file = file_of(f"{space}/key", "api-key")

    def value() -> str:
        data = installed.child("secrets", f"{GATEWAY}-credentials").get("data") or {}
        return base64.b64decode(data.get(file, "")).decode()

    until(lambda: value() == f"{MARKER}-1", "the first value", 5.0)
    balancer = installed.balancer("balancer", f"https://localhost:{installed.operators[0].port}")
    mount(installed, balancer)
    mine.apply(secret("key", **{"api-key": f"{MARKER}-2", "other": f"{MARKER}-unused"}))
    until(lambda: value() == f"{MARKER}-2", "the second value", ROTATED)
    mount(installed, balancer)
    listener.report(Report((PoolReport(f"{space}/cloud", refused=("main",)),)))
    mine.comes("ModelPool", "cloud", "Ready", "False", "CredentialsRefused")
    balancer.ask(f"{space}-chat")  # both are refused, or out of reach

    # Only what endpoints need is in the Secret, and nothing of it anywhere else.
    data = installed.child("secrets", f"{GATEWAY}-credentials")["data"]
    assert [key for key in data if key.startswith(f"{space}_")] == [file]
    assert telling(told(installed, balancer, listener), MARKER) == []
    assert state_of(balancer)


def test_a_gateway_comes_and_goes_with_its_deployment(
    plane: ControlPlane, mine: Reader, installed: Installation
) -> None:
    """The last of these tests: the operator watches no gateway any more when it ends."""
    space = mine.namespace
    mine.apply(pool("one", static(BLACK_HOLE)), policy("chat", f"{space}-chat", "one"))
    mine.ready("routepolicy/chat")
    children = (("configmaps", f"{GATEWAY}-boot"), ("secrets", f"{GATEWAY}-credentials"))
    until(lambda: all(installed.has_child(*child) for child in children), "the children", 20.0)
    plane.kubectl("delete", "deployment", GATEWAY, "-n", installed.namespace)
    until(lambda: not any(installed.has_child(*child) for child in children), "the children are gone", 30.0)
    mine.comes("RoutePolicy", "chat", "Accepted", "False", "UnknownGateway")
    mine.comes("RoutePolicy", "chat", "Programmed", "False", "NoGateway")
    with contextlib.suppress(TimeoutError):
        until(lambda: any(installed.has_child(*child) for child in children), "none", 2 * REFRESH)
        pytest.fail("a child of a gateway that has gone was made")
