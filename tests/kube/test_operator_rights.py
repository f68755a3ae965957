"""The operator's rights are those that it uses: held against what it asks of the API server, one by one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import pytest
import trustme
from tests.kube.access import Audited, Object, until
from tests.kube.background import Junction
from tests.kube.listener import Listener
from tests.kube.objects import (
    BLACK_HOLE,
    Reader,
    config_map,
    deployment,
    inference_pool,
    inference_pool_crd,
    pods,
    policy,
    pool,
    provider,
    scaling,
    secret,
    service,
    stateful_set,
    static,
)
from tests.kube.operating import ACCOUNT, Installation, of_the_chart
from tests.kube.plane import ControlPlane
from tests.kube.pretend import PretendNode
from tests.kube.processes import OperatorProcess

from spillway_api.stream import Report
from spillway_operator.injection import INJECTED, LABEL
from spillway_operator.lacking import CONDITION

UNUSED: dict[tuple[str, str], str] = {}
"""Rights, as (resource, verb), that the scenario below does not use, with the reason why they are given."""


class Right(NamedTuple):
    """One thing that may be done. `namespace` is empty for all of them, `name` for all names."""

    namespace: str
    group: str
    resource: str
    verb: str
    name: str

    def covers(self, asked: Audited) -> bool:
        resource = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
        return (
            (self.group, self.resource) == (asked.group, resource)
            and self.verb in verbs_of(asked)
            and self.namespace in ("", asked.namespace)
            and self.name in ("", asked.name)
        )


def verbs_of(asked: Audited) -> Sequence[str]:
    """Server-side apply that makes an object (201) needs the right to create it as well."""
    return (asked.verb, "create") if (asked.verb, asked.status) == ("patch", 201) else (asked.verb,)


def rights_in(manifests: Sequence[Object]) -> list[Right]:
    """What the operator's bindings give it."""
    roles = {
        (each["kind"], each["metadata"]["name"], each["metadata"].get("namespace", "")): each["rules"]
        for each in manifests
        if each["kind"] in ("Role", "ClusterRole")
    }
    rights = []
    for each in manifests:
        if each["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        if all(subject["name"] != ACCOUNT for subject in each["subjects"]):
            continue
        space = each["metadata"].get("namespace", "") if each["kind"] == "RoleBinding" else ""
        role = each["roleRef"]
        for rule in roles[role["kind"], role["name"], space if role["kind"] == "Role" else ""]:
            names = rule.get("resourceNames", [""])
            rights += [
                Right(space, *parts) for parts in product(rule["apiGroups"], rule["resources"], rule["verbs"], names)
            ]
    return rights


def whole_life(
    plane: ControlPlane,
    installed: Installation,
    mine: Reader,
    lists: bool = False,
    service: Junction | None = None,
) -> None:
    """Everything that an operator does, at least once. `lists`: it may list Secrets. `service`: at which API servers
    look for its webhook, where it has one.
    """
    with inference_pool_crd(plane), contextlib.closing(installed.operator()) as operator:
        if service is not None:
            give_sidecars(plane, mine, service, operator)
        with installed.listener() as listener:
            serve(plane, installed, mine, listener, lists)
        spend(installed, mine)


def serve(plane: ControlPlane, installed: Installation, mine: Reader, listener: Listener, lists: bool) -> None:
    """Endpoints of every source, keys and authorities, what is asleep, and a Lease to lead by."""
    space = mine.namespace
    selector = {"matchLabels": {"app": "key"}}
    engines = service("engines", "vllm", {"name": "http", "port": 80, "targetPort": 8000})
    mine.apply(
        deployment("vllm", 1),
        deployment("asleep", 0),
        stateful_set("asleep", 0),
        pool("deployed", pods("asleep"), scaling=scaling("Deployment", "asleep")),
        pool("stateful", pods("asleep"), scaling=scaling("StatefulSet", "asleep")),
        inference_pool("ours", "vllm", 8000),
        secret("key", **{"api-key": "sk-1"}),
        pool("by-pods", pods("vllm")),
        pool("by-service", {"service": {"name": "engines", "port": "http"}}),
        pool("by-pool", {"inferencePool": {"name": "ours"}}),
        pool("by-hand", static(BLACK_HOLE)),
        pool("cloud", provider(("main", "key", "api-key"))),
        config_map("company-ca", **{"ca.crt": trustme.CA().cert_pem.bytes().decode()}),
        pool("believed", static(BLACK_HOLE), tls={"caConfigMapRef": {"name": "company-ca"}}),
        policy("chat", f"{space}-chat", "by-pods", "by-service", "by-pool", "by-hand", "cloud", "believed"),
        policy("closed", f"{space}-closed", "by-hand", consumers={"secretSelector": selector}),
        secret("team-a", labels={"app": "key"}, **{"api-key": "sk-2"}),
    )
    mine.comes("ModelPool", "by-service", "ResolvedRefs", "False", "ServiceNotFound")
    mine.apply(engines)
    names = ("by-pods", "by-service", "by-pool", "by-hand", "cloud", "believed")
    mine.ready(*(f"modelpool/{name}" for name in names), "routepolicy/chat")
    assert {name: len(listener.endpoints(space, name)) for name in names} == dict.fromkeys(names, 1)
    if lists:
        mine.ready("routepolicy/closed")
    else:
        mine.comes("RoutePolicy", "closed", "ResolvedRefs", "False", "SecretsNotListed")
    # Workloads that are asleep are woken.
    listener.report(Report(wanted=(f"{space}/deployed", f"{space}/stateful")))
    for plural in ("deployments", "statefulsets"):
        where = f"/apis/apps/v1/namespaces/{space}/{plural}/asleep"
        until(lambda where=where: plane.api.get(where)["spec"]["replicas"] == 1, f"{where} is awake", 10.0)
    # The same event twice is one event that is counted.
    mine.delete("service", "engines")
    mine.comes("ModelPool", "by-service", "ResolvedRefs", "False", "ServiceNotFound")
    # The Lease is renewed.
    path = f"/apis/coordination.k8s.io/v1/namespaces/{installed.namespace}/leases/spillway-operator"
    renewed = plane.api.get(path)["spec"]["renewTime"]
    until(lambda: bool(plane.api.get(path)["spec"]["renewTime"] != renewed), "the Lease is renewed", 10.0)


def give_sidecars(plane: ControlPlane, mine: Reader, service: Junction, operator: OperatorProcess) -> None:
    """A Pod gets one by the webhook; another asks while nobody answers, and is told that it has none."""
    labels = {LABEL: "true", "pretend": "never"}

    def made() -> Object:
        meta = {"generateName": "client-", "labels": labels}
        body = {"metadata": meta, "spec": {"containers": [{"name": "app", "image": "app"}]}}
        pod: Object = plane.api.call("POST", f"/api/v1/namespaces/{mine.namespace}/pods", body)
        return pod

    service.backends = [("127.0.0.1", operator.webhook)]
    until(lambda: INJECTED in made()["metadata"].get("annotations", {}), "a Pod gets a sidecar")
    service.backends = []
    service.cut()
    path = f"/api/v1/namespaces/{mine.namespace}/pods/{made()['metadata']['name']}"

    def told() -> bool:
        return any(each["type"] == CONDITION for each in plane.api.get(path)["status"].get("conditions", ()))

    until(told, "a Pod is told that it has none")


def spend(installed: Installation, mine: Reader) -> None:
    """A balancer asks for some of a budget, which is written down before it is granted."""
    paid = pool("paid", static(installed.engine("engine")), budget={"amount": "5"})
    paid["spec"]["models"] = [{"name": "m", "price": {"input": "1000", "output": "1000"}}]
    model = f"{mine.namespace}-paid"
    mine.apply(paid, policy("paid", model, "paid"))
    balancer = installed.balancer("balancer", f"https://localhost:{installed.operators[0].port}")
    until(lambda: balancer.serves(f"{mine.namespace}/paid", "e0"), "the pool is in force")
    until(lambda: balancer.ask(model).status == 200, "there is something to spend")
    assert installed.has_child("configmaps", "spillway-operator-budgets")
    assert balancer.stop() == 0


def check(plane: ControlPlane, installed: Installation) -> None:
    """Every request is allowed by a rule; every rule allows some request, in one of the namespaces it is given for."""
    # What has no resource is /api and /apis, which every account may read by Kubernetes' own role system:discovery.
    asked = [each for each in plane.audit(installed.user) if each.resource]
    assert asked
    assert not installed.forbidden
    rights = rights_in(installed.manifests)
    uncovered = {each for each in asked if not any(right.covers(each) for right in rights)}
    assert not uncovered
    used = {right._replace(namespace="") for right in rights if any(right.covers(each) for each in asked)}
    unused = {right for right in rights if right._replace(namespace="") not in used}
    assert {(right.resource, right.verb) for right in unused} == set(UNUSED), unused


def test_every_right_is_used_and_every_request_is_allowed(
    plane: ControlPlane, node: PretendNode, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Installation(plane, tmp_path_factory.mktemp("rights")) as installed:
        whole_life(plane, installed, Reader(plane, namespace))
        check(plane, installed)


@pytest.fixture
def watched(plane: ControlPlane, namespace: str) -> Iterator[str]:
    with plane.new_namespace(f"watched-{os.urandom(3).hex()}") as watched:
        yield watched


def test_with_namespaces_to_watch_it_needs_no_rights_in_others(
    plane: ControlPlane,
    node: PretendNode,
    helm: str,
    namespace: str,
    watched: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    values = {"watchNamespaces": [watched], "consumers": {"enabled": True}, "sidecars": {"enabled": True}}
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(Junction())
        rendered = of_the_chart(helm, values, service.port)
        installed = stack.enter_context(Installation(plane, tmp_path_factory.mktemp("rights"), render=rendered))
        others = Reader(plane, namespace)
        others.apply(pool("one", static(BLACK_HOLE)), policy("chat", f"{namespace}-chat", "one"))
        whole_life(plane, installed, Reader(plane, watched), lists=True, service=service)
        check(plane, installed)
        assert others.status("ModelPool", "one") == others.status("RoutePolicy", "chat") == {}
        allowed = {"", watched, installed.namespace}
        assert {each.namespace for each in plane.audit(installed.user)} <= allowed
        whole = {right.resource for right in rights_in(installed.manifests) if not right.namespace}
        assert whole == {"tokenreviews", "mutatingwebhookconfigurations"}
