"""The sidecar that a Pod gets: a Pod goes in, a JSON patch comes out. Pure.

The sidecar is an init container with `restartPolicy: Always`, the first of them, so that it serves those after it too,
and does not keep a Job alive (https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/). Nothing that the
Pod says is changed: containers, volumes and variables are added, and what cannot be added without a change is refused.
So is what the API server would refuse the Pod for. A variable that a container takes with a whole ConfigMap (`envFrom`)
is not seen here, and stands behind the one that is added: who wants the other says it in `env`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from spillway_api.problem import did_you_mean
from spillway_api.stream import AT_GATEWAY, AUDIENCE

from .amounts import ANNOTATIONS, DEFAULT, Resources, resources
from .cluster import Object
from .platforms import windows

LABEL: Final = "spillway.dev/inject"
INJECTED: Final = "spillway.dev/injected"
"""Annotation of a Pod that has been given a sidecar, with the sidecar's image."""
CONTAINER: Final = "spillway"
TOKEN_VOLUME: Final = "spillway-token"  # noqa: S105 - a name
STATE_VOLUME: Final = "spillway-state"
CA_CONFIG_MAP: Final = "spillway-ca"
"""With the operator's authority, in every namespace in which Pods have sidecars."""
ADMIN_PORT: Final = 9797
"""For probes and metrics, on the Pod's address. Its own, for applications are on 8080 and 9090."""
TOKEN_SECONDS: Final = 3600

_GATEWAY: Final = "spillway.dev/gateway"
_PORT: Final = "spillway.dev/port"
_ROUTES: Final = "spillway.dev/routes"
_OURS: Final = "spillway.dev/"
_KNOWN: Final = (_GATEWAY, _PORT, _ROUTES, *ANNOTATIONS)
_MIRROR: Final = "kubernetes.io/config.mirror"
_EVICT: Final = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
"""Volumes, with commas, that the cluster autoscaler may lose: it lets a node run on for any other emptyDir."""
_ROUTE = re.compile(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/)?[a-z0-9]([-.a-z0-9]{0,61}[a-z0-9])?").fullmatch
_PORTS: Final = range(1024, 65536)
"""A sidecar is not root."""


class Sidecar(NamedTuple):
    """What all sidecars of an installation have in common."""

    image: str
    operator: str
    """URL of the config stream."""
    gateways: Mapping[str, str]
    """URL of each gateway by its name."""
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    resources: Resources = DEFAULT
    """For a Pod that does not say how much; read only."""

    @property
    def default(self) -> str:
        """The gateway of a Pod that names none."""
        return "default" if "default" in self.gateways else min(self.gateways, default="default")


class Injection(NamedTuple):
    """What is to be done with a Pod: patch it, leave it as it is, or say why it cannot be done."""

    patch: tuple[Object, ...] = ()
    """Operations of RFC 6902."""
    refused: str = ""
    unheeded: str = ""
    """What the Pod says of its sidecar that means nothing: it gets one all the same, for it may be meant for another
    version."""


def asked(pod: Object, namespace_labels: Mapping[str, str]) -> bool:
    """Whether a Pod is to have a sidecar: as it says itself, else as its namespace does."""
    own = (pod["metadata"].get("labels") or {}).get(LABEL)
    return (namespace_labels.get(LABEL) if own is None else own) == "true"


def injected(pod: Object) -> bool:
    """Whether it has one."""
    return INJECTED in (pod["metadata"].get("annotations") or {}) and any(
        each["name"] == CONTAINER for each in pod["spec"].get("initContainers") or ()
    )


def inject(pod: Object, namespace: str, sidecar: Sidecar) -> Injection:
    """The patch that gives a Pod a sidecar; none where it has one. For a Pod that asked for it.

    The namespace is told beside the Pod: one that is being made need not say its own."""
    if injected(pod):
        return Injection()
    wanted = _wanted(pod, namespace, sidecar)
    if isinstance(wanted, str):
        return Injection(refused=wanted)
    why = _obstacle(pod, wanted)
    if why:
        return Injection(refused=why)
    return Injection(tuple(_operations(pod, wanted, sidecar)), unheeded=_unheeded(pod))


