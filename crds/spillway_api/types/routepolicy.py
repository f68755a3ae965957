"""The kind RoutePolicy: intent, that is which requests go where and in which order."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct, field

from spillway_api.markup import SET, Cel, doc, map_list, pattern
from spillway_api.types.clamp import Clamp
from spillway_api.types.consumers import Consumers
from spillway_api.types.explain import Explain
from spillway_api.types.fields import API_VERSION, ObjectMeta, ObjectName
from spillway_api.types.guard import Guard
from spillway_api.types.mirror import Mirror
from spillway_api.types.overrides import Overrides
from spillway_api.types.queue import Priority, Queue
from spillway_api.types.retry import Retry, Timeouts
from spillway_api.types.streams import Streams
from spillway_api.types.tier import Tier

PolicyMode = Literal["Enforce", "Shadow"]


class Rule(Struct, frozen=True, rename="camel"):
    """A list of tiers, and for which requests they are."""

    name: Annotated[ObjectName, doc("Name of the rule, unique in the policy.")]
    tiers: Annotated[
        tuple[Tier, ...],
        doc("Ordered. A request goes to the first tier that is open to it.", min_length=1, max_length=8),
        map_list("name"),
    ]
    when: (
        Annotated[
            str,
            doc(
                "CEL over the request, true or false. Absent means always; only the last rule may leave it out. "
                "Compiled by the operator, never by the API server.",
                min_length=1,
                max_length=2048,
            ),
        ]
        | None
    ) = None
    set_: (
        Annotated[
            Clamp,
            doc("Changes to the request, never loosening what the client asked for."),
            Meta(extra_json_schema={"minProperties": 1}),
        ]
        | None
    ) = field(default=None, name="set")

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "size(self.tiers) == 0 || !has(self.tiers[size(self.tiers) - 1].spill)",
            "the last tier has no tier to spill to",
            ".tiers",
        ),
        Cel(
            "size(self.tiers) == 0 || !has(self.tiers[0].limits) || !has(self.tiers[0].limits.maxSharePercent)",
            "maxSharePercent limits a spill and does not apply to the first tier",
            ".tiers",
        ),
    )


class RoutePolicySpec(Struct, frozen=True, rename="camel"):
    """Intent: which requests go where, in which order."""

    models: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=253), pattern(r"^[^\s*?]*\*?$")], ...],
        doc(
            "Public names that clients put into the model field; a trailing * matches any rest. Exact beats "
            "longer prefix beats shorter. A name belongs to the oldest RoutePolicy that claims it on a "
            "gateway; a later claim is Accepted=False, reason ModelNameConflict.",
            min_length=1,
            max_length=64,
        ),
        SET,
    ]
    rules: Annotated[
        tuple[Rule, ...],
        doc(
            "The first rule whose condition holds decides. An expression that fails counts as not holding, and is "
            "counted.",
            min_length=1,
            max_length=16,
        ),
        map_list("name"),
    ]
    guards: (
        Annotated[
            tuple[Guard, ...],
            doc(
                "Constraints that no later rule, fallback, header or cache lifts. All are evaluated; one that cannot "
                "be evaluated holds (fail closed).",
                max_length=16,
            ),
            map_list("name"),
        ]
        | None
    ) = None
    overrides: (
        Annotated[
            Overrides,
            doc("What callers may decide for themselves by headers. Absent, nothing. Guards bind them all the same."),
        ]
        | None
    ) = None
    gateways: Annotated[
        tuple[ObjectName, ...],
        doc("Balancers (by their name) that serve this route.", min_length=1, max_length=16),
        SET,
    ] = ("default",)
    consumers: (
        Annotated[Consumers, doc("Who may call. Without it the route is open to everybody who reaches the gateway.")]
        | None
    ) = None
    timeouts: Annotated[Timeouts, doc("How long a request may take, step by step.")] = field(default_factory=Timeouts)
    retry: Annotated[
        Retry,
        doc(
            "Applies until the first byte of the answer is sent on. A failed endpoint is not tried again by "
            "the same request while another one is left."
        ),
    ] = field(default_factory=Retry)
    streams: Annotated[Streams, doc("Streamed answers, before they begin and when they are cut.")] | None = None
    mirror: (
        Annotated[
            Mirror,
            doc("A copy of a share of the requests goes to this pool; its answers are measured and dropped."),
        ]
        | None
    ) = None
    explain: Annotated[Explain, doc("What is told of decisions, to clients and in the log.")] = field(
        default_factory=Explain
    )
    mode: Annotated[
        PolicyMode,
        doc("Shadow evaluates the policy and records what it would do, but another route decides."),
    ] = "Enforce"
    queue: Annotated[Queue, doc("Requests that no tier is open to wait here.")] = field(default_factory=Queue)
    priority: Annotated[Priority, doc("Who is served first of those that wait.")] = field(default_factory=Priority)

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "size(self.rules) == 0 || self.rules.filter(r, !has(r.when)).size() == 0 || "
            "(self.rules.filter(r, !has(r.when)).size() == 1 && !has(self.rules[size(self.rules) - 1].when))",
            "only the last rule may leave out when",
            ".rules",
        ),
    )


class RoutePolicy(Struct, frozen=True, rename="camel", tag="RoutePolicy", tag_field="kind"):
    """Public model names and the tiers of pools that serve them."""

    metadata: ObjectMeta
    spec: Annotated[RoutePolicySpec, doc("Intent: which requests go where, in which order.")]
    api_version: str = API_VERSION

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "size(self.metadata.name) <= 63",
            "name must be at most 63 characters, so that it fits metric labels",
        ),
    )
