"""AdmissionReview (admission.k8s.io/v1): what an API server asks a webhook, and what it is answered. Pure.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#webhook-request-and-response
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from .cluster import Object

VERSION: Final = "admission.k8s.io/v1"
WARNING: Final = 256
"""Characters of a warning; kubectl shows no more."""


class NoReview(Exception):
    """It is no review that can be answered."""


class Question(NamedTuple):
    """The creation of a Pod. It need not have a name: that is made of `generateName` later."""

    uid: str
    namespace: str
    pod: Object | None
    """None where something else is asked: a Pod is changed, or it is none."""
    dry_run: bool


class _Kind(msgspec.Struct):
    kind: str
    group: str = ""


class _Request(msgspec.Struct, rename="camel"):
    uid: str
    kind: _Kind
    operation: str = ""
    namespace: str = ""
    dry_run: bool = False
    object: Any = None


class _Review(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    request: _Request


_REVIEW: Final = msgspec.json.Decoder(_Review)


def read(body: bytes) -> Question:
    """What is asked. Raises NoReview, which tells nothing of the body."""
    try:
        review = _REVIEW.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NoReview from None
    if review.kind != "AdmissionReview" or review.api_version != VERSION:
        raise NoReview
    request = review.request
    pod = request.object if (request.kind, request.operation) == (_Kind("Pod"), "CREATE") else None
    return Question(request.uid, request.namespace, pod if isinstance(pod, dict) else None, request.dry_run)


def allowed(uid: str, patch: Sequence[Object] = (), warning: str = "") -> bytes:
    """The answer that lets the object in: after a patch, and with words for who makes it."""
    response: Object = {"uid": uid, "allowed": True}
    if patch:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(msgspec.json.encode(patch)).decode()}
    if warning:
        response["warnings"] = [warning[:WARNING]]
    return msgspec.json.encode({"apiVersion": VERSION, "kind": "AdmissionReview", "response": response})
