"""Where the endpoints of a pool come from, and the credentials they ask for."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Struct

from spillway_api.markup import INT32, INT64, SET, Cel, checked, doc, map_list, pattern
from spillway_api.types.egress import Proxy
from spillway_api.types.fields import IntOrName, LocalName, Url, Weight
from spillway_api.types.identity import Identity
from spillway_api.types.limits import TokensPerMinute
from spillway_api.types.secretref import SecretRef
from spillway_api.types.selector import LabelSelector

ProviderType = Literal[
    "OpenAI",
    "AzureOpenAI",
    "Anthropic",
    "Bedrock",
    "Gemini",
    "VertexAI",
    "Mistral",
    "Groq",
    "Together",
    "Fireworks",
    "DeepSeek",
    "OpenRouter",
    "xAI",
    "OpenAICompatible",
]
Scheme = Literal["http", "https"]


class Auth(Struct, frozen=True, rename="camel"):
    """Credential that self-hosted endpoints ask for."""

    secret_ref: Annotated[SecretRef, doc("Where the credential is kept.")]
    header: Annotated[
        str,
        doc("Request header that carries the credential.", max_length=64),
        pattern(r"^[-A-Za-z0-9]+$"),
    ] = "Authorization"
    prefix: Annotated[
        str,
        doc("Text put before the credential in the header, its space included.", max_length=32),
    ] = "Bearer "


class StaticEndpoint(Struct, frozen=True, rename="camel"):
    """One address given by hand."""

    name: Annotated[
        LocalName,
        doc("Name of the endpoint. It is its place on the ring, so it outlives a change of the url."),
    ]
    url: Annotated[
        Url,
        doc("Root of the server, without /v1: http://127.0.0.1:9001. A path is put before every request path."),
    ]
    weight: Annotated[
        Weight,
        doc("Capacity relative to the other endpoints of the pool; 200 takes twice the load of 100."),
    ] = 100


class Static(Struct, frozen=True, rename="camel"):
    """A fixed list of endpoints."""

    endpoints: Annotated[
        tuple[StaticEndpoint, ...],
        doc(
            "The endpoints. Which of them take traffic is decided by their health.",
            min_length=1,
            max_length=64,
        ),
        map_list("name"),
    ]


class Pods(Struct, frozen=True, rename="camel"):
    """Pods by their labels, in the namespace of the object."""

    selector: Annotated[
        LabelSelector,
        doc("Labels of the Pods. A Pod serves while it is Ready, is not terminating and has an address."),
        checked(
            Cel(
                "(has(self.matchLabels) && size(self.matchLabels) > 0) || "
                "(has(self.matchExpressions) && size(self.matchExpressions) > 0)",
                "an empty selector would take every pod of the namespace",
            )
        ),
    ]
    ports: Annotated[
        tuple[Annotated[int, doc("Port of the container.", ge=1, le=65535), INT32], ...],
        doc(
            "Each port of each Pod is one endpoint, such as one data-parallel rank.",
            min_length=1,
            max_length=8,
        ),
        SET,
    ]
    scheme: Annotated[Scheme, doc("How the endpoints are spoken to.")] = "http"
    weight_annotation: Annotated[
        str,
        doc(
            "Annotation of a Pod that holds its capacity relative to the others, a whole number from 1 to 1000. "
            "Pods without it have 100.",
            min_length=1,
            max_length=317,
        ),
    ] = "spillway.dev/weight"


class Service(Struct, frozen=True, rename="camel"):
    """A Service; its ready addresses, not its virtual one, are the endpoints."""

    name: Annotated[LocalName, doc("Name of a Service in the same namespace.")]
    port: Annotated[IntOrName, doc("Number or name of a port of the Service.")]
    scheme: Annotated[Scheme, doc("How the endpoints are spoken to.")] = "http"


class InferencePool(Struct, frozen=True, rename="camel"):
    """An InferencePool of the Gateway API Inference Extension; it is read and never changed."""

    name: Annotated[
        str,
        doc(
            "Name of an InferencePool (inference.networking.k8s.io/v1) in the same namespace.",
            min_length=1,
            max_length=253,
        ),
        pattern(r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"),
    ]


class AccountLimits(Struct, frozen=True, rename="camel"):
    """What may be sent to an account. Each balancer counts what it and those that tell it of theirs have sent."""

    requests_per_minute: Annotated[int, doc("Requests in any minute.", ge=1), INT64] | None = None
    tokens_per_minute: TokensPerMinute | None = None
    max_in_flight: Annotated[int, doc("Requests at once.", ge=1), INT32] | None = None


class Account(Struct, frozen=True, rename="camel"):
    """One account at a provider; to the balancer it is an endpoint."""

    name: Annotated[LocalName, doc("Name of the account, for metrics, logs and the ring.")]
    secret_ref: (
        Annotated[SecretRef, doc("Credential of the account. Without it and identity, requests are sent without one.")]
        | None
    ) = None
    identity: (
        Annotated[
            Identity,
            doc(
                "In the place of a Secret: the gateway's own identity at a cloud, from which short-lived credentials "
                "come and are renewed (docs/identities.md)."
            ),
        ]
        | None
    ) = None
    region: (
        Annotated[
            str,
            doc(
                "Region of the cloud that serves the account, such as us-east-1 or europe-west4; "
                "for VertexAI also global.",
                min_length=1,
                max_length=63,
            ),
        ]
        | None
    ) = None
    project: (
        Annotated[
            str,
            doc("Project of Google Cloud that pays for the account, by its ID or number.", max_length=63),
            pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ]
        | None
    ) = None
    weight: Annotated[Weight, doc("Share of the load relative to the other accounts of the pool.")] = 100
    limits: (
        Annotated[
            AccountLimits,
            doc("An account at a limit is passed over: its requests go to the others, then to the next tier, or wait."),
        ]
        | None
    ) = None

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel("!(has(self.secretRef) && has(self.identity))", "at most one of secretRef and identity may be set"),
    )


class Provider(Struct, frozen=True, rename={"base_url": "baseURL", "allow_plain_http": "allowPlainHTTP"}):
    """An external API whose accounts are the endpoints of the pool."""

    type: Annotated[
        ProviderType,
        doc(
            "Whose API it is: each is found at its own address unless baseURL says otherwise, and is only asked "
            "for what it serves (docs/providers.md). OpenAICompatible is any other server that speaks OpenAI's API."
        ),
    ]
    accounts: Annotated[
        tuple[Account, ...],
        doc(
            "Accounts share the load by weight; each has its own limits and its own circuit breaker.",
            min_length=1,
            max_length=16,
        ),
        map_list("name"),
    ]
    base_url: (
        Annotated[
            Url,
            doc(
                "Address of the API with its version path: https://api.example.com/v1. For AzureOpenAI the "
                "resource: https://NAME.openai.azure.com. For VertexAI a host stands for Google's own, for Bedrock for "
                "AWS's, such as that of a VPC endpoint."
            ),
        ]
        | None
    ) = None
    allow_plain_http: Annotated[
        bool,
        doc("Allows a baseURL with http. Credentials then travel in the clear; for test servers only."),
    ] = False
    proxy: Annotated[Proxy, doc("HTTP proxy through which the provider is reached.")] | None = None

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!(self.type in ['AzureOpenAI', 'OpenAICompatible']) || has(self.baseURL)",
            "baseURL is required for AzureOpenAI and OpenAICompatible",
        ),
        Cel(
            "!(self.type in ['Bedrock', 'VertexAI']) || self.accounts.all(a, has(a.region))",
            "region is required in every account of Bedrock and VertexAI",
        ),
        Cel(
            "self.type != 'VertexAI' || self.accounts.all(a, has(a.project))",
            "project is required in every account of VertexAI",
        ),
        Cel(
            "!has(self.baseURL) || self.allowPlainHTTP || self.baseURL.startsWith('https://')",
            "baseURL must use https unless allowPlainHTTP is true",
        ),
        Cel(
            "self.accounts.all(a, !has(a.identity) || self.type == (has(a.identity.aws) ? 'Bedrock' : "
            "has(a.identity.gcp) ? 'VertexAI' : 'AzureOpenAI'))",
            "an identity of aws is for Bedrock, one of gcp for VertexAI, one of azure for AzureOpenAI",
        ),
    )


class Source(Struct, frozen=True, rename="camel"):
    """Where the endpoints of a pool come from."""

    pods: Annotated[Pods, doc("Pods by their labels.")] | None = None
    service: Annotated[Service, doc("The ready addresses behind a Service.")] | None = None
    inference_pool: Annotated[InferencePool, doc("The Pods that an InferencePool selects.")] | None = None
    static: Annotated[Static, doc("Endpoints given by URL.")] | None = None
    provider: Annotated[Provider, doc("An external API; its accounts are the endpoints.")] | None = None

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "[has(self.pods), has(self.service), has(self.inferencePool), has(self.static), has(self.provider)]"
            ".filter(x, x).size() == 1",
            "exactly one of pods, service, inferencePool, static, provider must be set",
        ),
    )
