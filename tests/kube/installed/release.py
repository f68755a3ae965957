"""The chart as it is installed on the tests' cluster, and what the tests do to it."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kube.access import until
from tests.kube.cluster import IMAGE, Cluster

Object = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
SYSTEM = "spillway-system"
MODELS = "models"
GATEWAY = "spillway-gateway"
OPERATOR = "spillway-operator"
REGISTRY, _, REST = IMAGE.partition("/")
REPOSITORY, _, TAG = REST.partition(":")
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
VALUES: Object = {
    "image": {
        "registry": REGISTRY,
        "tag": TAG,
        "pullPolicy": "Never",
        "balancer": {"repository": REPOSITORY},
        "operator": {"repository": REPOSITORY},
    },
    "operator": {"resources": SMALL},
    "sidecars": {"enabled": True},
    # The longest stream of the load takes some 10 s; a test should not wait ten minutes for one that hangs.
    "gateway": {"resources": SMALL, "drainSeconds": 60},
}


def helm_program() -> Path:
    """Raises CalledProcessError when it can be neither found nor built."""
    done = subprocess.run([ROOT / "tests/chart/tools.sh"], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip()) / "helm"


class Release:
    """`helm install spillway` in the namespace SYSTEM, and objects of users in the namespace MODELS."""

    def __init__(self, cluster: Cluster, helm: Path) -> None:
        self.cluster = cluster
        self._helm = helm

    def helm(self, *arguments: str, values: Object | None = None) -> str:
        """What helm prints. Raises CalledProcessError, whose notes hold what it said."""
        command = [str(self._helm), "--kubeconfig", str(self.cluster.kubeconfig), "-n", SYSTEM, *arguments]
        given = [] if values is None else ["--values", "-"]
        done = subprocess.run(
            [*command, *given],
            input=None if values is None else json.dumps(values),
            capture_output=True,
            text=True,
            timeout=240,
        )
        if done.returncode:
            error = subprocess.CalledProcessError(done.returncode, command)
            error.add_note(done.stdout[-2000:] + done.stderr[-4000:])
            raise error
        return done.stdout

    def install(self) -> str:
        # The CRDs are there already, put there by kubectl, as with those who installed Spillway so before.
        chart = str(ROOT / "charts" / "spillway")
        return self.helm("install", "spillway", chart, "--take-ownership", "--wait", "--timeout", "3m", values=VALUES)

    def upgrade(self, values: Object) -> str:
        chart = str(ROOT / "charts" / "spillway")
        return self.helm("upgrade", "spillway", chart, "--reuse-values", "--wait", "--timeout", "3m", values=values)

    def injects(self) -> None:
        """Waits until the API server can ask the webhook: it has been told which authority to trust."""
        path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"

        def holds() -> bool:
            found = [hook for each in self.cluster.api.get(path)["items"] for hook in each["webhooks"]]
            return bool(found) and all(hook["clientConfig"].get("caBundle") for hook in found)

        until(holds, "an authority in the webhook's configuration", 60.0)

    # ---- the cluster, seen from the two namespaces

    def kubectl(self, *arguments: str, namespace: str = MODELS) -> str:
        return self.cluster.kubectl("-n", namespace, *arguments)

    def pods(self, app: str) -> list[Object]:
        """Pods of engines by their label, or of gateway or operator; those that are leaving included."""
        if app in (GATEWAY, OPERATOR):
            component = app.removeprefix("spillway-")
            path = f"/api/v1/namespaces/{SYSTEM}/pods?labelSelector=app.kubernetes.io/component={component}"
        else:
            path = f"/api/v1/namespaces/{MODELS}/pods?labelSelector=app={app}"
        return list(self.cluster.api.get(path)["items"])

    def names(self, app: str) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.pods(app)]

    def settled(self, app: str, count: int, namespace: str = MODELS) -> None:
        """Waits until exactly so many Pods are there, all of them ready."""

        def holds() -> bool:
            pods = self.pods(app)
            return len(pods) == count and all(is_ready(pod) for pod in pods)

        until(holds, f"{count} ready Pods of {app}", 120.0)

    def restart(self, app: str, namespace: str = MODELS) -> None:
        """A rolling restart, to its end: the last Pod of before is gone."""
        count = len(self.pods(app))
        before = set(self.names(app))
        self.kubectl("rollout", "restart", f"deployment/{app}", namespace=namespace)
        self.rolled(app, before, count)

    def rolled(self, app: str, before: set[str], count: int) -> None:
        def holds() -> bool:
            pods = self.pods(app)
            fresh = [pod for pod in pods if pod["metadata"]["name"] not in before]
            return len(pods) == len(fresh) == count and all(is_ready(pod) for pod in fresh)

        until(holds, f"{count} new Pods of {app} and no old one", 180.0)

    def scale(self, app: str, replicas: int, namespace: str = MODELS) -> None:
        self.kubectl("scale", f"deployment/{app}", f"--replicas={replicas}", namespace=namespace)
        self.settled(app, replicas)

    def kill(self, pod: str, kind: str = "containerStatuses", namespace: str = MODELS) -> None:
        """kill -9 of the process of its first container of a kind, from outside: inside nobody can kill the first
        process."""
        found = self.cluster.api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")["status"][kind][0]
        container = found["containerID"].removeprefix("containerd://")
        self.cluster.exec("ctr", "-n", "k8s.io", "task", "kill", "--signal", "SIGKILL", container)
        again = found["restartCount"] + 1
        path = f"jsonpath={{.status.{kind}[0].restartCount}}={again}"
        self.kubectl("wait", f"pod/{pod}", f"--for={path}", "--timeout=60s", namespace=namespace)
        self.kubectl("wait", f"pod/{pod}", "--for=condition=Ready", "--timeout=60s", namespace=namespace)

    def serve(self, pod: str, there: bool) -> None:
        """Gives an engine the label that pools and Services select by, or takes it away; it keeps running."""
        labels = {"serve": "yes" if there else None}
        self.cluster.api.call("PATCH", f"/api/v1/namespaces/{MODELS}/pods/{pod}", {"metadata": {"labels": labels}})

    # ---- what a Pod says by HTTP, through the API server

    def ask(self, pod: str, path: str, body: Any = None, *, port: int = 8080, namespace: str = SYSTEM) -> Any:
        """Raises Refused for an answer of 400 and above, and where the Pod cannot be reached."""
        method = "GET" if body is None else "POST"
        return self.cluster.api.call(method, f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}", body)

    def endpoints(self, pod: str, pool: str) -> set[str]:
        """Names of a pool's endpoints in one balancer's force."""
        found = (labels for labels, _ in self._in_flight(pod))
        return {each["endpoint"] for each in found if each["pool"] == f"{MODELS}/{pool}"}

    def connected(self, pod: str) -> bool:
        """Whether a balancer is connected to an operator."""
        page = self.ask(pod, "/metrics", port=8081)
        return re.search(r"^spillway_config_connected\{.*\} 1(\.0)?$", page, re.MULTILINE) is not None

    def sample(self, pod: str, name: str, **labels: str) -> float:
        """A value of a gateway's metrics; 0 where there is none."""
        page = self.ask(pod, "/metrics", port=8081)
        said = ",".join(f'{label}="{value}"' for label, value in labels.items())
        found = re.search(rf"^{name}\{{{said}\}} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def in_force_since(self, pod: str) -> float:
        """When a balancer took in force what it serves by. Unix time."""
        page = self.ask(pod, "/metrics", port=8081)
        found = re.search(r"^spillway_config_last_change_timestamp_seconds (\S+)$", page, re.MULTILINE)
        assert found is not None
        return float(found[1])

    def busiest(self) -> str:
        """The engine with the most requests in flight of those never killed: kubelet lets others wait, ever longer."""
        whole = [pod for pod in self.pods("engines") if is_ready(pod) and not restarts(pod)]
        held = Counter({pod["metadata"]["name"]: 0 for pod in whole})
        for gateway in self.names(GATEWAY):
            for labels, value in self._in_flight(gateway):
                name = labels["endpoint"].partition(":")[0]
                if name in held:
                    held[name] += int(float(value))
        return max(held, key=lambda name: held[name])

    def _in_flight(self, pod: str) -> Iterator[tuple[dict[str, str], str]]:
        page = self.ask(pod, "/metrics", port=8081)
        for labels, value in re.findall(r"^spillway_endpoint_in_flight\{(.*)\} (\S+)$", page, re.MULTILINE):
            yield dict(re.findall(r'(\w+)="([^"]*)"', labels)), value

    # ---- what kubectl get shows

    def row(self, kind: str, name: str) -> dict[str, str]:
        """The columns of `kubectl get KIND NAME`, by their heads in lower case."""
        head, line = self.kubectl("get", kind, name).splitlines()[:2]
        starts = [match.start() for match in re.finditer(r"\S+(?: \S+)*", head)]
        ends = [*starts[1:], None]
        return {head[a:b].strip().lower(): line[a:b].strip() for a, b in zip(starts, ends, strict=True)}

    def shows(self, kind: str, name: str, seconds: float = 30.0, **columns: str) -> dict[str, str]:
        """Waits until columns have these values."""
        seen: dict[str, str] = {}

        def holds() -> bool:
            seen.clear()
            seen.update(self.row(kind, name))
            return all(seen.get(column) == value for column, value in columns.items())

        try:
            until(holds, "", seconds)
        except TimeoutError:
            raise AssertionError(f"{kind} {name} shows {seen}, and not {columns}, after {seconds:g} s") from None
        return seen

    def condition(self, kind: str, name: str, of_type: str) -> Object:
        found = self.cluster.api.get(f"/apis/spillway.dev/v1alpha1/namespaces/{MODELS}/{kind}/{name}")
        return next(each for each in found["status"]["conditions"] if each["type"] == of_type)


def restarts(pod: Object) -> int:
    return sum(each["restartCount"] for each in pod["status"]["containerStatuses"])


def is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", ())
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
