"""Objects as a user would write them, and what a user reads of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tests.kube.access import Kubernetes, Object, Refused, until

API = "spillway.dev/v1alpha1"
INFERENCE = "inference.networking.k8s.io"
BLACK_HOLE = "http://127.0.0.1:9"
"""Nothing is asked of endpoints where no balancer runs."""


def pool(name: str, source: Object, *, model: str = "m", **spec: Any) -> Object:
    whole = {"models": [{"name": model}], "source": source} | spec
    return {"apiVersion": API, "kind": "ModelPool", "metadata": {"name": name}, "spec": whole}


def policy(name: str, model: str, *pools: str | Object, **spec: Any) -> Object:
    """A RoutePolicy of one public model and one tier of pools."""
    targets = [{"name": each} if isinstance(each, str) else each for each in pools]
    rules = [{"name": "default", "tiers": [{"name": "local", "pools": targets}]}]
    whole = {"models": [model], "rules": rules, **spec}
    return {"apiVersion": API, "kind": "RoutePolicy", "metadata": {"name": name}, "spec": whole}


def static(*ports: int | str) -> Object:
    """Endpoints e0, e1, … at ports of loopback, or at URLs."""
    urls = [port if isinstance(port, str) else f"http://127.0.0.1:{port}" for port in ports]
    return {"static": {"endpoints": [{"name": f"e{index}", "url": url} for index, url in enumerate(urls)]}}


def pods(app: str, *ports: int, **more: Any) -> Object:
    return {"pods": {"selector": {"matchLabels": {"app": app}}, "ports": list(ports or (8000,)), **more}}


def provider(*accounts: tuple[str, str, str]) -> Object:
    """Accounts as (name, Secret, key)."""
    listed = [{"name": name, "secretRef": {"name": secret, "key": key}} for name, secret, key in accounts]
    return {"provider": {"type": "OpenAI", "accounts": listed}}


def deployment(name: str, replicas: int, *, annotations: Mapping[str, str] | None = None, **labels: str) -> Object:
    """Pods with the label `app: name`, unless `labels` say otherwise, that the pretended node runs."""
    own = {"deployment": name, "app": name, **labels}
    template = {
        "metadata": {"labels": own, "annotations": dict(annotations or {})},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {"name": "engine", "image": "engine", "ports": [{"name": "http", "containerPort": 8000}]},
            ],
        },
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": {"deployment": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def stateful_set(name: str, replicas: int) -> Object:
    """As `deployment`, with Pods that keep their names."""
    made = deployment(name, replicas)
    return made | {"kind": "StatefulSet", "spec": {**made["spec"], "serviceName": name}}


def scaling(kind: str, name: str, **more: Any) -> Object:
    """A workload of apps/v1 that is woken from zero."""
    return {"targetRef": {"apiVersion": "apps/v1", "kind": kind, "name": name}, **more}


def service(name: str, app: str, *ports: Object) -> Object:
    spec = {"selector": {"app": app}, "ports": list(ports)}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, *, labels: Mapping[str, str] | None = None, **data: str) -> Object:
    meta = {"name": name, "labels": dict(labels or {})}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data}


class Condition(NamedTuple):
    """One of an object's conditions."""

    status: str
    reason: str
    message: str
    generation: int


PLURALS = {"ModelPool": "modelpools", "RoutePolicy": "routepolicies"}


