"""What a user sees of pools and policies while the operator runs: conditions, columns, `kubectl wait`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kube.access import until
from tests.kube.listener import Listener
from tests.kube.objects import (
    BLACK_HOLE,
    Reader,
    deployment,
    inference_pool,
    inference_pool_crd,
    pods,
    policy,
    pool,
    provider,
    secret,
    service,
    static,
)
from tests.kube.operating import Installation
from tests.kube.plane import ControlPlane
from tests.kube.pretend import PretendNode

from spillway_api.stream import PoolReport, Report, TierReport

PORT = {"name": "http", "port": 80, "targetPort": 8000}


@pytest.fixture(scope="module")
def installed(
    plane: ControlPlane, node: PretendNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with Installation(plane, tmp_path_factory.mktemp("status")) as installed:
        installed.operator()
        yield installed


@pytest.fixture(scope="module")
def balancer(installed: Installation) -> Iterator[Listener]:
    with installed.listener() as listener:
        yield listener


@pytest.fixture
def mine(plane: ControlPlane, namespace: str, balancer: Listener) -> Reader:
    return Reader(plane, namespace)


def test_kubectl_wait_and_the_columns_of_every_source(mine: Reader, balancer: Listener) -> None:
    space = mine.namespace
    mine.apply(
        deployment("vllm", 2),
        service("engines", "vllm", PORT),
        secret("openai-key", **{"api-key": "sk-quagga"}),
        pool("by-pods", pods("vllm"), engine="vLLM"),
        pool("by-service", {"service": {"name": "engines", "port": "http"}}),
        pool("by-hand", static(BLACK_HOLE, "http://localhost:9"), engine="SGLang"),
        pool("cloud", provider(("main", "openai-key", "api-key"))),
        policy("chat", f"{space}-chat", "by-pods", "by-service", "by-hand", "cloud"),
    )
    names = ("by-pods", "by-service", "by-hand", "cloud")
    mine.ready(*(f"modelpool/{name}" for name in names), "routepolicy/chat")

    well = {"READY": "True", "REASON": "EndpointsReady"}
    told = {"by-pods": ("Pods", "vLLM"), "by-service": ("Service", "Auto"), "by-hand": ("Static", "SGLang")}
    for name, (source, engine) in told.items():
        columns = {"NAME": name, "SOURCE": source, "ENGINE": engine, "ENDPOINTS": "2/2", "METRICS": ""}
        mine.shows("ModelPool", name, columns | well)
    columns = {"NAME": "cloud", "SOURCE": "Provider", "ENGINE": "OpenAI", "ENDPOINTS": "1/1", "METRICS": ""}
    mine.shows("ModelPool", "cloud", columns | well)
    models = f'["{space}-chat"]'
    columns = {"NAME": "chat", "MODELS": models, "TIERS": "default: local=Open", "SPILLING": "False", "READY": "True"}
    mine.shows("RoutePolicy", "chat", columns | {"REASON": "Programmed"})

    for kind, name in [*(("ModelPool", name) for name in names), ("RoutePolicy", "chat")]:
        whole = mine.object(kind, name)
        assert whole["status"]["observedGeneration"] == whole["metadata"]["generation"] == 1
        conditions = mine.conditions(kind, name)
        assert {each.generation for each in conditions.values()} == {1}
        assert {t: conditions[t].status for t in ("Accepted", "ResolvedRefs", "Programmed", "Ready")} == dict.fromkeys(
            ("Accepted", "ResolvedRefs", "Programmed", "Ready"), "True"
        )
        assert whole["status"]["gateways"] == [{"name": "default", "replicas": 1, "programmedReplicas": 1}]
    assert mine.status("ModelPool", "cloud")["attachedRoutes"] == 1


def test_what_balancers_report_is_shown(mine: Reader, balancer: Listener) -> None:
    space = mine.namespace
    mine.apply(
        pool("two", static(BLACK_HOLE, "http://localhost:9")),
        pool("keyless", static(BLACK_HOLE)),
        pool("blind", static(BLACK_HOLE)),
        policy("chat", f"{space}-chat", "two", "keyless", "blind"),
    )
    mine.ready("routepolicy/chat")
    balancer.report(
        Report(
            (
                PoolReport(f"{space}/two", "vLLM", unhealthy=("e1",), metrics="Ok"),
                PoolReport(f"{space}/keyless", "Generic", refused=("e0",)),
                PoolReport(
                    f"{space}/blind", None, ejected=("e0",), metrics="UnknownNames", metrics_message="no vllm:x"
                ),
            ),
            (TierReport(f"{space}/chat", "default", "local", "Spilling", ready=1, share_percent=18),),
        )
    )
    columns = {"NAME": "two", "SOURCE": "Static", "ENGINE": "vLLM", "ENDPOINTS": "1/2", "METRICS": "True"}
    mine.shows("ModelPool", "two", columns | {"READY": "True", "REASON": "EndpointsReady"})
    mine.comes("ModelPool", "keyless", "Ready", "False", "CredentialsRefused")
    mine.comes("ModelPool", "blind", "Ready", "False", "AllEjected")
    assert mine.comes("ModelPool", "blind", "MetricsHealthy", "False", "UnknownNames").message == "no vllm:x"
    mine.comes("RoutePolicy", "chat", "Spilling", "True", "Load")
    tiers = "default: local=Spilling(18%)"
    columns = {"NAME": "chat", "MODELS": f'["{space}-chat"]', "TIERS": tiers, "SPILLING": "True", "READY": "True"}
    mine.shows("RoutePolicy", "chat", columns | {"REASON": "Programmed"})


def test_what_is_missing_is_said_where_it_is_named_and_seen_when_it_comes(mine: Reader) -> None:
    space = mine.namespace
    mine.apply(
        secret("there", other="x"),
        service("engines", "vllm", PORT),
        deployment("vllm", 1),
        pool("no-secret", provider(("main", "absent", "api-key"), ("second", "there", "other"))),
        pool("no-key", provider(("main", "there", "api-key"))),
        pool("no-service", {"service": {"name": "absent", "port": "http"}}),
        pool("no-port", {"service": {"name": "engines", "port": "grpc"}}),
        pool("whole", static(BLACK_HOLE)),
        pool("partial", static(BLACK_HOLE)),
        policy("no-pool", f"{space}-a", "whole", "absent"),
        policy("no-model", f"{space}-b", {"name": "partial", "model": "absent"}),
        policy("no-gateway", f"{space}-c", "whole", gateways=["absent"]),
    )
    refs = {
        ("ModelPool", "no-secret"): ("SecretNotFound", "absent"),
        ("ModelPool", "no-key"): ("SecretKeyNotFound", "api-key"),
        ("ModelPool", "no-service"): ("ServiceNotFound", "absent"),
        ("ModelPool", "no-port"): ("PortNotFound", "grpc"),
        ("RoutePolicy", "no-pool"): ("PoolNotFound", "absent"),
    }
    for (kind, name), (reason, named) in refs.items():
        assert named in mine.comes(kind, name, "ResolvedRefs", "False", reason).message
    # One account of two is left: the pool lives on with it.
    assert mine.comes("ModelPool", "no-secret", "Ready", "True", "EndpointsReady").message.startswith("1 of 1")
    for name in ("no-key", "no-service", "no-port"):
        mine.comes("ModelPool", name, "Ready", "False", "NoEndpoints")
    assert "absent" in mine.comes("RoutePolicy", "no-model", "Accepted", "False", "ModelNotInPool").message
    assert "absent" in mine.comes("RoutePolicy", "no-gateway", "Accepted", "False", "UnknownGateway").message
    mine.comes("RoutePolicy", "no-gateway", "Ready", "False", "UnknownGateway")

    mine.apply(
        secret("there", **{"other": "x", "api-key": "sk-1"}),
        secret("absent", **{"api-key": "sk-2"}),
        service("absent", "vllm", PORT),
        service("engines", "vllm", PORT, {"name": "grpc", "port": 90, "targetPort": 8000}),
        pool("absent", static(BLACK_HOLE)),
        pool("partial", static(BLACK_HOLE), models=[{"name": "m"}, {"name": "absent"}]),
    )
    for kind, name in refs:
        mine.comes(kind, name, "ResolvedRefs", "True", "ResolvedRefs")
    for name in ("no-key", "no-service", "no-port"):
        mine.comes("ModelPool", name, "Ready", "True", "EndpointsReady")
    mine.comes("RoutePolicy", "no-model", "Ready", "True", "Programmed")
    mine.comes("RoutePolicy", "no-pool", "Ready", "True", "Programmed")


def test_of_two_policies_of_one_model_the_older_serves_it(mine: Reader, balancer: Listener) -> None:
    """Of the same second, the one whose name comes first."""
    model = f"{mine.namespace}-chat"
    mine.apply(pool("first", static(BLACK_HOLE)), pool("second", static(BLACK_HOLE)), policy("first", model, "first"))
    mine.ready("routepolicy/first")
    mine.apply(policy("second", model, "second"))
    assert "first" in mine.comes("RoutePolicy", "second", "Accepted", "False", "ModelNameConflict").message
    mine.comes("RoutePolicy", "first", "Ready", "True", "Programmed")
    assert set(balancer.routes(mine.namespace)) == {"first"}
    mine.delete("routepolicy", "first")
    mine.comes("RoutePolicy", "second", "Ready", "True", "Programmed")
    assert set(balancer.routes(mine.namespace)) == {"second"}


def test_pools_of_another_namespace_are_used_as_far_as_they_allow_it(
    plane: ControlPlane, mine: Reader, balancer: Listener
) -> None:
    """A label on the namespace takes effect within seconds."""
    space = mine.namespace
    with plane.new_namespace(f"{space[:50]}-models") as models:
        there = Reader(plane, models)
        selector = {"matchLabels": {"models": "allowed"}}
        there.apply(
            pool("closed", static(BLACK_HOLE)),
            pool("open", static(BLACK_HOLE), allowedRoutes={"from": "All"}),
            pool("some", static(BLACK_HOLE), allowedRoutes={"from": "Selector", "selector": selector}),
        )
        mine.apply(
            *(policy(f"to-{name}", f"{space}-{name}", {"name": name, "namespace": models})
              for name in ("closed", "open", "some"))
        )  # fmt: skip
        mine.comes("RoutePolicy", "to-open", "Ready", "True", "Programmed")
        for name in ("to-closed", "to-some"):
            mine.comes("RoutePolicy", name, "Accepted", "False", "NotAllowedByPool")
        assert set(balancer.routes(space)) == {"to-open"}
        plane.kubectl("label", "namespace", space, "models=allowed")
        mine.comes("RoutePolicy", "to-some", "Ready", "True", "Programmed", seconds=5.0)
        assert set(balancer.routes(space)) == {"to-open", "to-some"}
        mine.comes("RoutePolicy", "to-closed", "Accepted", "False", "NotAllowedByPool")


def test_an_edit_is_programmed_only_when_the_balancer_says_so(mine: Reader, balancer: Listener) -> None:
    space = mine.namespace
    mine.apply(pool("one", static(BLACK_HOLE)), policy("chat", f"{space}-chat", "one"))
    mine.ready("routepolicy/chat")
    balancer.holding = True
    try:
        mine.apply(policy("chat", f"{space}-chat", "one", retry={"attempts": 2}))
        until(lambda: balancer.routes(space)["chat"].retry.attempts == 2, "the edit has come to the balancer")
        mine.comes("RoutePolicy", "chat", "Programmed", "False", "PartiallyProgrammed")
        mine.says("RoutePolicy", "chat", "Programmed", "in force on 0 of 1 balancers of gateway default")
        mine.comes("RoutePolicy", "chat", "Ready", "False", "PartiallyProgrammed")
        mine.comes("ModelPool", "one", "Programmed", "True", "Programmed")  # it has not changed
    finally:
        balancer.acknowledge()
    mine.comes("RoutePolicy", "chat", "Ready", "True", "Programmed", seconds=5.0)


def test_what_a_balancer_refuses_is_said(mine: Reader, balancer: Listener) -> None:
    space = mine.namespace
    mine.apply(pool("one", static(BLACK_HOLE)), policy("chat", f"{space}-chat", "one"))
    mine.ready("routepolicy/chat")
    balancer.refusing = "unknown strategy"
    try:
        mine.apply(policy("chat", f"{space}-chat", "one", retry={"attempts": 2}))
        mine.comes("RoutePolicy", "chat", "Programmed", "False", "PartiallyProgrammed")
        mine.says("RoutePolicy", "chat", "Programmed", "0 of 1 balancers of gateway default; refused: unknown strategy")
    finally:
        balancer.refusing = ""
    mine.apply(policy("chat", f"{space}-chat", "one", retry={"attempts": 4}))
    mine.comes("RoutePolicy", "chat", "Ready", "True", "Programmed")


def test_turns_of_conditions_are_told_as_events(plane: ControlPlane, mine: Reader) -> None:
    mine.apply(deployment("vllm", 1), pool("llama", {"service": {"name": "engines", "port": "http"}}))
    mine.comes("ModelPool", "llama", "Ready", "False", "NoEndpoints")

    def told() -> set[tuple[str, str]]:
        found = plane.api.get(f"/apis/events.k8s.io/v1/namespaces/{mine.namespace}/events")["items"]
        return {(each["type"], each["reason"]) for each in found if each["regarding"]["name"] == "llama"}

    until(lambda: {("Warning", "NoEndpoints"), ("Warning", "ServiceNotFound")} <= told(), "events of what is missing")
    mine.apply(service("engines", "vllm", PORT))
    mine.comes("ModelPool", "llama", "Ready", "True", "EndpointsReady")
    until(lambda: ("Normal", "EndpointsReady") in told(), "the event of its arrival")


def test_inference_pools_may_come_later_and_are_only_read(
    plane: ControlPlane, mine: Reader, installed: Installation, balancer: Listener
) -> None:
    space = mine.namespace
    mine.apply(
        deployment("sglang", 2),
        pool("shared", {"inferencePool": {"name": "ours"}}, engine="SGLang"),
        policy("chat", f"{space}-chat", "shared"),
    )
    missing = mine.comes("ModelPool", "shared", "ResolvedRefs", "False", "InferencePoolNotFound")
    assert "inference.networking.k8s.io/v1" in missing.message
    with inference_pool_crd(plane):
        mine.apply(inference_pool("ours", "sglang", 8000))
        mine.ready("modelpool/shared", "routepolicy/chat")
        names = {f"{name}:8000" for name in mine.pods_of("sglang")}
        assert set(balancer.endpoints(space, "shared")) == names
        columns = {"NAME": "shared", "SOURCE": "InferencePool", "ENGINE": "SGLang", "ENDPOINTS": "2/2", "METRICS": ""}
        mine.shows("ModelPool", "shared", columns | {"READY": "True", "REASON": "EndpointsReady"})
        mine.apply(inference_pool("ours", "sglang", 8000, 8001))
        until(lambda: len(balancer.endpoints(space, "shared")) == 4, "the second port of each Pod")
        path = f"/apis/inference.networking.k8s.io/v1/namespaces/{space}/inferencepools/ours"
        managers = {each["manager"] for each in plane.api.get(path)["metadata"]["managedFields"]}
        assert "spillway-operator" not in managers
        verbs = {each.verb for each in plane.audit(installed.user) if each.resource == "inferencepools"}
        assert verbs <= {"list", "watch"}
    mine.comes("ModelPool", "shared", "ResolvedRefs", "False", "InferencePoolNotFound")
    assert installed.operators[0].says("/healthz")  # a kind that has gone is no watch that has died


def test_a_policy_in_shadow_shares_a_name_until_it_takes_it_over(mine: Reader) -> None:
    name = f"{mine.namespace}-chat"
    mirror = {"pool": {"name": "trial"}, "percent": 5}
    mine.apply(
        pool("now", static(BLACK_HOLE)),
        pool("trial", static("http://localhost:9")),
        policy("chat", name, "now", mirror=mirror),
        policy("chat-next", name, "trial", mode="Shadow"),
    )
    mine.ready("routepolicy/chat", "routepolicy/chat-next", "modelpool/trial")
    mine.comes("RoutePolicy", "chat", "Ready", "True", "Programmed")
    assert "serves nothing" in mine.comes("RoutePolicy", "chat-next", "Ready", "True", "Shadow").message
    assert mine.status("ModelPool", "trial")["attachedRoutes"] == 2  # a mirror, and a look

    mine.apply(policy("chat-next", name, "trial"))  # too early: the name is still another's
    mine.comes("RoutePolicy", "chat-next", "Accepted", "False", "ModelNameConflict")
    mine.delete("RoutePolicy", "chat")
    mine.comes("RoutePolicy", "chat-next", "Ready", "True", "Programmed")
