"""What the operator keeps of the objects that it watches: a few values of each, not the object. Pure.

Thousands of Pods pass through here, so what is not needed is not kept; and two facts are equal iff nothing that
matters has changed, so that a Pod's heartbeat wakes nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from spillway_api.types import ModelPool, RoutePolicy

from .injection import LABEL
from .lacking import labelled_since

GATEWAY_LABEL = "spillway.dev/gateway"
SERVICE_LABEL = "kubernetes.io/service-name"
_LONGEST_WEIGHT = 8
"""Characters of an annotation that may be a weight; longer ones are not kept."""


class PodFacts(NamedTuple):
    """A Pod as a place where endpoints are."""

    namespace: str
    name: str
    address: str | None
    ready: bool
    terminating: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    """Short ones only: a weight is one of these."""


class SliceEndpoint(NamedTuple):
    """One endpoint of an EndpointSlice; addresses beyond the first are of the same endpoint."""

    name: str
    address: str
    ready: bool
    serving: bool
    terminating: bool


class SliceFacts(NamedTuple):
    """An EndpointSlice (discovery.k8s.io/v1)."""

    namespace: str
    name: str
    service: str
    address_type: str
    ports: Mapping[str, int]
    """By name; the empty name is that of a Service's only port."""
    endpoints: tuple[SliceEndpoint, ...]


class ServiceFacts(NamedTuple):
    """A Service: which port has which name."""

    namespace: str
    name: str
    ports: tuple[tuple[str, int], ...]


class InferencePoolFacts(NamedTuple):
    """An InferencePool (inference.networking.k8s.io/v1)."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    ports: tuple[int, ...]


class NamespaceFacts(NamedTuple):
    """A namespace, for pools that allow routes by its labels, and for its Pods, which may want sidecars."""

    name: str
    labels: Mapping[str, str]
    asking: str = ""
    """Since when its label asks for sidecars (RFC 3339); empty where it does not."""


class GatewayFacts(NamedTuple):
    """A fleet of balancers: the Deployment that runs it."""

    name: str
    deployment: str
    uid: str
    service_account: str
    replicas: int


Item = TypeVar("Item", ModelPool, RoutePolicy)


class Watched(NamedTuple, Generic[Item]):
    """One of our own objects: what it says, and what its status says. `item` is None where it cannot be read."""

    kind: str
    namespace: str
    name: str
    generation: int
    item: Item | None
    unreadable: str
    """Why it cannot be read; empty where it can."""
    status: Mapping[str, Any]
    uid: str

    @property
    def key(self) -> str:
        """Kind/namespace/name, as in problems."""
        return f"{self.kind}/{self.namespace}/{self.name}"


def pod(body: Mapping[str, Any]) -> PodFacts:
    meta, status = body["metadata"], body.get("status") or {}
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    annotations = meta.get("annotations") or {}
    return PodFacts(
        meta["namespace"],
        meta["name"],
        status.get("podIP") or None,
        conditions.get("Ready") == "True",
        "deletionTimestamp" in meta,
        dict(meta.get("labels") or {}),
        {name: value for name, value in annotations.items() if len(value) <= _LONGEST_WEIGHT},
    )


def endpoint_slice(body: Mapping[str, Any]) -> SliceFacts:
    meta = body["metadata"]
    endpoints = []
    for each in body.get("endpoints") or ():
        conditions = each.get("conditions") or {}
        address = each["addresses"][0]
        # Absent means unknown, which the API tells consumers to take for ready.
        ready = conditions.get("ready") is not False
        endpoints.append(
            SliceEndpoint(
                (each.get("targetRef") or {}).get("name") or each.get("hostname") or address,
                address,
                ready,
                conditions.get("serving", ready) is not False,
                conditions.get("terminating") is True,
            )
        )
    ports = {each.get("name") or "": each["port"] for each in body.get("ports") or () if each.get("port")}
    service = (meta.get("labels") or {}).get(SERVICE_LABEL, "")
    return SliceFacts(meta["namespace"], meta["name"], service, body["addressType"], ports, tuple(sorted(endpoints)))


def service(body: Mapping[str, Any]) -> ServiceFacts:
    meta = body["metadata"]
    ports = tuple((each.get("name") or "", each["port"]) for each in (body.get("spec") or {}).get("ports") or ())
    return ServiceFacts(meta["namespace"], meta["name"], ports)


def inference_pool(body: Mapping[str, Any]) -> InferencePoolFacts:
    meta, spec = body["metadata"], body.get("spec") or {}
    labels = (spec.get("selector") or {}).get("matchLabels") or {}
    ports = tuple(each["number"] for each in spec.get("targetPorts") or ())
    return InferencePoolFacts(meta["namespace"], meta["name"], dict(labels), ports)


def namespace(body: Mapping[str, Any]) -> NamespaceFacts:
    meta = body["metadata"]
    labels = dict(meta.get("labels") or {})
    asking = (labelled_since(meta) or meta["creationTimestamp"]) if labels.get(LABEL) == "true" else ""
    return NamespaceFacts(meta["name"], labels, asking)


def gateway(body: Mapping[str, Any]) -> GatewayFacts | None:
    """The gateway that a Deployment runs; None where its label names none."""
    meta, spec = body["metadata"], body["spec"]
    name = (meta.get("labels") or {}).get(GATEWAY_LABEL)
    if not name:
        return None
    account = spec["template"]["spec"].get("serviceAccountName") or "default"
    return GatewayFacts(name, meta["name"], meta["uid"], account, spec.get("replicas", 1))


def model_pool(body: Mapping[str, Any]) -> Watched[ModelPool]:
    return _watched(body, "ModelPool", ModelPool)


def route_policy(body: Mapping[str, Any]) -> Watched[RoutePolicy]:
    return _watched(body, "RoutePolicy", RoutePolicy)


def _watched(body: Mapping[str, Any], kind: str, struct: type[Item]) -> Watched[Item]:
    meta = body["metadata"]
    item, why = None, ""
    kept = {"kind": kind, "apiVersion": body["apiVersion"], "spec": body.get("spec"), "metadata": _metadata(meta)}
    try:
        item = msgspec.convert(kept, struct)
    except msgspec.ValidationError as error:  # stored before the present schema, or by a newer one
        why = str(error)
    return Watched(
        kind,
        meta["namespace"],
        meta["name"],
        meta.get("generation", 0),
        item,
        why,
        _plain(body.get("status") or {}),
        meta.get("uid", ""),
    )


def _metadata(meta: Mapping[str, Any]) -> dict[str, Any]:
    names = ("name", "namespace", "creationTimestamp", "generation", "uid")
    return {name: meta[name] for name in names if name in meta}


def _plain(value: Any) -> Any:
    """A copy of JSON data that is not the watch's own."""
    return msgspec.json.decode(msgspec.json.encode(value))
