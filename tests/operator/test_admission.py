"""AdmissionReviews: what is understood of them, and the form of the answers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_operator.admission import WARNING, NoReview, Question, allowed, read

# As the documentation of Kubernetes has it, with the fields that nobody here reads.
REVIEW: dict[str, Any] = {
    "kind": "AdmissionReview",
    "apiVersion": "admission.k8s.io/v1",
    "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "namespace": "shop",
        "operation": "CREATE",
        "userInfo": {"username": "admin", "groups": ["system:authenticated"]},
        "object": {"metadata": {"generateName": "app-7d9f-"}, "spec": {"containers": []}},
        "oldObject": None,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    },
}


def review(**request: Any) -> bytes:
    return json.dumps({**REVIEW, "request": {**REVIEW["request"], **request}}).encode()


def test_the_creation_of_a_pod_is_understood() -> None:
    pod = REVIEW["request"]["object"]
    assert read(review()) == Question(REVIEW["request"]["uid"], "shop", pod, dry_run=False)
    assert read(review(dryRun=True)).dry_run


@pytest.mark.parametrize(
    "request_",
    [
        {"operation": "UPDATE"},
        {"kind": {"group": "", "version": "v1", "kind": "Service"}},
        {"kind": {"group": "metrics.k8s.io", "version": "v1", "kind": "Pod"}},
        {"object": None},
        {"object": []},
    ],
)
def test_of_anything_else_there_is_no_pod(request_: dict[str, Any]) -> None:
    assert read(review(**request_)).pod is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        json.dumps({**REVIEW, "apiVersion": "admission.k8s.io/v1beta1"}).encode(),
        json.dumps({**REVIEW, "kind": "Pod"}).encode(),
        json.dumps({**REVIEW, "request": None}).encode(),
        review(uid=None),
        review(dryRun="yes"),
    ],
)
def test_what_is_no_review_is_told_so(body: bytes) -> None:
    with pytest.raises(NoReview):
        read(body)


@given(st.binary(max_size=200))
def test_garbage_is_no_review(body: bytes) -> None:
    with pytest.raises(NoReview):
        read(body)


def test_an_answer_has_the_form_that_is_documented() -> None:
    patch = [{"op": "add", "path": "/spec/initContainers", "value": [{"name": "spillway"}]}]
    answer = json.loads(allowed("1-2", patch, "words" * 100))
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = answer["response"]
    assert (response["uid"], response["allowed"], response["patchType"]) == ("1-2", True, "JSONPatch")
    assert json.loads(base64.b64decode(response["patch"])) == patch
    assert response["warnings"] == [("words" * 100)[:WARNING]]


def test_an_answer_without_a_patch_says_nothing_of_one() -> None:
    assert json.loads(allowed("1"))["response"] == {"uid": "1", "allowed": True}
