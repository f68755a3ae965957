"""deploy/: what `make manifests` writes of the chart, for those who do not use Helm."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml
from tests.chart.value_sets import ROOT

DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("deploy_generate", DEPLOY / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_manifests_are_what_the_chart_says(generate, tools):
    assert generate.drift(generate.outputs(tools / "helm")) == [], "run `make manifests`"


def test_drift_is_seen(generate, tools, tmp_path):
    wanted = generate.outputs(tools / "helm")
    for name, text in wanted.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert generate.drift(wanted, tmp_path) == []
    (tmp_path / "deploy/rbac.yaml").write_text(wanted["deploy/rbac.yaml"].replace("[get, update]", "[get]"))
    (tmp_path / "deploy/left-over.yaml").write_text("")
    assert generate.drift(wanted, tmp_path) == ["deploy/left-over.yaml", "deploy/rbac.yaml"]


def test_the_kustomization_lists_every_file_and_the_objects_are_those_of_the_chart(render):
    kustomization = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
    assert set(kustomization["resources"]) == {path.name for path in DEPLOY.glob("*.yaml")} - {"kustomization.yaml"}
    there = [one for name in kustomization["resources"] for one in yaml.safe_load_all((DEPLOY / name).read_text())]

    def identity(one):
        return one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]

    chart = {identity(one) for one in render() if "helm.sh/hook" not in one["metadata"].get("annotations", {})}
    assert {identity(one) for one in there} == chart | {("Namespace", None, "spillway-system")}
    assert kustomization["resources"][:2] == ["namespace.yaml", "crds.yaml"]


def test_nothing_is_left_that_only_helm_reads(conform):
    for path in Path(DEPLOY).glob("*.yaml"):
        objects = list(yaml.safe_load_all(path.read_text()))
        assert "helm.sh" not in yaml.safe_dump_all(objects)
        assert "managed-by" not in yaml.safe_dump_all(objects)
        if path.name != "kustomization.yaml":
            done = conform(path.read_text())
            assert done.returncode == 0, done.stdout
