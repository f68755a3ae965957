"""Files are refused in the words of the API server, for every bound and every rule of every field.

The rows stand in `refusals.py`; a real API server is held to the same ones in `tests/kube/test_refusals.py`. A last
test sees to it that no constraint of the schema is missing there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.api.refusals import ACCEPTED, REFUSALS

from spillway_api.schema import KINDS, structural


@pytest.mark.parametrize(("base", "edits", "expected"), REFUSALS, ids=[row[2][:90] for row in REFUSALS])
def test_refused_with_the_api_servers_words(base, edits, expected, edited, errors_of):
    assert expected in errors_of(edited(base, edits))


@pytest.mark.parametrize(("base", "edits"), ACCEPTED, ids=[f"{base} {str(edits)[:70]}" for base, edits in ACCEPTED])
def test_accepted_up_to_the_bounds(base, edits, edited, errors_of):
    assert errors_of(edited(base, edits)) == []


def _constraints(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Every constraint of a schema as: path with [] for any index, a word that its error holds."""
    words = {
        "minimum": "greater than or equal to {}",
        "maximum": "less than or equal to {}",
        "minLength": "at least {} chars",
        "maxLength": "Too long: may not be more than {} bytes",
        "minItems": "at least {} items",
        "maxItems": "must have at most {} items",
        "minProperties": "at least {} properties",
        "maxProperties": "must have at most {} items",
        "pattern": "should match '{}'",
    }
    for name, word in words.items():
        if name in schema:
            yield path, word.format(schema[name])
    if "enum" in schema:
        yield path, "Unsupported value"
    if schema.get("x-kubernetes-list-type", "atomic") != "atomic":
        yield f"{path}[]", "Duplicate value"
    for name in schema.get("required", ()):
        yield f"{path}.{name}".removeprefix("."), "Required value"
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path + rule.get("fieldPath", ""), rule["message"]
    for name, inner in schema.get("properties", {}).items():
        if name not in ("metadata", "status", "apiVersion", "kind") or path:
            yield from _constraints(inner, f"{path}.{name}".removeprefix("."))
    if isinstance(others := schema.get("additionalProperties"), dict):
        yield from _constraints(others, f"{path}.app")  # the label that the bases have
    if "items" in schema:
        yield from _constraints(schema["items"], f"{path}[]")


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_bound_and_no_rule_is_missing_from_these_tables(kind, edited):
    said = []
    for base, _, text in REFUSALS:
        if edited(base)["kind"] == kind:
            path, _, message = text.partition(": ")
            said.append((re.sub(r"\[[0-9]+\]", "[]", path), message))
    missing = [
        (path, word)
        for path, word in _constraints(structural(kind), "")
        if not any(path == at and word in message for at, message in said)
    ]
    assert missing == []
