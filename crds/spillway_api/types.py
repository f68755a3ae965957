"""The two kinds of `spillway.dev/v1alpha1` as types: the one truth of the API.

CRDs, defaults, the validation of files and the reference page are generated from these classes, so a setting
stands in one place. A field enters only when it works. Durations are strings here as in YAML;
`durations.seconds` turns them into numbers.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct, field

from spillway_api.markup import ATOMIC, INT32, SET, Cel, checked, doc, map_list, pattern

GROUP = "spillway.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

# A ring is built from names, and a name becomes a metric label: hence DNS labels and short bounds.
LocalName = Annotated[str, Meta(min_length=1, max_length=63), pattern(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
ObjectName = Annotated[str, Meta(min_length=1, max_length=63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Duration = Annotated[str, Meta(max_length=16), pattern(r"^([0-9]{1,5}(h|m|s|ms)){1,4}$")]
UrlPath = Annotated[str, Meta(max_length=256), pattern("^/")]
MetricName = Annotated[str, Meta(max_length=256), pattern(r"^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^{}]*\})?$")]
Weight = Annotated[int, Meta(ge=1, le=1000), INT32]
Url = Annotated[
    str,
    Meta(min_length=8, max_length=2048),
    checked(
        Cel(
            "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''",
            "must be an absolute http or https URL",
        ),
        Cel(
            "!isURL(self) || (size(url(self).getQuery()) == 0 && !self.contains('@') && !self.contains('#'))",
            "must hold no query, fragment or credentials",
        ),
        Cel(
            "!isURL(self) || !(url(self).getHostname() in ['169.254.169.254', 'fd00:ec2::254', "
            "'metadata.google.internal', 'kubernetes.default.svc'])",
            "must not name a metadata service or the Kubernetes API",
        ),
    ),
]

Engine = Literal["Auto", "vLLM", "SGLang", "Generic"]
ProviderType = Literal["OpenAI", "OpenAICompatible"]
StrategyName = Literal["CHWBL", "LeastLoad", "PowerOfTwo", "WeightedRoundRobin", "RoundRobin", "Random"]
LoadUnit = Literal["Requests", "Tokens"]
Overflow = Literal["NextOnRing", "LeastLoaded"]
KeyType = Literal["Header", "Body", "ClientIP", "Prefix"]
MetricsMode = Literal["Auto", "Prometheus", "None"]
ProbeMode = Literal["Auto", "HTTP", "None"]
Select = Literal["Weighted", "InOrder"]
EnterOn = Literal["Capacity", "Transient", "Auth", "Config", "ContextLength", "ContentPolicy"]
SpillBy = Literal["Key", "Request"]
RetryOn = Literal["ConnectError", "Reset", "FirstByteTimeout"]


class ObjectMeta(Struct, frozen=True, rename="camel"):
    """What Spillway reads of an object's metadata; everything else there belongs to Kubernetes."""

    name: str
    namespace: str = "default"
    creation_timestamp: str | None = None


class Model(Struct, frozen=True, rename="camel"):
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


class StaticEndpoint(Struct, frozen=True, rename="camel"):
    """One address given by hand."""

    name: Annotated[
        LocalName,
        doc("Name of the endpoint. It is its place on the ring, so it outlives a change of the url."),
    ]
    url: Annotated[
        Url,
        doc(
            "Root of the server, without /v1: http://127.0.0.1:9001. A path is put before every request path."
        ),
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


class Account(Struct, frozen=True, rename="camel"):
    """One account at a provider; to the balancer it is an endpoint."""

    name: Annotated[LocalName, doc("Name of the account, for metrics, logs and the ring.")]
    secret_ref: (
        Annotated[SecretRef, doc("Credential of the account. Without it requests are sent without one.")]
        | None
    ) = None
    weight: Annotated[Weight, doc("Share of the load relative to the other accounts of the pool.")] = 100


class Provider(Struct, frozen=True, rename={"base_url": "baseURL", "allow_plain_http": "allowPlainHTTP"}):
    """An external API whose accounts are the endpoints of the pool."""

    type: Annotated[
        ProviderType,
        doc(
            "Whose API it is. OpenAI is api.openai.com unless baseURL says otherwise; OpenAICompatible is "
            "any server that speaks the same API."
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
            doc("Address of the API with its version path: https://api.example.com/v1."),
        ]
        | None
    ) = None
    allow_plain_http: Annotated[
        bool,
        doc("Allows a baseURL with http. Credentials then travel in the clear; for test servers only."),
    ] = False

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!(self.type in ['OpenAICompatible']) || has(self.baseURL)",
            "baseURL is required for AzureOpenAI and OpenAICompatible",
        ),
        Cel(
            "!has(self.baseURL) || self.allowPlainHTTP || self.baseURL.startsWith('https://')",
            "baseURL must use https unless allowPlainHTTP is true",
        ),
    )


