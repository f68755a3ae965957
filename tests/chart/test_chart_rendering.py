"""The chart's objects: valid by Kubernetes' own description, restricted, and named as balancer and operator expect."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import typer
import yaml
from tests.chart.found import argument, matches, named, names
from tests.chart.value_sets import CHART, ROOT, VALUES

from spillway_api.prices import read_overlay
from spillway_balancer import running
from spillway_balancer.net import identities, telemetry
from spillway_operator import cli as operator_cli

# ---- linters


@pytest.mark.parametrize("values", list(VALUES))
def test_helm_lint_has_nothing_to_say(helm, values):
    done = helm("lint", "--strict", CHART, values=VALUES[values])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("values", list(VALUES))
def test_every_object_is_valid_by_the_description_of_the_api(conform, render, values):
    done = conform(yaml.safe_dump_all(render(VALUES[values])))
    assert done.returncode == 0, done.stdout
    assert re.search(r"Invalid: 0, Errors: 0", done.stdout)


def test_the_check_of_objects_sees_a_wrong_field(conform, render):
    """Schemas are made by this project's tests: that they refuse anything at all must be shown."""
    deployment = named(render(), "Deployment", "spillway-gateway")
    for spoil in (
        lambda spec: spec.update(replica=2),
        lambda spec: spec["template"]["spec"].update(securityContext={"runAsNonRoot": "yes"}),
        lambda spec: spec["template"]["spec"]["containers"][0]["ports"][0].update(containerPort="http"),
    ):
        spoilt = json.loads(json.dumps(deployment))
        spoil(spoilt["spec"])
        assert conform(json.dumps(spoilt)).returncode == 1


ACCEPTED = {
    # Tags are versions; whoever sets a moving one sets pullPolicy too.
    "ImagePullPolicy is not set to Always",
    # A CPU limit throttles, and that is latency; memory is limited.
    "CPU limit is not set",
    # Gateways spread by topologySpreadConstraints.
    "Deployment does not have a host podAntiAffinity set",
    # Engines and providers may be anywhere; networkPolicy.gatewayEgress narrows it.
    "The pod does not have a matching egress NetworkPolicy",
}


def test_kube_score_finds_only_what_is_meant(tools, helm):
    rendered = helm("template", "spillway", CHART, "--namespace", "spillway-system", "--skip-tests").stdout
    command = [tools / "kube-score", "score", "-", "--output-format", "ci"]
    done = subprocess.run(command, input=rendered, capture_output=True, text=True)
    found = set(re.findall(r"^\[(?:CRITICAL|WARNING)\] [^:]+: (?:\(\w+\) )?(.*)$", done.stdout, re.MULTILINE))
    assert found == ACCEPTED
    assert "[OK]" in done.stdout


# ---- Pod Security


