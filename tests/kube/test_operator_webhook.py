"""A real API server asks the operator for sidecars: who gets one, who is told why not, and what nothing breaks."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Self

import pytest
from tests.kube.access import Object, until
from tests.kube.background import Background, Junction
from tests.kube.operating import Installation, of_the_chart
from tests.kube.plane import ControlPlane
from tests.kube.pretend import PretendNode
from tests.kube.processes import OperatorProcess

from spillway_operator.certificates import needed, service_names, trust_in
from spillway_operator.injection import CA_CONFIG_MAP, CONTAINER, INJECTED, LABEL

PATIENCE = 2.5
"""Seconds for a Pod to be made while the webhook does not answer: two, and some for the machine."""
YES, NO = {LABEL: "true"}, {LABEL: "false"}


@pytest.fixture(scope="module")
def service() -> Iterator[Junction]:
    """Stands for the operator's Service: it leads to the replicas that are ready."""
    with Junction() as junction:
        yield junction


@pytest.fixture(scope="module")
def installed(
    plane: ControlPlane,
    node: PretendNode,
    helm: str,
    service: Junction,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    render = of_the_chart(helm, {"sidecars": {"enabled": True}}, service.port)
    options = ("--refresh", "1")  # seconds between two looks at certificates, which are 30 and 60 else
    with Installation(plane, tmp_path_factory.mktemp("webhook"), render=render, options=options) as installed:
        for _ in range(2):
            installed.operator()
        service.backends = addresses(*installed.operators)
        with plane.new_namespace(f"warm-{installed.namespace}") as namespace:
            until(lambda: has_sidecar(made(plane, namespace, pod("warm", YES, generate=True))), "the webhook is known")
        yield installed


def addresses(*operators: OperatorProcess) -> list[tuple[str, int]]:
    return [("127.0.0.1", each.webhook) for each in operators]


def pod(name: str, labels: Mapping[str, str] = {}, *, generate: bool = False, **spec: Any) -> Object:
    names = {"generateName": f"{name}-"} if generate else {"name": name}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**names, "labels": {"pretend": "never", **labels}},
        "spec": {"containers": [{"name": "app", "image": "app"}], **spec},
    }


def made(plane: ControlPlane, namespace: str, body: Object) -> Object:
    found: Object = plane.api.call("POST", f"/api/v1/namespaces/{namespace}/pods", body)
    return found


def has_sidecar(found: Object) -> bool:
    return [each["name"] for each in found["spec"].get("initContainers", ())][:1] == [CONTAINER]