def refusal(pod: Object, sidecar: Sidecar) -> str:
    """Why a Pod that is there could not have one, without making it; empty where it could."""
    wanted = _wanted(pod, pod["metadata"]["namespace"], sidecar)
    return wanted if isinstance(wanted, str) else _obstacle(pod, wanted)


class _Wanted(NamedTuple):
    """What its annotations ask for."""

    gateway: str
    port: int
    routes: tuple[str, ...]
    """namespace/name"""
    resources: Resources


def _wanted(pod: Object, namespace: str, sidecar: Sidecar) -> _Wanted | str:
    said: Mapping[str, str] = pod["metadata"].get("annotations") or {}
    gateway = said.get(_GATEWAY, sidecar.default)
    if gateway not in sidecar.gateways:
        return f"{_GATEWAY}: there is no gateway {gateway[:63]!r}; there is {', '.join(sorted(sidecar.gateways))}"
    port = said.get(_PORT, "8787")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) in _PORTS):
        return f"{_PORT}: {port[:16]!r} is no port; it must be a number from {_PORTS[0]} to {_PORTS[-1]}"
    if int(port) == ADMIN_PORT:
        return f"{_PORT}: {port} is where the sidecar answers probes; take another one"
    routes = tuple(name.strip() for name in said.get(_ROUTES, "").split(",") if name.strip())
    for name in routes:
        if not _ROUTE(name):
            return (
                f"{_ROUTES}: {name[:127]!r} is no name of a RoutePolicy; "
                "write names with commas between them, those of other namespaces as namespace/name"
            )
    routes = tuple(dict.fromkeys(name if "/" in name else f"{namespace}/{name}" for name in routes))
    # A Pod with resources of its own as a whole would be refused where its containers ask for more than that.
    amounts = resources(said, {} if pod["spec"].get("resources") else sidecar.resources)
    return amounts if isinstance(amounts, str) else _Wanted(gateway, int(port), routes, amounts)


def _unheeded(pod: Object) -> str:
    said = {*(pod["metadata"].get("annotations") or ())} - {*_KNOWN, INJECTED}
    unknown = min((name for name in said if name.startswith(_OURS)), default="")
    if not unknown:
        return ""
    return f"{unknown[:127]} is no annotation of sidecars; {did_you_mean(unknown, _KNOWN, 'there are')}"


def _obstacle(pod: Object, wanted: _Wanted) -> str:
    """Why this Pod cannot have one; empty where it can."""
    spec = pod["spec"]
    if _MIRROR in (pod["metadata"].get("annotations") or {}):
        return "it is the mirror of a static Pod, which its node runs whatever is said of the mirror"
    if windows(spec):
        return "it runs on Windows, for which there is no sidecar"
    if spec.get("hostNetwork"):
        return "it has the network of its node, where the sidecar's ports would be everybody's"
    if spec.get("dnsPolicy") == "Default":
        return "it asks its node for names (dnsPolicy Default), and nodes know neither operator nor gateway"
    for container in _containers(spec):
        if container["name"] == CONTAINER:
            return f"it has a container {CONTAINER!r} of its own"
        for port in container.get("ports") or ():
            number = port.get("containerPort")
            if number in (wanted.port, ADMIN_PORT):
                way = f"; {_PORT} moves that" if number == wanted.port else ""
                return f"its container {container['name']!r} has port {number}, which is the sidecar's{way}"
    for volume in spec.get("volumes") or ():
        if volume["name"] in (TOKEN_VOLUME, STATE_VOLUME):
            return f"it has a volume {volume['name']!r} of its own"
    return ""


def _operations(pod: Object, wanted: _Wanted, sidecar: Sidecar) -> Iterator[Object]:
    spec = pod["spec"]
    # Variables first: their places are counted before a container comes before them.
    for kind in ("initContainers", "containers"):
        for at, container in enumerate(spec.get(kind) or ()):
            yield from _variables(f"/spec/{kind}/{at}", container, wanted.port)
    yield from _added("/spec", spec, "volumes", _volumes())
    yield from _added("/spec", spec, "imagePullSecrets", [{"name": name} for name in _new_secrets(spec, sidecar)])
    container = _container(wanted, sidecar)
    if spec.get("initContainers") is not None:
        yield {"op": "add", "path": "/spec/initContainers/0", "value": container}
    else:
        yield {"op": "add", "path": "/spec/initContainers", "value": [container]}
    annotations = pod["metadata"].get("annotations")
    local = [name for name in ((annotations or {}).get(_EVICT), STATE_VOLUME) if name]
    new = {INJECTED: sidecar.image, _EVICT: ",".join(local)}
    if annotations is None:
        yield {"op": "add", "path": "/metadata/annotations", "value": new}
        return
    for name, value in new.items():
        path = f"/metadata/annotations/{name.replace('~', '~0').replace('/', '~1')}"
        yield {"op": "add", "path": path, "value": value}


