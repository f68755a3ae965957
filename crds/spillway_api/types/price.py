"""What tokens cost, and amounts of money. Decimal strings: binary fractions cannot hold a cent."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from spillway_api.markup import doc, pattern

Amount = Annotated[str, Meta(max_length=20), pattern(r"^[0-9]{1,9}(\.[0-9]{1,9})?$")]
Currency = Annotated[
    str,
    doc("Three letters of ISO 4217. Nothing is converted: amounts meet only in one currency.", max_length=3),
    pattern("^[A-Z]{3}$"),
]


class Price(Struct, frozen=True, rename="camel"):
    """Price of one million tokens. Decimal strings, no floats."""

    input: Annotated[Amount, doc("Of the tokens of a prompt. Left out, they cost nothing.")] | None = None
    cached_input: (
        Annotated[
            Amount,
            doc("Of those tokens of a prompt that the endpoint found in its cache. Defaults to input."),
        ]
        | None
    ) = None
    output: Annotated[Amount, doc("Of the tokens of an answer. Left out, they cost nothing.")] | None = None
    currency: Currency = "USD"


class Money(Struct, frozen=True, rename="camel"):
    """An amount of money."""

    amount: Annotated[Amount, doc("Decimal, as a string.")]
    currency: Currency = "USD"
