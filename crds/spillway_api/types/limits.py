"""What may enter a tier: a share of the requests, requests and tokens in a minute, money in a period."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from spillway_api.markup import INT32, INT64, doc
from spillway_api.types.price import Amount, Currency

Period = Literal["Hour", "Day", "Week", "Month"]


TokensPerMinute = Annotated[
    int, doc("Tokens of prompts and answers in any minute; as estimated while a request is under way.", ge=1), INT64
]


class Budget(Struct, frozen=True, rename="camel"):
    """Money for each period of the calendar, in UTC. Every model that it is kept over needs a price in its currency."""

    amount: Annotated[Amount, doc("The most that is spent in a period.")]
    currency: Currency = "USD"
    period: Annotated[Period, doc("How long the amount lasts. Weeks begin on Monday.")] = "Day"


class Limits(Struct, frozen=True, rename="camel"):
    """What may enter a tier. What they keep out goes on to a later tier, or stays where it came from."""

    max_share_percent: (
        Annotated[
            int,
            doc("Of the requests that the rule has had in the last minute, as many may come in here.", ge=0, le=100),
            INT32,
        ]
        | None
    ) = None
    requests_per_minute: Annotated[int, doc("Attempts in any minute.", ge=1), INT64] | None = None
    tokens_per_minute: TokensPerMinute | None = None
    budget: Annotated[Budget, doc("Money for each period; set aside before sending, and settled after.")] | None = None
