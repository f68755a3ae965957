"""From a pool's source to its endpoints: Pods by label, a Service's slices, an InferencePool. Pure.

An endpoint is known by the name of its Pod and port, never by its address: a Pod that comes back under its name
keeps its place on the ring, and a stranger who gets a used address does not inherit one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from spillway_api.compile import Discovered
from spillway_api.snapshot import Endpoint
from spillway_api.types import InferencePool, LabelSelector, ModelPool, Pods, Service, matches

from .facts import InferencePoolFacts, PodFacts, ServiceFacts, SliceFacts

WEIGHTS = range(1, 1001)


class Surroundings(Protocol):
    """What is known of a namespace."""

    def pods(self, namespace: str) -> Iterable[PodFacts]: ...
    def slices(self, namespace: str, service: str) -> Iterable[SliceFacts]: ...
    def service(self, namespace: str, name: str) -> ServiceFacts | None: ...
    def inference_pool(self, namespace: str, name: str) -> InferencePoolFacts | None: ...


class Found(NamedTuple):
    """The endpoints of a pool, and how many more there are that take no new requests."""

    discovered: Discovered
    not_ready: int = 0
    draining: int = 0
    why: str = ""
    """In words, where there is nobody at all."""


NOTHING = Found(Discovered())


def find(pool: ModelPool, around: Surroundings) -> Found:
    """The endpoints of a pool, in the order of their names. Static ones and accounts are not found but given."""
    namespace, source = pool.metadata.namespace, pool.spec.source
    if source.pods is not None:
        return _pods(source.pods, around.pods(namespace))
    if source.service is not None:
        return _service(source.service, namespace, around)
    if source.inference_pool is not None:
        return _inference_pool(source.inference_pool, namespace, around)
    return NOTHING


def selector_of(pool: ModelPool, around: Surroundings) -> LabelSelector | None:
    """By which labels a pool takes Pods; None where it takes none by labels."""
    source = pool.spec.source
    if source.pods is not None:
        return source.pods.selector
    if source.inference_pool is not None:
        found = around.inference_pool(pool.metadata.namespace, source.inference_pool.name)
        return LabelSelector(dict(found.labels)) if found is not None and found.labels else None
    return None


def _pods(source: Pods, pods: Iterable[PodFacts]) -> Found:
    path = "spec.source.pods"
    endpoints: list[Endpoint] = []
    problems: set[tuple[str, str, str]] = set()
    not_ready = draining = 0
    for pod in pods:
        if not matches(source.selector, pod.labels):
            continue
        if pod.terminating:
            draining += len(source.ports) if pod.ready else 0
        elif not pod.ready or pod.address is None:
            not_ready += len(source.ports)
        else:
            weight, wrong = _weight(pod, source.weight_annotation)
            if wrong:
                problems.add((f"{path}.weightAnnotation", "Invalid", wrong))
            endpoints += [_endpoint(pod.name, pod.address, port, source.scheme, weight) for port in source.ports]
    # While a Pod's successor of the same name is known and its own end is not, there are two; a name is one endpoint.
    by_name = {each.name: each for each in sorted(endpoints, key=lambda each: (each.name, each.url, each.weight))}
    why = "" if by_name or not_ready or draining else "no running Pod of the namespace has the labels of its selector"
    return Found(Discovered(tuple(by_name.values()), tuple(sorted(problems))), not_ready, draining, why)


def _service(source: Service, namespace: str, around: Surroundings) -> Found:
    path = "spec.source.service"
    service = around.service(namespace, source.name)
    if service is None:
        message = f'no Service "{source.name}" in namespace {namespace}'
        return Found(Discovered((), ((f"{path}.name", "ServiceNotFound", message),)))
    port_name = next((name for name, number in service.ports if source.port in (name, number)), None)
    if port_name is None:
        there = ", ".join(f"{number} ({name})" if name else str(number) for name, number in service.ports)
        message = f'Service "{source.name}" has no port "{source.port}"; it has {there or "none"}'
        return Found(Discovered((), ((f"{path}.port", "PortNotFound", message),)))
    endpoints: dict[str, Endpoint] = {}
    not_ready: set[str] = set()
    draining: set[str] = set()
    # Of a Pod with two addresses the IPv4 one is taken; a Pod may stand in two slices while it moves between them.
    for part in sorted(around.slices(namespace, source.name), key=lambda part: (part.address_type, part.name)):
        port = part.ports.get(port_name)
        if port is None:  # a slice for Pods whose container has no port of this name
            continue
        for each in part.endpoints:
            name = f"{each.name}:{port}"
            if each.terminating:
                draining |= {name} if each.serving else set()
            elif not each.ready:
                not_ready.add(name)
            else:
                endpoints.setdefault(name, _endpoint(each.name, each.address, port, source.scheme))
    found = tuple(endpoints[name] for name in sorted(endpoints))
    why = "" if found or not_ready or draining else f'no running Pod is behind Service "{source.name}" at this port'
    return Found(Discovered(found), len(not_ready - endpoints.keys()), len(draining - endpoints.keys()), why)


def _inference_pool(source: InferencePool, namespace: str, around: Surroundings) -> Found:
    path = "spec.source.inferencePool.name"
    pool = around.inference_pool(namespace, source.name)
    if pool is None:
        message = (
            f'no InferencePool "{source.name}" in namespace {namespace}; its kind comes with the Gateway API '
            "Inference Extension (inference.networking.k8s.io/v1)"
        )
        return Found(Discovered((), ((path, "InferencePoolNotFound", message),)))
    if not pool.labels:
        why = f'InferencePool "{source.name}" has no selector'
        return Found(Discovered(), why=why)
    return _pods(Pods(LabelSelector(dict(pool.labels)), pool.ports), around.pods(namespace))


def _weight(pod: PodFacts, annotation: str) -> tuple[int, str]:
    """The weight that a Pod asks for, and what is wrong with it."""
    given = pod.annotations.get(annotation)
    if given is None:
        return 100, ""
    if given.isascii() and given.isdigit() and int(given) in WEIGHTS:
        return int(given), ""
    return 100, f'Pod "{pod.name}": {annotation} is "{given}", not a whole number from 1 to 1000; it counts as 100'


def _endpoint(name: str, address: str, port: int, scheme: str, weight: int = 100) -> Endpoint:
    host = f"[{address}]" if ":" in address else address
    return Endpoint(f"{name}:{port}", f"{scheme}://{host}:{port}", weight)
