"""Every rule that the types state in CEL, as a table: `refusals.py` makes rows of it."""

from __future__ import annotations

from typing import Any

from tests.api.tables import ACCOUNT, ALLOWED, KEY, PODS, PROVIDER, SELECTED, SERVICE, SPILL, TIER

EXACTLY_ONE = "exactly one of pods, service, inferencePool, static, provider must be set"
EVERY_POD = "an empty selector would take every pod of the namespace"
VALUES = "values must be given for In and NotIn and left out for Exists and DoesNotExist"
PORT = "must be a number from 1 to 65535 or the name of a port"
SELECTOR = "selector is required with from Selector and forbidden otherwise"
ONE_CLOUD = "exactly one of aws, gcp, azure must be set"
OF_CLOUD = "an identity of aws is for Bedrock, one of gcp for VertexAI, one of azure for AzureOpenAI"
# base, edits, where it is shown, type of what the rule stands at, message
RULES: list[tuple[str, dict[str, Any], str, str, str]] = [
    (
        "pool",
        {"metadata.name": "n" * 64},
        "",
        "object",
        "name must be at most 63 characters, so that it fits metric and pod labels",
    ),
    (
        "policy",
        {"metadata.name": "n" * 64},
        "",
        "object",
        "name must be at most 63 characters, so that it fits metric labels",
    ),
    (
        "policy",
        {f"{TIER}.limits": {"maxSharePercent": 30}},
        "spec.rules[0].tiers",
        "object",
        "maxSharePercent limits a spill and does not apply to the first tier",
    ),
    (
        "provider",
        {"spec.engine": "vLLM"},
        "spec",
        "object",
        "engine describes self-hosted servers and cannot be set with source.provider",
    ),
    (
        "provider",
        {"spec.scaling": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"}}},
        "spec",
        "object",
        "scaling does not apply to source.provider",
    ),
    (
        "provider",
        {"spec.cost": {"perEndpointHour": "2.50"}},
        "spec",
        "object",
        "cost is that of endpoints of one's own; with source.provider use models[].price",
    ),
    (
        "provider",
        {"spec.auth": {"secretRef": {"name": "key"}}},
        "spec",
        "object",
        "use source.provider.accounts[].secretRef instead of auth",
    ),
    ("pool", {"spec.source": {}}, "spec.source", "object", EXACTLY_ONE),
    (
        "provider",
        {"spec.source.static": {"endpoints": [{"name": "a", "url": "http://a:1/"}]}},
        "spec.source",
        "object",
        EXACTLY_ONE,
    ),
    ("pods", {SERVICE: {"name": "engines", "port": 80}}, "spec.source", "object", EXACTLY_ONE),
    ("service", {"spec.source.inferencePool": {"name": "vllm"}}, "spec.source", "object", EXACTLY_ONE),
    ("pods", {f"{PODS}.selector": {}}, f"{PODS}.selector", "object", EVERY_POD),
    (
        "pods",
        {f"{PODS}.selector": {"matchLabels": {}, "matchExpressions": []}},
        f"{PODS}.selector",
        "object",
        EVERY_POD,
    ),
    ("pods", {f"{SELECTED}.values": "ABSENT"}, SELECTED, "object", VALUES),
    ("pods", {f"{SELECTED}.values": []}, SELECTED, "object", VALUES),
    ("pods", {f"{SELECTED}.operator": "Exists"}, SELECTED, "object", VALUES),
    ("pods", {f"{ALLOWED}.values": "ABSENT"}, ALLOWED, "object", VALUES),
    ("pods", {f"{ALLOWED}.operator": "DoesNotExist"}, ALLOWED, "object", VALUES),
    ("service", {f"{SERVICE}.port": 0}, f"{SERVICE}.port", "", PORT),
    ("service", {f"{SERVICE}.port": 65536}, f"{SERVICE}.port", "", PORT),
    ("service", {f"{SERVICE}.port": "Http"}, f"{SERVICE}.port", "", PORT),
    ("service", {f"{SERVICE}.port": ""}, f"{SERVICE}.port", "", PORT),
    ("pods", {"spec.allowedRoutes.from": "All"}, "spec.allowedRoutes", "object", SELECTOR),
    ("pods", {"spec.allowedRoutes.selector": "ABSENT"}, "spec.allowedRoutes", "object", SELECTOR),
    ("pool", {"spec.allowedRoutes": {"from": "Selector"}}, "spec.allowedRoutes", "object", SELECTOR),
    (
        "provider",
        {f"{PROVIDER}.type": "OpenAICompatible"},
        PROVIDER,
        "object",
        "baseURL is required for AzureOpenAI and OpenAICompatible",
    ),
    (
        "provider",
        {f"{PROVIDER}.type": "AzureOpenAI"},
        PROVIDER,
        "object",
        "baseURL is required for AzureOpenAI and OpenAICompatible",
    ),
    (
        "provider",
        {f"{PROVIDER}.baseURL": "http://host/v1"},
        PROVIDER,
        "object",
        "baseURL must use https unless allowPlainHTTP is true",
    ),
    (
        "proxied",
        {f"{PROVIDER}.proxy.url": "https://proxy:3128"},
        f"{PROVIDER}.proxy",
        "object",
        "a proxy is spoken to by http; what goes through it may be https",
    ),
    (
        "proxied",
        {"spec.tls.insecureSkipVerify": True},
        "spec.tls",
        "object",
        "caConfigMapRef says whom to believe and insecureSkipVerify to believe anybody: leave one out",
    ),
    (
        "lent",
        {f"{ACCOUNT}.secretRef": {"name": "key"}},
        ACCOUNT,
        "object",
        "at most one of secretRef and identity may be set",
    ),
    (
        "vertex",
        {f"{ACCOUNT}.region": "ABSENT"},
        PROVIDER,
        "object",
        "region is required in every account of Bedrock and VertexAI",
    ),
    (
        "bedrock",
        {f"{ACCOUNT}.region": "ABSENT"},
        PROVIDER,
        "object",
        "region is required in every account of Bedrock and VertexAI",
    ),
    (
        "vertex",
        {f"{ACCOUNT}.project": "ABSENT"},
        PROVIDER,
        "object",
        "project is required in every account of VertexAI",
    ),
    ("lent", {f"{ACCOUNT}.identity": {}}, f"{ACCOUNT}.identity", "object", ONE_CLOUD),
    ("lent", {f"{ACCOUNT}.identity.gcp": {}}, f"{ACCOUNT}.identity", "object", ONE_CLOUD),
    ("lent", {f"{PROVIDER}.type": "OpenAI"}, PROVIDER, "object", OF_CLOUD),
    ("lent", {f"{ACCOUNT}.identity": {"aws": {}}}, PROVIDER, "object", OF_CLOUD),
    ("lent", {f"{ACCOUNT}.identity": {"gcp": {}}}, PROVIDER, "object", OF_CLOUD),
    ("pool", {f"{KEY}.name": "ABSENT"}, KEY, "object", "name is required for Header and Body and forbidden otherwise"),
    (
        "pool",
        {"spec.dispatch.key[1].name": "x"},
        "spec.dispatch.key[1]",
        "object",
        "name is required for Header and Body and forbidden otherwise",
    ),
    ("pool", {f"{KEY}.chars": 100}, KEY, "object", "chars applies to Prefix only"),
    (
        "pool",
        {"spec.metrics.interval": "6s"},
        "spec.metrics",
        "object",
        "staleAfter must not be shorter than interval",
    ),
    ("pool", {"spec.metrics.interval": "99ms"}, "spec.metrics", "object", "interval must be at least 100ms"),
    (
        "pool",
        {"spec.health.passive.baseEjection": "5m1s"},
        "spec.health.passive",
        "object",
        "maxEjection must not be shorter than baseEjection",
    ),
    (
        "policy",
        {"spec.rules[1]": {"name": "b", "tiers": [{"name": "t", "pools": [{"name": "p"}]}]}},
        "spec.rules",
        "object",
        "only the last rule may leave out when",
    ),
    (
        "policy",
        {"spec.rules[0].tiers[1].spill": {}},
        "spec.rules[0].tiers",
        "object",
        "the last tier has no tier to spill to",
    ),
    (
        "policy",
        {f"{TIER}.pools": [{"name": "a", "weight": 0}, {"name": "b", "weight": 0}]},
        f"{TIER}.pools",
        "array",
        "at least one pool must have a weight above 0",
    ),
    ("policy", {SPILL: {"whenUnavailable": False}}, SPILL, "object", "at least one signal must be set"),
    (
        "policy",
        {f"{SPILL}.inFlightPerEndpoint.start": 9},
        f"{SPILL}.inFlightPerEndpoint",
        "object",
        "full must not be below start",
    ),
    *(
        (
            "policy",
            {f"{SPILL}.{signal}": {"start": start, "full": full}},
            f"{SPILL}.{signal}",
            "object",
            "full must not be below start",
        )
        for signal, start, full in (
            ("queuedPerEndpoint", 9, 8),
            ("predictedTTFT", "1s", "999ms"),
            ("kvCachePercent", 90, 89),
            ("errorPercent", 2, 1),
        )
    ),
    (
        "policy",
        {"spec.timeouts.connect": "121s"},
        "spec.timeouts",
        "object",
        "connect, firstByte and total must not decrease",
    ),
    (
        "policy",
        {"spec.timeouts.total": "119s"},
        "spec.timeouts",
        "object",
        "connect, firstByte and total must not decrease",
    ),
    ("hedged", {f"{TIER}.hedge.after": "9ms"}, f"{TIER}.hedge", "object", "after must be at least 10ms"),
    ("policy", {"spec.streams.keepAlive": "99ms"}, "spec.streams", "object", "keepAlive must be at least 100ms"),
    ("policy", {"spec.retry.backoffMax": "49ms"}, "spec.retry", "object", "backoffMax must not be below backoffBase"),
    (
        "policy",
        {"spec.retry.backoffBase": "2001ms"},
        "spec.retry",
        "object",
        "backoffMax must not be below backoffBase",
    ),
]
