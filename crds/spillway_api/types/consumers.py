"""Who may call: Secrets of the policy's namespace, one virtual key each, and what each of them may use."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from spillway_api.markup import INT32, INT64, doc
from spillway_api.types.limits import TokensPerMinute
from spillway_api.types.price import Amount, Currency
from spillway_api.types.selector import LabelValue


class SecretSelector(Struct, frozen=True, rename="camel"):
    """Which Secrets are keys."""

    match_labels: Annotated[
        dict[str, LabelValue],
        doc("Labels that a Secret must have, with these very values.", min_length=1, max_length=16),
    ]


class ConsumerBudget(Struct, frozen=True, rename="camel"):
    """Money of one consumer for each period of the calendar, in UTC. What a model without a price does is free."""

    amount: Annotated[Amount, doc("The most that is spent in a period.")]
    currency: Currency = "USD"
    period: Annotated[
        Literal["Hour", "Day", "Week", "Month"], doc("How long the amount lasts. Weeks begin on Monday.")
    ] = "Month"


class ConsumerLimits(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What each consumer may use. Annotations of its Secret say otherwise for one."""

    requests_per_minute: Annotated[int, doc("Requests in any minute.", ge=1), INT64] | None = None
    tokens_per_minute: TokensPerMinute | None = None
    max_in_flight: Annotated[int, doc("Requests at once, those that wait included.", ge=1), INT32] | None = None
    budget: (
        Annotated[ConsumerBudget, doc("Money for each period; set aside before sending, and settled after.")] | None
    ) = None


class Consumers(Struct, frozen=True, rename="camel"):
    """Who may call. Without it the route is open to everybody who reaches the gateway."""

    secret_selector: Annotated[
        SecretSelector,
        doc(
            "Secrets of this namespace, one virtual key each: the value of `api-key` is the key, the Secret's name is "
            "the consumer's."
        ),
    ]
    defaults: Annotated[ConsumerLimits, doc("What each consumer may use, unless its Secret says otherwise.")] | None = (
        None
    )
