"""Pods of many shapes and the sidecars that they get."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spillway_operator.injection import ADMIN_PORT, CONTAINER, Injection, Sidecar, asked, inject, injected

GOLDEN = Path(__file__).parent / "golden" / "injection"
SIDECAR = Sidecar(
    "example.com/spillway-balancer:1.0",
    "https://spillway-operator.spillway.svc:9443",
    {"default": "http://spillway.spillway.svc", "eu": "http://spillway-eu.spillway.svc:8080"},
    pull_secrets=("registry", "own"),
)


def applied(pod: Any, patch: Any) -> Any:
    """The Pod after the operations, all of which add (RFC 6902, 4.1)."""
    pod = copy.deepcopy(pod)
    for step in patch:
        assert step["op"] == "add"
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        at = pod
        for part in way:
            at = at[int(part)] if isinstance(at, list) else at[part]
        value = copy.deepcopy(step["value"])
        if not isinstance(at, list):
            assert last not in at, "nothing that is there is put in the place of"
            at[last] = value
        elif last == "-":
            at.append(value)
        else:
            at.insert(int(last), value)
    return pod


class Plain(yaml.SafeDumper):
    """Writes what comes twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.pod.yaml")), ids=lambda file: file.name.split(".")[0])
def test_pods_get_what_the_golden_files_say(file: Path) -> None:
    pod = yaml.safe_load(file.read_text())
    found = inject(pod, "shop", SIDECAR)
    assert not found.refused
    expected = file.with_name(file.name.replace(".pod.", ".injected."))
    made = yaml.dump(applied(pod, found.patch), Dumper=Plain, sort_keys=False)
    assert made == expected.read_text()


def app(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "app"}, "spec": {"containers": [{"name": "app", "image": "app:1"}], **spec}}


def annotated(**said: str) -> dict[str, Any]:
    names = {f"spillway.dev/{name.replace('_', '-')}": value for name, value in said.items()}
    return {"metadata": {"name": "app", "annotations": names}, "spec": app()["spec"]}


def required(*terms: list[dict[str, Any]]) -> dict[str, Any]:
    """Affinity to nodes of one of these terms."""
    found = {"nodeSelectorTerms": [{"matchExpressions": each} for each in terms]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": found}}


PORT = "it must be a number from 1024 to 65535"


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        (app(nodeSelector={"kubernetes.io/os": "windows"}), "it runs on Windows, for which there is no sidecar"),
        (app(os={"name": "windows"}), "it runs on Windows, for which there is no sidecar"),
        (
            app(affinity=required([{"key": "kubernetes.io/os", "operator": "In", "values": ["windows"]}])),
            "it runs on Windows, for which there is no sidecar",
        ),
        (
            app(securityContext={"windowsOptions": {"runAsUserName": "ContainerUser"}}),
            "it runs on Windows, for which there is no sidecar",
        ),
        (app(hostNetwork=True), "it has the network of its node, where the sidecar's ports would be everybody's"),
        (
            app(dnsPolicy="Default"),
            "it asks its node for names (dnsPolicy Default), and nodes know neither operator nor gateway",
        ),
        (app(initContainers=[{"name": CONTAINER}]), "it has a container 'spillway' of its own"),
        (
            app(containers=[{"name": "a", "ports": [{"containerPort": 8787}]}]),
            "its container 'a' has port 8787, which is the sidecar's; spillway.dev/port moves that",
        ),
        (
            app(containers=[{"name": "a", "ports": [{"containerPort": ADMIN_PORT}]}]),
            "its container 'a' has port 9797, which is the sidecar's",
        ),
        (app(volumes=[{"name": "spillway-token"}]), "it has a volume 'spillway-token' of its own"),
        (annotated(port="80"), f"spillway.dev/port: '80' is no port; {PORT}"),
        (annotated(port="http"), f"spillway.dev/port: 'http' is no port; {PORT}"),
        (annotated(port="9797"), "spillway.dev/port: 9797 is where the sidecar answers probes; take another one"),
        (
            annotated(gateway="EU west"),
            "spillway.dev/gateway: there is no gateway 'EU west'; there is default, eu",
        ),
        (
            annotated(routes="chat; more"),
            "spillway.dev/routes: 'chat; more' is no name of a RoutePolicy; "
            "write names with commas between them, those of other namespaces as namespace/name",
        ),
        (
            annotated(routes="a/b/c"),
            "spillway.dev/routes: 'a/b/c' is no name of a RoutePolicy; "
            "write names with commas between them, those of other namespaces as namespace/name",
        ),
        (
            {**app(), "metadata": {"annotations": {"kubernetes.io/config.mirror": "1f"}}},
            "it is the mirror of a static Pod, which its node runs whatever is said of the mirror",
        ),
        (
            annotated(memory="1Gi", memory_limit="1G"),
            "spillway.dev/memory: 1Gi is more than the 1G of spillway.dev/memory-limit",
        ),
        (annotated(memory="a lot"), "spillway.dev/memory: 'a lot' is no quantity; write it like 100m or 128Mi"),
    ],
)
def test_what_cannot_have_one_is_told_why(pod: Any, why: str) -> None:
    assert inject(pod, "shop", SIDECAR) == Injection(refused=why)


