"""What the API says of metadata, and how errors are put together."""

from __future__ import annotations

import re

import pytest

from spillway_api.problem import path_of, steps_of
from spillway_api.schema import KINDS, structural
from spillway_api.types.fields import IN_WORDS
from spillway_api.validate import validate

ENDPOINT = "spec.source.static.endpoints[0]"
DURATION = "^([0-9]{1,5}(h|m|s|ms)){1,4}$"

METADATA = [
    ({"metadata": "ABSENT"}, "metadata.name: Required value: name is required"),
    ({"metadata.name": "ABSENT"}, "metadata.name: Required value: name is required"),
    ({"metadata.name": ""}, "metadata.name: Required value: name is required"),
    (
        {"metadata.name": 5},
        'metadata.name: Invalid value: "integer": metadata.name in body must be of type string: "integer"',
    ),
    ({"metadata.name": "Foo"}, 'metadata.name: Invalid value: "Foo": a lowercase RFC 1123 subdomain must consist of'),
    ({"metadata.name": "foo\n"}, 'metadata.name: Invalid value: "foo\\n": a lowercase RFC 1123 subdomain must'),
    ({"metadata.name": "n" * 254}, f'metadata.name: Invalid value: "{"n" * 254}": must be no more than 253 characters'),
    ({"metadata.namespace": "a.b"}, 'metadata.namespace: Invalid value: "a.b": a lowercase RFC 1123 label must'),
    ({"metadata.lables": {}}, 'metadata.lables: unknown field "metadata.lables"'),
    ({"metadata.labels": {"a": 1}}, 'metadata.labels.a: Invalid value: "integer": metadata.labels.a in body must'),
    ({"metadata": []}, 'metadata: Invalid value: "array": metadata in body must be of type object: "array"'),
]


@pytest.mark.parametrize(("edits", "expected"), METADATA, ids=[row[1][:60] for row in METADATA])
def test_metadata_is_refused_as_the_api_server_does(edits, expected, edited, errors_of):
    assert any(error.startswith(expected) for error in errors_of(edited("pool", edits)))


_OF_A_TIER = "the fields here are name, pools, select, minQualityPercent, maxCost, enterOn, spill, hedge, limits"
UNKNOWN = [
    ("pool", "spec.disptch", 'did you mean "dispatch"?'),
    ("pool", "spec.models[0].upstreamname", 'did you mean "upstreamName"?'),
    ("pool", "spec.source.files", "the fields here are pods, service, inferencePool, static, provider"),
    ("pods", "spec.source.pods.selector.matchLabel", 'did you mean "matchLabels"?'),
    ("provider", "spec.source.provider.baseUrl", 'did you mean "baseURL"?'),
    (
        "policy",
        "spec.rules[0].tiers[0].quota",
        _OF_A_TIER,
    ),
    ("policy", "sepc", 'did you mean "spec"?'),
]


@pytest.mark.parametrize(("base", "path", "hint"), UNKNOWN)
def test_unknown_field_is_refused_with_what_is_near(base, path, hint, edited):
    document = edited(base, {path: 1})
    (error,) = validate(structural(document["kind"]), document).errors
    assert (error.path, error.message, error.hint) == (path, f'unknown field "{path}"', hint)


def test_all_errors_are_reported_not_only_the_first(edited, errors_of):
    wrong = {
        "spec.engine": "vllm",
        "spec.models[0].name": "a b",
        "spec.foo": 1,
        "spec.metrics.interval": "6s",
        f"{ENDPOINT}.weight": 0,
        f"{ENDPOINT}.url": "ftp://somewhere/",
    }
    found = {error.partition(":")[0] for error in errors_of(edited("pool", wrong))}
    assert found == {*wrong, "spec.metrics"} - {"spec.metrics.interval"}


def test_a_rule_is_not_reported_over_a_field_that_is_broken_anyway(edited, errors_of):
    found = errors_of(edited("pool", {"spec.metrics.interval": "soon"}))
    assert found == [
        f"spec.metrics.interval: Invalid value: \"soon\": spec.metrics.interval in body should match '{DURATION}'"
    ]


METADATA_ACCEPTED = [
    {"metadata.labels": {"a": "b"}, "metadata.annotations": None, "metadata.creationTimestamp": None},
    {"metadata.namespace": ""},
    {"metadata.managedFields": [{}], "metadata.generation": 5, "metadata.uid": "x"},
    {"status": {"anything": ["at all"]}},
]


@pytest.mark.parametrize("edits", METADATA_ACCEPTED)
def test_what_kubectl_prints_can_be_read_again(edits, edited, errors_of):
    assert errors_of(edited("pool", edits)) == []


def test_every_pattern_can_be_said_in_words():
    used = set(re.findall(r"'pattern': '(.*?)'[,}]", repr([structural(kind)["properties"]["spec"] for kind in KINDS])))
    assert {pattern.encode().decode("unicode_escape") for pattern in used} == set(IN_WORDS)


def test_paths_and_steps_are_inverse():
    path = "spec.rules[0].tiers[12].pools[3].name"
    assert steps_of(path) == ("spec", "rules", 0, "tiers", 12, "pools", 3, "name")
    assert path_of(steps_of(path)) == path
