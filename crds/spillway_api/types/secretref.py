"""How objects name a value that is kept elsewhere."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from spillway_api.markup import doc, pattern


class SecretRef(Struct, frozen=True, rename="camel"):
    """A key of a Secret in the namespace of the object; a reference, never the value."""

    name: Annotated[
        str,
        doc("Name of a Secret in the same namespace.", min_length=1, max_length=253),
        pattern(r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"),
    ]
    key: Annotated[
        str,
        doc("Key of the Secret whose value is the credential.", min_length=1, max_length=253),
        pattern(r"^[-._a-zA-Z0-9]+$"),
    ] = "api-key"
