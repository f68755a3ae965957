"""What the operator writes belongs to a Deployment, and goes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Object = dict[str, Any]


def reference(deployment: str, uid: str) -> Object:
    """An ownerReference to a Deployment."""
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment, "uid": uid}


def owned(
    kind: str, namespace: str, name: str, owners: Sequence[Object], labels: Mapping[str, str] | None = None
) -> Object:
    """An object of the core API without its content."""
    meta = {
        "name": name,
        "namespace": namespace,
        "labels": {**(labels or {}), "app.kubernetes.io/managed-by": "spillway-operator"},
        "ownerReferences": list(owners),
    }
    return {"apiVersion": "v1", "kind": kind, "metadata": meta}
