"""Guards: what data may go where, whatever rules, fallbacks and headers say; and what pools declare about that."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from spillway_api.markup import INT32, SET, doc, pattern
from spillway_api.types.fields import ObjectName

Sensitivity = Literal["Public", "Internal", "Confidential", "Restricted"]
"""From the least to the most sensitive."""

Jurisdiction = Annotated[str, Meta(min_length=2, max_length=32), pattern("^[A-Z0-9-]+$")]


class DataHandling(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a pool declares about the data that it is sent."""

    jurisdictions: (
        Annotated[
            tuple[Jurisdiction, ...],
            doc("Where its endpoints process and keep data: all of the places.", max_length=32),
            SET,
        ]
        | None
    ) = None
    max_sensitivity: (
        Annotated[
            Sensitivity,
            doc("The most sensitive data that it may be sent: Public, Internal, Confidential, Restricted rise."),
        ]
        | None
    ) = None
    retention_days: (
        Annotated[
            int, doc("For how long it keeps data; 0 is not at all. For people; no guard compares it.", ge=0), INT32
        ]
        | None
    ) = None


# A guard that is not understood must not be enforced in part: a balancer refuses what it does not know here, says so,
# and goes on with what it has. Everywhere else a newer operator may say more than an older balancer knows.


class Requirement(Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What a pool must declare."""

    jurisdictions: (
        Annotated[
            tuple[Jurisdiction, ...],
            doc(
                "The places that are allowed: every jurisdiction of the pool must be one.", min_length=1, max_length=32
            ),
            SET,
        ]
        | None
    ) = None
    max_sensitivity: (
        Annotated[
            Sensitivity,
            doc("How sensitive the data is: the maxSensitivity of the pool must be this or above."),
        ]
        | None
    ) = None


class Guard(Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A constraint on the pools that a request may go to."""

    name: Annotated[ObjectName, doc("Name of the guard, unique in the policy.")]
    require: Annotated[
        Requirement,
        doc("What a pool must declare (dataHandling) to be used. A pool that declares nothing does not pass."),
        Meta(extra_json_schema={"minProperties": 1}),
    ]
    when: (
        Annotated[
            str,
            doc(
                "CEL over the request: whether the guard holds. Absent means always. One without a value holds.",
                min_length=1,
                max_length=2048,
            ),
        ]
        | None
    ) = None
    audit: Annotated[bool, doc("Whether each request on which it holds gives a line in the audit log.")] = True
