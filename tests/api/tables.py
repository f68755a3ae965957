"""Every bound of every field, as tables: `refusals.py` makes rows of them; rules are in `rules.py`."""

from __future__ import annotations

from typing import get_args

from spillway_api.types import Capability, ProviderType, Select, StrategyName

ENDPOINT = "spec.source.static.endpoints[0]"
PROVIDER = "spec.source.provider"
ACCOUNT = f"{PROVIDER}.accounts[0]"
PROXY = f"{PROVIDER}.proxy"
IDENTITY = f"{ACCOUNT}.identity.azure"
PODS = "spec.source.pods"
SERVICE = "spec.source.service"
PRICE = "spec.models[0].price"
STEP = f"{PRICE}.longContext[0]"
SCALING = "spec.scaling"
KEY = "spec.dispatch.key[0]"
TIER = "spec.rules[0].tiers[0]"
MIRROR = "spec.mirror.pool"
GUARD = "spec.guards[0]"
LIMITS = "spec.rules[0].tiers[1].limits"
BUDGET = f"{LIMITS}.budget"
SELECTED = f"{PODS}.selector.matchExpressions[0]"
ALLOWED = "spec.allowedRoutes.selector.matchExpressions[0]"
PLACE = "^[A-Z0-9-]+$"
LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LOCAL = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
SECRET_NAME = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
SECRET_KEY = "^[-._a-zA-Z0-9]+$"
DURATION = "^([0-9]{1,5}(h|m|s|ms)){1,4}$"
EACH = "spec.consumers.defaults"
CALLERS = "spec.consumers.secretSelector.matchLabels"
UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
GOOGLE = r"^[-a-z0-9.]+@[-a-z0-9.]+\.gserviceaccount\.com$"
ROLE = r"^arn:aws[-a-z]*:iam::[0-9]{12}:role/[-A-Za-z0-9_+=,.@/]+$"
AMOUNT = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
CURRENCY = "^[A-Z]{3}$"
METRIC = r"^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^{}]*\})?$"

# base, path, lowest, highest (None: none)
NUMBERS = [
    ("pool", f"{ENDPOINT}.weight", 1, 1000),
    ("pool", "spec.models[0].contextWindow", 1, None),
    ("pool", "spec.models[0].qualityPercent", 0, 100),
    ("policy", f"{TIER}.minQualityPercent", 0, 100),
    ("provider", f"{ACCOUNT}.weight", 1, 1000),
    ("provider", f"{ACCOUNT}.limits.requestsPerMinute", 1, None),
    ("provider", f"{ACCOUNT}.limits.tokensPerMinute", 1, None),
    ("provider", f"{ACCOUNT}.limits.maxInFlight", 1, None),
    ("pods", f"{PODS}.ports[0]", 1, 65535),
    ("pool", "spec.dispatch.chwbl.loadFactorPercent", 100, 1000),
    ("pool", "spec.dispatch.chwbl.vnodes", 16, 4096),
    ("pool", "spec.dispatch.chwbl.minInFlight", 0, 10000),
    ("pool", "spec.dispatch.key[1].chars", 16, 1048576),
    ("pool", "spec.capacity.maxInFlightPerEndpoint", 0, None),
    ("pool", "spec.metrics.port", 1, 65535),
    ("pool", "spec.health.active.unhealthyThreshold", 1, 100),
    ("pool", "spec.health.active.healthyThreshold", 1, 100),
    ("pool", "spec.health.passive.consecutiveFailures", 0, 1000),
    ("pool", "spec.health.passive.errorRatePercent", 1, 100),
    ("pool", "spec.health.passive.minRequests", 1, 10000),
    ("pool", "spec.health.passive.maxEjectedPercent", 0, 100),
    ("policy", f"{TIER}.pools[0].weight", 0, 1000),
    ("policy", f"{TIER}.spill.inFlightPerEndpoint.start", 0, 100000),
    ("policy", f"{TIER}.spill.inFlightPerEndpoint.full", 1, 100000),
    ("policy", f"{TIER}.spill.queuedPerEndpoint.start", 0, 100000),
    ("policy", f"{TIER}.spill.queuedPerEndpoint.full", 1, 100000),
    ("policy", f"{TIER}.spill.kvCachePercent.start", 0, 100),
    ("policy", f"{TIER}.spill.kvCachePercent.full", 1, 100),
    ("policy", f"{TIER}.spill.errorPercent.start", 0, 100),
    ("policy", f"{TIER}.spill.errorPercent.full", 1, 100),
    ("pool", "spec.dataHandling.retentionDays", 0, None),
    ("hedged", f"{TIER}.hedge.maxPercent", 1, 100),
    ("scaled", f"{SCALING}.wakeReplicas", 1, 1000),
    ("stepped", f"{STEP}.above", 1, None),
    ("policy", "spec.queue.maxRequests", 0, 1000000),
    ("policy", "spec.queue.maxBytes", 0, None),
    ("policy", "spec.priority.default", -1000, 1000),
    ("policy", f"{LIMITS}.maxSharePercent", 0, 100),
    ("policy", f"{LIMITS}.requestsPerMinute", 1, None),
    ("policy", f"{LIMITS}.tokensPerMinute", 1, None),
    ("policy", "spec.retry.attempts", 1, 10),
    ("closed", f"{EACH}.requestsPerMinute", 1, None),
    ("closed", f"{EACH}.tokensPerMinute", 1, None),
    ("closed", f"{EACH}.maxInFlight", 1, None),
    ("mirrored", "spec.mirror.percent", 0, 100),
    ("policy", "spec.explain.auditLogPercent", 0, 100),
    ("policy", "spec.rules[0].set.maxOutputTokens", 1, None),
    ("policy", "spec.retry.budgetPercent", 0, 100),
    ("policy", "spec.retry.retryStatusCodes[0]", 400, 599),
]