class Source(Struct, frozen=True, rename="camel"):
    """Where the endpoints of a pool come from."""

    static: Annotated[Static, doc("Endpoints given by URL.")] | None = None
    provider: Annotated[Provider, doc("An external API; its accounts are the endpoints.")] | None = None

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "[has(self.static), has(self.provider)].filter(x, x).size() == 1",
            "exactly one of static, provider must be set",
        ),
    )


class Chwbl(Struct, frozen=True, rename="camel"):
    """Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016)."""

    load_factor_percent: Annotated[
        int,
        doc(
            "How far above the mean load of the pool an endpoint may be before a request goes on to another. "
            "Low keeps the pool even, high keeps sessions where their cache is.",
            ge=100,
            le=1000,
        ),
        INT32,
    ] = 125
    vnodes: Annotated[
        int,
        doc("Points on the ring for an endpoint of weight 100.", ge=16, le=4096),
        INT32,
    ] = 256
    min_in_flight: Annotated[
        int,
        doc("An endpoint with fewer requests than this is never over its bound.", ge=0, le=10000),
        INT32,
    ] = 2
    overflow: Annotated[
        Overflow,
        doc(
            "Where a request goes when its endpoint is over the bound: the next one on the ring with room, "
            "or the least loaded of the pool."
        ),
    ] = "NextOnRing"


class KeySource(Struct, frozen=True, rename="camel"):
    """One place where the key of a session may be found."""

    type: Annotated[
        KeyType,
        doc(
            "Where the key is read: a request header, a field of the body, the address of the client, or the "
            "beginning of the conversation."
        ),
    ]
    name: (
        Annotated[
            str,
            doc(
                "Name of the header or of the body field; a body field may be a dotted path "
                "(metadata.session).",
                min_length=1,
                max_length=64,
            ),
            pattern(r"^[-A-Za-z0-9_.]+$"),
        ]
        | None
    ) = None
    chars: (
        Annotated[
            int,
            doc(
                "How many characters of the beginning are hashed. Absent means up to the end of the first "
                "message of the user.",
                ge=16,
                le=1048576,
            ),
            INT32,
        ]
        | None
    ) = None

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "(self.type in ['Header', 'Body']) == has(self.name)",
            "name is required for Header and Body and forbidden otherwise",
        ),
        Cel("self.type == 'Prefix' || !has(self.chars)", "chars applies to Prefix only"),
    )


class Dispatch(Struct, frozen=True, rename="camel"):
    """How an endpoint of the pool is chosen."""

    strategy: Annotated[
        StrategyName,
        doc(
            "How an endpoint is chosen. CHWBL keeps the requests of a session on one endpoint until that one "
            "has more than its share of the load; the others do not look at the session."
        ),
    ] = "CHWBL"
    load: Annotated[
        LoadUnit,
        doc("What counts as load - requests, or prompt and output tokens still to compute."),
    ] = "Tokens"
    chwbl: Annotated[Chwbl, doc("Settings of the strategy CHWBL.")] = field(default_factory=Chwbl)
    key: Annotated[
        tuple[KeySource, ...],
        doc(
            "The first source that yields a value is hashed. Without any, LeastLoad decides.",
            min_length=1,
            max_length=8,
        ),
        ATOMIC,
    ] = (
        KeySource(type="Header", name="x-session-id"),
        KeySource(type="Body", name="prompt_cache_key"),
        KeySource(type="Prefix"),
    )


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


class Capacity(Struct, frozen=True, rename="camel"):
    """What one endpoint can take."""

    max_in_flight_per_endpoint: Annotated[
        int,
        doc("Requests that one endpoint of weight 100 may hold. 0 means no bound.", ge=0),
        INT32,
    ] = 0


