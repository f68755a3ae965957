"""Spillway on the plane as the plain manifests install it: operators and balancers are real processes of this machine.

Rights, ServiceAccounts, the gateway's and the operator's Deployments are those of deploy/, which is the chart rendered.
An operator is its ServiceAccount to the API server and nobody else, so what it may not do it cannot do here either.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from tests.kube.access import Audited, Object, Refused, until
from tests.kube.assets import HERE
from tests.kube.listener import Listener
from tests.kube.plane import ControlPlane, free_port
from tests.kube.processes import BalancerProcess, OperatorProcess, Process, fetch

from spillway_api.stream import AT_GATEWAY, AUDIENCE

DEPLOY = HERE.parents[1] / "deploy"
GATEWAY = "spillway-gateway"
ACCOUNT = "spillway-operator"


class Installation:
    """One release in a namespace of its own, from the start of the `with` block: its objects, not yet its processes.

    When the block ends well, nothing that the operators asked for may have been forbidden.
    """

    def __init__(
        self,
        plane: ControlPlane,
        folder: Path,
        *,
        replicas: int = 1,
        render: Callable[[str], list[Object]] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """`replicas` of the gateway; `render` gives manifests for a namespace in place of deploy/.

        `options` of operators, beside the namespaces to watch and the wish for consumers that their Deployment says.
        """
        self.plane = plane
        self.folder = folder
        self.namespace = f"spillway-{os.urandom(3).hex()}"
        self.manifests = (render or plain_manifests)(self.namespace)
        own = [each for each in _arguments(self.manifests) if each.startswith(("--watch-namespace", "--consumers"))]
        self._options = [*own, *_sidecars(self.manifests, folder), *options]
        self._replicas = replicas
        self._stack = contextlib.ExitStack()
        self._processes: list[Process] = []
        self.operators: list[OperatorProcess] = []
        self._taken = 0

    @property
    def user(self) -> str:
        """As the audit log calls the operator."""
        return f"system:serviceaccount:{self.namespace}:{ACCOUNT}"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.plane.new_namespace(self.namespace))
            stack.callback(self._drop_cluster_objects)
            self._apply_manifests()
            self._stack = stack.pop_all()
        return self

    def _apply_manifests(self) -> None:
        for each in self.manifests:
            if each["kind"] == "Deployment":
                # The operators are this machine's processes; their Deployment only owns what they make.
                each["spec"]["replicas"] = self._replicas if each["metadata"]["name"] == GATEWAY else 0
        spaces = {each["metadata"].get("namespace", self.namespace) for each in self.manifests}
        for space in spaces:
            own = [each for each in self.manifests if each["metadata"].get("namespace", self.namespace) == space]
            self.plane.apply(*own, namespace=space)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in reversed(self._processes):
            if process.running:
                process.kill()
        forbidden = [] if error is not None else self.forbidden
        self._stack.close()
        assert not forbidden, forbidden

    @property
    def forbidden(self) -> list[Audited]:
        """What an operator asked for without having the right to it.

        An API server that has just begun does not know the roles yet: what it refuses then it allows at other times.
        """
        asked = self.plane.audit(self.user)
        allowed = {each._replace(status=0) for each in asked if each.allowed}
        return [each for each in asked if each._replace(status=0, allowed=True) not in allowed]

    def operator(
        self, *, options: Sequence[str] = (), api_port: int | None = None, wait: bool = True
    ) -> OperatorProcess:
        """Starts a replica and waits until it is ready. `api_port`: a line to the API server other than its own."""
        name = f"operator-{len(self.operators)}"
        self.plane.apply(_pod(name), namespace=self.namespace)  # replicas know each other by their Pods
        kubeconfig = self.plane.kubeconfig_of(self.namespace, ACCOUNT)
        if api_port is not None:
            own = self.plane.url.rpartition(":")[2]
            kubeconfig.write_text(kubeconfig.read_text().replace(f"127.0.0.1:{own}", f"127.0.0.1:{api_port}"))
        token = self.folder / f"{name}.token"
        token.write_text(self.plane.token_of(self.namespace, ACCOUNT, audience=AUDIENCE, pod=name))
        port, admin, webhook = free_port(), free_port(), free_port()
        process = OperatorProcess(
            self.folder,
            name,
            "spillway-operator",
            "run",
            *("--namespace", self.namespace, "--name", name, "--pod-ip", "127.0.0.1", "--host", "127.0.0.1"),
            *("--port", str(port), "--admin-port", str(admin), "--webhook-port", str(webhook)),
            *("--tls-name", "localhost", "--token-file", str(token)),
            *self._options,
            *options,
            env={"KUBECONFIG": str(kubeconfig)},
        )
        process.port, process.admin, process.webhook, process.login = port, admin, webhook, _login(kubeconfig)
        self._processes.append(process)
        self.operators.append(process)
        if wait:
            until(lambda: process.ready, f"{name} is ready; {process.log[-2000:]}")
        return process

    def listener(self, *operators: OperatorProcess, gateway: str = "default") -> Listener:
        """A subscriber; of `operators` it takes the first that answers, of all of them without any."""
        token = self.pod_token(gateway)
        return Listener(self.ports(*operators), self.authority, token, gateway)

    def ports(self, *operators: OperatorProcess) -> Callable[[], Sequence[int]]:
        """Of those of the operators that run, of all without any."""
        return lambda: [each.port for each in operators or self.operators if each.running]

    def balancer(
        self, name: str, url: str, *, boot: bytes | None = None, gateway: str = "default", wait: bool = True
    ) -> BalancerProcess:
        """Starts a balancer of the gateway as its own Pod and waits until it is ready.

        `boot` is the file that it boots from, as the ConfigMap would be mounted.
        """
        folder = self.folder / name
        for part in ("state", "secrets"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(self.pod_token(gateway))
        (folder / "ca.crt").write_text(self.authority())
        if boot is not None:
            (folder / "boot").write_bytes(boot)
        port, admin = free_port(), free_port()
        process = BalancerProcess(
            self.folder,
            name,
            *("spillway", "run", "--operator", url, "--gateway", gateway, "--token-file", str(folder / "token")),
            *("--ca-file", str(folder / "ca.crt"), "--state", str(folder / "state"), "--boot", str(folder / "boot")),
            *("--secrets", str(folder / "secrets"), "--port", str(port), "--admin-port", str(admin)),
        )
        process.port, process.admin, process.secrets = port, admin, folder / "secrets"
        self._processes.append(process)
        if wait:
            until(lambda: process.says("/readyz"), f"{name} is ready; {process.log[-2000:]}")
        return process

    def sidecar(
        self, name: str, operator: OperatorProcess, gateway: BalancerProcess, namespace: str, *routes: str
    ) -> BalancerProcess:
        """Starts a balancer beside a client, as the Pod `name` of that namespace, and waits until it is ready."""
        folder = self.folder / name
        (folder / "state").mkdir(parents=True, exist_ok=True)
        self.plane.apply(_pod(name, "default"), namespace=namespace)
        for file, audience in (("token", AUDIENCE), ("gateway-token", AT_GATEWAY)):
            token = self.plane.token_of(namespace, "default", audience=audience, pod=name)
            (folder / file).write_text(token)
        (folder / "ca.crt").write_text(self.authority())
        port, admin = free_port(), free_port()
        process = BalancerProcess(
            self.folder,
            name,
            *("spillway", "run", "--sidecar", "--operator", f"https://localhost:{operator.port}"),
            *("--gateway-url", f"http://127.0.0.1:{gateway.port}", *(f"--route={route}" for route in routes)),
            *("--token-file", str(folder / "token"), "--gateway-token-file", str(folder / "gateway-token")),
            *("--ca-file", str(folder / "ca.crt"), "--state", str(folder / "state")),
            *("--port", str(port), "--admin-port", str(admin)),
        )
        process.port, process.admin = port, admin
        self._processes.append(process)
        until(lambda: process.says("/readyz"), f"{name} is ready; {process.log[-2000:]}")
        return process

    def engine(self, name: str, *, model: str = "m") -> int:
        """Starts a simulated engine; its port."""
        port = free_port()
        command = ("spillway", "engine", "--port", str(port), "--name", name, "--model", model, "--speed", "50")
        process = Process(self.folder, name, *command)
        self._processes.append(process)
        until(lambda: _answers(port, process), f"{name} answers")
        return port

    def authority(self) -> str:
        """What balancers trust, from where they have it. For any thread."""
        path = f"/api/v1/namespaces/{self.namespace}/configmaps/spillway-operator-ca"
        with self.plane.api.again() as api:
            return str(api.get(path)["data"]["ca.crt"])

    def pod_token(self, gateway: str = "default") -> str:
        """A token of the next of the gateway's Pods; each Pod is given to one balancer."""
        account = GATEWAY if gateway == "default" else f"{GATEWAY}-{gateway}"
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=spillway.dev/gateway%3D{gateway}"

        def pods() -> list[str]:
            return sorted(each["metadata"]["name"] for each in self.plane.api.get(path)["items"])

        # All of them: of two balancers with one Pod's identity the operator takes the later one for a restart of the
        # other, and the two would throw each other out.
        deployment = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{account}"
        replicas = self.plane.api.get(deployment)["spec"]["replicas"]
        until(lambda: len(pods()) >= replicas, f"{replicas} Pods of gateway {gateway}")
        names = pods()
        self._taken += 1
        pod = names[(self._taken - 1) % len(names)]
        return self.plane.token_of(self.namespace, account, audience=AUDIENCE, pod=pod)

    def child(self, plural: str, name: str) -> Any:
        """A ConfigMap or Secret of the installation's namespace. Raises Refused."""
        return self.plane.api.get(f"/api/v1/namespaces/{self.namespace}/{plural}/{name}")

    def has_child(self, plural: str, name: str) -> bool:
        try:
            self.child(plural, name)
        except Refused as error:
            if error.status != 404:
                raise
            return False
        return True

    def asked_by(self, operator: OperatorProcess) -> list[Audited]:
        """What one replica has asked of the API server."""
        lines = (self.plane.state / "audit.log").read_text().splitlines(keepends=True)
        asked = (Audited.of(json.loads(line)) for line in lines if line.endswith("\n") and operator.login in line)
        return [each for each in asked if each.user == self.user]  # not that it was given its token

    def leader(self) -> str:
        """Who holds the Lease; empty when nobody does."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/spillway-operator"
        return str(self.plane.api.get(path)["spec"].get("holderIdentity") or "")

    def _drop_cluster_objects(self) -> None:
        for each in self.manifests:
            if each["kind"] in ("ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration"):
                plural = f"{each['kind'].lower()}s"
                path = f"/apis/{each['apiVersion']}/{plural}/{each['metadata']['name']}"
                with contextlib.suppress(Refused):
                    self.plane.api.call("DELETE", path)


def plain_manifests(namespace: str) -> list[Object]:
    """Of deploy/, what an installation in that namespace needs on a plane."""
    return list(_plain_manifests(namespace))


def _plain_manifests(namespace: str) -> Iterator[Object]:
    for name in ("rbac", "operator", "gateways"):
        text = (DEPLOY / f"{name}.yaml").read_text().replace("spillway-system", namespace)
        yield from (each for each in yaml.safe_load_all(text) if each)


KINDS = ("ServiceAccount", "Service", "Deployment", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


def of_the_chart(helm: str, values: Mapping[str, Any], webhook: int = 0) -> Callable[[str], list[Object]]:
    """What the chart renders for a namespace, as far as an installation on a plane needs it.

    `webhook`: port of loopback at which the API server, which reaches no Service, finds what answers it.
    """

    def render(namespace: str) -> list[Object]:
        chart = DEPLOY.parent / "charts/spillway"
        command = [helm, "template", "spillway", str(chart), "--namespace", namespace, "--values", "-"]
        done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=True)
        found = [each for each in yaml.safe_load_all(done.stdout) if each]
        for each in found:
            for hook in each.get("webhooks", ()):
                path = hook["clientConfig"].pop("service")["path"]
                hook["clientConfig"]["url"] = f"https://localhost:{webhook}{path}"
        return [each for each in found if each["kind"] in (*KINDS, "MutatingWebhookConfiguration") or _told(each)]

    return render


def _told(each: Object) -> bool:
    """Whether it is what the operator is told of sidecars."""
    return each["kind"] == "ConfigMap" and "sidecars.json" in each["data"]


def _sidecars(manifests: Sequence[Object], folder: Path) -> Iterator[str]:
    """The options by which an operator is told of sidecars, where there are any."""
    for each in filter(_told, manifests):
        file = folder / "sidecars.json"
        file.write_text(each["data"]["sidecars.json"])
        yield from ("--sidecars", str(file))
        yield from (each for each in _arguments(manifests) if each.startswith("--sidecar-routes"))


def _arguments(manifests: Sequence[Object]) -> list[str]:
    """With which the operator is started."""
    (args,) = (
        each["spec"]["template"]["spec"]["containers"][0]["args"]
        for each in manifests
        if each["kind"] == "Deployment" and each["metadata"]["name"] == "spillway-operator"
    )
    return list(args)


def _pod(name: str, account: str = ACCOUNT) -> Object:
    spec = {"serviceAccountName": account, "containers": [{"name": "operator", "image": "operator"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _login(kubeconfig: Path) -> str:
    """The identity of the token in it."""
    token = json.loads(kubeconfig.read_text())["users"][0]["user"]["token"]
    claims = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["jti"])


def _answers(port: int, process: Process) -> bool:
    if not process.running:
        raise AssertionError(f"{process.name} has ended:\n{process.log[-3000:]}")
    try:
        return fetch(port, "/v1/models", timeout=2.0).status == 200
    except (OSError, http.client.HTTPException):
        return False
