"""What an installation says of its sidecars: the file of `spillway-operator run --sidecars`, which the chart writes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from .amounts import DEFAULT, Resources, amount, too_little
from .injection import Sidecar


class BadSidecars(Exception):
    """The file cannot be used; the text says why."""


class _File(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    image: str
    operator: str
    gateways: dict[str, str]
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    resources: Resources | None = None


def read_sidecars(path: Path) -> Sidecar:
    """What all sidecars have in common, from JSON. Raises BadSidecars."""
    try:
        told = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError) as error:
        raise BadSidecars(f"{path}: {error}") from None
    if not told.image or not told.operator or not told.gateways:
        raise BadSidecars(f"{path}: it needs an image, the operator's URL and a gateway")
    amounts_of_all = DEFAULT if told.resources is None else told.resources
    for kind, amounts in amounts_of_all.items():
        for what, text in amounts.items():
            # Others are as good to Kubernetes; those that a Pod may change must be comparable with what it says.
            if what in ("cpu", "memory") and amount(text) is None:
                raise BadSidecars(f"{path}: resources.{kind}.{what}: {text!r} is no quantity like 100m or 128Mi")
            why = too_little(what, text) if kind == "limits" else ""
            if why:  # no Pod with a sidecar would start
                raise BadSidecars(f"{path}: resources.{kind}.{what}: {why}")
    return Sidecar(told.image, told.operator, told.gateways, told.pull_policy, told.pull_secrets, amounts_of_all)
