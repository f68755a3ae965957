"""The kind ModelPool: facts about endpoints that serve the same models."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Struct, field

from spillway_api.markup import INT32, SET, Cel, doc, map_list, pattern
from spillway_api.types.dispatch import Capacity, Dispatch
from spillway_api.types.egress import Tls
from spillway_api.types.fields import API_VERSION, ObjectMeta
from spillway_api.types.guard import DataHandling
from spillway_api.types.health import Health, Metrics
from spillway_api.types.limits import Budget
from spillway_api.types.price import EndpointCost, Price
from spillway_api.types.scaling import Scaling
from spillway_api.types.selector import LabelSelector
from spillway_api.types.source import Auth, Source

Engine = Literal["Auto", "vLLM", "SGLang", "Generic"]
Capability = Literal[
    "Chat",
    "Completions",
    "Responses",
    "Messages",
    "Embeddings",
    "Rerank",
    "Score",
    "Transcription",
    "Speech",
    "Images",
    "Tools",
    "Vision",
    "StructuredOutput",
]


class Model(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One model that the endpoints of a pool serve."""

    name: Annotated[
        str,
        doc("Name that routes and clients use.", min_length=1, max_length=253),
        pattern(r"^[^\s*?]+$"),
    ]
    upstream_name: (
        Annotated[
            str,
            doc("Name sent to the endpoint. Defaults to name.", min_length=1, max_length=253),
        ]
        | None
    ) = None
    price: (
        Annotated[
            Price, doc("Price of one million tokens, for budgets and what requests cost. Without one it is unknown.")
        ]
        | None
    ) = None
    context_window: (
        Annotated[
            int,
            doc(
                "Tokens that a prompt and its answer may have together. Requests that are longer, by estimate, are "
                "neither spilled here nor fall back to it. Without one it is unknown, and nothing is kept away.",
                ge=1,
            ),
            INT32,
        ]
        | None
    ) = None
    capabilities: Annotated[
        tuple[Capability, ...],
        doc(
            "What the model can do: APIs that it serves (Chat for /v1/chat/completions and so on) and what requests "
            "may ask of it (Tools, Vision, StructuredOutput). Where some are named it has these and no others, and "
            "gets no request that needs more; where none is named it is taken to have all but Messages. Chats and "
            "messages are translated for a model that has only the other of Chat and Messages.",
            max_length=16,
        ),
        SET,
    ] = ()
    quality_percent: (
        Annotated[
            int,
            doc(
                "Quality of the answers as the owner judges it, for tiers that select by Quality or ask for a minimum.",
                ge=0,
                le=100,
            ),
            INT32,
        ]
        | None
    ) = None


class AllowedRoutes(Struct, frozen=True, rename={"from_": "from"}):
    """Namespaces whose RoutePolicies may use the pool."""

    from_: Annotated[
        Literal["Same", "All", "Selector"],
        doc("The namespace of the pool only, every namespace, or those that the selector matches."),
    ] = "Same"
    selector: Annotated[LabelSelector, doc("Labels of the namespaces.")] | None = None

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "(self.from == 'Selector') == has(self.selector)",
            "selector is required with from Selector and forbidden otherwise",
        ),
    )


class ModelPoolSpec(Struct, frozen=True, rename="camel"):
    """Facts about endpoints that serve the same models."""

    models: Annotated[
        tuple[Model, ...],
        doc(
            "What the endpoints of this pool can serve. All endpoints serve all models.",
            min_length=1,
            max_length=64,
        ),
        map_list("name"),
    ]
    source: Annotated[Source, doc("Where the endpoints come from; exactly one kind of source.")]
    engine: Annotated[
        Engine,
        doc(
            "Server program behind the endpoints. Auto asks each endpoint; Generic is any other server that "
            "speaks OpenAI's API."
        ),
    ] = "Auto"
    dispatch: Annotated[
        Dispatch,
        doc(
            "How an endpoint of this pool is chosen. One pool has one ring and one load book, whichever "
            "route leads to it."
        ),
    ] = field(default_factory=Dispatch)
    auth: Annotated[Auth, doc("Credential that self-hosted endpoints ask for (vLLM --api-key).")] | None = None
    tls: Annotated[Tls, doc("How the certificates of endpoints are verified.")] | None = None
    capacity: Annotated[Capacity, doc("What one endpoint can take.")] = field(default_factory=Capacity)
    metrics: Annotated[
        Metrics,
        doc(
            "How the load of endpoints is read. Stale metrics never close an endpoint; the balancer then "
            "uses its own counts."
        ),
    ] = field(default_factory=Metrics)
    health: Annotated[
        Health, doc("When an endpoint takes traffic: by probes, and by what becomes of its requests.")
    ] = field(default_factory=Health)

    budget: (
        Annotated[
            Budget,
            doc(
                "Money that all routes together may spend here in each period; set aside before sending, and settled "
                "after."
            ),
        ]
        | None
    ) = None
    cost: (
        Annotated[
            EndpointCost,
            doc(
                "What endpoints of one's own cost, so that requests served here can be compared with those that are "
                "paid for elsewhere. Their tokens are counted then."
            ),
        ]
        | None
    ) = None
    scaling: (
        Annotated[
            Scaling,
            doc("The workload behind the pool. Spillway wakes it from zero; HPA or KEDA do the rest."),
        ]
        | None
    ) = None
    data_handling: (
        Annotated[
            DataHandling,
            doc(
                "Facts that data guards of routes compare. Unset means unknown, and a guard that needs it does not "
                "pass."
            ),
        ]
        | None
    ) = None
    allowed_routes: Annotated[
        AllowedRoutes, doc("Namespaces whose RoutePolicies may use this pool, beside its own.")
    ] = field(default_factory=AllowedRoutes)

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.source.provider) || self.engine == 'Auto'",
            "engine describes self-hosted servers and cannot be set with source.provider",
        ),
        Cel("!has(self.source.provider) || !has(self.scaling)", "scaling does not apply to source.provider"),
        Cel(
            "!has(self.source.provider) || !has(self.auth)",
            "use source.provider.accounts[].secretRef instead of auth",
        ),
        Cel(
            "!has(self.source.provider) || !has(self.cost)",
            "cost is that of endpoints of one's own; with source.provider use models[].price",
        ),
    )


class ModelPool(Struct, frozen=True, rename="camel", tag="ModelPool", tag_field="kind"):
    """Interchangeable endpoints that serve the same models."""

    metadata: ObjectMeta
    spec: Annotated[ModelPoolSpec, doc("Facts about endpoints: what they serve, where they are, how one is chosen.")]
    api_version: str = API_VERSION

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "size(self.metadata.name) <= 63",
            "name must be at most 63 characters, so that it fits metric and pod labels",
        ),
    )