class Reader:
    """What stands in a namespace."""

    def __init__(self, kube: Kubernetes, namespace: str) -> None:
        self._kube = kube
        self.namespace = namespace

    def apply(self, *objects: Object) -> None:
        self._kube.apply(*objects, namespace=self.namespace)

    def delete(self, kind: str, name: str) -> None:
        """Deletes and waits until it is gone."""
        self._kube.kubectl("delete", kind, name, "-n", self.namespace, "--timeout=20s")

    def object(self, kind: str, name: str) -> Any:
        return self._kube.api.get(f"/apis/{API}/namespaces/{self.namespace}/{PLURALS[kind]}/{name}")

    def status(self, kind: str, name: str) -> Any:
        return self.object(kind, name).get("status") or {}

    def conditions(self, kind: str, name: str) -> dict[str, Condition]:
        return {
            each["type"]: Condition(each["status"], each["reason"], each["message"], each["observedGeneration"])
            for each in self.status(kind, name).get("conditions") or ()
        }

    def comes(self, kind: str, name: str, type: str, status: str, reason: str, seconds: float = 20.0) -> Condition:
        """Waits until a condition of the object as it is now stands so; that condition."""
        found: list[Any] = [None]

        def stands() -> bool:
            whole = self.object(kind, name)
            found[0] = self.conditions(kind, name).get(type)
            there = found[0]
            if there is None or there.generation != whole["metadata"]["generation"]:
                return False
            return bool((there.status, there.reason) == (status, reason))

        try:
            until(stands, f"{kind} {name}: {type} {status} {reason}", seconds)
        except TimeoutError as error:
            error.add_note(f"it is {found[0]}")
            raise
        there: Condition = found[0]
        return there

    def says(self, kind: str, name: str, type: str, words: str) -> None:
        """Waits until a condition's message has these words: wording follows a turn within ten seconds."""
        until(lambda: words in self.conditions(kind, name)[type].message, f"{type} of {name} says: {words}", 20.0)

    def row(self, kind: str, name: str) -> dict[str, str]:
        """What `kubectl get` shows of it, by column."""
        head, *lines = self._kube.kubectl("get", kind, name, "-n", self.namespace).splitlines()
        starts = [match.start() for match in re.finditer(r"\S+", head)]
        spans = list(zip(starts, [*starts[1:], None], strict=True))
        return {head[start:end].strip(): lines[0][start:end].strip() for start, end in spans}

    def shows(self, kind: str, name: str, expected: Mapping[str, str], seconds: float = 20.0) -> None:
        """Waits until `kubectl get` shows these columns and no others but AGE."""
        row: dict[str, str] = {}

        def same() -> bool:
            nonlocal row
            row = self.row(kind, name)
            row.pop("AGE")
            return row == expected

        try:
            until(same, f"{kind} {name}: {dict(expected)}", seconds)
        except TimeoutError as error:
            error.add_note(f"it is {row}")
            raise

    def ready(self, *names: str) -> None:
        """`kubectl wait`, as a user does; names as modelpool/NAME."""
        self._kube.kubectl("wait", "--for=condition=Ready", *names, "-n", self.namespace, "--timeout=30s")

    def pods_of(self, app: str) -> Sequence[str]:
        """Names of the Pods that are not on their way out."""
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=app%3D{app}"
        metas = (each["metadata"] for each in self._kube.api.get(path)["items"])
        return sorted(meta["name"] for meta in metas if "deletionTimestamp" not in meta)


def gone(kube: Kubernetes, path: str) -> bool:
    """Whether an object is not there."""
    try:
        kube.api.get(path)
    except Refused as error:
        return error.status == 404
    return False


def inference_pool(name: str, app: str, *ports: int) -> Object:
    spec = {
        "selector": {"matchLabels": {"app": app}},
        "targetPorts": [{"number": port} for port in ports],
        "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
    }
    return {"apiVersion": f"{INFERENCE}/v1", "kind": "InferencePool", "metadata": {"name": name}, "spec": spec}


@contextlib.contextmanager
def inference_pool_crd(kube: Kubernetes) -> Iterator[None]:
    """The kind InferencePool for the time of the block, as far as anything here reads it."""
    plural = "inferencepools"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{INFERENCE}",
            # The group belongs to Kubernetes, which asks for a word on who has agreed to it.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": INFERENCE,
            "scope": "Namespaced",
            "names": {"kind": "InferencePool", "plural": plural, "singular": "inferencepool"},
            "versions": [version],
        },
    }
    kube.apply(crd)
    try:
        kube.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{plural}.{INFERENCE}")
        yield
    finally:
        kube.kubectl("delete", "crd", f"{plural}.{INFERENCE}", "--timeout=60s")