def test_a_pod_that_may_run_on_linux_too_gets_one() -> None:
    system = {"key": "kubernetes.io/os", "operator": "In"}
    for terms in ([[{**system, "values": ["linux"]}]], [[{**system, "values": ["windows"]}], []]):
        assert inject(app(affinity=required(*terms)), "shop", SIDECAR).patch


def test_the_cluster_autoscaler_may_take_a_node_with_the_state_and_keeps_what_it_was_told() -> None:
    name = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
    for said, found in ((None, "spillway-state"), ("cache,tmp", "cache,tmp,spillway-state")):
        pod = app()
        if said is not None:
            pod["metadata"]["annotations"] = {name: said}
        (value,) = (
            step["value"].get(name) if step["path"] == "/metadata/annotations" else step["value"]
            for step in inject(pod, "shop", SIDECAR).patch
            if step["path"].endswith(("/annotations", "local-volumes"))
        )
        assert value == found


def test_within_a_pod_that_has_resources_as_a_whole_it_has_only_what_the_pod_says() -> None:
    pod = app(resources={"requests": {"memory": "128Mi"}})
    (sidecar,) = applied(pod, inject(pod, "shop", SIDECAR).patch)["spec"]["initContainers"]
    assert sidecar["resources"] == {}
    pod["metadata"]["annotations"] = {"spillway.dev/cpu": "10m"}
    (sidecar,) = applied(pod, inject(pod, "shop", SIDECAR).patch)["spec"]["initContainers"]
    assert sidecar["resources"] == {"requests": {"cpu": "10m"}}


def test_without_a_gateway_named_default_the_first_one_is_taken() -> None:
    found = inject(app(), "shop", SIDECAR._replace(gateways={"us": "http://us", "eu": "http://eu"}))
    sidecar = applied(app(), found.patch)["spec"]["initContainers"][0]
    assert {"--gateway=eu", "--gateway-url=http://eu"} <= set(sidecar["args"])


@pytest.mark.parametrize(
    ("own", "namespace", "wanted"),
    [
        ("true", None, True),
        (None, "true", True),
        ("true", "false", True),
        ("false", "true", False),
        (None, None, False),
        (None, "yes", False),
        ("True", "true", False),
    ],
)
def test_who_asks(own: str | None, namespace: str | None, wanted: bool) -> None:
    def labels(value: str | None) -> dict[str, str]:
        return {} if value is None else {"spillway.dev/inject": value}

    assert asked({"metadata": {"labels": labels(own)}, "spec": {}}, labels(namespace)) is wanted
    assert asked({"metadata": {}, "spec": {}}, labels(namespace)) is (namespace == "true")


NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).filter(lambda name: name != CONTAINER)
ENV = st.lists(
    st.sampled_from(["OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "A", "B"]).map(lambda name: {"name": name, "value": "x"}),
    unique_by=lambda each: each["name"],
)
CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES},
        optional={"env": ENV, "ports": st.just([{"containerPort": 80}]), "restartPolicy": st.just("Always")},
    ),
    unique_by=lambda each: each["name"],
    min_size=1,
    max_size=4,
)
PODS = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries({}, optional={"annotations": st.dictionaries(NAMES, NAMES), "name": NAMES}),
        "spec": st.fixed_dictionaries(
            {"containers": CONTAINERS},
            optional={
                "initContainers": CONTAINERS,
                "volumes": st.lists(st.fixed_dictionaries({"name": NAMES}), max_size=2),
                "imagePullSecrets": st.lists(st.fixed_dictionaries({"name": NAMES}), max_size=2),
            },
        ),
    }
)


@given(PODS)
def test_nothing_of_the_pod_is_changed_and_a_second_time_changes_nothing(pod: Any) -> None:
    before = json.dumps(pod)
    found = inject(pod, "shop", SIDECAR)
    assert json.dumps(pod) == before
    after = applied(pod, found.patch)
    assert injected(after)
    assert inject(after, "shop", SIDECAR) == Injection()
    sidecar, *others = after["spec"]["initContainers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == (CONTAINER, "Always")
    own = pod["spec"].get("initContainers", []) + pod["spec"]["containers"]
    for was, now in zip(own, others + after["spec"]["containers"], strict=True):
        assert {**now, "env": None} == {**was, "env": None}
        assert now["env"][: len(was.get("env", []))] == was.get("env", [])
        assert {"OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"} <= {each["name"] for each in now["env"]}
        assert len({each["name"] for each in now["env"]}) == len(now["env"])
    for name in ("volumes", "imagePullSecrets"):
        assert after["spec"][name][: len(pod["spec"].get(name, []))] == pod["spec"].get(name, [])
