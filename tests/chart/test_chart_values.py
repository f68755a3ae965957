"""Values: each stands in the schema and in the documentation; wrong ones are refused in words that help."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from tests.chart.value_sets import CHART, ROOT, VALUES

DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())

FREE = {"affinity", "nodeSelector", "tolerations", "topologySpreadConstraints", "resources"}
"""Values whose inside is Kubernetes' own."""


def leaves(value, path=()):
    if isinstance(value, dict) and value and path[-1:] != ("gateways",) and not FREE & set(path):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    else:
        yield ".".join(path)


def resolved(schema):
    reference = schema.get("$ref", "")
    return SCHEMA["definitions"][reference.removeprefix("#/definitions/")] if reference else schema


def schema_leaves(schema, path=()):
    schema = resolved(schema)
    if "properties" in schema and not FREE & set(path):
        for name, inner in schema["properties"].items():
            yield from schema_leaves(inner, (*path, name))
    else:
        yield ".".join(path)


def test_the_schema_knows_every_value_and_no_other():
    assert set(schema_leaves(SCHEMA)) - {"global"} == set(leaves(DEFAULTS))


def objects_of(schema, path=""):
    schema = resolved(schema)
    if schema.get("type") == "object":
        yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from objects_of(inner, f"{path}.{name}")


def test_the_schema_refuses_what_it_does_not_know():
    for path, schema in objects_of(SCHEMA):
        if path.rpartition(".")[2] not in {"affinity", "global"}:
            assert "additionalProperties" in schema, path


@pytest.mark.parametrize("values", list(VALUES))
def test_value_sets_of_the_tests_are_accepted(helm, values):
    done = helm("template", "spillway", CHART, values=VALUES[values])
    assert done.returncode == 0, done.stderr


REFUSED = [
    # values, words that must be in what Helm says
    ({"gateway": {"replicas": "two"}}, ["/gateway/replicas", "got string, want integer"]),
    ({"gateway": {"replicaCount": 2}}, ["/gateway", "'replicaCount' not allowed"]),
    ({"gateways": {"internal": {"port": 80}}}, ["/gateways/internal", "'port' not allowed"]),
    ({"gateways": {"Internal": {}}}, ["invalid propertyName 'Internal'"]),
    ({"gateways": {"a-name-that-is-too-long-for-it": {}}}, ["invalid propertyName"]),
    ({"image": {"registry": "https://mirror.internal"}}, ["/image/registry", "does not match pattern"]),
    ({"image": {"pullSecrets": [{"name": "mirror"}]}}, ["/image/pullSecrets/0", "got object, want string"]),
    ({"image": {"balancer": {"digest": "sha256:12"}}}, ["/image/balancer/digest"]),
    ({"image": {"pullPolicy": "Sometimes"}}, ["must be one of 'Always', 'IfNotPresent', 'Never'"]),
    ({"operator": {"logLevel": "loud"}}, ["must be one of 'debug', 'info', 'warning', 'error'"]),
    ({"operator": {"replicas": 0}}, ["/operator/replicas", "minimum"]),
    ({"operator": {"resources": {"limits": {"memory": "1 GB"}}}}, ["/operator/resources/limits/memory"]),
    ({"gateway": {"podDisruptionBudget": {"maxUnavailable": 0}}}, ["/gateway/podDisruptionBudget/maxUnavailable"]),
    ({"gateway": {"podAnnotations": {"a": 1}}}, ["/gateway/podAnnotations/a", "want string"]),
    ({"gateway": {"service": {"type": "ExternalName"}}}, ["'ClusterIP', 'NodePort', 'LoadBalancer'"]),
    ({"watchNamespaces": ["a", "a"]}, ["/watchNamespaces", "equal"]),
    ({"watchNamespaces": ["a/b"]}, ["/watchNamespaces/0"]),
    ({"networkPolicy": {"apiServerPorts": []}}, ["/networkPolicy/apiServerPorts"]),
    ({"podMonitor": {"interval": "often"}}, ["/podMonitor/interval"]),
    ({"sidecars": {"routes": "Some"}}, ["must be one of 'All', 'Same', 'None'"]),
    ({"sidecars": {"resources": {"limits": {"memory": "1e9"}}}}, ["/sidecars/resources/limits/memory"]),
    ({"sidecars": {"gatewayURLs": {"default": "llm.corp"}}}, ["/sidecars/gatewayURLs/default"]),
    ({"replicaCount": 2}, ["'replicaCount' not allowed"]),
    # what no schema can say
    (
        {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 11}}},
        ["gateways.default.autoscaling: minReplicas 11 is more than maxReplicas 10"],
    ),
    (
        {"gateways": {"x": {"autoscaling": {"enabled": True, "cpuPercent": 0}}}},
        ["gateways.x.autoscaling: set requestsInFlight or cpuPercent"],
    ),
    (
        {"gateway": {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}}},
        ["cpuPercent is a share of resources.requests.cpu, which is not set"],
    ),
    ({"gateways": {"default": None}}, ["gateways: there is none"]),
    (
        {"sidecars": {"enabled": True, "gatewayURLs": {"eu": "https://llm.corp"}}},
        ["sidecars.gatewayURLs: there is no gateway eu"],
    ),
    ({"gateways": {"operator": {}}}, ["gateways.operator: the Service's name would be the operator's"]),
    (
        {"gateway": {"podLabels": {"spillway.dev/gateway": "x"}}},
        ["gateways.default.podLabels: spillway.dev/gateway is the chart's own"],
    ),
    ({"operator": {"podLabels": {"app.kubernetes.io/name": "x"}}}, ["operator.podLabels: app.kubernetes.io/name"]),
]


@pytest.mark.parametrize(("values", "words"), REFUSED, ids=[words[-1][:40] for _, words in REFUSED])
def test_wrong_values_are_refused_in_words_that_say_where(helm, values, words):
    done = helm("template", "spillway", CHART, values=values)
    assert done.returncode != 0
    for word in words:
        assert word in done.stderr


def test_a_release_whose_name_is_too_long_is_refused(helm):
    done = helm("template", "a" * 33, CHART, values={})
    assert done.returncode != 0
    assert "longer than 40 characters" in done.stderr


# ---- documentation and versions

PAGE = (ROOT / "docs" / "chart.md").read_text()
TABLE = PAGE.split("## All values")[1]


def test_every_value_stands_in_the_documentation_with_its_default():
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", TABLE, re.MULTILINE))
    assert set(rows) == set(leaves(DEFAULTS))
    for name, said in rows.items():
        value = DEFAULTS
        for part in name.split("."):
            value = value[part]
        if not FREE & set(name.split(".")):
            assert said == f"`{json.dumps(value)}`", name


def test_the_chart_is_of_the_projects_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert chart["appVersion"] == version
    assert chart["version"] == re.sub(r"\.dev(\d+)$", r"-dev.\1", version)
    demo = yaml.safe_load((ROOT / "examples/kind/kustomization.yaml").read_text())
    assert demo["images"] == [{"name": "spillway-balancer", "newTag": version}]