# base, path, shortest, longest, pattern, one that fits, one that does not
TEXTS = [
    ("pool", "spec.models[0].name", 1, 253, r"^[^\s*?]+$", "org/model:8b", "a b"),
    ("pool", "spec.models[0].upstreamName", 1, 253, None, "any name", None),
    ("choosy", f"{TIER}.maxCost.amount", 0, 20, AMOUNT, "0.002", "0,5"),
    ("choosy", f"{TIER}.maxCost.currency", 0, 3, CURRENCY, "EUR", "eur"),
    ("pool", f"{PRICE}.input", 0, 20, AMOUNT, "0.25", "-1"),
    ("pool", f"{PRICE}.cachedInput", 0, 20, AMOUNT, "0", "1."),
    ("pool", f"{PRICE}.output", 0, 20, AMOUNT, "999999999.999999999", "1e3"),
    ("pool", f"{PRICE}.cacheWrite", 0, 20, AMOUNT, "3.75", "+1"),
    ("pool", f"{PRICE}.cacheWriteLong", 0, 20, AMOUNT, "6", ".5"),
    ("pool", f"{PRICE}.reasoning", 0, 20, AMOUNT, "3", "1,5"),
    ("stepped", f"{STEP}.input", 0, 20, AMOUNT, "2.50", "-1"),
    ("stepped", f"{STEP}.cachedInput", 0, 20, AMOUNT, "0.25", "1."),
    ("stepped", f"{STEP}.cacheWrite", 0, 20, AMOUNT, "7.5", "+1"),
    ("stepped", f"{STEP}.cacheWriteLong", 0, 20, AMOUNT, "12", ".5"),
    ("stepped", f"{STEP}.output", 0, 20, AMOUNT, "15", "1e3"),
    ("stepped", f"{STEP}.reasoning", 0, 20, AMOUNT, "15", "1,5"),
    ("pool", f"{PRICE}.currency", 0, 3, CURRENCY, "EUR", "eur"),
    ("pool", f"{ENDPOINT}.name", 1, 63, LOCAL, "gpu-0", "0-gpu"),
    ("provider", f"{ACCOUNT}.name", 1, 63, LOCAL, "main", "Main"),
    ("provider", f"{ACCOUNT}.secretRef.name", 1, 253, SECRET_NAME, "a.b-c", "a_b"),
    ("provider", f"{ACCOUNT}.secretRef.key", 1, 253, SECRET_KEY, "API_KEY.txt", "a/b"),
    ("provider", f"{ACCOUNT}.region", 1, 63, None, "us-east-1", None),
    ("provider", f"{ACCOUNT}.project", 0, 63, LABEL, "ml-team-12", "ML_team"),
    ("vertex", f"{ACCOUNT}.identity.gcp.serviceAccount", 0, 256, GOOGLE, "a@b-1.iam.gserviceaccount.com", "a@b.com"),
    ("bedrock", f"{ACCOUNT}.identity.aws.roleArn", 0, 256, ROLE, "arn:aws-us-gov:iam::123456789012:role/a/b", "role/a"),
    ("lent", f"{IDENTITY}.tenantID", 0, 36, UUID, "72F988BF-86f1-41af-91ab-2d7cd011db47", "contoso"),
    ("lent", f"{IDENTITY}.clientID", 0, 36, UUID, "72f988bf-86f1-41af-91ab-2d7cd011db47", "spillway"),
    ("pods", f"{SELECTED}.key", 1, 317, None, "any.key/x", None),
    ("pods", f"{SELECTED}.values[0]", 0, 63, None, "b", None),
    ("pods", f"{PODS}.selector.matchLabels.app", 0, 63, None, "b", None),
    ("pods", "spec.allowedRoutes.selector.matchLabels.app", 0, 63, None, "b", None),
    ("pods", f"{ALLOWED}.values[0]", 0, 63, None, "b", None),
    ("pods", f"{PODS}.weightAnnotation", 1, 317, None, "any.key/x", None),
    ("pods", f"{ALLOWED}.key", 1, 317, None, "any.key/x", None),
    ("service", f"{SERVICE}.name", 1, 63, LOCAL, "engines", "0-engines"),
    ("service", f"{SERVICE}.port", 0, 15, None, "http-8000", None),
    ("inference", "spec.source.inferencePool.name", 1, 253, SECRET_NAME, "a.b-c", "a_b"),
    ("proxied", f"{PROXY}.secretRef.name", 1, 253, SECRET_NAME, "a.b-c", "a_b"),
    ("proxied", f"{PROXY}.secretRef.key", 1, 253, SECRET_KEY, "login.txt", "a/b"),
    ("proxied", "spec.tls.caConfigMapRef.name", 1, 253, SECRET_NAME, "a.b-c", "a_b"),
    ("proxied", "spec.tls.caConfigMapRef.key", 1, 253, SECRET_KEY, "ca.pem", "a/b"),
    ("proxied", "spec.tls.serverName", 1, 253, "^[-A-Za-z0-9_.]+$", "llm.internal", "a b"),
    ("pool", "spec.auth.secretRef.name", 1, 253, SECRET_NAME, "key", "-key"),
    ("pool", "spec.auth.secretRef.key", 1, 253, SECRET_KEY, "token", "a b"),
    ("pool", "spec.auth.header", 0, 64, "^[-A-Za-z0-9]+$", "X-Api-Key", "X_Api_Key"),
    ("pool", "spec.auth.prefix", 0, 32, None, "Token ", None),
    ("pool", f"{KEY}.name", 1, 64, "^[-A-Za-z0-9_.]+$", "x-user_id.1", "x y"),
    ("pool", "spec.metrics.path", 0, 256, "^/", "/m", "metrics"),
    ("pool", "spec.metrics.interval", 0, 16, DURATION, "500ms", "1.5s"),
    ("pool", "spec.metrics.staleAfter", 0, 16, DURATION, "1m30s", "5"),
    ("pool", "spec.metrics.names.waiting", 0, 256, METRIC, "a:b", "1a"),
    ("pool", "spec.metrics.names.running", 0, 256, METRIC, 'a{b="c"}', "a{b}c"),
    ("pool", "spec.metrics.names.kvCacheUsage", 0, 256, METRIC, "_", "a-b"),
    ("pool", "spec.metrics.names.prefixCacheQueries", 0, 256, METRIC, "q_total", "é"),
    ("pool", "spec.metrics.names.prefixCacheHits", 0, 256, METRIC, "h", "a b"),
    ("pool", "spec.health.active.path", 0, 256, "^/", "/ready", "ready"),
    ("pool", "spec.health.active.interval", 0, 16, DURATION, "1s", "s"),
    ("pool", "spec.health.active.timeout", 0, 16, DURATION, "0s", "-1s"),
    ("pool", "spec.health.passive.window", 0, 16, DURATION, "1h1m1s1ms", "1h1m1s1ms1s"),
    ("pool", "spec.health.passive.baseEjection", 0, 16, DURATION, "1s", "123456s"),
    ("pool", "spec.health.passive.maxEjection", 0, 16, DURATION, "99999h", "1d"),
    ("pool", "spec.health.slowStart", 0, 16, DURATION, "1m", "1m "),
    ("policy", "spec.gateways[0]", 1, 63, LABEL, "0-eu", "eu_1"),
    ("policy", "spec.models[0]", 1, 253, r"^[^\s*?]*\*?$", "claude-*", "a*b"),
    ("policy", "spec.rules[0].name", 1, 63, LABEL, "a", "A"),
    ("policy", "spec.rules[0].when", 1, 2048, None, "true", None),
    ("pool", "spec.dataHandling.jurisdictions[0]", 2, 32, PLACE, "EU", "eu"),
    ("guarded", "spec.overrides.when", 1, 2048, None, "true", None),
    ("guarded", f"{GUARD}.name", 1, 63, LABEL, "eu-only", "EU"),
    ("guarded", f"{GUARD}.when", 1, 2048, None, "true", None),
    ("guarded", f"{GUARD}.require.jurisdictions[0]", 2, 32, PLACE, "US-CA", "US_CA"),
    ("policy", f"{TIER}.name", 1, 63, LABEL, "a", "a-"),
    ("closed", f"{CALLERS}.app", 0, 63, None, "b", None),
    ("closed", f"{EACH}.budget.amount", 0, 20, AMOUNT, "0.25", "-1"),
    ("closed", f"{EACH}.budget.currency", 0, 3, CURRENCY, "EUR", "eur"),
    ("funded", "spec.budget.amount", 0, 20, AMOUNT, "0.25", "-1"),
    ("funded", "spec.budget.currency", 0, 3, CURRENCY, "EUR", "eur"),
    ("policy", f"{TIER}.pools[0].name", 1, 63, LABEL, "a", "a.b"),
    ("policy", f"{TIER}.pools[0].namespace", 1, 63, LABEL, "team-a", "team_a"),
    ("policy", f"{TIER}.pools[0].model", 1, 253, None, "any name", None),
    ("mirrored", f"{MIRROR}.name", 1, 63, LABEL, "a", "a.b"),
    ("mirrored", f"{MIRROR}.namespace", 1, 63, LABEL, "team-a", "team_a"),
    ("mirrored", f"{MIRROR}.model", 1, 253, None, "any name", None),
    ("scaled", f"{SCALING}.targetRef.apiVersion", 1, 317, None, "apps/v1", None),
    ("scaled", f"{SCALING}.targetRef.kind", 1, 63, None, "Deployment", None),
    ("scaled", f"{SCALING}.targetRef.name", 1, 253, SECRET_NAME, "a.b-c", "a_b"),
    ("policy", f"{TIER}.spill.holdFor", 0, 16, DURATION, "10s", "10"),
    ("policy", "spec.queue.coldStartMaxWait", 0, 16, DURATION, "5m", "5 m"),
    ("policy", "spec.queue.maxWait", 0, 16, DURATION, "5s", "5"),
    ("policy", "spec.priority.header", 0, 64, "^[-A-Za-z0-9]+$", "X-Priority", "X_Priority"),
    ("policy", f"{BUDGET}.amount", 0, 20, AMOUNT, "50.00", "$50"),
    ("policy", f"{BUDGET}.currency", 0, 3, CURRENCY, "EUR", "€"),
    ("policy", "spec.timeouts.connect", 0, 16, DURATION, "1s", "1 s"),
    ("policy", "spec.timeouts.firstByte", 0, 16, DURATION, "2m", "2 min"),
    ("policy", "spec.timeouts.streamIdle", 0, 16, DURATION, "10s", "10s\n"),
    ("policy", "spec.timeouts.total", 0, 16, DURATION, "1h", "∞"),
    ("policy", "spec.retry.backoffBase", 0, 16, DURATION, "0s", "0"),
    ("policy", "spec.retry.backoffMax", 0, 16, DURATION, "5s", "5 s"),
    ("thrifty", "spec.retry.maxCost.amount", 0, 20, AMOUNT, "0.50", "1e3"),
    ("thrifty", "spec.retry.maxCost.currency", 0, 3, CURRENCY, "EUR", "eur"),
    ("policy", "spec.retry.maxRetryAfter", 0, 16, DURATION, "1m", "1 m"),
    ("hedged", f"{TIER}.hedge.after", 0, 16, DURATION, "800ms", "0.8s"),
    ("policy", "spec.streams.keepAlive", 0, 16, DURATION, "100ms", "0.1s"),
    ("policy", f"{TIER}.spill.predictedTTFT.start", 0, 16, DURATION, "500ms", "0.5s"),
    ("policy", f"{TIER}.spill.predictedTTFT.full", 0, 16, DURATION, "1m", "1min"),
    ("policy", f"{TIER}.spill.smoothing", 0, 16, DURATION, "0s", "0"),
    ("policy", f"{TIER}.spill.minDwell", 0, 16, DURATION, "1m30s", "1m 30s"),
]

