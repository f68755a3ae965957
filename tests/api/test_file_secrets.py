"""Secrets in files: read as a cluster would, and quoted by nothing."""

from __future__ import annotations

import base64

import pytest

from spillway_api.files import load

MARKER = "sk-quagga-key"
HEAD = "apiVersion: v1\nkind: Secret\n"


def read(folder, text):
    (folder / "secrets.yaml").write_text(text)
    return load([folder])


def test_values_plain_and_encoded(tmp_path):
    encoded = base64.b64encode(b"two").decode()
    (found,) = read(
        tmp_path,
        f"{HEAD}metadata: {{name: a, namespace: team, labels: {{app: key}},\n"
        "  annotations: {spillway.dev/x: '1', other: z}}\n"
        f"stringData: {{api-key: one}}\ndata: {{other: {encoded}, api-key: {encoded}, raw: /w==}}\ntype: Opaque\n",
    ).secrets
    assert (found.name, found.face.labels, found.face.annotations) == (
        "team/a",
        {"app": "key"},
        {"spillway.dev/x": "1"},
    )
    assert found.values == {"api-key": "one", "other": "two"}


def test_a_secret_may_say_only_who_it_is(tmp_path):
    (found,) = read(tmp_path, f"{HEAD}metadata: {{name: a}}\n").secrets
    assert (found.name, found.values) == ("default/a", {})


@pytest.mark.parametrize(
    "body",
    [
        f"data: {{api-key: {MARKER}}}",
        "stringData: {api-key: 5555}",
        f"stringData: [{MARKER}]",
        f"stringData: {{api-key: !!int {MARKER}}}",
        f"stringData: {{api-key: {MARKER}, api-key: {MARKER}}}",
        f"stringData: {{api-key: {{a: {MARKER}}}}}",
        f"stringDat: {{api-key: {MARKER}}}",
        f"stringData: {{'a key': {MARKER}}}",
    ],
)
def test_what_is_wrong_is_said_and_no_value_quoted(tmp_path, body):
    found = read(tmp_path, f"{HEAD}metadata: {{name: a}}\n{body}\n")
    assert found.secrets == ()
    (first, *_) = found.problems
    assert first.object == "Secret/default/a"
    for problem in found.problems:
        assert MARKER not in str(problem)
        assert "5555" not in str(problem)


def test_the_same_secret_twice(tmp_path):
    found = read(tmp_path, f"{HEAD}metadata: {{name: a}}\n---\n{HEAD}metadata: {{name: a}}\n")
    assert len(found.secrets) == 1
    assert "stands in" in found.problems[0].message
