"""Label selectors, as everywhere in Kubernetes (metav1.LabelSelector), and which labels they match."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from spillway_api.markup import ATOMIC, Cel, doc

LabelValue = Annotated[str, Meta(max_length=63)]
Labels = Annotated[dict[str, LabelValue], doc("Labels that must have these very values.", max_length=64)]


class LabelRequirement(Struct, frozen=True, rename="camel"):
    """One demand on a label."""

    key: Annotated[str, doc("Name of the label.", min_length=1, max_length=317)]
    operator: Annotated[
        Literal["In", "NotIn", "Exists", "DoesNotExist"],
        doc("How the label is compared. NotIn and DoesNotExist hold for objects without it."),
    ]
    values: (
        Annotated[tuple[LabelValue, ...], doc("Values for In and NotIn; none for the others.", max_length=64), ATOMIC]
        | None
    ) = None

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "self.operator in ['Exists', 'DoesNotExist'] ? !has(self.values) || size(self.values) == 0 : "
            "has(self.values) && size(self.values) > 0",
            "values must be given for In and NotIn and left out for Exists and DoesNotExist",
        ),
    )


class LabelSelector(Struct, frozen=True, rename="camel"):
    """Labels that objects must have; all demands hold."""

    match_labels: Labels | None = None
    match_expressions: (
        Annotated[tuple[LabelRequirement, ...], doc("Further demands on labels.", max_length=16), ATOMIC] | None
    ) = None


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether an object with these labels is selected."""
    for key, value in (selector.match_labels or {}).items():
        if labels.get(key) != value:
            return False
    return all(_holds(each, labels) for each in selector.match_expressions or ())


def _holds(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in (requirement.values or ())
        case "NotIn":
            return value is None or value not in (requirement.values or ())
        case "Exists":
            return value is not None
        case _:
            return value is None
