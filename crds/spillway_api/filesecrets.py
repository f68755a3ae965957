"""Secrets in files, as `kubectl apply` takes them: for a balancer without a cluster, in the place of those of one.

No message here quotes a value.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from spillway_api.labelled import Labelled, labelled
from spillway_api.metadata import check_metadata
from spillway_api.problem import FieldError

_FIELDS: Final = ("apiVersion", "kind", "metadata", "type", "data", "stringData", "immutable")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


class FileSecret(NamedTuple):
    """A Secret as a file has it."""

    namespace: str
    face: Labelled
    values: Mapping[str, str]
    """By key; those that are no text are left out, for no header can hold them."""

    @property
    def name(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.face.name}"


def is_secret(value: Any) -> bool:
    return isinstance(value, dict) and value.get("apiVersion") == "v1" and value.get("kind") == "Secret"


def errors_of(value: dict[str, Any]) -> Iterator[FieldError]:
    """What the API server would refuse."""
    yield from check_metadata(value)
    for name in value:
        if name not in _FIELDS:
            yield FieldError((name,), f'unknown field "{name}"')
    for part in ("data", "stringData"):
        given = value.get(part)
        if given is None:
            continue
        if not isinstance(given, dict):
            yield FieldError((part,), f"Invalid value: {part} in body must be of type object")
            continue
        for key, text in given.items():
            if not _KEY.fullmatch(key):
                yield FieldError((part, key), "Invalid value: a key holds letters, digits, '-', '_' or '.'")
            if not isinstance(text, str):
                message = f"Invalid value: {part}.{key} in body must be of type string"
                yield FieldError((part, key), message, "put it in quotes")
            elif part == "data" and _decoded(text) is None:
                yield FieldError((part, key), "Invalid value: must be base64", "stringData takes plain text")


def secret_of(value: dict[str, Any]) -> FileSecret:
    """The Secret of a document without errors."""
    values = {key: _text(_decoded(text) or b"") for key, text in (value.get("data") or {}).items()}
    values |= value.get("stringData") or {}
    metadata = value["metadata"]
    namespace = metadata.get("namespace") or "default"
    return FileSecret(namespace, labelled(metadata), {key: text for key, text in values.items() if text})


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return ""
