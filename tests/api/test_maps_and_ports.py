"""Maps, and fields that are a number or a name: read as the API server reads them, at the edges too.

After k8s.io/apiextensions-apiserver (v1.34): schema/defaulting/prunenulls.go, schema/cel/validation.go, and
k8s.io/kube-openapi, validation/validate/type.go.
"""

from __future__ import annotations

import pytest

from spillway_api.schema import structural
from spillway_api.validate import validate

PORT = "spec.source.service.port"
LABELS = "spec.source.pods.selector.matchLabels"
NUMBER_OR_NAME = "must be a number from 1 to 65535 or the name of a port"

PORTS = [
    (1, []),
    (65535, []),
    ("http", []),
    ("8080", []),
    (8080.0, []),
    # The server names the type of the schema, and such a field has none.
    (0, [f'{PORT}: Invalid value: "": {NUMBER_OR_NAME}']),
    (65536, [f'{PORT}: Invalid value: "": {NUMBER_OR_NAME}']),
    (-1, [f'{PORT}: Invalid value: "": {NUMBER_OR_NAME}']),
    ("HTTP", [f'{PORT}: Invalid value: "": {NUMBER_OR_NAME}']),
    ("", [f'{PORT}: Invalid value: "": {NUMBER_OR_NAME}']),
    ("a" * 16, [f"{PORT}: Too long: may not be more than 15 bytes"]),
    (True, [f'{PORT}: Invalid value: "boolean": {PORT} in body must be of type integer,string: "boolean"']),
    (80.5, [f'{PORT}: Invalid value: "number": {PORT} in body must be of type integer,string: "number"']),
    (10**30, [f'{PORT}: Invalid value: "number": {PORT} in body must be of type integer,string: "number"']),
    ([80], [f'{PORT}: Invalid value: "array": {PORT} in body must be of type integer,string: "array"']),
    ({}, [f'{PORT}: Invalid value: "object": {PORT} in body must be of type integer,string: "object"']),
    (None, [f"{PORT}: Required value"]),
]


@pytest.mark.parametrize(("value", "expected"), PORTS, ids=[str(value)[:20] for value, _ in PORTS])
def test_a_port_is_a_number_or_a_name(value, expected, edited, errors_of):
    assert errors_of(edited("service", {PORT: value})) == expected


def test_a_port_keeps_its_type(built):
    for given, kept in ((80, 80), (80.0, 80), ("80", "80"), ("http", "http")):
        port = built("service", {PORT: given}).spec.source.service.port
        assert (port, type(port)) == (kept, type(kept))


MAPS = [
    ({"a": "b"}, []),
    ({"a": ""}, []),
    ({"app.kubernetes.io/name": "x"}, []),
    ({str(at): "x" for at in range(64)}, []),
    ({str(at): "x" for at in range(65)}, [f"{LABELS}: Too many: 65: must have at most 64 items"]),
    ({"a": "x" * 64}, [f"{LABELS}.a: Too long: may not be more than 63 bytes"]),
    (
        {"app.kubernetes.io/name": 1, "b": "x"},
        [
            f'{LABELS}.app.kubernetes.io/name: Invalid value: "integer": {LABELS}.app.kubernetes.io/name in body must '
            'be of type string: "integer"'
        ],
    ),
    (
        ["a"],
        [f'{LABELS}: Invalid value: "array": {LABELS} in body must be of type object: "array"'],
    ),
]


@pytest.mark.parametrize(("value", "expected"), MAPS, ids=[str(value)[:20] for value, _ in MAPS])
def test_a_map_has_names_of_its_own_choice(value, expected, edited, errors_of):
    assert errors_of(edited("pods", {LABELS: value})) == expected


def test_entries_of_a_map_that_are_null_are_absent(edited):
    document = edited("pods", {LABELS: {"a": None, "b": "x"}})
    validated = validate(structural("ModelPool"), document)
    assert validated.errors == ()
    assert validated.document["spec"]["source"]["pods"]["selector"]["matchLabels"] == {"b": "x"}
    assert document["spec"]["source"]["pods"]["selector"]["matchLabels"] == {"a": None, "b": "x"}


def test_a_map_of_nothing_but_nulls_is_empty_to_the_rules(edited, errors_of):
    edits = {LABELS: {"a": None}, "spec.source.pods.selector.matchExpressions": "ABSENT"}
    assert errors_of(edited("pods", edits)) == [
        'spec.source.pods.selector: Invalid value: "object": an empty selector would take every pod of the namespace'
    ]


@pytest.mark.parametrize("value", [True, 80.5, []])
def test_a_wrong_port_is_told_what_would_be_right(value, edited):
    (error,) = validate(structural("ModelPool"), edited("service", {PORT: value})).errors
    assert error.hint == "write a whole number, or a name"
