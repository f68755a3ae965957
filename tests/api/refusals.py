"""What the API refuses, word for word as the API server does: every bound and every rule of every field, as tables.

One truth for two: `test_api_refusals.py` holds files and `spillway lint` to it, `tests/kube/test_refusals.py` a real
kube-apiserver. A row is a base object, edits that break it, and the error that must come of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from spillway_api.types import StrategyName

ENDPOINT = "spec.source.static.endpoints[0]"
PROVIDER = "spec.source.provider"
ACCOUNT = f"{PROVIDER}.accounts[0]"
KEY = "spec.dispatch.key[0]"
TIER = "spec.rules[0].tiers[0]"
LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LOCAL = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
SECRET_NAME = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
SECRET_KEY = "^[-._a-zA-Z0-9]+$"
DURATION = "^([0-9]{1,5}(h|m|s|ms)){1,4}$"
METRIC = r"^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^{}]*\})?$"

# base, path, lowest, highest (None: none)
NUMBERS = [
    ("pool", f"{ENDPOINT}.weight", 1, 1000),
    ("provider", f"{ACCOUNT}.weight", 1, 1000),
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
    ("policy", "spec.retry.attempts", 1, 10),
    ("policy", "spec.retry.budgetPercent", 0, 100),
    ("policy", "spec.retry.retryStatusCodes[0]", 400, 599),
]

# base, path, shortest, longest, pattern, one that fits, one that does not
TEXTS = [
    ("pool", "spec.models[0].name", 1, 253, r"^[^\s*?]+$", "org/model:8b", "a b"),
    ("pool", "spec.models[0].upstreamName", 1, 253, None, "any name", None),
    ("pool", f"{ENDPOINT}.name", 1, 63, LOCAL, "gpu-0", "0-gpu"),
    ("provider", f"{ACCOUNT}.name", 1, 63, LOCAL, "main", "Main"),
    ("provider", f"{ACCOUNT}.secretRef.name", 1, 253, SECRET_NAME, "a.b-c", "a_b"),
    ("provider", f"{ACCOUNT}.secretRef.key", 1, 253, SECRET_KEY, "API_KEY.txt", "a/b"),
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
    ("policy", "spec.gateways[0]", 1, 63, LABEL, "0-eu", "eu_1"),
    ("policy", "spec.models[0]", 1, 253, r"^[^\s*?]*\*?$", "claude-*", "a*b"),
    ("policy", "spec.rules[0].name", 1, 63, LABEL, "a", "A"),
    ("policy", f"{TIER}.name", 1, 63, LABEL, "a", "a-"),
    ("policy", f"{TIER}.pools[0].name", 1, 63, LABEL, "a", "a.b"),
    ("policy", f"{TIER}.pools[0].model", 1, 253, None, "any name", None),
    ("policy", "spec.timeouts.connect", 0, 16, DURATION, "1s", "1 s"),
    ("policy", "spec.timeouts.firstByte", 0, 16, DURATION, "2m", "2 min"),
    ("policy", "spec.timeouts.streamIdle", 0, 16, DURATION, "10s", "10s\n"),
    ("policy", "spec.timeouts.total", 0, 16, DURATION, "1h", "∞"),
]

# base, path, what is supported
CHOICES = [
    ("pool", "spec.engine", ["Auto", "vLLM", "SGLang", "Generic"]),
    ("provider", f"{PROVIDER}.type", ["OpenAI", "OpenAICompatible"]),
    ("pool", "spec.dispatch.strategy", [*get_args(StrategyName)]),
    ("pool", "spec.dispatch.load", ["Requests", "Tokens"]),
    ("pool", "spec.dispatch.chwbl.overflow", ["NextOnRing", "LeastLoaded"]),
    ("pool", f"{KEY}.type", ["Header", "Body", "ClientIP", "Prefix"]),
    ("pool", "spec.metrics.mode", ["Auto", "Prometheus", "None"]),
    ("pool", "spec.health.active.mode", ["Auto", "HTTP", "None"]),
    ("policy", f"{TIER}.select", ["Weighted", "InOrder"]),
    (
        "policy",
        f"{TIER}.enterOn[0]",
        ["Capacity", "Transient", "Auth", "Config", "ContextLength", "ContentPolicy"],
    ),
    ("policy", f"{TIER}.spill.by", ["Key", "Request"]),
    ("policy", "spec.retry.retryOn[0]", ["ConnectError", "Reset", "FirstByteTimeout"]),
]

_TIER = {"name": "t{}", "pools": [{"name": "llama"}]}
# base, path, fewest, most, an entry ({} becomes its index), how a second equal one is reported (None: it may be)
LISTS = [
    ("pool", "spec.models", 1, 64, {"name": "m{}"}, '{"name":"m0"}'),
    ("pool", "spec.source.static.endpoints", 1, 64, {"name": "e{}", "url": "http://a:1/"}, '{"name":"e0"}'),
    ("provider", f"{PROVIDER}.accounts", 1, 16, {"name": "a{}"}, '{"name":"a0"}'),
    ("pool", "spec.dispatch.key", 1, 8, {"type": "Header", "name": "h{}"}, None),
    ("policy", "spec.gateways", 1, 16, "g{}", '"g0"'),
    ("policy", "spec.models", 1, 64, "m{}", '"m0"'),
    ("policy", "spec.rules[0].tiers", 1, 8, _TIER, '{"name":"t0"}'),
    ("policy", f"{TIER}.pools", 1, 16, {"name": "p{}"}, None),
]

REQUIRED = [
    ("pool", "spec"),
    ("pool", "spec.models"),
    ("pool", "spec.models[0].name"),
    ("pool", "spec.source"),
    ("pool", "spec.source.static.endpoints"),
    ("pool", f"{ENDPOINT}.name"),
    ("pool", f"{ENDPOINT}.url"),
    ("provider", f"{PROVIDER}.type"),
    ("provider", f"{PROVIDER}.accounts"),
    ("provider", f"{ACCOUNT}.name"),
    ("provider", f"{ACCOUNT}.secretRef.name"),
    ("pool", f"{KEY}.type"),
    ("pool", "spec.auth.secretRef"),
    ("pool", "spec.auth.secretRef.name"),
    ("policy", "spec"),
    ("policy", "spec.models"),
    ("policy", "spec.rules"),
    ("policy", "spec.rules[0].name"),
    ("policy", "spec.rules[0].tiers"),
    ("policy", f"{TIER}.name"),
    ("policy", f"{TIER}.pools"),
    ("policy", f"{TIER}.pools[0].name"),
    ("policy", f"{TIER}.spill.inFlightPerEndpoint.start"),
    ("policy", f"{TIER}.spill.inFlightPerEndpoint.full"),
]

NOT_ABSOLUTE = "must be an absolute http or https URL"
NOT_BARE = "must hold no query, fragment or credentials"
NOT_ALLOWED = "must not name a metadata service or the Kubernetes API"
URLS = [("pool", f"{ENDPOINT}.url"), ("provider", f"{PROVIDER}.baseURL")]
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
EXACTLY_ONE = "exactly one of pods, service, inferencePool, static, provider must be set"
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
        "provider",
        {"spec.engine": "vLLM"},
        "spec",
        "object",
        "engine describes self-hosted servers and cannot be set with source.provider",
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
    (
        "provider",
        {f"{PROVIDER}.type": "OpenAICompatible"},
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
]

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
]


def _filled(entry: Any, index: int) -> Any:
    if isinstance(entry, str):
        return entry.format(index)
    return {key: value.format(index) if isinstance(value, str) else value for key, value in entry.items()}


def _around(path: str, value: Any) -> dict[str, Any]:
    """The edit that puts `value` at `path`; a list on the way that no base has is made of it alone."""
    if path.endswith("[0]") and not path.startswith("spec.models"):
        return {path.removesuffix("[0]"): [value]}
    return {path: value}


def refusals() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every row of the tables as: base, edits, the error that they must give."""
    for base, path, low, high in NUMBERS:
        yield (
            base,
            _around(path, low - 1),
            f"{path}: Invalid value: {low - 1}: {path} in body should be greater than or equal to {low}",
        )
        if high is not None:
            yield (
                base,
                _around(path, high + 1),
                f"{path}: Invalid value: {high + 1}: {path} in body should be less than or equal to {high}",
            )
    for base, path, short, long, pattern, _, bad in TEXTS:
        yield base, _around(path, "a" * (long + 1)), f"{path}: Too long: may not be more than {long} bytes"
        if short:
            text = f'{path}: Invalid value: "": {path} in body should be at least {short} chars long'
            yield base, _around(path, ""), text
        if bad is not None:
            shown = bad.replace("\n", "\\n")
            yield (
                base,
                _around(path, bad),
                f"{path}: Invalid value: \"{shown}\": {path} in body should match '{pattern}'",
            )
    for base, path, choices in CHOICES:
        listed = ", ".join(f'"{choice}"' for choice in choices)
        yield base, _around(path, "Nonsense"), f'{path}: Unsupported value: "Nonsense": supported values: {listed}'
    for base, path, fewest, most, entry, twice in LISTS:
        many = [_filled(entry, index) for index in range(most + 1)]
        yield base, {path: many}, f"{path}: Too many: {most + 1}: must have at most {most} items"
        if fewest:
            yield base, {path: []}, f"{path}: Invalid value: 0: {path} in body should have at least {fewest} items"
        if twice is not None:
            yield base, {path: [many[0], many[1], many[0]]}, f"{path}[2]: Duplicate value: {twice}"
    rule = {"tiers": [{"name": "t", "pools": [{"name": "p"}]}]}
    rules = [{"name": f"r{index}", **rule} for index in range(17)]
    yield "policy", {"spec.rules": rules}, "spec.rules: Too many: 17: must have at most 16 items"
    yield "policy", {"spec.rules": []}, "spec.rules: Invalid value: 0: spec.rules in body should have at least 1 items"
    yield "policy", {"spec.rules": [rules[0], rules[0]]}, 'spec.rules[1]: Duplicate value: {"name":"r0"}'
    codes = list(range(400, 433))
    path = "spec.retry.retryStatusCodes"
    yield "policy", {path: codes}, f"{path}: Too many: 33: must have at most 32 items"
    yield "policy", {path: [429, 503, 429]}, f"{path}[2]: Duplicate value: 429"
    path = "spec.retry.retryOn"
    yield "policy", {path: ["Reset"] * 9}, f"{path}: Too many: 9: must have at most 8 items"
    yield "policy", {path: ["Reset", "Reset"]}, f'{path}[1]: Duplicate value: "Reset"'
    path = f"{TIER}.enterOn"
    yield "policy", {path: ["Auth"] * 9}, f"{path}: Too many: 9: must have at most 8 items"
    yield "policy", {path: ["Auth", "Auth"]}, f'{path}[1]: Duplicate value: "Auth"'
    yield "policy", {path: []}, f"{path}: Invalid value: 0: {path} in body should have at least 1 items"
    for base, path in REQUIRED:
        yield base, {path: "ABSENT"}, f"{path}: Required value"
    for base, path in URLS:
        for url, message in BAD_URLS.items():
            yield base, {path: url}, f'{path}: Invalid value: "string": {message}'
        yield (
            base,
            {path: "http://"},
            f'{path}: Invalid value: "http://": {path} in body should be at least 8 chars long',
        )
        yield base, {path: "https://" + "a" * 2041}, f"{path}: Too long: may not be more than 2048 bytes"
    for base, edits, path, kind, message in RULES:
        yield base, edits, f'{path}: Invalid value: "{kind}": {message}'
    for base, path, value, wanted, found in TYPES:
        text = f'{path}: Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"'
        yield base, _around(path, value), text