SENSITIVITIES = ["Public", "Internal", "Confidential", "Restricted"]
# base, path, what is supported
CHOICES = [
    ("pool", "spec.engine", ["Auto", "vLLM", "SGLang", "Generic"]),
    ("pool", "spec.models[0].capabilities[0]", [*get_args(Capability)]),
    ("provider", f"{PROVIDER}.type", [*get_args(ProviderType)]),
    ("pods", f"{PODS}.scheme", ["http", "https"]),
    ("pods", f"{SELECTED}.operator", ["In", "NotIn", "Exists", "DoesNotExist"]),
    ("service", f"{SERVICE}.scheme", ["http", "https"]),
    ("pods", "spec.allowedRoutes.from", ["Same", "All", "Selector"]),
    ("pods", f"{ALLOWED}.operator", ["In", "NotIn", "Exists", "DoesNotExist"]),
    ("pool", "spec.dispatch.strategy", [*get_args(StrategyName)]),
    ("pool", "spec.dispatch.load", ["Requests", "Tokens"]),
    ("pool", "spec.dispatch.chwbl.overflow", ["NextOnRing", "LeastLoaded"]),
    ("pool", f"{KEY}.type", ["Header", "Body", "ClientIP", "Prefix"]),
    ("pool", "spec.metrics.mode", ["Auto", "Prometheus", "None"]),
    ("pool", "spec.health.active.mode", ["Auto", "HTTP", "None"]),
    ("pool", "spec.dataHandling.maxSensitivity", SENSITIVITIES),
    ("guarded", f"{GUARD}.require.maxSensitivity", SENSITIVITIES),
    ("policy", "spec.rules[0].set.reasoningEffort", ["none", "minimal", "low", "medium", "high"]),
    ("guarded", "spec.overrides.allow[0]", ["Rule", "Pool", "NoFallback"]),
    ("policy", "spec.explain.headers", ["Never", "OnRequest", "Always"]),
    ("policy", f"{TIER}.select", [*get_args(Select)]),
    (
        "policy",
        f"{TIER}.enterOn[0]",
        ["Capacity", "Transient", "Auth", "Config", "ContextLength", "ContentPolicy", "Budget"],
    ),
    ("scaled", f"{SCALING}.fromZero", ["Disabled", "Wake"]),
    ("policy", f"{TIER}.spill.whenCold", ["Hold", "Spill", "HoldThenSpill"]),
    ("policy", f"{TIER}.spill.by", ["Key", "Request"]),
    ("closed", f"{EACH}.budget.period", ["Hour", "Day", "Week", "Month"]),
    ("funded", "spec.budget.period", ["Hour", "Day", "Week", "Month"]),
    ("policy", "spec.mode", ["Enforce", "Shadow"]),
    ("policy", "spec.queue.fairness", ["None", "Consumer", "Session"]),
    ("policy", f"{BUDGET}.period", ["Hour", "Day", "Week", "Month"]),
    ("policy", "spec.retry.retryOn[0]", ["ConnectError", "Reset", "FirstByteTimeout"]),
    ("policy", "spec.retry.jitter", ["Full", "Equal", "None"]),
    ("policy", "spec.streams.resume", ["Never", "SameModel"]),
]

