"""How objects name a value that is kept elsewhere."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from spillway_api.markup import doc, pattern

RefName = Annotated[str, Meta(min_length=1, max_length=253), pattern(r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]
RefKey = Annotated[str, Meta(min_length=1, max_length=253), pattern(r"^[-._a-zA-Z0-9]+$")]


class SecretRef(Struct, frozen=True, rename="camel"):
    """A key of a Secret in the namespace of the object; a reference, never the value."""

    name: Annotated[RefName, doc("Name of a Secret in the same namespace.")]
    key: Annotated[RefKey, doc("Key of the Secret whose value is the credential.")] = "api-key"
