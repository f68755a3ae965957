"""Who may call: Secrets of the policy's namespace, one virtual key each."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from spillway_api.markup import doc
from spillway_api.types.selector import LabelValue


class SecretSelector(Struct, frozen=True, rename="camel"):
    """Which Secrets are keys."""

    match_labels: Annotated[
        dict[str, LabelValue],
        doc("Labels that a Secret must have, with these very values.", min_length=1, max_length=16),
    ]


class Consumers(Struct, frozen=True, rename="camel"):
    """Who may call. Without it the route is open to everybody who reaches the gateway."""

    secret_selector: Annotated[
        SecretSelector,
        doc(
            "Secrets of this namespace, one virtual key each: the value of `api-key` is the key, the Secret's name is "
            "the consumer's."
        ),
    ]
