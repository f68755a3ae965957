"""What tokens cost, and amounts of money. Decimal strings: binary fractions cannot hold a cent."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from spillway_api.markup import INT64, doc, map_list, pattern

Amount = Annotated[str, Meta(max_length=20), pattern(r"^[0-9]{1,9}(\.[0-9]{1,9})?$")]
Currency = Annotated[
    str,
    doc("Three letters of ISO 4217. Nothing is converted: amounts meet only in one currency.", max_length=3),
    pattern("^[A-Z]{3}$"),
]


class LongContext(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Price of requests with long prompts. What it leaves out costs as in the price itself."""

    above: Annotated[
        int,
        doc(
            "Tokens of the prompt, cached ones included. One that is longer is charged by these amounts as a whole, "
            "its answer too. Of several steps the highest that it passes counts.",
            ge=1,
        ),
        INT64,
    ]
    input: Annotated[Amount, doc("As in the price.")] | None = None
    cached_input: Annotated[Amount, doc("As in the price.")] | None = None
    cache_write: Annotated[Amount, doc("As in the price.")] | None = None
    cache_write_long: Annotated[Amount, doc("As in the price.")] | None = None
    output: Annotated[Amount, doc("As in the price.")] | None = None
    reasoning: Annotated[Amount, doc("As in the price.")] | None = None


def _nothing() -> None:
    """Written into snapshots though it is a default: a factory's is not left out. They must stay as they ever were, or
    a balancer and an operator of two versions never have the same digest."""


class Price(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Price of one million tokens. Decimal strings, no floats."""

    input: Annotated[Amount, doc("Of the tokens of a prompt. Left out, they cost nothing.")] | None = field(
        default_factory=_nothing
    )
    cached_input: (
        Annotated[
            Amount,
            doc("Of those tokens of a prompt that the endpoint found in its cache. Defaults to input."),
        ]
        | None
    ) = field(default_factory=_nothing)
    output: Annotated[Amount, doc("Of the tokens of an answer. Left out, they cost nothing.")] | None = field(
        default_factory=_nothing
    )
    currency: Currency = field(default_factory=lambda: "USD")
    cache_write: (
        Annotated[
            Amount,
            doc("Of those tokens of a prompt that the endpoint wrote to its cache. Defaults to input."),
        ]
        | None
    ) = None
    cache_write_long: (
        Annotated[
            Amount,
            doc("Of those that it wrote to be kept for an hour or longer. Defaults to cacheWrite."),
        ]
        | None
    ) = None
    reasoning: (
        Annotated[
            Amount,
            doc("Of those tokens of an answer that are reasoning, where they cost otherwise. Defaults to output."),
        ]
        | None
    ) = None
    long_context: Annotated[
        tuple[LongContext, ...],
        doc("Other amounts for requests with long prompts.", max_length=4),
        map_list("above"),
    ] = ()


class EndpointCost(Struct, frozen=True, rename="camel"):
    """What keeping an endpoint costs, such as the machine that it runs on."""

    per_endpoint_hour: Annotated[Amount, doc("Of each endpoint that the pool has, busy or not.")]
    currency: Currency = "USD"


class Money(Struct, frozen=True, rename="camel"):
    """An amount of money."""

    amount: Annotated[Amount, doc("Decimal, as a string.")]
    currency: Currency = "USD"