def test_pods_pass_the_restricted_profile_and_cannot_write(objects, pods):
    found = pods(objects)
    assert found
    for name, spec in found:
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for volume in spec.get("volumes", ()):
            assert volume.keys() - {"name"} <= {"configMap", "secret", "projected", "emptyDir"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", ()))
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


def test_a_balancer_has_no_token_of_the_api_server_and_no_rights(objects):
    bound = {
        subject["name"]
        for one in objects
        if one["kind"] in ("RoleBinding", "ClusterRoleBinding")
        for subject in one["subjects"]
    }
    assert bound == {"spillway-operator"}
    gateways = [
        one for one in objects if one["kind"] == "Deployment" and "spillway.dev/gateway" in one["metadata"]["labels"]
    ]
    assert gateways
    for one in gateways:
        spec = one["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        account = named(objects, "ServiceAccount", spec["serviceAccountName"])
        assert account["automountServiceAccountToken"] is False
        tokens = [
            source["serviceAccountToken"]
            for volume in spec["volumes"]
            for source in volume.get("projected", {}).get("sources", ())
            if volume["name"] != "identity-tokens"  # for clouds, where somebody wants them
        ]
        assert tokens == [{"audience": "spillway-operator", "expirationSeconds": 3600, "path": "token"}]


# ---- names and wiring


def test_prices_reach_the_operator_in_a_form_that_it_reads(render, tmp_path):
    objects = render(VALUES["all-on"])
    deployment = named(objects, "Deployment", "spillway-operator")["spec"]["template"]
    (container,) = deployment["spec"]["containers"]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "prices"]
    (volume,) = [each for each in deployment["spec"]["volumes"] if each["name"] == "prices"]
    data = named(objects, "ConfigMap", volume["configMap"]["name"])["data"]
    folder, _, file = argument(container, "prices").rpartition("/")
    assert mount["mountPath"] == folder
    (tmp_path / file).write_text(data[file])
    assert read_overlay(tmp_path / file)("OpenAI", "gpt-5-mini").price.output == "1.60"
    assert len(deployment["metadata"]["annotations"]["checksum/prices"]) == 64, "they are read when it starts"


def test_names_of_the_default_release(render):
    objects = render()
    assert names(objects, "Deployment") == {"spillway-operator", "spillway-gateway"}
    assert names(objects, "Service") == {"spillway-operator", "spillway"}
    assert names(objects, "ServiceAccount") == {"spillway-operator", "spillway-gateway"}
    assert names(objects, "PodDisruptionBudget") == {"spillway-operator", "spillway-gateway"}
    assert named(objects, "Service", "spillway")["spec"]["ports"][0]["port"] == 80


def test_names_of_another_release_and_of_a_further_gateway(render):
    objects = render(VALUES["two-gateways"], release="acme", namespace="llm")
    deployments = {"acme-spillway-operator", "acme-spillway-gateway", "acme-spillway-gateway-internal"}
    assert names(objects, "Deployment") == deployments
    assert names(objects, "Service") == {"acme-spillway-operator", "acme-spillway", "acme-spillway-internal"}
    for one in objects:
        where = one["metadata"].get("namespace")
        assert where == "llm" or one["kind"].startswith(("Cluster", "CustomResource"))
        if where is None and one["kind"].startswith("Cluster"):
            assert one["metadata"]["name"].startswith("llm-acme-spillway")
    spec = named(objects, "Deployment", "acme-spillway-gateway-internal")["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert argument(container, "operator") == "https://acme-spillway-operator.llm.svc:9443"
    assert argument(container, "gateway") == "internal"
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["ca"]["configMap"] == {"name": "acme-spillway-operator-ca"}
    assert volumes["boot"]["configMap"] == {"name": "acme-spillway-gateway-internal-boot", "optional": True}
    secret = volumes["credentials"]["secret"]
    assert (secret["secretName"], secret["optional"]) == ("acme-spillway-gateway-internal-credentials", True)
    operator = named(objects, "Deployment", "acme-spillway-operator")["spec"]["template"]["spec"]["containers"][0]
    assert argument(operator, "fullname") == "acme-spillway"


def test_files_that_the_balancer_is_told_of_are_mounted(objects):
    for one in objects:
        labels = one["metadata"]["labels"] if one["kind"] == "Deployment" else {}
        if "spillway.dev/gateway" in labels:
            assert (
                one["spec"]["template"]["metadata"]["labels"]["spillway.dev/gateway"] == labels["spillway.dev/gateway"]
            )
            container = one["spec"]["template"]["spec"]["containers"][0]
            mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
            for flag in ("token-file", "ca-file", "state", "boot", "secrets"):
                assert any(argument(container, flag).startswith(mount) for mount in mounts), flag


def test_an_identity_gives_a_gateway_tokens_for_clouds_and_says_who_may_use_it(render):
    identity = {
        "namespaces": ["ml", "search"],
        "hosts": ["llm.corp"],
        "tokens": [{"name": "aws", "audience": "sts.amazonaws.com"}],
        "configMap": "clouds",
    }
    annotations = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/spillway"}
    values = {"gateway": {"identity": identity, "env": {"AWS_REGION": "eu-central-1"}}}
    values["gateway"]["serviceAccountAnnotations"] = annotations
    objects = render(values)
    assert named(objects, "ServiceAccount", "spillway-gateway")["metadata"]["annotations"] == annotations
    spec = named(objects, "Deployment", "spillway-gateway")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert {each["name"]: each["value"] for each in container["env"]} == {
        "AWS_REGION": "eu-central-1",
        identities.NAMESPACES: "ml,search",
        identities.HOSTS: "llm.corp",
    }
    volumes = {each["name"]: each for each in spec["volumes"]}
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    (source,) = volumes["identity-tokens"]["projected"]["sources"]
    assert source["serviceAccountToken"] == {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "aws"}
    assert volumes["identity-config"]["configMap"] == {"name": "clouds"}
    assert mounts["identity-tokens"] == "/var/run/spillway/identity"
    assert mounts["identity-config"] == "/etc/spillway/identity"


def test_without_an_identity_there_is_nothing_of_it(render):
    spec = named(render({}), "Deployment", "spillway-gateway")["spec"]["template"]["spec"]
    assert "env" not in spec["containers"][0]
    assert not [each for each in spec["volumes"] if each["name"].startswith("identity")]


def test_an_upgrade_may_reuse_the_values_of_a_chart_that_knew_less(render):
    """`helm upgrade --reuse-values` gives templates the old chart's defaults, in which later values are missing."""
    old = {"gateway": {"identity": None, "env": None}, "prices": None, "sidecars": None}
    assert render(old) == render({})


def options_of(program, words):
    """What a program makes of its arguments; it ends where it does not know one."""
    command, *given = words
    if program == "balancer":
        assert command == "run"
        return vars(running.parser().parse_args(given)).keys()
    with typer.main.get_command(operator_cli.cli).get_command(None, command).make_context(command, given) as parsed:
        return parsed.params.keys()


def test_programs_take_the_arguments_that_they_are_given(objects):
    for one in objects:
        if one["kind"] == "Deployment":
            (container,) = one["spec"]["template"]["spec"]["containers"]
            given = {text.partition("=")[0].removeprefix("--").replace("-", "_") for text in container["args"][1:]}
            assert given <= options_of(container["name"], container["args"])


def test_services_budgets_and_spreads_select_the_pods_of_one_workload(objects):
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in objects
        if one["kind"] == "Deployment"
    }
    for one in objects:
        if one["kind"] in ("Service", "PodDisruptionBudget", "Deployment"):
            selector = one["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            assert sum(matches(selector, labels) for labels in pods.values()) == 1, one["metadata"]["name"]


def test_pods_have_time_for_all_that_their_end_takes(objects):
    for one in objects:
        if one["kind"] == "Deployment" and "spillway.dev/gateway" in one["metadata"]["labels"]:
            spec = one["spec"]["template"]["spec"]
            container = spec["containers"][0]
            slept = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            needed = slept + int(argument(container, "linger")) + int(argument(container, "drain"))
            assert spec["terminationGracePeriodSeconds"] == needed + 5
            assert one["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_gateway_overrides_the_defaults_also_by_false_and_nought(render):
    values = {
        "gateway": {"autoscaling": {"enabled": True}, "podAnnotations": {"a": "b"}},
        "gateways": {"internal": {"autoscaling": {"enabled": False}, "preStopSleepSeconds": 0}},
    }
    objects = render(values)
    assert names(objects, "HorizontalPodAutoscaler") == {"spillway-gateway"}
    assert "replicas" not in named(objects, "Deployment", "spillway-gateway")["spec"]
    internal = named(objects, "Deployment", "spillway-gateway-internal")["spec"]
    assert internal["replicas"] == 2
    assert "lifecycle" not in internal["template"]["spec"]["containers"][0]
    assert internal["template"]["metadata"]["annotations"]["a"] == "b"


def test_autoscaling_aims_at_metrics_that_exist(render):
    values = {"gateway": {"autoscaling": {"enabled": True, "requestsInFlight": 200, "cpuPercent": 0}}}
    scaler = named(render(values), "HorizontalPodAutoscaler", "spillway-gateway")["spec"]
    (metric,) = scaler["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "200"}
    with open(telemetry.__file__, encoding="utf-8") as source:
        assert f'"{name}"' in source.read()


def test_images_stand_in_one_place(render, pods):
    for name, spec in pods(render(VALUES["air-gapped"])):
        assert spec["imagePullSecrets"] == [{"name": "mirror"}, {"name": "other"}], name
        for container in spec["containers"]:
            assert container["image"].startswith("mirror.internal:5000/llm/spillway-")
    images = {name: spec["containers"][0]["image"] for name, spec in pods(render(VALUES["air-gapped"]))}
    assert images["spillway-gateway"].partition("@")[2].startswith("sha256:")
    assert images["spillway-operator"].endswith(":0.1.0.dev0")


# ---- CRDs


def test_crds_are_the_generated_ones_and_kept_on_uninstall(render):
    there = {one["metadata"]["name"]: one for one in render() if one["kind"] == "CustomResourceDefinition"}
    for path in (ROOT / "crds").glob("*.yaml"):
        assert (CHART / "files" / "crds" / path.name).read_bytes() == path.read_bytes(), "run `make generate`"
        wanted = yaml.safe_load(path.read_text())
        found = there.pop(wanted["metadata"]["name"])
        assert found["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert found == wanted
    assert not there
    assert not names(render({"crds": {"install": False}}), "CustomResourceDefinition")


# ---- network policies


def test_network_policies_can_be_off(render):
    assert names(render(), "NetworkPolicy") == {"spillway-operator", "spillway-gateways"}
    assert not names(render({"networkPolicy": {"enabled": False}}), "NetworkPolicy")


def test_the_stream_is_open_to_gateways_and_operators_only(render):
    objects = render()
    policy = named(objects, "NetworkPolicy", "spillway-operator")["spec"]
    (rule,) = [rule for rule in policy["ingress"] if rule["ports"][0]["port"] == "stream"]
    peers = [peer["podSelector"]["matchLabels"] for peer in rule["from"]]
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in objects
        if one["kind"] == "Deployment"
    }
    for name in ("spillway-gateway", "spillway-operator"):
        assert any(matches(peer, labels[name]) for peer in peers)
    assert not any(matches(peer, {"app.kubernetes.io/name": "spillway"}) for peer in peers)


def test_the_cluster_autoscaler_may_take_the_node_of_a_balancer(render):
    name = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
    for said, wanted in (({}, "state"), ({name: "state,tmp"}, "state,tmp")):
        gateway = named(render({"gateway": {"podAnnotations": said}}), "Deployment", "spillway-gateway")
        template = gateway["spec"]["template"]
        assert template["metadata"]["annotations"][name] == wanted
        local = {each["name"] for each in template["spec"]["volumes"] if "emptyDir" in each}
        assert local <= set(wanted.split(","))
