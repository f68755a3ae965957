"""What a cluster makes of Spillway's CustomResourceDefinitions, asked of a real API server."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import msgspec
import pytest
from tests.api.conftest import BASES  # by its full name, as pytest has imported it
from tests.kube.access import Refused
from tests.kube.conftest import CRDS, ROOT

from spillway_api import files
from spillway_api.schema import KINDS

EXAMPLES = [*sorted((ROOT / "examples").glob("*.yaml"))]


@pytest.fixture
def stored(plane, namespace):
    """`stored(object)`: what the server keeps of it, without what only a server adds."""

    def store(given):
        kind = KINDS[given["kind"]]
        path = f"/apis/spillway.dev/v1alpha1/namespaces/{namespace}/{kind.plural}?fieldValidation=Strict"
        kept = plane.api.call("POST", path, given)
        metadata = {key: value for key, value in kept["metadata"].items() if key in ("name", "labels", "annotations")}
        return kept | {"metadata": metadata}

    return store


def _objects_of(path):
    loaded = files.load([path])
    assert loaded.problems == ()
    return loaded.objects


@pytest.mark.parametrize("path", sorted(CRDS.glob("*.yaml")), ids=lambda path: path.name)
def test_crds_apply_dry_and_for_real(plane, path):
    plane.kubectl("apply", "--server-side", "--dry-run=server", "-f", str(path))
    said = plane.kubectl("apply", "--server-side", "-f", str(path))
    assert "serverside-applied" in said
    name = path.stem.partition("_")[2] + ".spillway.dev"
    crd = json.loads(plane.kubectl("get", "crd", name, "-o", "json"))
    # NonStructuralSchema, NamesAccepted=False and the like: the server's own opinion of a definition.
    conditions = {each["type"]: each["status"] for each in crd["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}


def test_every_field_explains_itself(plane):
    for kind in KINDS:
        for part in ("", ".spec", ".status"):
            text = plane.kubectl("explain", f"{kind.lower()}{part}", "--recursive=false")
            assert "<no description>" not in text, text
            assert "<empty>" not in text, text
    said = plane.kubectl("explain", "modelpool.spec.models")
    assert "What the endpoints of this pool can serve. All endpoints serve all models." in said
    assert "Name that routes and clients use." in said


@pytest.mark.parametrize("base", sorted(BASES))
def test_an_object_that_is_read_back_is_what_files_make_of_it(base, stored, tmp_path):
    """The defaults of the server are those of the types: file mode and a cluster serve alike."""
    path = tmp_path / "object.json"
    path.write_text(json.dumps(BASES[base]))
    (from_file,) = _objects_of(path)
    kept = stored(copy.deepcopy(BASES[base]))
    assert msgspec.convert(kept, type(from_file)) == from_file
    # Filled in once is filled in for good: writing back what was read changes nothing.
    path.write_text(json.dumps(kept))
    assert _objects_of(path) == (from_file,)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_apply_as_they_are(path: Path, plane, namespace):
    objects = _objects_of(path)
    assert objects
    plane.kubectl("apply", "--server-side", "-n", namespace, "-f", str(path))
    for each in objects:
        plane.kubectl("get", type(each).__name__.lower(), each.metadata.name, "-n", namespace)


def test_short_names_and_categories(plane, namespace):
    for base in ("pool", "policy"):
        plane.apply(copy.deepcopy(BASES[base]), namespace=namespace)
    for asked, listed in {
        "mpool": {"modelpool.spillway.dev/llama"},
        "rpol": {"routepolicy.spillway.dev/chat"},
        "spillway": {"modelpool.spillway.dev/llama", "routepolicy.spillway.dev/chat"},
    }.items():
        assert {*plane.kubectl("get", asked, "-n", namespace, "-o", "name").split()} == listed
    assert "modelpool.spillway.dev/llama" in plane.kubectl("get", "all", "-n", namespace, "-o", "name")


def test_printer_columns_show_the_status(plane, namespace):
    plane.apply(copy.deepcopy(BASES["pool"]), copy.deepcopy(BASES["policy"]), namespace=namespace)
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "NoReadyEndpoints",
        "message": "none",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {"sourceType": "Static", "endpointSummary": "0/1", "models": ["llama-8b"], "conditions": [condition]}
    path = f"/apis/spillway.dev/v1alpha1/namespaces/{namespace}/modelpools/llama/status"
    plane.api.call("PATCH", path, {"status": status})
    head, row = plane.kubectl("get", "mpool", "-n", namespace, "-o", "wide").splitlines()
    names = [column.name.upper() for column in KINDS["ModelPool"].columns]
    assert head.split() == ["NAME", *names]
    for value in ("llama", "Static", "0/1", "False", "NoReadyEndpoints", '["llama-8b"]'):
        assert value in row.split()
    head, row = plane.kubectl("get", "rpol", "-n", namespace, "-o", "wide").splitlines()
    assert head.split() == ["NAME", *(column.name.upper() for column in KINDS["RoutePolicy"].columns)]
    assert '["chat"]' in row.split()


def test_status_is_the_operators_and_spec_the_users(plane, stored, namespace):
    """The status subresource: a user's apply does not touch the status, a status write not the spec."""
    kept = stored(BASES["pool"] | {"status": {"endpointSummary": "9/9"}})
    assert "status" not in kept
    path = f"/apis/spillway.dev/v1alpha1/namespaces/{namespace}/modelpools/llama/status"
    after = plane.api.call("PATCH", path, {"status": {"endpointSummary": "1/1"}, "spec": {"engine": "vLLM"}})
    assert after["status"]["endpointSummary"] == "1/1"
    assert after["spec"]["engine"] == "Auto"
    assert after["metadata"]["generation"] == 1


def test_a_misspelt_field_is_refused_by_name(stored):
    with pytest.raises(Refused, match=r'unknown field "spec\.modles"'):
        stored(BASES["pool"] | {"spec": BASES["pool"]["spec"] | {"modles": []}})
