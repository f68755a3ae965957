"""How endpoints are reached: whom TLS believes, and through which proxy."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Struct

from spillway_api.markup import Cel, doc, pattern
from spillway_api.types.fields import Url
from spillway_api.types.secretref import RefKey, RefName, SecretRef


class ConfigMapRef(Struct, frozen=True, rename="camel"):
    """A key of a ConfigMap in the namespace of the object."""

    name: Annotated[RefName, doc("Name of a ConfigMap in the same namespace.")]
    key: Annotated[RefKey, doc("Key of the ConfigMap that holds the certificates, in PEM.")] = "ca.crt"


class Tls(Struct, frozen=True, rename="camel"):
    """How the certificates of endpoints are verified, where their URLs are https."""

    ca_config_map_ref: (
        Annotated[
            ConfigMapRef,
            doc("Authorities that are believed, in the place of the system's. Without them the pool gets no requests."),
        ]
        | None
    ) = None
    server_name: (
        Annotated[
            str,
            doc(
                "Name that the certificates must be for, and that endpoints are told (SNI). Defaults to the host of "
                "the URL; endpoints that are known by their IP address mostly need one.",
                min_length=1,
                max_length=253,
            ),
            pattern(r"^[-A-Za-z0-9_.]+$"),
        ]
        | None
    ) = None
    insecure_skip_verify: Annotated[
        bool,
        doc("Believes whoever answers, which may be anybody. For test servers only."),
    ] = False

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!self.insecureSkipVerify || !has(self.caConfigMapRef)",
            "caConfigMapRef says whom to believe and insecureSkipVerify to believe anybody: leave one out",
        ),
    )


class Proxy(Struct, frozen=True, rename="camel"):
    """An HTTP proxy that makes tunnels (CONNECT)."""

    url: Annotated[Url, doc("Address of the proxy: http://proxy.example.com:3128.")]
    secret_ref: (
        Annotated[SecretRef, doc("Log-in at the proxy, as user:password. Without it the proxy is asked without one.")]
        | None
    ) = None

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel("self.url.startsWith('http://')", "a proxy is spoken to by http; what goes through it may be https"),
    )
