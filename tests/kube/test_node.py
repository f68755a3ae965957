"""The cluster in which Pods run does what later tests take for granted."""

from __future__ import annotations

import json

import pytest
from tests.kube.cluster import IMAGE

SECURE = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
ASK = """
import openai
client = openai.OpenAI(base_url="http://engine.{namespace}.svc/v1", api_key="none", max_retries=0)
print([model.id for model in client.models.list()])
said = client.chat.completions.create(model="demo", messages=[{{"role": "user", "content": "hello"}}], max_tokens=3)
print(said.usage.completion_tokens)
"""


@pytest.fixture
def engines(cluster, namespace):
    """Two simulated engines behind a Service, from the image made of this checkout."""
    labels = {"app": "engine"}
    container = {
        "name": "engine",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["spillway", "engine", "--host", "0.0.0.0", "--port", "8000", "--model", "demo"],
        "ports": [{"containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1},
        "securityContext": SECURE,
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False},
    }
    cluster.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "engine"},
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "engine"},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]},
        },
        namespace=namespace,
    )
    cluster.kubectl("rollout", "status", "deployment/engine", "-n", namespace, "--timeout=90s")
    cluster.until_served(namespace, "engine")
    listed = json.loads(cluster.kubectl("get", "pods", "-n", namespace, "-o", "json"))
    return [pod["metadata"]["name"] for pod in listed["items"]]


def test_pods_run_and_a_service_answers_by_name(cluster, namespace, engines):
    def inside(*command):
        return cluster.kubectl("exec", "-n", namespace, engines[0], "--", *command).strip()

    assert len(engines) == 2
    said = inside("python3", "-c", ASK.format(namespace=namespace))
    assert said.splitlines() == ["['demo']", "3"]
    # As a real node would run it: nobody in particular, on a filesystem that cannot be written.
    assert inside("python3", "-c", "import os; print(os.getuid())") == "65532"
    with pytest.raises(Exception, match="non-zero") as refused:
        inside("python3", "-c", "open('/app/x', 'w')")
    assert any("Read-only file system" in note for note in refused.value.__notes__)
    # From the node Services are reached by address, and what a Pod prints is read by kubectl.
    address = cluster.until_served(namespace, "engine")
    assert "demo" in cluster.exec("curl", "-sf", "-m", "10", f"http://{address}/v1/models")
    assert "demo" in cluster.kubectl("logs", "-n", namespace, "deployment/engine")


def test_a_killed_container_is_started_again(cluster, namespace, engines):
    pod = engines[0]
    cluster.kubectl("exec", "-n", namespace, pod, "--", "python3", "-c", "import os; os.kill(1, 15)")
    path = "jsonpath={.status.containerStatuses[0].restartCount}=1"
    cluster.kubectl("wait", f"pod/{pod}", "-n", namespace, f"--for={path}", "--timeout=60s")
    cluster.kubectl("wait", f"pod/{pod}", "-n", namespace, "--for=condition=Ready", "--timeout=60s")