class MetricNames(Struct, frozen=True, rename="camel"):
    """Metric names that replace those of the engine's dialect."""

    waiting: Annotated[MetricName, doc("Gauge of requests that wait in the engine.")] | None = None
    running: Annotated[MetricName, doc("Gauge of requests that the engine computes.")] | None = None
    kv_cache_usage: Annotated[MetricName, doc("Gauge of the used part of the KV cache, 0 to 1.")] | None = (
        None
    )
    prefix_cache_queries: (
        Annotated[MetricName, doc("Counter of tokens looked up in the prefix cache.")] | None
    ) = None
    prefix_cache_hits: Annotated[MetricName, doc("Counter of tokens found in the prefix cache.")] | None = (
        None
    )


class Metrics(Struct, frozen=True, rename="camel"):
    """How the load of endpoints is read."""

    mode: Annotated[
        MetricsMode,
        doc(
            "Auto reads the metrics of self-hosted engines that have them, Prometheus insists on them, None "
            "leaves the balancer with its own counts."
        ),
    ] = "Auto"
    path: Annotated[UrlPath, doc("Path of the metrics page on each endpoint.")] = "/metrics"
    port: (
        Annotated[
            int,
            doc("Port of the metrics page, where it is not that of the endpoint.", ge=1, le=65535),
            INT32,
        ]
        | None
    ) = None
    interval: Annotated[Duration, doc("Time between two readings of one endpoint.")] = "1s"
    stale_after: Annotated[Duration, doc("Age from which a reading counts as unknown.")] = "5s"
    names: (
        Annotated[MetricNames, doc("Metric names that replace the built-in ones of the engine.")] | None
    ) = None

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "duration(self.staleAfter) >= duration(self.interval)",
            "staleAfter must not be shorter than interval",
        ),
        Cel("duration(self.interval) >= duration('100ms')", "interval must be at least 100ms"),
    )


class ActiveHealth(Struct, frozen=True, rename="camel"):
    """Probes: the balancer asks."""

    mode: Annotated[
        ProbeMode,
        doc("Auto probes self-hosted endpoints and leaves providers alone; HTTP probes always; None never."),
    ] = "Auto"
    path: (
        Annotated[UrlPath, doc("Path of the probe. Absent means the one of the engine (/health).")] | None
    ) = None
    interval: Annotated[Duration, doc("Time between two probes of one endpoint.")] = "5s"
    timeout: Annotated[Duration, doc("Time after which a probe without an answer has failed.")] = "2s"
    unhealthy_threshold: Annotated[
        int, doc("Failed probes in a row that make an endpoint unhealthy.", ge=1, le=100), INT32
    ] = 3
    healthy_threshold: Annotated[
        int, doc("Passed probes in a row that make it healthy again.", ge=1, le=100), INT32
    ] = 1


class PassiveHealth(Struct, frozen=True, rename="camel"):
    """The circuit breaker: the balancer learns from traffic."""

    consecutive_failures: Annotated[
        int,
        doc("Failures in a row that eject an endpoint. 0 turns this off.", ge=0, le=1000),
        INT32,
    ] = 3
    error_rate_percent: Annotated[
        int,
        doc("Share of failed requests within the window that ejects an endpoint.", ge=1, le=100),
        INT32,
    ] = 50
    min_requests: Annotated[
        int,
        doc("Requests within the window before the share of failures counts.", ge=1, le=10000),
        INT32,
    ] = 20
    window: Annotated[Duration, doc("Time over which the share of failures is taken.")] = "30s"
    base_ejection: Annotated[
        Duration, doc("How long the first ejection lasts; each further one in a row lasts twice as long.")
    ] = "5s"
    max_ejection: Annotated[Duration, doc("Longest time that an ejection lasts.")] = "5m"
    max_ejected_percent: Annotated[
        int,
        doc(
            "Largest part of the pool that may be ejected at a time, so that a bad day of all ejects none.",
            ge=0,
            le=100,
        ),
        INT32,
    ] = 50

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "duration(self.maxEjection) >= duration(self.baseEjection)",
            "maxEjection must not be shorter than baseEjection",
        ),
    )


