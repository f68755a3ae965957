"""Values that the chart is rendered with in the tests: between them they turn everything on and off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "spillway"

VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "two-gateways": {"gateways": {"internal": {"replicas": 3, "preStopSleepSeconds": 0}}},
    "watch-namespaces": {"watchNamespaces": ["team-a", "team-b"]},
    "sidecars": {
        "sidecars": {"enabled": True, "gatewayURLs": {"internal": "https://llm.corp"}},
        "gateways": {"internal": {}, "odd": {"service": {"port": 8000}}},
    },
    "air-gapped": {
        "image": {
            "registry": "mirror.internal:5000/llm",
            "pullSecrets": ["mirror", "other"],
            "balancer": {"digest": f"sha256:{'0123456789abcdef' * 4}"},
        }
    },
    "all-off": {
        "crds": {"install": False},
        "rbac": {"aggregate": False},
        "scaling": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "operator": {"replicas": 1},
        "gateway": {"replicas": 0},
    },
    "all-on": {
        "consumers": {"enabled": True},
        "prices": {"OpenAI": {"gpt-5-mini": {"input": "0.20", "output": "1.60"}}},
        "scaling": {"kinds": [{"group": "leaderworkerset.x-k8s.io", "resource": "leaderworkersets"}]},
        "image": {"registry": "mirror.internal", "tag": "v9", "pullPolicy": "Always", "pullSecrets": ["mirror"]},
        "watchNamespaces": ["team-a"],
        "sidecars": {
            "enabled": True,
            "routes": "Same",
            "pullSecrets": ["mirror"],
            "failurePolicy": "Fail",
            "resources": {"requests": {"cpu": "0.1"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        },
        "operator": {
            "replicas": 3,
            "logFormat": "text",
            "logLevel": "debug",
            "tls": {"given": True},
            "podSelector": "inference=yes",
            "podDisruptionBudget": {"maxUnavailable": "50%"},
            "serviceAccountAnnotations": {"a": "b"},
            "podAnnotations": {"a": "b"},
            "podLabels": {"team": "platform"},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "x", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "priorityClassName": "system-cluster-critical",
        },
        "gateway": {
            "service": {"type": "LoadBalancer", "port": 8000, "annotations": {"a": "b"}},
            "autoscaling": {"enabled": True, "requestsInFlight": 200},
            "serviceAccountAnnotations": {"a": "b"},
            "identity": {
                "namespaces": ["ml", "search"],
                "hosts": ["llm.corp", "other"],
                "tokens": [{"name": "aws", "audience": "sts.amazonaws.com"}, {"name": "gcp", "audience": "//iam/x"}],
                "configMap": "clouds",
            },
            "env": {"AWS_REGION": "eu-central-1", "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/spillway/identity/aws"},
            "podAnnotations": {"a": "b"},
            "podLabels": {"team": "platform"},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "x", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "zone",
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"team": "platform"}},
                }
            ],
            "priorityClassName": "high",
        },
        "gateways": {
            "internal": {
                "preStopSleepSeconds": 0,
                "autoscaling": {"enabled": False},
                "service": {"type": "ClusterIP", "port": 80},
            }
        },
        "networkPolicy": {
            "clients": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}],
            "scrapers": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "gatewayEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
        },
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    },
}
