"""What is told of decisions: to clients in headers, to the platform in its log."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from spillway_api.markup import INT32, doc

ExplainHeaders = Literal["Never", "OnRequest", "Always"]


class Explain(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is told of decisions."""

    headers: Annotated[
        ExplainHeaders,
        doc(
            "Whether answers say in headers x-spillway-… what became of a request and why: to nobody, to who sends "
            "x-spillway-explain, or to all."
        ),
    ] = "OnRequest"
    audit_log_percent: Annotated[
        int,
        doc(
            "Of how many requests in a hundred a line of the audit log tells the decision; those that an audited guard "
            "holds for have one anyway.",
            ge=0,
            le=100,
        ),
        INT32,
    ] = 0
