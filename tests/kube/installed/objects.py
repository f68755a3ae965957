"""What the tests of an installed chart put into the cluster: engines, keys, pools, policies and a client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.kube.cluster import IMAGE

Object = dict[str, Any]
ENGINES = 4
MODELS = ("chat", "chat-service", "keyed")
"""By pods, by Service, and at a provider that asks for a key."""
OLD, NEW = "the-old-key", "the-new-key"
SECURE = {
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
POD = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}


def engines(name: str, replicas: int, *arguments: str) -> Object:
    """A Deployment of simulated engines, as examples/kind has it."""
    container = {
        "name": "engine",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["spillway", "engine"],
        "args": ["--host=0.0.0.0", "--port=8000", "--name=$(POD_NAME)", "--model=demo", "--drain=30", *arguments],
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "securityContext": SECURE,
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 45,
        "securityContext": POD,
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 2}},
            "selector": {"matchLabels": {"app": name}},
            # `serve` is what pool and Service select by besides: without it a Pod runs on and is no endpoint.
            "template": {"metadata": {"labels": {"app": name, "serve": "yes"}}, "spec": spec},
        },
    }


def service(name: str) -> Object:
    selector = {"app": name, "serve": "yes"}
    ports = [{"name": "http", "port": 8000, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": selector, "ports": ports},
    }


def keyed(*keys: str) -> Object:
    """Engines that ask for one of these keys."""
    return engines("keyed", 2, "--log-requests", *(f"--api-key={key}" for key in keys))


def secret(key: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "account"}, "stringData": {"api-key": key}}


def pool(name: str, source: Object, **more: str) -> Object:
    return {
        "apiVersion": "spillway.dev/v1alpha1",
        "kind": "ModelPool",
        "metadata": {"name": name},
        "spec": {"models": [{"name": "demo"}], "source": source, **more},
    }


def pools(namespace: str) -> list[Object]:
    """All three sources."""
    account = {"name": "main", "secretRef": {"name": "account", "key": "api-key"}}
    provider = {
        "type": "OpenAICompatible",
        "baseURL": f"http://keyed.{namespace}.svc:8000/v1",
        "allowPlainHTTP": True,
        "accounts": [account],
    }
    selector = {"matchLabels": {"app": "engines", "serve": "yes"}}
    return [
        pool("by-pods", {"pods": {"selector": selector, "ports": [8000]}}, engine="vLLM"),
        pool("by-service", {"service": {"name": "engines", "port": 8000}}),
        pool("keyed", {"provider": provider}),
    ]


def policy(model: str, pool: str) -> Object:
    tiers = [{"name": "local", "pools": [{"name": pool}]}]
    return {
        "apiVersion": "spillway.dev/v1alpha1",
        "kind": "RoutePolicy",
        "metadata": {"name": model},
        "spec": {"models": [model], "rules": [{"name": "default", "tiers": tiers}]},
    }


def policies() -> list[Object]:
    return [policy(model, pool) for model, pool in zip(MODELS, ("by-pods", "by-service", "keyed"), strict=True)]


def programs() -> Object:
    """What client Pods run, the modules beside this one."""
    names = ("steady.py", "asking.py", "unmodified.py")
    data = {name: (Path(__file__).parent / name).read_text() for name in names}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "programs"}, "data": data}


def running(program: str, **environment: str) -> Object:
    """The spec of a Pod that runs one of them."""
    container = {
        "name": "client",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["python3", f"/programs/{program}"],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "securityContext": SECURE,
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "programs", "mountPath": "/programs", "readOnly": True}],
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": POD,
        "containers": [container],
        "volumes": [{"name": "programs", "configMap": {"name": "programs"}}],
    }


def client(base: str) -> list[Object]:
    """The Pod that asks without a pause."""
    spec = running("steady.py", OPENAI_BASE_URL=base, MODELS=" ".join(MODELS))
    return [programs(), {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": spec}]


def question(model: str) -> Object:
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
