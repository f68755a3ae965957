"""examples/kind: objects that the API takes, wired together, and a client that can be run here too."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml
from tests.chart.value_sets import ROOT

from spillway_api.files import load

FOLDER = ROOT / "examples" / "kind"


@pytest.fixture(scope="module")
def objects():
    names = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    return [one for name in names for one in yaml.safe_load_all((FOLDER / name).read_text())]


def of_kind(objects, kind):
    (one,) = [one for one in objects if one["kind"] == kind]
    return one


def test_objects_are_valid(objects, conform):
    done = conform(yaml.safe_dump_all(objects))
    assert done.returncode == 0, done.stdout
    assert load([FOLDER / "objects.yaml"]).problems == ()


def test_pods_pass_the_restricted_profile_that_the_namespace_demands(objects, pods):
    assert of_kind(objects, "Namespace")["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    for _, spec in pods(objects):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_pool_takes_the_engines_and_the_client_calls_what_the_policy_serves(objects):
    deployment = of_kind(objects, "Deployment")["spec"]["template"]
    pool, policy = of_kind(objects, "ModelPool")["spec"], of_kind(objects, "RoutePolicy")["spec"]
    assert pool["source"]["pods"]["selector"]["matchLabels"].items() <= deployment["metadata"]["labels"].items()
    container = deployment["spec"]["containers"][0]
    assert pool["source"]["pods"]["ports"] == [container["ports"][0]["containerPort"]]
    assert f"--model={pool['models'][0]['name']}" in container["args"]
    assert policy["rules"][0]["tiers"][0]["pools"][0]["name"] == of_kind(objects, "ModelPool")["metadata"]["name"]
    assert f'"model": "{policy["models"][0]}"' in (FOLDER / "client.py").read_text()
    command = of_kind(objects, "Job")["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[-1] == "http://spillway.spillway-system.svc/v1"


@pytest.mark.parametrize("command", ["images", "up", "demo", "down"])
def test_without_docker_or_kind_the_script_says_what_is_missing(command, tmp_path):
    for name in ("bash", "dirname", "sed"):
        (tmp_path / name).symlink_to(subprocess.check_output(["which", name], text=True).strip())
    script = FOLDER / "cluster.sh"
    done = subprocess.run(
        [tmp_path / "bash", script, command], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(("docker is missing: it builds", "kind is missing: it ma"))


def test_the_client_talks_to_an_engine(tmp_path):
    """Here without a balancer between, so it cannot tell which endpoint answered."""
    command = [
        sys.executable,
        "-m",
        "spillway_balancer.cli",
        "engine",
        "--port",
        "0",
        "--model",
        "chat",
        "--speed",
        "500",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        try:
            base = re.search(r"http://\S+", engine.stdout.readline())[0]
            client = subprocess.run(
                [sys.executable, FOLDER / "client.py", base], capture_output=True, text=True, timeout=60
            )
        finally:
            engine.terminate()
    assert client.returncode == 0, client.stderr
    assert client.stdout.splitlines() == [
        f"conversation {number}: turns answered by ? ? ? ? ?" for number in (1, 2, 3, 4)
    ]
