"""What clients with sidecars are in the cluster: Pods with one label, and engines, pools and policies of their own."""

from __future__ import annotations

from typing import Any

from tests.kube.installed import objects

Object = dict[str, Any]
INJECT = {"spillway.dev/inject": "true"}
ASKERS = 10
STEADY = ("steady-a", "steady-b")
BESIDE = ("chat", "chat-service")
"""Models of the steady load: pools that a sidecar sends to itself."""
SHARED = 4
"""Engines of which the tests of agreement know who has sent what."""


def steady(name: str) -> Object:
    """The program of the other tests' load, with the label in the place of an address."""
    spec = objects.running("steady.py", MODELS=" ".join(BESIDE))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": INJECT}, "spec": spec}


def askers(replicas: int) -> Object:
    labels = {"app": "askers"}
    spec = objects.running("asking.py") | {"restartPolicy": "Always"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "askers"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels | INJECT}, "spec": spec},
        },
    }


def late() -> Object:
    """One that asks for a sidecar while nobody can give it one."""
    spec = objects.running("asking.py")
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late", "labels": INJECT}, "spec": spec}


def job() -> Object:
    """A client that ends, in a Pod with the one label. All it is told is keys, without which SDKs ask nothing."""
    spec = objects.running("unmodified.py", OPENAI_API_KEY="none", ANTHROPIC_API_KEY="none")
    template = {"metadata": {"labels": INJECT}, "spec": spec}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "unmodified"},
        "spec": {"backoffLimit": 0, "template": template},
    }


def world() -> list[Object]:
    """Engines, pools and policies of these tests, beside those of the others."""

    def of(app: str) -> Object:
        return {"pods": {"selector": {"matchLabels": {"app": app, "serve": "yes"}}, "ports": [8000]}}

    burst = objects.policy("burst", "small")
    # The second request at a time leaves for the provider, at once.
    spill = {"inFlightPerEndpoint": {"start": 0, "full": 1}, "smoothing": "0s", "minDwell": "0s"}
    (home,) = burst["spec"]["rules"][0]["tiers"]
    burst["spec"]["rules"][0]["tiers"] = [home | {"spill": spill}, {"name": "cloud", "pools": [{"name": "keyed"}]}]
    return [
        objects.engines("small", 1),
        objects.engines("shared", SHARED),
        objects.pool("small", of("small"), engine="vLLM"),
        objects.pool("shared", of("shared"), engine="vLLM"),
        objects.pool("by-dice", of("shared"), engine="vLLM", dispatch={"strategy": "Random"}),
        objects.policy("shared", "shared"),
        objects.policy("by-dice", "by-dice"),
        burst,
    ]
