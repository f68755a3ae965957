"""The two kinds of `spillway.dev/v1alpha1` as types: the one truth of the API.

CRDs, defaults, the validation of files and the reference page are generated from these classes, so a setting
stands in one place. A field enters only when it works. Durations are strings here as in YAML;
`spillway_api.durations.seconds` turns them into numbers.
"""

from spillway_api.types.clamp import Clamp, ReasoningEffort
from spillway_api.types.consumers import ConsumerBudget, ConsumerLimits, Consumers, SecretSelector
from spillway_api.types.dispatch import (
    Capacity,
    Chwbl,
    Dispatch,
    KeySource,
    KeyType,
    LoadUnit,
    Overflow,
    StrategyName,
)
from spillway_api.types.egress import ConfigMapRef, Proxy, Tls
from spillway_api.types.explain import Explain, ExplainHeaders
from spillway_api.types.fields import (
    API_VERSION,
    GROUP,
    VERSION,
    Duration,
    LocalName,
    MetricName,
    ObjectMeta,
    ObjectName,
    Url,
    UrlPath,
    Weight,
)
from spillway_api.types.guard import DataHandling, Guard, Requirement, Sensitivity
from spillway_api.types.health import (
    ActiveHealth,
    Health,
    MetricNames,
    Metrics,
    MetricsMode,
    PassiveHealth,
    ProbeMode,
)
from spillway_api.types.hedge import Hedge
from spillway_api.types.identity import AwsIdentity, AzureIdentity, GcpIdentity, Identity
from spillway_api.types.limits import Budget, Limits, Period
from spillway_api.types.mirror import Mirror, MirrorPool
from spillway_api.types.modelpool import AllowedRoutes, Capability, Engine, Model, ModelPool, ModelPoolSpec
from spillway_api.types.overrides import Override, Overrides
from spillway_api.types.price import Amount, Currency, EndpointCost, LongContext, Money, Price
from spillway_api.types.queue import Fairness, Priority, Queue
from spillway_api.types.retry import Jitter, Retry, RetryOn, Timeouts
from spillway_api.types.routepolicy import PolicyMode, RoutePolicy, RoutePolicySpec, Rule
from spillway_api.types.scaling import FromZero, ScaleTarget, Scaling
from spillway_api.types.secretref import SecretRef
from spillway_api.types.selector import LabelRequirement, LabelSelector, matches
from spillway_api.types.source import (
    Account,
    AccountLimits,
    Auth,
    InferencePool,
    Pods,
    Provider,
    ProviderType,
    Service,
    Source,
    Static,
    StaticEndpoint,
)
from spillway_api.types.spill import DurationRamp, PercentRamp, Ramp, Spill, SpillBy, WhenCold
from spillway_api.types.streams import Streams
from spillway_api.types.tier import EnterOn, PoolRef, Select, Tier

__all__ = [
    "API_VERSION",
    "GROUP",
    "VERSION",
    "Account",
    "AccountLimits",
    "ActiveHealth",
    "AllowedRoutes",
    "Amount",
    "Auth",
    "AwsIdentity",
    "AzureIdentity",
    "Budget",
    "Capability",
    "Capacity",
    "Chwbl",
    "Clamp",
    "ConfigMapRef",
    "ConsumerBudget",
    "ConsumerLimits",
    "Consumers",
    "Currency",
    "DataHandling",
    "Dispatch",
    "Duration",
    "DurationRamp",
    "EndpointCost",
    "Engine",
    "EnterOn",
    "Explain",
    "ExplainHeaders",
    "Fairness",
    "FromZero",
    "GcpIdentity",
    "Guard",
    "Health",
    "Hedge",
    "Identity",
    "InferencePool",
    "Jitter",
    "KeySource",
    "KeyType",
    "LabelRequirement",
    "LabelSelector",
    "Limits",
    "LoadUnit",
    "LocalName",
    "LongContext",
    "MetricName",
    "MetricNames",
    "Metrics",
    "MetricsMode",
    "Mirror",
    "MirrorPool",
    "Model",
    "ModelPool",
    "ModelPoolSpec",
    "Money",
    "ObjectMeta",
    "ObjectName",
    "Overflow",
    "Override",
    "Overrides",
    "PassiveHealth",
    "PercentRamp",
    "Period",
    "Pods",
    "PolicyMode",
    "PoolRef",
    "Price",
    "Priority",
    "ProbeMode",
    "Provider",
    "ProviderType",
    "Proxy",
    "Queue",
    "Ramp",
    "ReasoningEffort",
    "Requirement",
    "Retry",
    "RetryOn",
    "RoutePolicy",
    "RoutePolicySpec",
    "Rule",
    "ScaleTarget",
    "Scaling",
    "SecretRef",
    "SecretSelector",
    "Select",
    "Sensitivity",
    "Service",
    "Source",
    "Spill",
    "SpillBy",
    "Static",
    "StaticEndpoint",
    "StrategyName",
    "Streams",
    "Tier",
    "Timeouts",
    "Tls",
    "Url",
    "UrlPath",
    "Weight",
    "WhenCold",
    "matches",
]
