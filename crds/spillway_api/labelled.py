"""A Secret as it may be told from others: by its labels. Its values are nobody's business here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

OWN: Final = "spillway.dev/"
"""Annotations of this prefix are ours; no others are kept."""


class Labelled(NamedTuple):
    """What a Secret says of itself."""

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    """Those that are ours."""


def labelled(metadata: Mapping[str, object]) -> Labelled:
    """Of the metadata of a Secret as the API server gives it."""
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    assert isinstance(labels, Mapping)
    assert isinstance(annotations, Mapping)
    own = {name: value for name, value in annotations.items() if name.startswith(OWN)}
    return Labelled(str(metadata["name"]), dict(labels), own)


def has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether all of these labels are there with these values."""
    return wanted.items() <= labels.items()


def selector(wanted: Mapping[str, str]) -> str:
    """Labels as a selector of a list request."""
    return ",".join(f"{name}={value}" for name, value in sorted(wanted.items()))
