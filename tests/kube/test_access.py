"""What the tests of the operator build on: log-ins of ServiceAccounts, the audit log, Pods that are said to run."""

from __future__ import annotations

import json
import subprocess

import pytest
from tests.kube.access import Api, Audited, Refused, until

REVIEW = "/apis/authentication.k8s.io/v1/tokenreviews"


@pytest.fixture
def review(plane):
    """`review(token, audience)`: what the API server says about a token."""

    def ask(token, *audiences):
        spec = {"token": token, "audiences": [*audiences]}
        return plane.api.call("POST", REVIEW, {"spec": spec})["status"]

    return ask


def test_a_token_names_its_account_its_pod_and_for_whom_it_is(plane, namespace, review):
    pod = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web", "image": "none"}]}}
    plane.api.call("POST", f"/api/v1/namespaces/{namespace}/pods", pod)
    token = plane.token_of(namespace, "default", audience="spillway-operator", pod="web")
    said = review(token, "spillway-operator")
    assert said["authenticated"]
    assert said["user"]["username"] == f"system:serviceaccount:{namespace}:default"
    assert said["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["web"]
    assert not review(token, "somebody-else").get("authenticated")
    # It is no log-in to the API server itself.
    with Api(plane.url, token, plane.api.authority) as api, pytest.raises(Refused, match="401"):
        api.get("/api/v1/namespaces")


def test_the_audit_log_tells_what_an_account_asked_for(plane, namespace):
    user = f"system:serviceaccount:{namespace}:default"
    with plane.api_as(namespace, "default") as api, pytest.raises(Refused, match="403"):
        api.get(f"/apis/spillway.dev/v1alpha1/namespaces/{namespace}/modelpools/llama")
    expected = Audited(user, "get", "spillway.dev", "modelpools", "", namespace, "llama", 403, allowed=False)
    # The line is written when the answer has been sent.
    until(lambda: plane.audit(user) == [expected], "the request in the audit log", 10)


def test_a_kubeconfig_has_the_rights_of_its_account(plane, namespace):
    rule = {"apiGroups": ["spillway.dev"], "resources": ["modelpools"], "verbs": ["list"]}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "reader"}}
    who = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    to = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    plane.apply(
        role | {"kind": "Role", "rules": [rule]},
        role | {"kind": "RoleBinding", "roleRef": to, "subjects": [who]},
        namespace=namespace,
    )
    kubectl = [str(plane.programs / "kubectl"), "--kubeconfig", str(plane.kubeconfig_of(namespace, "default"))]
    assert subprocess.run([*kubectl, "get", "modelpools"], capture_output=True).returncode == 0
    assert b"forbidden" in subprocess.run([*kubectl, "get", "secrets"], capture_output=True).stderr


def test_pretended_pods_become_endpoints(plane, node, namespace):
    labels = {"app": "engine"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "engine", "image": "none"}]}}
    plane.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "engine"},
            "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "engine"},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]},
        },
        namespace=namespace,
    )
    plane.kubectl("rollout", "status", "deployment/engine", "-n", namespace, "--timeout=60s")

    def ready():
        listed = plane.kubectl("get", "endpointslices", "-n", namespace, "-o", "json")
        found = [each for item in json.loads(listed)["items"] for each in item["endpoints"]]
        return sum(each["conditions"]["ready"] for each in found)

    until(lambda: ready() == 3, "three ready endpoints")
    plane.kubectl("scale", "deployment/engine", "--replicas=1", "-n", namespace)
    until(lambda: ready() == 1, "one ready endpoint")


def test_the_api_server_can_be_away_for_a_while(plane, namespace):
    with plane.away(), pytest.raises(OSError, match="refused"):
        plane.api.get("/version")
    assert plane.api.get(f"/api/v1/namespaces/{namespace}")["metadata"]["name"] == namespace
