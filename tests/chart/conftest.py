"""The chart as Helm renders it, and the tools that look at it: helm, kubeconform, kube-score."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.value_sets import CHART, ROOT, VALUES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever comes first builds Helm, or waits for another process that does."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder with the programs. Without Go the tests are skipped, but in CI that is a failure."""
    done = subprocess.run([ROOT / "tests/chart/tools.sh"], capture_output=True, text=True)
    if done.returncode == 3:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def helm(tools: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`helm("lint", ...)`, with values on standard input where `values` is given."""

    def run(*arguments: str | Path, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        given = [] if values is None else ["--values", "-"]
        command = [tools / "helm", *arguments, *given]
        return subprocess.run(command, input=json.dumps(values), capture_output=True, text=True)

    return run


Objects = list[dict[str, Any]]


@pytest.fixture(scope="session")
def render(helm: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., Objects]:
    """`render(values, release=..., namespace=...)`: the objects that Helm would send."""

    # The parser in C, where there is one: the CRDs are long.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    @cache
    def rendered(values: str, release: str, namespace: str) -> Objects:
        done = helm("template", release, CHART, "--namespace", namespace, values=json.loads(values))
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.load_all(done.stdout, loader) if document]

    def run(
        values: Mapping[str, Any] | None = None, *, release: str = "spillway", namespace: str = "spillway-system"
    ) -> Objects:
        return deepcopy(rendered(json.dumps(values or {}), release, namespace))

    return run


@pytest.fixture(params=list(VALUES))
def objects(request: pytest.FixtureRequest, render: Callable[..., Objects]) -> Objects:
    """The rendering of each set of values."""
    return render(VALUES[request.param])


def pod_specs(objects: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in objects:
        if one["kind"] == "Pod":
            yield one["metadata"]["name"], one["spec"]
        elif "template" in one.get("spec", {}):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


@pytest.fixture(scope="session")
def pods() -> Callable[[Objects], list[tuple[str, dict[str, Any]]]]:
    """`pods(objects)`: name and pod spec of everything that makes pods."""
    return lambda objects: list(pod_specs(objects))


@pytest.fixture(scope="session")
def conform(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """`conform(yaml)`: kubeconform, strict, by the API description of Kubernetes itself and by our CRDs."""
    folder = tmp_path_factory.mktemp("schemas")
    for name, schema in _schemas(json.loads((tools / "swagger.json").read_text())["definitions"]):
        (folder / f"{name}.json").write_text(json.dumps(schema))

    def run(text: str) -> subprocess.CompletedProcess[str]:
        location = str(folder / "{{ .ResourceKind }}{{ .KindSuffix }}.json")
        # No schema of PodMonitor: it belongs to the Prometheus operator.
        command = [
            tools / "kubeconform",
            "-strict",
            "-summary",
            "-schema-location",
            location,
            "-skip",
            "PodMonitor",
            "-",
        ]
        return subprocess.run(command, input=text, capture_output=True, text=True)

    return run


def _schemas(definitions: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A JSON Schema for each kind, under the name by which kubeconform asks for it, with what it refers to inside."""
    definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = {"type": ["integer", "string"]}
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {"type": ["number", "string"]}
    _close(definitions)
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", ())[:1]:
            needed: dict[str, Any] = {}
            _gather(schema, definitions, needed)
            group = kind["group"].split(".")[0]
            suffix = "-".join(part for part in (kind["kind"].lower(), group, kind["version"]) if part)
            yield suffix, {"$ref": f"#/definitions/{name}", "definitions": needed | {name: schema}}
    for path in (ROOT / "crds").glob("*.yaml"):
        crd = yaml.safe_load(path.read_text())["spec"]
        schema = crd["versions"][0]["schema"]["openAPIV3Schema"]
        schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
        metadata = schema["properties"].pop("metadata", {})
        _close(schema)
        schema["properties"]["metadata"] = metadata
        yield f"{crd['names']['singular']}-{crd['group'].split('.')[0]}-{crd['versions'][0]['name']}", schema


def _close(schema: Any) -> None:
    """Unknown fields are errors, as they are to `kubectl apply --validate=strict`."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and "$ref" not in schema:
            schema.setdefault("additionalProperties", False)
        for inner in schema.values():
            _close(inner)


def _gather(schema: Any, definitions: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Everything that `schema` refers to, and so on."""
    if isinstance(schema, dict):
        name = str(schema.get("$ref", "")).removeprefix("#/definitions/")
        if name in definitions and name not in found:
            found[name] = definitions[name]
            _gather(definitions[name], definitions, found)
        for inner in schema.values():
            _gather(inner, definitions, found)
