"""What Spillway reports about an object: conditions, and the numbers that kubectl shows."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from spillway_api.markup import ATOMIC, DATE_TIME, INT32, INT64, doc, map_list, pattern


class Condition(Struct, frozen=True, rename="camel"):
    """One statement about the object, in the shape of metav1.Condition."""

    type: Annotated[str, doc("What the statement is about, such as Ready.", max_length=316)]
    status: Annotated[Literal["True", "False", "Unknown"], doc("Whether it holds.")]
    last_transition_time: Annotated[str, doc("When the status last changed."), DATE_TIME]
    reason: Annotated[
        str,
        doc("Why, as one word for programs.", min_length=1, max_length=1024),
        pattern(r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
    ]
    message: Annotated[str, doc("Why, in words for people.", max_length=32768)]
    observed_generation: Annotated[int, doc("Generation of the object it speaks of.", ge=0), INT64] | None = None


Conditions = Annotated[
    tuple[Condition, ...],
    doc("What holds of the object; `kubectl wait --for=condition=Ready` reads it.", max_length=16),
    map_list("type"),
]
Generation = Annotated[int, doc("Generation of the object that this status speaks of."), INT64]


class ModelPoolStatus(Struct, frozen=True, rename="camel"):
    """What Spillway reports about a ModelPool in a cluster. In a file it is not read."""

    observed_generation: Generation | None = None
    source_type: Annotated[str, doc("Kind of source: Static or Provider.")] | None = None
    engine: Annotated[str, doc("Server program that was found behind the endpoints.")] | None = None
    endpoint_summary: Annotated[str, doc("Endpoints that take traffic, of all: ready/total.")] | None = None
    attached_routes: Annotated[int, doc("RoutePolicies that lead here."), INT32] | None = None
    models: Annotated[tuple[str, ...], doc("Names of the models served.", max_length=64), ATOMIC] | None = None
    conditions: Conditions | None = None


class RoutePolicyStatus(Struct, frozen=True, rename="camel"):
    """What Spillway reports about a RoutePolicy in a cluster. In a file it is not read."""

    observed_generation: Generation | None = None
    tier_summary: Annotated[str, Meta(description="Each tier with its state, in order.")] | None = None
    budget_summary: Annotated[str, Meta(description="What is spent of each budget.")] | None = None
    conditions: Conditions | None = None