_TIER = {"name": "t{}", "pools": [{"name": "llama"}]}
# base, path, fewest, most, an entry ({} and int become its index), how a second equal one is reported (None: it may be)
LISTS = [
    ("pool", "spec.models", 1, 64, {"name": "m{}"}, '{"name":"m0"}'),
    ("pool", "spec.source.static.endpoints", 1, 64, {"name": "e{}", "url": "http://a:1/"}, '{"name":"e0"}'),
    ("provider", f"{PROVIDER}.accounts", 1, 16, {"name": "a{}"}, '{"name":"a0"}'),
    ("pool", "spec.dispatch.key", 1, 8, {"type": "Header", "name": "h{}"}, None),
    ("pods", f"{PODS}.selector.matchExpressions", 0, 16, {"key": "k{}", "operator": "Exists"}, None),
    ("pods", f"{SELECTED}.values", 0, 64, "v{}", None),
    ("pods", f"{ALLOWED}.values", 0, 64, "v{}", None),
    ("pods", "spec.allowedRoutes.selector.matchExpressions", 0, 16, {"key": "k{}", "operator": "Exists"}, None),
    ("policy", "spec.gateways", 1, 16, "g{}", '"g0"'),
    ("policy", "spec.models", 1, 64, "m{}", '"m0"'),
    ("guarded", "spec.guards", 0, 16, {"name": "g{}", "require": {"maxSensitivity": "Public"}}, '{"name":"g0"}'),
    ("guarded", f"{GUARD}.require.jurisdictions", 1, 32, "EU-{}", '"EU-0"'),
    ("pool", "spec.dataHandling.jurisdictions", 0, 32, "EU-{}", '"EU-0"'),
    ("policy", "spec.rules[0].tiers", 1, 8, _TIER, '{"name":"t0"}'),
    ("policy", f"{TIER}.pools", 1, 16, {"name": "p{}"}, None),
    ("stepped", f"{PRICE}.longContext", 0, 4, {"above": int}, '{"above":1}'),
]

