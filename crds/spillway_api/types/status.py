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


Count = Annotated[int, INT32]


class EndpointCounts(Struct, frozen=True, rename="camel"):
    """Endpoints of the pool by what becomes of them."""

    total: Annotated[Count, doc("Endpoints that there are, draining ones left out.")] = 0
    ready: Annotated[Count, doc("Those that take traffic.")] = 0
    unhealthy: Annotated[Count, doc("Those that fail their probes.")] = 0
    ejected: Annotated[Count, doc("Those that the circuit breaker keeps out for a while.")] = 0
    draining: Annotated[Count, doc("Those that end, and get no new requests.")] = 0


class GatewayStatus(Struct, frozen=True, rename="camel"):
    """How far the object has come on one gateway."""

    name: Annotated[str, doc("Name of the gateway.", max_length=63)]
    replicas: Annotated[Count, doc("Balancers that there should be.")] = 0
    programmed_replicas: Annotated[Count, doc("Balancers that serve by this state of the object.")] = 0


Gateways = Annotated[
    tuple[GatewayStatus, ...],
    doc("The gateways that serve the object.", max_length=16),
    map_list("name"),
]


class ModelPoolStatus(Struct, frozen=True, rename="camel"):
    """What Spillway reports about a ModelPool in a cluster. In a file it is not read."""

    observed_generation: Generation | None = None
    source_type: Annotated[str, doc("Kind of source: Pods, Service, InferencePool, Static or Provider.")] | None = None
    engine: Annotated[str, doc("Server program that was found behind the endpoints.")] | None = None
    endpoint_summary: Annotated[str, doc("Endpoints that take traffic, of all: ready/total.")] | None = None
    endpoints: EndpointCounts | None = None
    attached_routes: Annotated[int, doc("RoutePolicies that lead here."), INT32] | None = None
    models: Annotated[tuple[str, ...], doc("Names of the models served.", max_length=64), ATOMIC] | None = None
    budget_summary: Annotated[str, Meta(description="What is spent of the budget.")] | None = None
    gateways: Gateways | None = None
    conditions: Conditions | None = None


TierState = Literal["Open", "Spilling", "Saturated", "Cold", "Unavailable", "Closed"]


class TierStatus(Struct, frozen=True, rename="camel", omit_defaults=True):
    """How one tier of a rule is doing."""

    rule: Annotated[str, doc("Name of the rule.", max_length=63)]
    name: Annotated[str, doc("Name of the tier.", max_length=63)]
    state: (
        Annotated[
            TierState,
            doc(
                "Open takes all requests, Spilling sends a part on for load, Saturated holds as many as its endpoints "
                "may, Cold is scaled to zero and woken when it is wanted, Unavailable has no ready endpoint, Closed "
                "has spent its budget."
            ),
        ]
        | None
    ) = None
    ready_endpoints: Annotated[Count, doc("Endpoints of its pools that take traffic.")] | None = None
    share_percent: Annotated[Count, doc("Part of the requests that leaves for the next tier.")] | None = None
    spent: (
        Annotated[str, doc("Money spent of its budget in this period, by all balancers. Absent without a budget.")]
        | None
    ) = None


class RoutePolicyStatus(Struct, frozen=True, rename="camel"):
    """What Spillway reports about a RoutePolicy in a cluster. In a file it is not read."""

    observed_generation: Generation | None = None
    tier_summary: Annotated[str, Meta(description="Each tier with its state, in order.")] | None = None
    budget_summary: Annotated[str, Meta(description="What is spent of each budget.")] | None = None
    tiers: (
        Annotated[tuple[TierStatus, ...], doc("Each tier, in order.", max_length=128), map_list("rule", "name")] | None
    ) = None
    gateways: Gateways | None = None
    conditions: Conditions | None = None