def labelled(plane: ControlPlane, namespace: str, value: str) -> None:
    plane.api.call("PATCH", f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": {LABEL: value}}})


def authority(plane: ControlPlane, namespace: str) -> str | None:
    """What sidecars of a namespace trust."""
    items = plane.api.get(f"/api/v1/namespaces/{namespace}/configmaps")["items"]
    return next((each["data"]["ca.crt"] for each in items if each["metadata"]["name"] == CA_CONFIG_MAP), None)


def asked(installed: Installation) -> float:
    """How often the operators were asked."""
    results = ("injected", "refused", "unchanged", "failed")
    series = [f'spillway_operator_injections_total{{result="{each}"}}' for each in results]
    return sum(each.metric(name) or 0.0 for each in installed.operators if each.running for name in series)


# ---- who gets one


def test_a_pod_that_says_so_gets_one_and_finds_what_it_mounts(
    plane: ControlPlane, installed: Installation, namespace: str
) -> None:
    assert authority(plane, namespace) is None
    found = made(plane, namespace, pod("app", YES))
    sidecar = found["spec"]["initContainers"][0]
    assert sidecar["restartPolicy"] == "Always"
    assert found["metadata"]["annotations"][INJECTED] == sidecar["image"] == "spillway-balancer:0.1.0.dev0"
    assert f"--operator=https://spillway-operator.{installed.namespace}.svc:9443" in sidecar["args"]
    assert f"--gateway-url=http://spillway.{installed.namespace}.svc" in sidecar["args"]
    env = {each["name"]: each["value"] for each in found["spec"]["containers"][0]["env"]}
    assert env["OPENAI_BASE_URL"] == "http://127.0.0.1:8787/v1"
    assert authority(plane, namespace) == installed.authority()


def test_a_namespace_asks_for_its_pods_and_a_pod_may_say_no(
    plane: ControlPlane, installed: Installation, namespace: str
) -> None:
    assert not has_sidecar(made(plane, namespace, pod("before")))
    labelled(plane, namespace, "true")
    until(lambda: has_sidecar(made(plane, namespace, pod("app", generate=True))), "the API server has heard of it", 5.0)
    assert not has_sidecar(made(plane, namespace, pod("not-me", NO)))
    labelled(plane, namespace, "false")
    assert has_sidecar(made(plane, namespace, pod("but-me", YES)))
    assert not has_sidecar(made(plane, namespace, pod("odd", {LABEL: "yes"})))


def test_pods_of_workloads_get_one(plane: ControlPlane, installed: Installation, namespace: str) -> None:
    template = {
        "metadata": {"labels": {"app": "x", "pretend": "never", **YES}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    }
    job = {**template, "spec": {**template["spec"], "restartPolicy": "Never"}}
    selector = {"matchLabels": {"app": "x"}}
    plane.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "deployment"},
            "spec": {"selector": selector, "template": template},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "stateful"},
            "spec": {"selector": selector, "serviceName": "x", "template": template},
        },
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": {"template": job}},
        namespace=namespace,
    )

    def pods() -> list[Object]:
        return list(plane.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"])

    until(lambda: len(pods()) == 3, "each has made its Pod")
    assert all(map(has_sidecar, pods()))
    owners = {each["metadata"]["ownerReferences"][0]["kind"] for each in pods()}
    assert owners == {"ReplicaSet", "StatefulSet", "Job"}


def test_the_strictest_pod_security_lets_sidecars_in(
    plane: ControlPlane, installed: Installation, namespace: str
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    plane.api.call("PATCH", f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": labels}})
    drop = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    own = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    containers = [{"name": "app", "image": "app", "securityContext": drop}]
    assert has_sidecar(made(plane, namespace, pod("app", YES, containers=containers, securityContext=own)))


def test_a_sidecar_that_may_use_more_than_it_asks_for_is_what_the_api_server_takes(
    plane: ControlPlane, installed: Installation, namespace: str
) -> None:
    body = pod("app", YES)
    body["metadata"]["annotations"] = {"spillway.dev/memory": "2Gi", "spillway.dev/cpu-limit": "20m"}
    resources = made(plane, namespace, body)["spec"]["initContainers"][0]["resources"]
    assert resources == {"requests": {"cpu": "20m", "memory": "2Gi"}, "limits": {"cpu": "20m", "memory": "2Gi"}}


def test_a_pod_that_has_resources_as_a_whole_is_not_refused_for_its_sidecar(
    plane: ControlPlane, installed: Installation, namespace: str
) -> None:
    containers = [{"name": "app", "image": "app", "resources": {"requests": {"memory": "120Mi"}}}]
    body = pod("app", YES, containers=containers, resources={"requests": {"memory": "128Mi"}})
    assert has_sidecar(made(plane, namespace, body))


def test_nobody_is_asked_for_kube_system_and_the_operators_own_namespace(
    plane: ControlPlane, installed: Installation
) -> None:
    before = asked(installed)
    for namespace in ("kube-system", installed.namespace):
        until(lambda namespace=namespace: plane.has_account(namespace), f"the default ServiceAccount of {namespace}")
        found = made(plane, namespace, pod("spared", YES, generate=True))
        assert not has_sidecar(found)
        plane.api.call("DELETE", f"/api/v1/namespaces/{namespace}/pods/{found['metadata']['name']}")
    assert asked(installed) == before


# ---- what is said, and what is left alone


def test_who_cannot_have_one_is_let_in_and_told_why(
    plane: ControlPlane, installed: Installation, namespace: str
) -> None:
    body = json.dumps(pod("app", YES, hostNetwork=True))
    command = [str(plane.programs / "kubectl"), "--kubeconfig", str(plane.kubeconfig), "-n", namespace]
    done = subprocess.run([*command, "create", "-f", "-"], input=body, capture_output=True, text=True, check=True)
    assert "pod/app created" in done.stdout
    assert f"Warning: {LABEL}: this Pod gets no sidecar: it has the network of its node" in done.stderr
    assert not has_sidecar(plane.api.get(f"/api/v1/namespaces/{namespace}/pods/app"))
    assert authority(plane, namespace) is None


def test_a_dry_run_shows_the_sidecar_and_makes_nothing(
    plane: ControlPlane, installed: Installation, namespace: str
) -> None:
    text = json.dumps(pod("app", YES))
    shown = plane.kubectl("create", "-n", namespace, "--dry-run=server", "-o", "json", "-f", "-", stdin=text)
    assert has_sidecar(json.loads(shown))
    assert authority(plane, namespace) is None


def test_applying_the_same_pod_again_changes_nothing(
    plane: ControlPlane, installed: Installation, namespace: str
) -> None:
    text = json.dumps(pod("app", YES))
    apply = ("apply", "--server-side", "-n", namespace, "-f", "-")
    path = f"/api/v1/namespaces/{namespace}/pods/app"
    plane.kubectl(*apply, stdin=text)
    before = plane.api.get(path)
    assert has_sidecar(before)
    plane.kubectl(*apply, stdin=text)
    assert plane.api.get(path)["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert plane.kubectl("diff", "--server-side", "-n", namespace, "-f", "-", stdin=text) == ""


def test_an_upgrade_of_the_chart_leaves_the_authority_in_the_webhooks(
    plane: ControlPlane, installed: Installation, namespace: str
) -> None:
    (config,) = (each for each in installed.manifests if each["kind"] == "MutatingWebhookConfiguration")
    path = f"/apis/{config['apiVersion']}/mutatingwebhookconfigurations/{config['metadata']['name']}"
    before = plane.api.get(path)
    assert all(hook["clientConfig"]["caBundle"] for hook in before["webhooks"])
    plane.apply(config)
    assert plane.api.get(path)["webhooks"] == before["webhooks"]
    assert plane.kubectl("diff", "--server-side", "-f", "-", stdin=json.dumps(config)) == ""
    # Somebody takes it away: it is put back.
    for hook in before["webhooks"]:
        del hook["clientConfig"]["caBundle"]
    plane.api.call("PATCH", path, {"webhooks": before["webhooks"]})

    def back() -> bool:
        return all("caBundle" in each["clientConfig"] for each in plane.api.get(path)["webhooks"])

    until(back, "it is back", 10.0)


def test_the_authority_in_a_namespace_is_kept_as_it_is(
    plane: ControlPlane, installed: Installation, namespace: str
) -> None:
    made(plane, namespace, pod("app", YES))
    path = f"/api/v1/namespaces/{namespace}/configmaps/{CA_CONFIG_MAP}"
    plane.api.call("PATCH", path, {"data": {"ca.crt": "none"}})
    until(lambda: authority(plane, namespace) == installed.authority(), "it is put right", 10.0)


def test_a_tenant_who_keeps_the_authority_out_keeps_it_from_nobody_else(
    plane: ControlPlane, installed: Installation, namespace: str
) -> None:
    path = "/api/v1/namespaces/{}/configmaps"
    mine = {"metadata": {"name": CA_CONFIG_MAP}, "data": {"ca.crt": "mine"}, "immutable": True}
    with plane.new_namespace(f"{namespace}-z") as later:
        made(plane, later, pod("app", YES))
        plane.api.call("POST", path.format(namespace), mine)
        found = made(plane, namespace, pod("app", YES))
        assert not has_sidecar(found), "it would believe who is no operator"
        plane.api.call("PATCH", f"{path.format(later)}/{CA_CONFIG_MAP}", {"data": {"ca.crt": "none"}})
        until(lambda: authority(plane, later) == installed.authority(), "it is put right", 10.0)
        plane.api.call("DELETE", f"{path.format(later)}/{CA_CONFIG_MAP}")
        until(lambda: authority(plane, later) == installed.authority(), "it is put back", 10.0)
    assert authority(plane, namespace) == "mine"


# ---- nothing is missed, and nobody waits for long


class Making(Background):
    """Pods that want sidecars, one after the other on a connection of its own; who has none is noted."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        super().__init__()
        self._api = plane.api.again()
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._end = threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._make, daemon=True)
        self.count = 0
        self.lacking: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def close(self) -> None:
        self._end.set()
        self._thread.join(timeout=10)
        self._api.close()

    def more(self, pods: int) -> None:
        """Waits until so many more have been made."""
        count = self.count + pods
        until(lambda: self.count >= count, f"{pods} more Pods", 30.0)

    def anew(self, service: Junction) -> None:
        """Ends the connections between API server and webhook while nobody is asked: the next are made anew."""
        with self._turn:
            service.cut()
            time.sleep(0.1)  # the API server has seen it

    def _make(self) -> None:
        while not self._end.wait(0.02):
            with self._turn:
                found = self._api.call("POST", self._path, pod("many", YES, generate=True))
            self.count += 1
            if not has_sidecar(found):
                self.lacking.append(f"{found['metadata']['name']} at {datetime.now(UTC)}")


def certificate(operator: OperatorProcess, trusted: str) -> bytes:
    """What a replica shows. Raises ssl.SSLError where it is not of the authority."""
    context = trust_in(trusted.encode())
    with (
        socket.create_connection(("127.0.0.1", operator.webhook), timeout=5) as line,
        context.wrap_socket(line, server_hostname="localhost") as wrapped,
    ):
        return wrapped.getpeercert(True) or b""


def shows(operator: OperatorProcess, trusted: str) -> bool:
    try:
        return bool(certificate(operator, trusted))
    except ssl.SSLError:
        return False


def test_certificate_and_authority_change_and_no_pod_is_made_without_a_sidecar(
    plane: ControlPlane, installed: Installation, service: Junction, namespace: str
) -> None:
    old = installed.authority()
    names = (*service_names("spillway-operator", installed.namespace), "localhost")
    fresh = needed(None, names, datetime.now(UTC))
    assert fresh is not None
    assert all(shows(each, old) for each in installed.operators)
    path = f"/api/v1/namespaces/{installed.namespace}/secrets/spillway-operator-tls"
    with Making(plane, namespace) as making:
        making.more(5)
        plane.api.call("PATCH", path, {"data": fresh.data()})  # both in one write, as by cert-manager
        ends = time.monotonic() + 30.0
        while not all(shows(each, fresh.authority.decode()) for each in installed.operators):
            assert time.monotonic() < ends, "the new certificate is not shown"
            making.anew(service)
            making.more(1)
        making.anew(service)
        making.more(10)
    assert making.lacking == []
    until(lambda: authority(plane, namespace) == fresh.authority.decode(), "sidecars trust the new one", 10.0)
    assert not any(shows(each, old) for each in installed.operators)


def test_a_replica_ends_in_good_order_and_no_pod_is_made_without_a_sidecar(
    plane: ControlPlane, installed: Installation, service: Junction, namespace: str
) -> None:
    replica = installed.operator()
    service.backends = addresses(replica, *installed.operators[:-1])
    service.cut()
    with Making(plane, namespace) as making:
        making.more(10)
        before = replica.metric('spillway_operator_injections_total{result="injected"}')
        assert before, "it is the one that is asked"
        replica.send(signal.SIGTERM)
        making.more(5)  # kube-proxies have not heard of it yet
        service.backends = addresses(*installed.operators[:-1])
        until(lambda: not replica.running, "it ends", 15.0)
        making.more(5)
    assert making.lacking == []


def test_while_nobody_answers_pods_are_made_in_time_and_as_they_are(
    plane: ControlPlane, installed: Installation, service: Junction, namespace: str
) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        backends, service.backends = service.backends, [silent.getsockname()]
        service.cut()
        try:
            began = time.monotonic()
            found = made(plane, namespace, pod("unlucky", YES))
            assert time.monotonic() - began < PATIENCE
            assert not has_sidecar(found)
            service.backends = []
            assert not has_sidecar(made(plane, namespace, pod("unlucky-too", YES)))
        finally:
            service.backends = backends
    until(lambda: has_sidecar(made(plane, namespace, pod("lucky", YES, generate=True))), "it answers again", 10.0)
