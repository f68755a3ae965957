"""Objects of a cluster as the API server would send them, and the facts that the operator keeps of them."""

from __future__ import annotations

import copy
from typing import Any

from spillway_operator import facts
from spillway_operator.world import Indices, World

API = "spillway.dev/v1alpha1"
LABELS = {"app": "vllm"}


def pod(
    name: str = "vllm-0",
    address: str | None = "10.0.0.1",
    *,
    ready: bool | None = True,
    terminating: bool = False,
    labels: dict[str, str] = LABELS,
    annotations: dict[str, str] | None = None,
    namespace: str = "default",
    uid: str = "",
) -> dict[str, Any]:
    """A Pod; `ready` None has no condition Ready yet."""
    meta: dict[str, Any] = {"name": name, "namespace": namespace, "uid": uid or f"pod-{name}", "labels": dict(labels)}
    if annotations is not None:
        meta["annotations"] = annotations
    if terminating:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    status: dict[str, Any] = {"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]}
    if ready is not None:
        status["conditions"].append({"type": "Ready", "status": str(ready)})
    if address is not None:
        status["podIP"] = address
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}, "status": status}


def service(name: str = "vllm", *ports: tuple[str, int], namespace: str = "default") -> dict[str, Any]:
    """A Service; a port without a name has the name ""."""
    given = [{"port": number, **({"name": name} if name else {})} for name, number in ports or (("", 80),)]
    meta = {"name": name, "namespace": namespace, "uid": f"service-{name}"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": given}}


def at(name: str | None, *addresses: str, **conditions: bool | None) -> dict[str, Any]:
    """An endpoint of an EndpointSlice."""
    found: dict[str, Any] = {"addresses": list(addresses), "conditions": conditions}
    if name is not None:
        found["targetRef"] = {"kind": "Pod", "name": name, "namespace": "default"}
    return found


def endpoint_slice(
    name: str,
    *endpoints: dict[str, Any],
    ports: dict[str, int | None] | None = None,
    service: str = "vllm",
    family: str = "IPv4",
    namespace: str = "default",
) -> dict[str, Any]:
    given = [{"name": name, "port": number} for name, number in ({"": 8000} if ports is None else ports).items()]
    labels = {"kubernetes.io/service-name": service}
    meta = {"name": name, "namespace": namespace, "uid": f"slice-{name}", "labels": labels}
    head = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family}
    return {**head, "metadata": meta, "endpoints": list(endpoints), "ports": given}


def inference_pool(
    name: str = "vllm", *ports: int, labels: dict[str, str] | None = None, namespace: str = "default"
) -> dict[str, Any]:
    selector = {"matchLabels": dict(LABELS if labels is None else labels)}
    spec = {"selector": selector, "targetPorts": [{"number": number} for number in ports or (8000,)]}
    meta = {"name": name, "namespace": namespace, "uid": f"inference-{name}"}
    return {"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": meta, "spec": spec}


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name, "labels": labels}}


def deployment(
    name: str = "spillway-gateway", gateway: str | None = "default", replicas: int | None = 2, account: str = ""
) -> dict[str, Any]:
    """The Deployment of a gateway."""
    meta: dict[str, Any] = {"name": name, "namespace": "spillway", "uid": f"uid-of-{name}"}
    if gateway is not None:
        meta["labels"] = {"spillway.dev/gateway": gateway}
    inner = {"serviceAccountName": account} if account else {}
    spec: dict[str, Any] = {"template": {"spec": inner}}
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def model_pool(
    name: str = "llama",
    source: dict[str, Any] | None = None,
    *,
    models: tuple[str, ...] = ("llama-8b",),
    namespace: str = "default",
    generation: int = 1,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A ModelPool; without a source it has one static endpoint."""
    given = source or {"static": {"endpoints": [{"name": "one", "url": "http://10.1.0.1:8000"}]}}
    whole = {"models": [{"name": model} for model in models], "source": given, **spec}
    return _own("ModelPool", name, namespace, generation, whole, status)


def route_policy(
    name: str = "chat",
    *tiers: dict[str, Any] | str,
    models: tuple[str, ...] = ("chat",),
    namespace: str = "default",
    generation: int = 1,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A RoutePolicy; a tier may be the name of its only pool."""
    given = [
        {"name": f"tier-{tier}", "pools": [{"name": tier}]} if isinstance(tier, str) else tier
        for tier in tiers or ("llama",)
    ]
    whole = {"models": list(models), "rules": [{"name": "default", "tiers": given}], **spec}
    return _own("RoutePolicy", name, namespace, generation, whole, status)


def provider(*accounts: str) -> dict[str, Any]:
    """A source: accounts at OpenAI; the Secret of each is named like it."""
    given = [{"name": name, "secretRef": {"name": name}} for name in accounts]
    return {"provider": {"type": "OpenAI", "accounts": given}}


def pods(*ports: int, selector: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A source: Pods by their labels."""
    return {"pods": {"selector": selector or {"matchLabels": dict(LABELS)}, "ports": list(ports) or [8000], **more}}


def behind(port: int | str = 80, name: str = "vllm", **more: Any) -> dict[str, Any]:
    """A source: what is behind a Service."""
    return {"service": {"name": name, "port": port, **more}}


def _own(
    kind: str, name: str, namespace: str, generation: int, spec: dict[str, Any], status: dict[str, Any] | None
) -> dict[str, Any]:
    created = "2026-01-01T00:00:00Z"
    meta = {
        "name": name,
        "namespace": namespace,
        "uid": f"{kind}-{namespace}-{name}",
        "generation": generation,
        "creationTimestamp": created,
        "managedFields": [{"manager": "kubectl"}],
    }
    body = {"apiVersion": API, "kind": kind, "metadata": meta, "spec": copy.deepcopy(spec)}
    return body if status is None else body | {"status": status}


_FACTS: dict[str, tuple[str, Any, Any]] = {
    "ModelPool": ("pools", facts.model_pool, lambda it: it.namespace),
    "RoutePolicy": ("policies", facts.route_policy, lambda it: it.namespace),
    "Pod": ("pods", facts.pod, lambda it: it.namespace),
    "Service": ("services", facts.service, lambda it: (it.namespace, it.name)),
    "EndpointSlice": ("slices", facts.endpoint_slice, lambda it: (it.namespace, it.service)),
    "InferencePool": ("inference_pools", facts.inference_pool, lambda it: (it.namespace, it.name)),
    "Namespace": ("namespaces", facts.namespace, lambda it: it.name),
}


def world(*bodies: dict[str, Any]) -> World:
    """The cluster of these objects, seen for the first time."""
    indices: dict[str, dict[Any, list[Any]]] = {name: {} for name in Indices._fields}
    for body in bodies:
        index, facts_of, key_of = _FACTS[body["kind"]]
        there = facts_of(body)
        indices[index].setdefault(key_of(there), []).append(there)
    return World(Indices(**indices))