REQUIRED = [
    ("pods", f"{PODS}.selector"),
    ("pods", f"{PODS}.ports"),
    ("pods", f"{SELECTED}.key"),
    ("pods", f"{SELECTED}.operator"),
    ("pods", f"{ALLOWED}.key"),
    ("pods", f"{ALLOWED}.operator"),
    ("service", f"{SERVICE}.name"),
    ("service", f"{SERVICE}.port"),
    ("inference", "spec.source.inferencePool.name"),
    ("pool", "spec"),
    ("pool", "spec.models"),
    ("pool", "spec.models[0].name"),
    ("pool", "spec.source"),
    ("pool", "spec.source.static.endpoints"),
    ("pool", f"{ENDPOINT}.name"),
    ("pool", f"{ENDPOINT}.url"),
    ("provider", f"{PROVIDER}.type"),
    ("provider", f"{PROVIDER}.accounts"),
    ("stepped", f"{STEP}.above"),
    ("provider", f"{ACCOUNT}.name"),
    ("provider", f"{ACCOUNT}.secretRef.name"),
    ("proxied", f"{PROXY}.url"),
    ("proxied", f"{PROXY}.secretRef.name"),
    ("proxied", "spec.tls.caConfigMapRef.name"),
    ("pool", f"{KEY}.type"),
    ("pool", "spec.auth.secretRef"),
    ("pool", "spec.auth.secretRef.name"),
    ("scaled", f"{SCALING}.targetRef"),
    ("scaled", f"{SCALING}.targetRef.apiVersion"),
    ("scaled", f"{SCALING}.targetRef.kind"),
    ("scaled", f"{SCALING}.targetRef.name"),
    ("policy", "spec"),
    ("policy", "spec.models"),
    ("policy", "spec.rules"),
    ("policy", "spec.rules[0].name"),
    ("policy", "spec.rules[0].tiers"),
    ("guarded", "spec.overrides.allow"),
    ("guarded", f"{GUARD}.name"),
    ("guarded", f"{GUARD}.require"),
    ("policy", f"{TIER}.name"),
    ("closed", "spec.consumers.secretSelector"),
    ("closed", CALLERS),
    ("closed", f"{EACH}.budget.amount"),
    ("funded", "spec.budget.amount"),
    ("policy", f"{TIER}.pools"),
    ("policy", f"{TIER}.pools[0].name"),
    ("choosy", f"{TIER}.maxCost.amount"),
    ("thrifty", "spec.retry.maxCost.amount"),
    ("mirrored", "spec.mirror.pool"),
    ("mirrored", "spec.mirror.percent"),
    ("mirrored", f"{MIRROR}.name"),
    ("hedged", f"{TIER}.hedge.after"),
    ("policy", f"{BUDGET}.amount"),
    ("policy", f"{TIER}.spill.inFlightPerEndpoint.start"),
    ("policy", f"{TIER}.spill.inFlightPerEndpoint.full"),
    ("policy", f"{TIER}.spill.queuedPerEndpoint.start"),
    ("policy", f"{TIER}.spill.queuedPerEndpoint.full"),
    ("policy", f"{TIER}.spill.predictedTTFT.start"),
    ("policy", f"{TIER}.spill.predictedTTFT.full"),
    ("policy", f"{TIER}.spill.kvCachePercent.start"),
    ("policy", f"{TIER}.spill.kvCachePercent.full"),
    ("policy", f"{TIER}.spill.errorPercent.start"),
    ("policy", f"{TIER}.spill.errorPercent.full"),
]

