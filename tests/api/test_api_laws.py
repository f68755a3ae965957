"""Laws of the types: defaults, conversion, and that no input makes the validator raise."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_api.schema import KINDS, structural
from spillway_api.types import ModelPool, RoutePolicy
from spillway_api.validate import defaulted, validate

# Written from the reference schemas; dispatch.strategy alone differs, until Adaptive exists.
DEFAULTS = {
    "pool": {
        "engine": "Auto",
        "allowedRoutes.from": "Same",
        "source.static.endpoints[0].weight": 100,
        "dispatch.strategy": "Adaptive",
        "dispatch.load": "Tokens",
        "dispatch.chwbl.loadFactorPercent": 125,
        "dispatch.chwbl.vnodes": 256,
        "dispatch.chwbl.minInFlight": 2,
        "dispatch.chwbl.overflow": "NextOnRing",
        "dispatch.key[0].type": "Header",
        "dispatch.key[0].name": "x-session-id",
        "dispatch.key[1].type": "Body",
        "dispatch.key[1].name": "prompt_cache_key",
        "dispatch.key[2].type": "Prefix",
        "auth.secretRef.key": "api-key",
        "auth.header": "Authorization",
        "auth.prefix": "Bearer ",
        "capacity.maxInFlightPerEndpoint": 0,
        "metrics.mode": "Auto",
        "metrics.path": "/metrics",
        "metrics.interval": "1s",
        "metrics.staleAfter": "5s",
        "health.active.mode": "Auto",
        "health.active.interval": "5s",
        "health.active.timeout": "2s",
        "health.active.unhealthyThreshold": 3,
        "health.active.healthyThreshold": 1,
        "health.passive.consecutiveFailures": 3,
        "health.passive.errorRatePercent": 50,
        "health.passive.minRequests": 20,
        "health.passive.window": "30s",
        "health.passive.baseEjection": "5s",
        "health.passive.maxEjection": "5m",
        "health.passive.maxEjectedPercent": 50,
        "health.slowStart": "0s",
    },
    "provider": {
        "source.provider.allowPlainHTTP": False,
        "source.provider.accounts[0].weight": 100,
        "source.provider.accounts[0].secretRef.key": "api-key",
    },
    "proxied": {
        "source.provider.allowPlainHTTP": False,
        "source.provider.accounts[0].weight": 100,
        "source.provider.proxy.secretRef.key": "api-key",
        "tls.caConfigMapRef.key": "ca.crt",
        "tls.insecureSkipVerify": False,
    },
    "pods": {
        "source.pods.scheme": "http",
        "source.pods.weightAnnotation": "spillway.dev/weight",
    },
    "service": {"source.service.scheme": "http"},
    "inference": {},
    "policy": {
        "gateways[0]": "default",
        "rules[0].tiers[0].pools[0].weight": 100,
        "rules[0].tiers[1].pools[0].weight": 100,
        "rules[0].tiers[0].select": "Weighted",
        "rules[0].tiers[1].select": "Weighted",
        "rules[0].tiers[0].enterOn[0]": "Capacity",
        "rules[0].tiers[0].enterOn[1]": "Transient",
        "rules[0].tiers[1].enterOn[0]": "Capacity",
        "rules[0].tiers[1].enterOn[1]": "Transient",
        "rules[0].tiers[0].spill.whenUnavailable": True,
        "rules[0].tiers[0].spill.whenCold": "Spill",
        "rules[0].tiers[0].spill.holdFor": "5s",
        "rules[0].tiers[0].spill.smoothing": "2s",
        "rules[0].tiers[0].spill.minDwell": "10s",
        "rules[0].tiers[0].spill.by": "Key",
        "rules[0].tiers[1].limits.budget.currency": "USD",
        "rules[0].tiers[1].limits.budget.period": "Day",
        "timeouts.connect": "2s",
        "timeouts.firstByte": "2m",
        "timeouts.streamIdle": "1m",
        "timeouts.total": "30m",
        "explain.headers": "OnRequest",
        "explain.auditLogPercent": 0,
        "mode": "Enforce",
        "queue.maxRequests": 1000,
        "queue.maxBytes": 268435456,
        "queue.maxWait": "30s",
        "queue.coldStartMaxWait": "10m",
        "queue.fairness": "Consumer",
        "priority.default": 0,
        "retry.attempts": 3,
        "retry.retryOn[0]": "ConnectError",
        "retry.retryOn[1]": "Reset",
        **{f"retry.retryStatusCodes[{at}]": code for at, code in enumerate((429, 500, 502, 503, 504, 529))},
        "retry.backoffBase": "50ms",
        "retry.backoffMax": "2s",
        "retry.jitter": "Full",
        "retry.budgetPercent": 20,
        "retry.maxRetryAfter": "1s",
    },
}


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        inner = [_leaves(part, f"{path}.{name}") for name, part in value.items()]
    elif isinstance(value, list):
        inner = [_leaves(part, f"{path}[{at}]") for at, part in enumerate(value)]
    else:
        return {path.removeprefix("."): value}
    return {name: leaf for part in inner for name, leaf in part.items()}


@pytest.mark.parametrize("base", list(DEFAULTS))
def test_defaults_are_those_of_the_reference_and_no_others(base, edited):
    document = edited(base, {"spec.dispatch": "ABSENT"} if base == "pool" else {})
    given_ = _leaves(document["spec"])
    filled = _leaves(validate(structural(document["kind"]), document).document["spec"])
    added = {path: value for path, value in filled.items() if path not in given_}
    if base not in ("pool", "policy"):  # what every pool has is in the row of the first
        added = {path: value for path, value in added.items() if path.startswith(("source.", "tls."))}
    assert added == DEFAULTS[base]


@pytest.mark.parametrize("base", list(DEFAULTS))
def test_defaults_of_the_schema_are_those_of_the_types(base, edited):
    """A field left out is the same to msgspec as to the schema: they come from one place."""
    document = edited(base)
    kind = KINDS[document["kind"]]
    filled = validate(structural(kind.name), document).document
    assert msgspec.convert(document, kind.struct) == msgspec.convert(filled, kind.struct)


_DURATIONS = st.sampled_from(["0s", "100ms", "1s", "2s", "5s", "1m30s", "10m", "30m", "1h"])
_WORDS = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)


def _texts(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    pattern = schema.get("pattern", "")
    if "(h|m|s|ms)" in pattern:
        return _DURATIONS
    if pattern == "^/":
        return _WORDS.map("/{}".format)
    if "x-kubernetes-validations" in schema:
        return _WORDS.map("https://{}.example/v1".format)
    return _WORDS


def _documents(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a schema; mostly valid, since CEL rules are left to chance."""
    if "x-kubernetes-int-or-string" in schema:
        return st.integers(0, 70000) | _WORDS
    kind = schema["type"]
    if "additionalProperties" in schema:
        return st.dictionaries(_WORDS, _documents(schema["additionalProperties"]), max_size=3)
    if kind == "object":
        required = {name: _documents(schema["properties"][name]) for name in schema.get("required", ())}
        optional = {name: _documents(inner) for name, inner in schema["properties"].items() if name not in required}
        return st.fixed_dictionaries(required, optional=optional)
    if kind == "array":
        keys = schema.get("x-kubernetes-list-map-keys")
        unique = (lambda entry: json.dumps(entry.get(keys[0]))) if keys else (lambda entry: json.dumps(entry))
        return st.lists(_documents(schema["items"]), min_size=schema.get("minItems", 0), max_size=3, unique_by=unique)
    if kind == "integer":
        return st.integers(schema.get("minimum", 0), min(schema.get("maximum", 1000), 10**6))
    return st.booleans() if kind == "boolean" else _texts(schema)


_JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["1s", "a", "None"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "url", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def _wild(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """An object of a kind, of which nothing, or a few places, are replaced by junk or taken away."""
    spec = copy.deepcopy(draw(_documents(structural(kind)["properties"]["spec"])))
    document = {
        "apiVersion": "spillway.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": draw(_WORDS)},
        "spec": spec,
    }
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        places = list(_places(document["spec"]))
        if not places:
            break
        inside, step = draw(st.sampled_from(places))
        if draw(st.booleans()):
            inside[step] = draw(_JUNK)
        elif isinstance(inside, dict):
            del inside[step]
    return document


def _places(value: Any) -> Any:
    steps = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for step in list(steps):
        yield value, step
        yield from _places(value[step])


@pytest.mark.parametrize("kind", list(KINDS))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_passes_converts_and_nothing_makes_the_validator_raise(kind, data):
    document = data.draw(_wild(kind))
    before = copy.deepcopy(document)
    validated = validate(structural(kind), document)
    assert repr(document) == repr(before)
    if not validated.errors:
        item = msgspec.convert(validated.document, ModelPool | RoutePolicy)
        assert msgspec.json.decode(msgspec.json.encode(item), type=ModelPool | RoutePolicy) == item


@pytest.mark.parametrize("kind", list(KINDS))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_defaulting_twice_is_defaulting_once(kind, data):
    schema = structural(kind)
    once = defaulted(schema, data.draw(_wild(kind)))
    assert repr(defaulted(schema, once)) == repr(once)


def test_objects_have_no_field_that_the_schema_lacks(edited, built):
    """The types and the schema hold the same fields, so nothing that is accepted is dropped."""
    for base in DEFAULTS:
        item = built(base)
        written = msgspec.to_builtins(item.spec)
        schema = structural(type(item).__name__)["properties"]["spec"]
        assert set(written) == set(schema["properties"])
