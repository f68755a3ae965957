"""Cases: requests, what is assumed of the world, and what is expected of the policies."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Struct, field

from spillway_api.markup import Cel, checked, doc, map_list

from .given import Percent, RequestGiven, State

Shares = Annotated[
    dict[str, Percent],
    doc("Percent of the sessions, by name."),
    checked(Cel("size(self) > 0", "names no share")),
]


class Split(Struct, frozen=True, rename="camel", kw_only=True):
    """Where many sessions go, as shares. A name that is not there is not checked."""

    rules: Shares | None = None
    tiers: Shares | None = None
    pools: Shares | None = None
    endpoints: Shares | None = None
    within: Annotated[float, doc("Percentage points by which a share may be off.", ge=0, le=50)] = 3.0
    sessions: Annotated[int, doc("How many, each with a key of its own.", ge=10, le=100_000)] = 1000

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "has(self.rules) || has(self.tiers) || has(self.pools) || has(self.endpoints)",
            "at least one of rules, tiers, pools and endpoints must be set",
        ),
    )


class Expect(Struct, frozen=True, rename="camel", kw_only=True):
    """What must come of a request. What is not named is not checked."""

    status: Annotated[int, doc("HTTP status; 200 is a request that an endpoint serves.", ge=200, le=599)] | None = None
    error: Annotated[str, doc("Code of the error that the client is told.")] | None = None
    policy: Annotated[str, doc("RoutePolicy that decides.")] | None = None
    rule: Annotated[str, doc("Rule that decides; empty where none holds.")] | None = None
    tier: Annotated[str, doc("Tier that serves.")] | None = None
    pool: Annotated[str, doc("Pool that serves.")] | None = None
    endpoint: Annotated[str, doc("Endpoint that serves.")] | None = None
    model: Annotated[str, doc("Model as the endpoint calls it.")] | None = None
    reason: Annotated[str, doc("Why that endpoint, in the word of the strategy.")] | None = None
    spilled: Annotated[bool, doc("Whether another tier than the first serves.")] | None = None
    attempt: Annotated[int, doc("Which attempt is the one that serves.", ge=1, le=10)] | None = None
    waits: Annotated[bool, doc("Whether it has to wait in the queue.")] | None = None
    never: Annotated[tuple[str, ...], doc("Pools that the request must not be sent to, whatever fails.")] = ()
    split: Annotated[Split, doc("Ask with many sessions; all else that is expected holds for each of them.")] | None = (
        None
    )


class Case(Struct, frozen=True, rename="camel", kw_only=True):
    """One request and what must come of it."""

    name: Annotated[str, doc("What the case shows; unique in the file.", min_length=1, max_length=200)]
    request: Annotated[RequestGiven, doc("What is asked.")]
    expect: Annotated[Expect, doc("What must come of it.")]
    state: Annotated[State, doc("What is assumed; pools that it names are as it says, others as the file says.")] = (
        field(default_factory=State)
    )


class Cases(Struct, frozen=True, rename="camel", kw_only=True):
    """A file of cases."""

    cases: Annotated[tuple[Case, ...], doc("In their order.", min_length=1, max_length=10_000), map_list("name")]
    state: Annotated[State, doc("What is assumed in all of them.")] = field(default_factory=State)
    seed: Annotated[int, doc("Of the dice.")] = 1
