"""ConfigMaps in files, as `kubectl apply` takes them: for a balancer without a cluster, in the place of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from spillway_api.metadata import check_metadata
from spillway_api.problem import FieldError


class FileConfigMap(NamedTuple):
    """A ConfigMap as a file has it; what it holds as `binaryData` is nobody's text."""

    name: str
    """namespace/name."""
    values: Mapping[str, str]


def is_config_map(value: Any) -> bool:
    return isinstance(value, dict) and value.get("apiVersion") == "v1" and value.get("kind") == "ConfigMap"


def map_errors(value: dict[str, Any]) -> Iterator[FieldError]:
    """What the API server would refuse in the part that is read."""
    yield from check_metadata(value)
    data = value.get("data")
    if data is not None and not isinstance(data, dict):
        yield FieldError(("data",), "Invalid value: data in body must be of type object")
        return
    for key, text in (data or {}).items():
        if not isinstance(text, str):
            yield FieldError(
                ("data", key), f"Invalid value: data.{key} in body must be of type string", "put it in quotes"
            )


def config_map_of(value: dict[str, Any]) -> FileConfigMap:
    """The ConfigMap of a document without errors."""
    metadata = value["metadata"]
    return FileConfigMap(f"{metadata.get('namespace') or 'default'}/{metadata['name']}", value.get("data") or {})