class Health(Struct, frozen=True, rename="camel"):
    """When an endpoint takes traffic."""

    active: Annotated[ActiveHealth, doc("Probes that the balancer sends.")] = field(
        default_factory=ActiveHealth
    )
    passive: Annotated[
        PassiveHealth, doc("The circuit breaker of each endpoint, which learns from the requests themselves.")
    ] = field(default_factory=PassiveHealth)


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
        doc("Server program behind the endpoints. Auto asks each endpoint."),
    ] = "Auto"
    dispatch: Annotated[
        Dispatch,
        doc(
            "How an endpoint of this pool is chosen. One pool has one ring and one load book, whichever "
            "route leads to it."
        ),
    ] = field(default_factory=Dispatch)
    auth: Annotated[Auth, doc("Credential that self-hosted endpoints ask for (vLLM --api-key).")] | None = (
        None
    )
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

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "!has(self.source.provider) || self.engine == 'Auto'",
            "engine describes self-hosted servers and cannot be set with source.provider",
        ),
        Cel(
            "!has(self.source.provider) || !has(self.auth)",
            "use source.provider.accounts[].secretRef instead of auth",
        ),
    )


class ModelPool(Struct, frozen=True, rename="camel", tag="ModelPool", tag_field="kind"):
    """Interchangeable endpoints that serve the same models."""

    metadata: ObjectMeta
    spec: Annotated[
        ModelPoolSpec, doc("Facts about endpoints: what they serve, where they are, how one is chosen.")
    ]
    api_version: str = API_VERSION

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "size(self.metadata.name) <= 63",
            "name must be at most 63 characters, so that it fits metric and pod labels",
        ),
    )


class PoolRef(Struct, frozen=True, rename="camel"):
    """A pool as a tier uses it."""

    name: Annotated[ObjectName, doc("Name of a ModelPool in the namespace of the route.")]
    model: (
        Annotated[
            str,
            doc(
                "Model of the pool to use. Defaults to the one that serves the requested name.",
                min_length=1,
                max_length=253,
            ),
        ]
        | None
    ) = None
    weight: Annotated[
        int,
        doc("Share of the tier's requests, relative to its other pools. 0 takes none.", ge=0, le=1000),
        INT32,
    ] = 100


class Ramp(Struct, frozen=True, rename="camel"):
    """A load signal per endpoint: nothing leaves at `start`, everything at `full`."""

    start: Annotated[
        int, doc("Requests per ready endpoint from which requests begin to leave.", ge=0, le=100000), INT32
    ]
    full: Annotated[
        int, doc("Requests per ready endpoint at which all requests leave.", ge=1, le=100000), INT32
    ]

    RULES: ClassVar[tuple[Cel, ...]] = (Cel("self.full >= self.start", "full must not be below start"),)


class Spill(Struct, frozen=True, rename="camel"):
    """When requests leave a tier because of load."""

    in_flight_per_endpoint: (
        Annotated[
            Ramp,
            doc("Requests leave by the number in flight per ready endpoint of this tier."),
        ]
        | None
    ) = None
    when_unavailable: Annotated[bool, doc("Requests leave when no endpoint of this tier is ready.")] = True
    by: Annotated[
        SpillBy,
        doc("Which requests leave first - whole sessions by their key, or single requests at random."),
    ] = "Key"

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel("has(self.inFlightPerEndpoint) || self.whenUnavailable", "at least one signal must be set"),
    )


class Tier(Struct, frozen=True, rename="camel"):
    """Pools of equal preference."""

    name: Annotated[ObjectName, doc("Name of the tier, for metrics, logs and the response headers.")]
    pools: Annotated[
        tuple[PoolRef, ...],
        doc("The pools of this tier.", min_length=1, max_length=16),
        ATOMIC,
        checked(Cel("self.exists(p, p.weight > 0)", "at least one pool must have a weight above 0")),
    ]
    select: Annotated[
        Select,
        doc(
            "How one pool of several is chosen. Weighted is sticky by key, so that canary and A/B keep their "
            "users; InOrder takes the first that has a ready endpoint."
        ),
    ] = "Weighted"
    enter_on: Annotated[
        tuple[EnterOn, ...],
        doc(
            "Reasons that may bring a request here from the tier before. Ignored for the first tier.",
            min_length=1,
            max_length=8,
        ),
        SET,
    ] = ("Capacity", "Transient")
    spill: (
        Annotated[
            Spill,
            doc(
                "When requests leave this tier for the next one. The share that leaves rises from 0 at start "
                "to all at full."
            ),
        ]
        | None
    ) = None