def _variables(path: str, container: Object, port: int) -> Iterator[Object]:
    """Where the SDKs of OpenAI and Anthropic find an API, for a container that does not say so itself."""
    have = {each["name"] for each in container.get("env") or ()}
    wanted = {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}"}
    yield from _added(
        path, container, "env", [{"name": name, "value": url} for name, url in wanted.items() if name not in have]
    )


def _added(path: str, parent: Object, name: str, values: Sequence[Object]) -> Iterator[Object]:
    """Operations that put values to the end of a list, which may not be there."""
    if not values:
        return
    if parent.get(name) is None:
        yield {"op": "add", "path": f"{path}/{name}", "value": list(values)}
        return
    for value in values:
        yield {"op": "add", "path": f"{path}/{name}/-", "value": value}


def _new_secrets(spec: Object, sidecar: Sidecar) -> list[str]:
    have = {each.get("name") for each in spec.get("imagePullSecrets") or ()}
    return [name for name in sidecar.pull_secrets if name not in have]


def _volumes() -> list[Object]:
    tokens = {"token": AUDIENCE, "gateway-token": AT_GATEWAY}
    sources: list[Object] = [
        {"serviceAccountToken": {"path": path, "audience": audience, "expirationSeconds": TOKEN_SECONDS}}
        for path, audience in tokens.items()
    ]
    # It is there when the Pod is admitted. One whose ConfigMap has been deleted since shall start again all the same:
    # until it is back, which takes a minute or two, the sidecar has what it has saved, or asks the gateway.
    authority = {"name": CA_CONFIG_MAP, "items": [{"key": "ca.crt", "path": "ca.crt"}], "optional": True}
    return [
        {"name": TOKEN_VOLUME, "projected": {"sources": [*sources, {"configMap": authority}]}},
        {"name": STATE_VOLUME, "emptyDir": {"sizeLimit": "64Mi"}},
    ]


def _container(wanted: _Wanted, sidecar: Sidecar) -> Object:
    papers = "/var/run/spillway"
    arguments = [
        "run",
        "--sidecar",
        f"--operator={sidecar.operator}",
        f"--gateway={wanted.gateway}",
        f"--gateway-url={sidecar.gateways[wanted.gateway]}",
        *(f"--route={name}" for name in wanted.routes),
        f"--token-file={papers}/token",
        f"--gateway-token-file={papers}/gateway-token",
        f"--ca-file={papers}/ca.crt",
        "--pod-ip=$(POD_IP)",
        "--state=/var/lib/spillway",
        "--host=127.0.0.1",
        f"--port={wanted.port}",
        "--admin-host=0.0.0.0",
        f"--admin-port={ADMIN_PORT}",
    ]
    probe: dict[str, Any] = {"httpGet": {"path": "/healthz", "port": ADMIN_PORT}}
    return {
        "name": CONTAINER,
        "image": sidecar.image,
        "imagePullPolicy": sidecar.pull_policy,
        "restartPolicy": "Always",
        "command": ["spillway"],
        "args": arguments,
        "env": [
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in (("POD_NAME", "metadata.name"), ("POD_IP", "status.podIP"))
        ],
        "ports": [{"name": "spillway-admin", "containerPort": ADMIN_PORT}],
        # It listens in well under a second, and what comes after it waits for that. Not for a snapshot: without one
        # the Pod's requests go to the gateway.
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 60},
        "livenessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 6},
        "resources": wanted.resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": 65532,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": TOKEN_VOLUME, "mountPath": papers, "readOnly": True},
            {"name": STATE_VOLUME, "mountPath": "/var/lib/spillway"},
        ],
    }


def _containers(spec: Object) -> Iterator[Object]:
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()
