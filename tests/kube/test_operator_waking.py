"""Workloads at zero, on a real API server: a request wakes them, once and never down."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from tests.kube.access import until
from tests.kube.listener import Listener
from tests.kube.objects import Reader, deployment, pods, policy, pool, scaling, stateful_set
from tests.kube.operating import Installation
from tests.kube.plane import ControlPlane
from tests.kube.pretend import PretendNode
from tests.kube.processes import BalancerProcess

from spillway_api.stream import Report


@pytest.fixture(scope="module")
def installed(
    plane: ControlPlane, node: PretendNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with Installation(plane, tmp_path_factory.mktemp("waking"), replicas=2) as installed:
        installed.operator()
        yield installed


def replicas(plane: ControlPlane, space: str, name: str, plural: str = "deployments") -> int:
    return int(plane.api.get(f"/apis/apps/v1/namespaces/{space}/{plural}/{name}")["spec"]["replicas"])


def test_a_request_wakes_the_workload_and_it_becomes_the_endpoint(
    plane: ControlPlane, mine: Reader, balancer: BalancerProcess
) -> None:
    space = mine.namespace
    mine.apply(
        deployment("vllm", 0),
        pool("llama", pods("vllm"), scaling=scaling("Deployment", "vllm", wakeReplicas=2)),
        policy("chat", f"{space}-chat", "llama"),
    )
    mine.comes("ModelPool", "llama", "Ready", "False", "ScaledToZero")
    until(
        lambda: mine.status("RoutePolicy", "chat").get("tierSummary") == "default: local=Cold", "the tier is cold", 20.0
    )
    assert replicas(plane, space, "vllm") == 0

    def ask() -> None:
        with contextlib.suppress(OSError):  # nobody listens at the address of a pretended Pod
            balancer.ask(f"{space}-chat")

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    until(lambda: replicas(plane, space, "vllm") == 2, "it is woken", 10.0)
    until(lambda: len(mine.pods_of("vllm")) == 2, "its Pods are there")
    mine.comes("ModelPool", "llama", "Ready", "True", "EndpointsReady")
    asking.join(30.0)


def test_what_has_replicas_is_not_touched_and_a_missing_target_is_said(
    plane: ControlPlane, mine: Reader, listener: Listener
) -> None:
    space = mine.namespace
    mine.apply(
        deployment("busy", 3, pretend="never"),
        stateful_set("named", 0),
        pool("busy", pods("busy"), scaling=scaling("Deployment", "busy")),
        pool("named", pods("named"), scaling=scaling("StatefulSet", "named")),
        pool("gone", pods("gone"), scaling=scaling("Deployment", "gone")),
        pool("odd", pods("odd"), scaling=scaling("Curious", "odd")),
        pool("left", pods("named"), scaling=scaling("StatefulSet", "named", fromZero="Disabled")),
        policy("chat", f"{space}-chat", "busy", "named", "gone", "odd", "left"),
    )
    listener.report(Report(wanted=tuple(f"{space}/{name}" for name in ("busy", "gone", "odd"))))
    for name in ("gone", "odd"):
        mine.comes("ModelPool", name, "ResolvedRefs", "False", "ScaleTargetNotFound")
    mine.comes("ModelPool", "named", "Ready", "False", "ScaledToZero")
    assert replicas(plane, space, "busy") == 3
    assert replicas(plane, space, "named", "statefulsets") == 0, "nobody wants it"
    listener.report(Report(wanted=(f"{space}/named",)))
    until(lambda: replicas(plane, space, "named", "statefulsets") == 1, "it is woken", 10.0)
