"""What the operator knows of the cluster, read from kopf's indices, and which pools a change concerns.

An index is filled before any handler runs, so what is read here is never half of a first listing. Endpoints that
were found are remembered by pool until something that may change them comes along: of thousands of pools, one is
looked at anew when a Pod of it becomes ready.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from spillway_api.types import ModelPool, RoutePolicy, matches

from .facts import InferencePoolFacts, NamespaceFacts, PodFacts, ServiceFacts, SliceFacts, Watched
from .sources import Found, find, selector_of

Index = Mapping[Any, Iterable[Any]]
"""A kopf index: values by key, several of one key."""

Fact = PodFacts | SliceFacts | ServiceFacts | InferencePoolFacts


class Indices(NamedTuple):
    """The indices by what they hold. Keys are what they are looked up by: a namespace, or namespace and name."""

    pools: Index
    policies: Index
    pods: Index
    services: Index
    slices: Index
    inference_pools: Index
    namespaces: Index


class World:
    """The cluster as far as the indices show it."""

    def __init__(self, indices: Indices) -> None:
        self._indices = indices
        self._found: dict[tuple[str, str], tuple[ModelPool, Found]] = {}

    def pools(self) -> Iterator[Watched[ModelPool]]:
        return self._all(self._indices.pools)

    def policies(self) -> Iterator[Watched[RoutePolicy]]:
        return self._all(self._indices.policies)

    def found(self, pool: ModelPool) -> Found:
        """The endpoints of a pool whose source is looked up."""
        key = (pool.metadata.namespace, pool.metadata.name)
        known = self._found.get(key)
        if known is None or known[0] is not pool:
            known = self._found[key] = (pool, find(pool, self))
        return known[1]

    def forget(self, namespace: str, name: str) -> None:
        """The pool is gone."""
        self._found.pop((namespace, name), None)

    def concerned(self, *facts: Fact | None) -> list[tuple[str, str]]:
        """The pools whose endpoints may change with a change between these facts; they will be looked up again."""
        there = [fact for fact in facts if fact is not None]
        if not there:
            return []
        namespace = there[0].namespace
        keys = [
            (namespace, watched.name)
            for watched in self._in(self._indices.pools, namespace)
            if watched.item is not None and any(self._concerns(watched.item, fact) for fact in there)
        ]
        for key in keys:
            self._found.pop(key, None)
        return keys

    def _concerns(self, pool: ModelPool, fact: Fact) -> bool:
        source = pool.spec.source
        match fact:
            case PodFacts():
                selector = selector_of(pool, self)
                return selector is not None and matches(selector, fact.labels)
            case SliceFacts():
                return source.service is not None and source.service.name == fact.service
            case ServiceFacts():
                return source.service is not None and source.service.name == fact.name
            case InferencePoolFacts():
                return source.inference_pool is not None and source.inference_pool.name == fact.name

    # What sources.Surroundings asks for.

    def pods(self, namespace: str) -> Iterable[PodFacts]:
        return self._in(self._indices.pods, namespace)

    def slices(self, namespace: str, service: str) -> Iterable[SliceFacts]:
        return self._in(self._indices.slices, (namespace, service))

    def service(self, namespace: str, name: str) -> ServiceFacts | None:
        return next(iter(self._in(self._indices.services, (namespace, name))), None)

    def inference_pool(self, namespace: str, name: str) -> InferencePoolFacts | None:
        return next(iter(self._in(self._indices.inference_pools, (namespace, name))), None)

    def labels(self, namespace: str) -> Mapping[str, str]:
        """Labels of a namespace; none where namespaces may not be read."""
        known: NamespaceFacts | None = next(iter(self._in(self._indices.namespaces, namespace)), None)
        return {} if known is None else known.labels

    def asking(self) -> Mapping[str, str]:
        """Namespaces whose label asks for sidecars, with the time since when."""
        spaces: Iterator[NamespaceFacts] = self._all(self._indices.namespaces)
        return {each.name: each.asking for each in spaces if each.asking}

    @staticmethod
    def _in(index: Index, key: Any) -> Iterable[Any]:
        return index.get(key, ())

    @staticmethod
    def _all(index: Index) -> Iterator[Any]:
        for key in index:
            yield from index[key]
