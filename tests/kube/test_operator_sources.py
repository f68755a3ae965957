"""From Pods and Services to endpoints that take traffic: found, lost, weighed, and in force within a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.kube.access import Object, until
from tests.kube.listener import Listener
from tests.kube.objects import Reader, deployment, pods, policy, pool, service
from tests.kube.operating import Installation
from tests.kube.plane import ControlPlane
from tests.kube.pretend import PretendNode
from tests.kube.processes import BalancerProcess

from spillway_api.snapshot import Snapshot

IN_FORCE = 1.0
"""Seconds from an event of the API server to balancers that act by it."""


@pytest.fixture(scope="module")
def installed(
    plane: ControlPlane, node: PretendNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with Installation(plane, tmp_path_factory.mktemp("sources"), replicas=2) as installed:
        installed.operator()
        yield installed


def test_a_pod_is_an_endpoint_from_ready_to_terminating(plane: ControlPlane, mine: Reader, listener: Listener) -> None:
    space = mine.namespace
    mine.apply(
        deployment("vllm", 2),
        deployment("slow", 1, app="vllm", pretend="unready"),
        deployment("never", 1, app="vllm", pretend="never"),
        deployment("other", 1),
        pool("llama", pods("vllm")),
        policy("chat", f"{space}-chat", "llama"),
    )

    def settled(count: int) -> bool:
        names = mine.pods_of("vllm")
        there = {name for name in names if name.startswith("vllm-")}
        return len(there) == count and set(listener.endpoints(space, "llama")) == {f"{name}:8000" for name in there}

    until(lambda: settled(2), "two endpoints")
    columns = {"NAME": "llama", "SOURCE": "Pods", "ENGINE": "Auto", "METRICS": "", "READY": "True"}
    mine.shows("ModelPool", "llama", columns | {"ENDPOINTS": "2/3", "REASON": "EndpointsReady"})
    plane.kubectl("scale", "deployment/vllm", "--replicas=5", "-n", space)
    until(lambda: settled(5), "five endpoints")
    plane.kubectl("scale", "deployment/vllm", "--replicas=1", "-n", space)
    until(lambda: settled(1), "one endpoint")
    before = set(listener.endpoints(space, "llama"))
    plane.kubectl("rollout", "restart", "deployment/vllm", "-n", space)
    plane.kubectl("rollout", "status", "deployment/vllm", "-n", space, "--timeout=30s")
    until(lambda: settled(1) and set(listener.endpoints(space, "llama")) != before, "the endpoint of the new version")
    plane.kubectl("delete", "deployment", "vllm", "-n", space)
    until(lambda: settled(0), "no endpoint")
    mine.comes("ModelPool", "llama", "Ready", "False", "NoEndpoints")


def test_endpoints_have_the_address_weight_and_ports_that_pods_say(
    plane: ControlPlane, mine: Reader, listener: Listener
) -> None:
    space = mine.namespace
    mine.apply(
        deployment("big", 1, app="vllm", annotations={"spillway.dev/weight": "300"}),
        deployment("odd", 1, app="vllm", annotations={"spillway.dev/weight": "many"}),
        pool("llama", pods("vllm", 8000, 8001, scheme="https")),
        policy("chat", f"{space}-chat", "llama"),
    )
    until(lambda: len(listener.endpoints(space, "llama")) == 4, "two Pods of two ports")
    for name, weight in (("big", 300), ("odd", 100)):
        (pod,) = (each for each in mine.pods_of("vllm") if each.startswith(name))
        address = plane.api.get(f"/api/v1/namespaces/{space}/pods/{pod}")["status"]["podIP"]
        for port in (8000, 8001):
            endpoint = listener.endpoints(space, "llama")[f"{pod}:{port}"]
            assert (endpoint.url, endpoint.weight) == (f"https://{address}:{port}", weight)
    # What is wrong with a weight is said, and harms nothing.
    mine.comes("ModelPool", "llama", "Accepted", "True", "Accepted")
    mine.says("ModelPool", "llama", "Accepted", '"many"')
    (pod,) = (each for each in mine.pods_of("vllm") if each.startswith("odd"))
    plane.kubectl("annotate", "pod", pod, "spillway.dev/weight=7", "--overwrite", "-n", space)
    until(lambda: listener.endpoints(space, "llama")[f"{pod}:8000"].weight == 7, "the new weight")


def test_an_edited_selector_takes_other_pods(mine: Reader, listener: Listener) -> None:
    space = mine.namespace
    mine.apply(deployment("blue", 1), deployment("green", 2), pool("llama", pods("blue")), policy("c", space, "llama"))

    def names(app: str) -> set[str]:
        return {f"{name}:8000" for name in mine.pods_of(app)}

    until(lambda: len(listener.endpoints(space, "llama")) == 1, "the Pod of blue")
    assert set(listener.endpoints(space, "llama")) == names("blue")
    mine.apply(pool("llama", pods("green")))
    until(lambda: len(listener.endpoints(space, "llama")) == 2, "the Pods of green")
    assert set(listener.endpoints(space, "llama")) == names("green")
    mine.apply(
        pool(
            "llama",
            {"pods": {"ports": [8000], "selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}},
        )
    )
    until(lambda: len(listener.endpoints(space, "llama")) == 3, "the Pods of both")


def test_a_service_gives_the_endpoints_behind_its_port(plane: ControlPlane, mine: Reader, listener: Listener) -> None:
    space = mine.namespace
    http = {"name": "http", "port": 80, "targetPort": "http"}
    admin = {"name": "admin", "port": 81, "targetPort": 9000}
    mine.apply(
        deployment("vllm", 2),
        service("engines", "vllm", http, admin),
        pool("by-name", {"service": {"name": "engines", "port": "http"}}),
        pool("by-number", {"service": {"name": "engines", "port": 81}}),
        policy("chat", f"{space}-chat", "by-name", "by-number"),
    )

    def settled(count: int) -> bool:
        names = mine.pods_of("vllm")
        return len(names) == count and all(
            set(listener.endpoints(space, pool)) == {f"{name}:{port}" for name in names}
            for pool, port in (("by-name", 8000), ("by-number", 9000))
        )

    until(lambda: settled(2), "the endpoints of both ports")
    plane.kubectl("scale", "deployment/vllm", "--replicas=4", "-n", space)
    until(lambda: settled(4), "the endpoints of four Pods")
    mine.apply(service("engines", "vllm", http | {"name": "web"}, admin))
    until(lambda: not listener.endpoints(space, "by-name"), "a port of another name")
    mine.comes("ModelPool", "by-name", "ResolvedRefs", "False", "PortNotFound")
    mine.apply(service("engines", "vllm", http, admin))
    until(lambda: settled(4), "the port is back")
    mine.delete("service", "engines")
    until(lambda: not listener.endpoints(space, "by-number"), "no Service, no endpoint")
    mine.comes("ModelPool", "by-number", "ResolvedRefs", "False", "ServiceNotFound")


def test_a_change_is_in_force_within_a_second(
    plane: ControlPlane, mine: Reader, listener: Listener, balancer: BalancerProcess
) -> None:
    """From the event of a Pod or an EndpointSlice until it has reached a subscriber, and soon a balancer's rotation."""
    space = mine.namespace
    mine.apply(
        deployment("vllm", 1),
        service("engines", "vllm", {"name": "http", "port": 80, "targetPort": 8000}),
        pool("by-pods", pods("vllm")),
        pool("by-service", {"service": {"name": "engines", "port": "http"}}),
        policy("chat", f"{space}-chat", "by-pods", "by-service"),
    )
    until(lambda: all(len(listener.endpoints(space, name)) == 1 for name in ("by-pods", "by-service")), "the first")
    of_pods = f"/api/v1/namespaces/{space}/pods?labelSelector=app%3Dvllm"
    of_slices = f"/apis/discovery.k8s.io/v1/namespaces/{space}/endpointslices"

    def ready(pod: Object) -> bool:
        conditions = {each["type"]: each["status"] for each in pod.get("status", {}).get("conditions", ())}
        return "deletionTimestamp" not in pod["metadata"] and conditions.get("Ready") == "True"

    def in_slice(slice: Object) -> set[str]:
        endpoints = slice.get("endpoints") or ()
        return {each["targetRef"]["name"] for each in endpoints if each["conditions"].get("ready")}

    def measured(pool: str, path: str, replicas: int, shows: Callable[[Object], bool]) -> float:
        """After scaling: from the first event that `shows` the change until the subscriber has so many endpoints."""
        scaling = threading.Thread(
            target=plane.kubectl, args=("scale", "deployment/vllm", f"--replicas={replicas}", "-n", space)
        )
        events = plane.api.watch(path, 30)
        first = next(events)  # the watch is open
        assert not shows(first["object"])
        start = time.monotonic()
        scaling.start()
        next(event for event in events if event["type"] != "BOOKMARK" and shows(event["object"]))
        seen = time.monotonic()
        events.close()
        scaling.join()
        until(lambda: len(listener.endpoints(space, pool)) == replicas, "it is in force", 10.0)
        at = listener.since(lambda snapshot: count(snapshot, pool) == replicas, start)
        assert at is not None
        return at - seen

    def count(snapshot: Snapshot, name: str) -> int:
        return sum(len(each.endpoints) for each in snapshot.pools if each.name == f"{space}/{name}")

    first = set(mine.pods_of("vllm"))
    took = {"Pod ready": measured("by-pods", of_pods, 2, lambda it: ready(it) and it["metadata"]["name"] not in first)}
    assert len(mine.pods_of("vllm")) == 2
    both = [f"{pod}:8000" for pod in mine.pods_of("vllm")]
    until(lambda: all(balancer.serves(f"{space}/by-pods", name) for name in both), "a balancer has both", 2 * IN_FORCE)
    took["Pod going"] = measured("by-pods", of_pods, 1, lambda it: "deletionTimestamp" in it["metadata"])
    until(lambda: len(listener.endpoints(space, "by-service")) == 1, "the slice has shrunk too")
    took["slice grown"] = measured("by-service", of_slices, 3, lambda it: len(in_slice(it)) == 3)
    took["slice shrunk"] = measured("by-service", of_slices, 1, lambda it: len(in_slice(it)) == 1)
    (left,) = mine.pods_of("vllm")
    until(lambda: balancer.serves(f"{space}/by-service", f"{left}:8000"), "a balancer has the one", 2 * IN_FORCE)
    assert max(took.values()) < IN_FORCE, took