REFUSALS = list(refusals())


def accepted() -> Iterator[tuple[str, dict[str, Any]]]:
    """What lies right on the bounds."""
    for base in ("pool", "provider", "policy"):
        yield base, {}
    for base, path, low, high in NUMBERS:
        # A pool of weight 0 needs another beside it, and start and full hold each other: the rules' tables have them.
        if not path.startswith(f"{TIER}.spill") and not path.endswith("pools[0].weight"):
            yield base, _around(path, low)
        if high is not None and not path.endswith("start"):
            yield base, _around(path, high)
    for base, path, _, longest, pattern, good, _ in TEXTS:
        yield base, _around(path, good)
        if pattern != DURATION:
            yield base, _around(path, ("/" if pattern == "^/" else "a") + "a" * (longest - 1))
    for base, path, choices in CHOICES:
        for choice in choices:
            if path not in (f"{KEY}.type", f"{PROVIDER}.type"):
                yield base, _around(path, choice)
    for base, path, _, most, entry, _ in LISTS:
        yield base, {path: [_filled(entry, index) for index in range(most)]}
    for base, path in URLS:
        for url in ("https://host", "https://host:8443/v1/", "https://[::1]:80/", "https://192.168.0.1"):
            yield base, {path: url}
    yield "pool", {f"{ENDPOINT}.url": "HTTP://host/"}
    yield "provider", {f"{PROVIDER}.baseURL": "http://host/v1", f"{PROVIDER}.allowPlainHTTP": True}
    yield "policy", {f"{TIER}.pools": [{"name": "a", "weight": 0}, {"name": "b"}]}
    yield "policy", {f"{SPILL}.inFlightPerEndpoint": {"start": 0, "full": 1}}
    yield "policy", {SPILL: {}}
    yield "policy", {"spec.retry.retryOn": [], "spec.retry.retryStatusCodes": []}
    yield "pool", {"spec.models[0].upstreamName": None}
    yield "pool", {"spec.models[0].name": "no\u00a0break"}  # RE2's \s is ASCII
    yield "pool", {"spec.models[0].name": "é" * 253}
    yield "pool", {f"{ENDPOINT}.weight": 5.0}
    yield "pool", {"spec.capacity.maxInFlightPerEndpoint": 2**63 - 1}


ACCEPTED = list(accepted())