NOT_ABSOLUTE = "must be an absolute http or https URL"
NOT_BARE = "must hold no query, fragment or credentials"
NOT_ALLOWED = "must not name a metadata service or the Kubernetes API"
URLS = [
    ("pool", f"{ENDPOINT}.url", "https"),
    ("provider", f"{PROVIDER}.baseURL", "https"),
    ("proxied", f"{PROXY}.url", "http"),
]
"""And the scheme that each takes."""
BAD_URLS = {
    "ftp://host/": NOT_ABSOLUTE,
    "host-without-scheme": NOT_ABSOLUTE,
    "https:///path": NOT_ABSOLUTE,
    "https://a b/": NOT_ABSOLUTE,
    "https://host:port/": NOT_ABSOLUTE,
    "https://host/?a=b": NOT_BARE,
    "https://host/#there": NOT_BARE,
    "https://user@host/": NOT_BARE,
    "https://169.254.169.254/latest": NOT_ALLOWED,
    "https://[fd00:ec2::254]:80/": NOT_ALLOWED,
    "https://metadata.google.internal/": NOT_ALLOWED,
    "https://kubernetes.default.svc": NOT_ALLOWED,
}

SPILL = f"{TIER}.spill"
TYPES = [
    ("pool", "spec", [], "object", "array"),
    ("pool", "spec.models", "llama", "array", "string"),
    ("pool", "spec.models[0]", 3, "object", "integer"),
    ("pool", "spec.models[0].name", 3, "string", "integer"),
    ("pool", "spec.models[0].name", 1.5, "string", "number"),
    ("pool", "spec.models[0].name", True, "string", "boolean"),
    ("policy", "spec.gateways[0]", None, "string", "null"),
    ("policy", f"{SPILL}.whenUnavailable", "yes", "boolean", "string"),
    ("pool", f"{ENDPOINT}.weight", "5", "integer", "string"),
    ("pool", f"{ENDPOINT}.weight", 1.5, "integer", "number"),
    ("pool", f"{ENDPOINT}.weight", False, "integer", "boolean"),
    ("pool", f"{ENDPOINT}.weight", 2**63, "integer", "number"),
    ("pool", "spec.dispatch", "CHWBL", "object", "string"),
    ("service", f"{SERVICE}.port", True, "integer,string", "boolean"),
    ("service", f"{SERVICE}.port", 80.5, "integer,string", "number"),
    ("pods", f"{PODS}.selector.matchLabels", ["app"], "object", "array"),
    ("pods", f"{PODS}.selector.matchLabels.app", 8, "string", "integer"),
]