class Rule(Struct, frozen=True, rename="camel"):
    """A list of tiers under a name."""

    name: Annotated[ObjectName, doc("Name of the rule, for metrics, logs and the response headers.")]
    tiers: Annotated[
        tuple[Tier, ...],
        doc("Ordered. A request goes to the first tier that is open to it.", min_length=1, max_length=8),
        map_list("name"),
    ]

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "size(self.tiers) == 0 || !has(self.tiers[size(self.tiers) - 1].spill)",
            "the last tier has no tier to spill to",
            ".tiers",
        ),
    )


class Timeouts(Struct, frozen=True, rename="camel"):
    """How long a request may take, step by step."""

    connect: Annotated[Duration, doc("Longest time to reach an endpoint.")] = "2s"
    first_byte: Annotated[
        Duration, doc("Longest time of one attempt until its first byte; includes waiting in the engine.")
    ] = "2m"
    stream_idle: Annotated[Duration, doc("Longest silence within an answer that has begun.")] = "1m"
    total: Annotated[Duration, doc("Longest time of the request with all its attempts.")] = "30m"

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "duration(self.total) >= duration(self.firstByte) && "
            "duration(self.firstByte) >= duration(self.connect)",
            "connect, firstByte and total must not decrease",
        ),
    )


class Retry(Struct, frozen=True, rename="camel"):
    """What is tried again, before the first byte of the answer."""

    attempts: Annotated[
        int, doc("Attempts of one request in all, the first one included.", ge=1, le=10), INT32
    ] = 3
    retry_on: Annotated[
        tuple[RetryOn, ...],
        doc("Failures of the connection after which another endpoint is tried.", max_length=8),
        SET,
    ] = ("ConnectError", "Reset")
    retry_status_codes: Annotated[
        tuple[Annotated[int, Meta(ge=400, le=599), INT32], ...],
        doc("Status codes of an endpoint after which another one is tried.", max_length=32),
        SET,
    ] = (429, 500, 502, 503, 504, 529)
    budget_percent: Annotated[
        int,
        doc(
            "Largest share of retries among the requests of the last seconds, against storms of retries.",
            ge=0,
            le=100,
        ),
        INT32,
    ] = 20


class RoutePolicySpec(Struct, frozen=True, rename="camel"):
    """Intent: which requests go where, in which order."""

    models: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=253), pattern(r"^[^\s*?]*\*?$")], ...],
        doc(
            "Public names that clients put into the model field; a trailing * matches any rest. Exact beats "
            "longer prefix beats shorter. A name belongs to the oldest RoutePolicy that claims it on a "
            "gateway; a later claim is Accepted=False, reason ModelNameConflict.",
            min_length=1,
            max_length=64,
        ),
        SET,
    ]
    rules: Annotated[
        tuple[Rule, ...],
        doc(
            "The rule that decides. Conditions between several rules do not exist yet, so there is one.",
            min_length=1,
            max_length=16,
        ),
        map_list("name"),
    ]
    gateways: Annotated[
        tuple[ObjectName, ...],
        doc("Balancers (by their name) that serve this route.", min_length=1, max_length=16),
        SET,
    ] = ("default",)
    timeouts: Annotated[Timeouts, doc("How long a request may take, step by step.")] = field(
        default_factory=Timeouts
    )
    retry: Annotated[
        Retry,
        doc(
            "Applies until the first byte of the answer is sent on. A failed endpoint is not tried again by "
            "the same request."
        ),
    ] = field(default_factory=Retry)

    RULES: ClassVar[tuple[Cel, ...]] = (
        # Without `when` every rule is one that leaves it out, and only the last may: so there is one.
        Cel("size(self.rules) <= 1", "only the last rule may leave out when", ".rules"),
    )


class RoutePolicy(Struct, frozen=True, rename="camel", tag="RoutePolicy", tag_field="kind"):
    """Public model names and the tiers of pools that serve them."""

    metadata: ObjectMeta
    spec: Annotated[RoutePolicySpec, doc("Intent: which requests go where, in which order.")]
    api_version: str = API_VERSION

    RULES: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "size(self.metadata.name) <= 63",
            "name must be at most 63 characters, so that it fits metric labels",
        ),
    )
