"""Objects that the tests of the API start from, and how a test changes them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from spillway_api.problem import steps_of
from spillway_api.schema import KINDS, structural
from spillway_api.validate import validate

_HEAD = {"apiVersion": "spillway.dev/v1alpha1"}
BASES: dict[str, dict[str, Any]] = {
    "pool": _HEAD
    | {
        "kind": "ModelPool",
        "metadata": {"name": "llama"},
        "spec": {
            "models": [{"name": "llama-8b"}],
            "source": {"static": {"endpoints": [{"name": "a", "url": "http://10.0.0.1:8000"}]}},
            "dispatch": {"key": [{"type": "Header", "name": "x-session-id"}, {"type": "Prefix"}]},
            "auth": {"secretRef": {"name": "engine-key"}},
        },
    },
    "provider": _HEAD
    | {
        "kind": "ModelPool",
        "metadata": {"name": "openai"},
        "spec": {
            "models": [{"name": "gpt-mini", "price": {"input": "0.25", "output": "2.00"}}],
            "source": {
                "provider": {"type": "OpenAI", "accounts": [{"name": "main", "secretRef": {"name": "openai-key"}}]}
            },
        },
    },
    "kept": _HEAD
    | {
        "kind": "ModelPool",
        "metadata": {"name": "kept"},
        "spec": {
            "models": [{"name": "llama-8b"}],
            "source": {"static": {"endpoints": [{"name": "a", "url": "http://10.0.0.1:8000"}]}},
            "cost": {"perEndpointHour": "2.50"},
        },
    },
    "stepped": _HEAD
    | {
        "kind": "ModelPool",
        "metadata": {"name": "gemini"},
        "spec": {
            "models": [{"name": "gemini-pro", "price": {"input": "1.25", "longContext": [{"above": 200000}]}}],
            "source": {"provider": {"type": "Gemini", "accounts": [{"name": "main"}]}},
        },
    },
    "proxied": _HEAD
    | {
        "kind": "ModelPool",
        "metadata": {"name": "proxied"},
        "spec": {
            "models": [{"name": "gpt-mini"}],
            "tls": {"caConfigMapRef": {"name": "company-ca"}, "serverName": "api.example.com"},
            "source": {
                "provider": {
                    "type": "OpenAI",
                    "accounts": [{"name": "main"}],
                    "proxy": {"url": "http://proxy:3128", "secretRef": {"name": "proxy"}},
                }
            },
        },
    },
    "pods": _HEAD
    | {
        "kind": "ModelPool",
        "metadata": {"name": "engines"},
        "spec": {
            "models": [{"name": "llama-8b"}],
            "source": {
                "pods": {
                    "selector": {
                        "matchLabels": {"app": "vllm"},
                        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a"]}],
                    },
                    "ports": [8000],
                }
            },
            "allowedRoutes": {
                "from": "Selector",
                "selector": {
                    "matchLabels": {"app": "chat"},
                    "matchExpressions": [{"key": "team", "operator": "In", "values": ["a"]}],
                },
            },
        },
    },
    "service": _HEAD
    | {
        "kind": "ModelPool",
        "metadata": {"name": "served"},
        "spec": {
            "models": [{"name": "llama-8b"}],
            "source": {"service": {"name": "engines", "port": "http"}},
        },
    },
    "inference": _HEAD
    | {
        "kind": "ModelPool",
        "metadata": {"name": "pooled"},
        "spec": {"models": [{"name": "llama-8b"}], "source": {"inferencePool": {"name": "vllm"}}},
    },
    "policy": _HEAD
    | {
        "kind": "RoutePolicy",
        "metadata": {"name": "chat"},
        "spec": {
            "models": ["chat"],
            "rules": [
                {
                    "name": "default",
                    "tiers": [
                        {
                            "name": "local",
                            "pools": [{"name": "llama"}],
                            "spill": {
                                "queuedPerEndpoint": {"start": 4, "full": 8},
                                "inFlightPerEndpoint": {"start": 4, "full": 8},
                                "predictedTTFT": {"start": "2s", "full": "6s"},
                                "kvCachePercent": {"start": 80, "full": 95},
                                "errorPercent": {"start": 10, "full": 50},
                            },
                        },
                        {"name": "cloud", "pools": [{"name": "openai"}], "limits": {"budget": {"amount": "5.00"}}},
                    ],
                }
            ],
        },
    },
}
BASES["lent"] = copy.deepcopy(BASES["provider"])
BASES["lent"]["spec"]["source"]["provider"] = {
    "type": "AzureOpenAI",
    "baseURL": "https://team.openai.azure.com",
    "accounts": [{"name": "main", "identity": {"azure": {}}}],
}
BASES["vertex"] = copy.deepcopy(BASES["provider"])
BASES["vertex"]["spec"]["source"]["provider"] = {
    "type": "VertexAI",
    "accounts": [{"name": "main", "project": "ml", "region": "europe-west4", "identity": {"gcp": {}}}],
}
BASES["bedrock"] = copy.deepcopy(BASES["provider"])
BASES["bedrock"]["spec"]["source"]["provider"] = {
    "type": "Bedrock",
    "accounts": [{"name": "main", "region": "us-east-1", "identity": {"aws": {}}}],
}
BASES["mirrored"] = copy.deepcopy(BASES["policy"])
BASES["mirrored"]["spec"]["mirror"] = {"pool": {"name": "openai"}, "percent": 5}
BASES["closed"] = _HEAD | {
    "kind": "RoutePolicy",
    "metadata": {"name": "closed"},
    "spec": {
        "models": ["chat"],
        "rules": [{"name": "default", "tiers": [{"name": "local", "pools": [{"name": "llama"}]}]}],
        "consumers": {
            "secretSelector": {"matchLabels": {"app": "key"}},
            "defaults": {"budget": {"amount": "5"}},
        },
    },
}


BASES["funded"] = copy.deepcopy(BASES["provider"])
BASES["funded"]["metadata"]["name"] = "funded"
BASES["funded"]["spec"]["models"] = [{"name": "gpt-mini", "price": {"input": "1", "output": "2"}}]
BASES["funded"]["spec"]["budget"] = {"amount": "50"}
BASES["scaled"] = copy.deepcopy(BASES["pods"])
BASES["scaled"]["metadata"]["name"] = "scaled"
BASES["scaled"]["spec"]["scaling"] = {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "vllm"}}
BASES["hedged"] = copy.deepcopy(BASES["policy"])
BASES["hedged"]["spec"]["rules"][0]["tiers"][0]["hedge"] = {"after": "800ms"}


BASES["guarded"] = copy.deepcopy(BASES["policy"])
BASES["guarded"]["spec"]["overrides"] = {"allow": ["Rule"], "when": "true"}
BASES["guarded"]["spec"]["guards"] = [{"name": "eu", "require": {"jurisdictions": ["EU"]}, "when": "true"}]


BASES["thrifty"] = copy.deepcopy(BASES["policy"])
BASES["thrifty"]["spec"]["retry"] = {"maxCost": {"amount": "0.05"}}
BASES["choosy"] = copy.deepcopy(BASES["policy"])
BASES["choosy"]["spec"]["rules"][0]["tiers"][0] |= {"select": "Quality", "maxCost": {"amount": "0.05"}}


class Absent:
    """Stands in an edit for: take this field away."""


Edit = Callable[..., dict[str, Any]]


def edited_base(base: str, edits: dict[str, Any] | None = None) -> dict[str, Any]:
    """`edited_base("pool", {"spec.models[0].name": "x"})`: a copy of a base with fields set, or taken away."""
    document = copy.deepcopy(BASES[base])
    for path, value in (edits or {}).items():
        *way, last = steps_of(path)
        inner: Any = document
        for step in way:
            inner = inner.setdefault(step, {}) if isinstance(inner, dict) else inner[step]
        if value is Absent or value == "ABSENT":
            del inner[last]
        elif isinstance(inner, list) and last == len(inner):
            inner.append(value)
        else:
            inner[last] = value
    return document


@pytest.fixture(scope="session")
def edited() -> Edit:
    """`edited_base` as a fixture."""
    return edited_base


@pytest.fixture(scope="session")
def errors_of() -> Callable[[dict[str, Any]], list[str]]:
    """All errors of a document as `path: message`."""

    def errors(document: dict[str, Any]) -> list[str]:
        found = validate(structural(document["kind"]), document).errors
        return [f"{error.path}: {error.message}" for error in found]

    return errors


@pytest.fixture(scope="session")
def built(edited: Edit) -> Callable[..., Any]:
    """`built("pool", {...})`: the object that an edited base converts to; it must be valid."""

    def build(base: str, edits: dict[str, Any] | None = None) -> Any:
        document = edited(base, edits)
        kind = KINDS[document["kind"]]
        validated = validate(structural(kind.name), document)
        assert not validated.errors
        return msgspec.convert(validated.document, kind.struct)

    return build
