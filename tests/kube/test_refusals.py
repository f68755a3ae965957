"""One table, two judges: what files and `spillway lint` refuse, a real API server refuses in the same words.

The rows stand in `tests/api/refusals.py`, and `tests/api` holds files to them and to every bound of the schema. Here
the API server is asked, by dry runs, which go through everything but storage.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from tests.api.conftest import BASES, edited_base  # by its full name, as pytest has imported it
from tests.api.refusals import ACCEPTED, REFUSALS
from tests.kube.access import Refused
from tests.kube.conftest import CRDS

from spillway_api import files
from spillway_api.schema import KINDS, structural
from spillway_api.validate import validate


@pytest.fixture
def causes_of(plane):
    """What the API server has against creating an object, each as `path: message`; nothing when it takes it."""

    def ask(document):
        kind = KINDS[document["kind"]]
        path = f"/apis/spillway.dev/v1alpha1/namespaces/default/{kind.plural}?dryRun=All&fieldValidation=Strict"
        try:
            plane.api.call("POST", path, document)
        except Refused as refused:
            return refused.causes or [refused.answer["message"]]
        return []

    return ask


@pytest.mark.parametrize(("base", "edits", "expected"), REFUSALS, ids=[row[2][:90] for row in REFUSALS])
def test_the_api_server_refuses_in_the_words_of_the_table(base, edits, expected, causes_of):
    document = edited_base(base, edits)
    causes = causes_of(document)
    assert expected in causes
    # What else the server says follows from an error that files tell too: at the same place, or inside it.
    found = [f"{error.path}: {error.message}" for error in validate(structural(document["kind"]), document).errors]
    for cause in causes:
        assert any(said == cause or said.startswith(cause.partition(":")[0]) for said in found), cause


@pytest.mark.parametrize(("base", "edits"), ACCEPTED, ids=[f"{base} {str(edits)[:70]}" for base, edits in ACCEPTED])
def test_the_api_server_takes_what_lies_on_the_bounds(base, edits, causes_of):
    assert causes_of(edited_base(base, edits)) == []


def test_lint_refuses_every_row(tmp_path):
    """The very command, over one file for each row: it names the file and says what the API server says."""
    for index, (base, edits, _) in enumerate(REFUSALS):
        (tmp_path / f"{index:04}.json").write_text(json.dumps(edited_base(base, edits)))
    command = [sys.executable, "-m", "spillway_balancer.cli", "lint", "-f", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    missing = []
    for index, (_, _, expected) in enumerate(REFUSALS):
        own = [line for line in lines if f"{index:04}.json:" in line]
        if not any(expected.removeprefix(": ") in line for line in own):
            missing.append((expected, own))
    assert missing == []


@pytest.mark.parametrize("base", sorted(BASES))
def test_files_take_the_bases(base, tmp_path):
    path = tmp_path / "object.json"
    path.write_text(json.dumps(BASES[base]))
    assert files.load([path]).problems == ()


def _rules_of(schema, path):
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path + rule.get("fieldPath", ""), rule["message"]
    for name, inner in schema.get("properties", {}).items():
        yield from _rules_of(inner, f"{path}.{name}".removeprefix("."))
    for part, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(part), dict):
            yield from _rules_of(schema[part], path + suffix)


@pytest.mark.parametrize("crd", sorted(CRDS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_rule_of_the_crds_is_broken_by_a_row(crd):
    definition = yaml.safe_load(crd.read_text())
    kind = definition["spec"]["names"]["kind"]
    broken = set()
    for base, _, text in REFUSALS:
        if BASES[base]["kind"] == kind:
            path, _, message = text.partition(": ")
            broken.add(("".join(_indices(path)), message.partition(": ")[2].partition(": ")[2] or message))
    for version in definition["spec"]["versions"]:
        rules = {*_rules_of(version["schema"]["openAPIV3Schema"], "")}
        assert rules
        assert rules - broken == set()


def _indices(path):
    """A path with [] in place of every index."""
    inside = False
    for character in path:
        inside = inside and character != "]"
        if not inside:
            yield character
        inside = inside or character == "["
