"""What the API server demands of an object's metadata, which stands in no CRD.

After k8s.io/apimachinery (v1.34): names are RFC 1123 subdomains, namespaces RFC 1123 labels.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from spillway_api.problem import FieldError, shown

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    f"'{_SUBDOMAIN}')"
)
_LABEL_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
    "end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    f"'{_LABEL}')"
)
# All fields of metav1.ObjectMeta, so that the output of `kubectl get -o yaml` can be used as a file.
_FIELDS = {
    "name": "string",
    "generateName": "string",
    "namespace": "string",
    "selfLink": "string",
    "uid": "string",
    "resourceVersion": "string",
    "generation": "integer",
    "creationTimestamp": "string",
    "deletionTimestamp": "string",
    "deletionGracePeriodSeconds": "integer",
    "labels": "object",
    "annotations": "object",
    "ownerReferences": "array",
    "finalizers": "array",
    "managedFields": "array",
}
_TYPES: dict[str, type] = {"string": str, "integer": int, "object": dict, "array": list}


def check_metadata(document: dict[str, Any]) -> Iterator[FieldError]:
    """Errors of `metadata` of a whole object; whether it is an object at all is the schema's to say."""
    metadata = document.get("metadata")
    if metadata is None:
        yield FieldError(("metadata", "name"), "Required value: name is required", blocking=True)
    if not isinstance(metadata, dict):
        return
    for name, value in metadata.items():
        steps = ("metadata", name)
        if name not in _FIELDS:
            near = difflib.get_close_matches(name, _FIELDS, n=1)
            hint = f'did you mean "{near[0]}"?' if near else "own data belongs into labels or annotations"
            yield FieldError(steps, f'unknown field "metadata.{name}"', hint)
        elif value is not None and (not isinstance(value, _TYPES[_FIELDS[name]]) or isinstance(value, bool)):
            yield _mistyped(steps, _FIELDS[name], value)
        elif name in ("labels", "annotations") and isinstance(value, dict):
            for key, text in value.items():
                if not isinstance(text, str):
                    yield _mistyped((*steps, key), "string", text)
    given = metadata.get("name")
    if given is None or given == "":
        hint = "generateName works in a cluster only" if "generateName" in metadata else ""
        yield FieldError(("metadata", "name"), "Required value: name is required", hint, blocking=True)
    elif isinstance(given, str):
        yield from _named(("metadata", "name"), given, _SUBDOMAIN, _SUBDOMAIN_MESSAGE, 253)
    namespace = metadata.get("namespace")
    if isinstance(namespace, str):
        yield from _named(("metadata", "namespace"), namespace, _LABEL, _LABEL_MESSAGE, 63)


def _named(steps: tuple[str, ...], text: str, form: str, message: str, longest: int) -> Iterator[FieldError]:
    if not re.fullmatch(form, text):
        yield FieldError(steps, f"Invalid value: {shown(text)}: {message}")
    if len(text) > longest:
        yield FieldError(steps, f"Invalid value: {shown(text)}: must be no more than {longest} characters")


def _mistyped(steps: tuple[str, ...], expected: str, value: Any) -> FieldError:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    found = names.get(type(value), "null")
    return FieldError(
        steps,
        f'Invalid value: "{found}": {".".join(steps)} in body must be of type {expected}: "{found}"',
        "put it in quotes" if expected == "string" else "",
        blocking=True,
    )
