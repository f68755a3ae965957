"""Sidecars in the chart: what the API server asks about, whom it asks, and what the operator is told of sidecars."""

from __future__ import annotations

import yaml
from tests.chart.found import argument, named, of_kind
from tests.chart.value_sets import ROOT, VALUES

from spillway_operator.injection import CA_CONFIG_MAP, LABEL, Sidecar
from spillway_operator.settings import Settings
from spillway_operator.sidecar_settings import read_sidecars
from spillway_operator.webhook import DEADLINE, PATH

GOLDEN = ROOT / "tests" / "chart" / "golden"


def told(objects, tmp_path) -> Sidecar:
    """What the operator reads."""
    operator = named(objects, "Deployment", "spillway-operator")["spec"]["template"]
    (container,) = operator["spec"]["containers"]
    file = argument(container, "sidecars")
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == "sidecars")
    (volume,) = (each for each in operator["spec"]["volumes"] if each["name"] == "sidecars")
    data = named(objects, "ConfigMap", volume["configMap"]["name"])["data"]
    folder, _, name = file.rpartition("/")
    assert mount["mountPath"] == folder
    assert len(operator["metadata"]["annotations"]["checksum/sidecars"]) == 64, "it is read at the start"
    (tmp_path / name).write_text(data[name])
    return read_sidecars(tmp_path / name)


def test_the_webhooks_are_what_the_golden_file_says(render):
    (found,) = of_kind(render({"sidecars": {"enabled": True}}), "MutatingWebhookConfiguration")
    assert found == yaml.safe_load((GOLDEN / "webhooks.yaml").read_text())


def test_the_operator_finds_its_webhooks_where_the_api_server_finds_the_operator(render):
    objects = render(VALUES["sidecars"], release="acme", namespace="llm")
    settings = Settings(namespace="llm", name="o", address="10.0.0.1", fullname="acme-spillway")
    webhooks = named(objects, "MutatingWebhookConfiguration", settings.webhook)["webhooks"]
    for hook in webhooks:
        service = hook["clientConfig"]["service"]
        assert f"{service['name']}.{service['namespace']}.svc" in settings.names
        assert service["path"] == PATH
        assert hook["timeoutSeconds"] > DEADLINE
        (port,) = (
            each
            for each in named(objects, "Service", service["name"])["spec"]["ports"]
            if each["port"] == service["port"]
        )
        (container,) = named(objects, "Deployment", service["name"])["spec"]["template"]["spec"]["containers"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        assert f"--webhook-port={ports[port['targetPort']]}" in container["args"]
    # The right is to this configuration and to no other.
    (rule,) = (
        rule
        for role in of_kind(objects, "ClusterRole")
        for rule in role["rules"]
        if rule["resources"] == ["mutatingwebhookconfigurations"]
    )
    assert rule["resourceNames"] == [settings.webhook]


def test_one_of_the_two_webhooks_is_asked_for_each_pod_that_wants_one_and_for_no_other(render):
    (config,) = of_kind(render({"sidecars": {"enabled": True}}), "MutatingWebhookConfiguration")

    def asked(pod, space, namespace="shop"):
        space = {"kubernetes.io/metadata.name": namespace, **space}
        hits = [
            hook["name"]
            for hook in config["webhooks"]
            if takes(hook["objectSelector"], pod) and takes(hook["namespaceSelector"], space)
        ]
        assert len(hits) <= 1
        return bool(hits)

    yes, no = {LABEL: "true"}, {LABEL: "false"}
    assert asked(yes, {})
    assert asked({}, yes)
    assert asked(yes, no)
    assert asked(yes, yes)
    assert not asked(no, yes)
    assert not asked({}, {})
    assert not asked({}, no)
    assert not asked(yes, yes, "kube-system")
    assert not asked(yes, yes, "spillway-system")


def takes(selector, labels):
    """As Kubernetes' LabelSelector."""
    rules = {
        "In": lambda value, values: value in values,
        "NotIn": lambda value, values: value not in values,
        "DoesNotExist": lambda value, values: value is None,
    }
    return all(
        rules[each["operator"]](labels.get(each["key"]), each.get("values", ()))
        for each in selector["matchExpressions"]
    )


def test_with_watch_namespaces_no_others_are_asked_about(render):
    objects = render(VALUES["all-on"])
    (config,) = of_kind(objects, "MutatingWebhookConfiguration")
    for hook in config["webhooks"]:
        assert hook["failurePolicy"] == "Fail"
        for namespace, wanted in (("team-a", True), ("team-b", False)):
            labels = {"kubernetes.io/metadata.name": namespace, LABEL: "true"}
            assert takes(hook["namespaceSelector"], labels) is wanted
    rules = [
        (role["kind"], role["metadata"].get("namespace"))
        for kind in ("Role", "ClusterRole")
        for role in of_kind(objects, kind)
        for rule in role["rules"]
        if rule.get("resourceNames") == [CA_CONFIG_MAP]
    ]
    assert sorted(rules) == [("Role", "spillway-system"), ("Role", "team-a")]
    policy = named(objects, "NetworkPolicy", "spillway-operator")["spec"]
    (stream,) = (rule for rule in policy["ingress"] if rule["ports"][0]["port"] == "stream")
    (peer,) = (peer["namespaceSelector"] for peer in stream["from"] if "namespaceSelector" in peer)
    assert takes(peer, {"kubernetes.io/metadata.name": "team-a"})
    assert not takes(peer, {"kubernetes.io/metadata.name": "team-b"})


def test_the_operator_is_told_of_the_image_and_of_every_gateway(render, tmp_path):
    assert told(render(VALUES["sidecars"]), tmp_path) == Sidecar(
        image="spillway-balancer:0.1.0.dev0",
        operator="https://spillway-operator.spillway-system.svc:9443",
        gateways={
            "default": "http://spillway.spillway-system.svc",
            "internal": "https://llm.corp",
            "odd": "http://spillway-odd.spillway-system.svc:8000",
        },
        resources={"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
    )
    found = told(render(VALUES["all-on"]), tmp_path)
    assert found.image.startswith("mirror.internal/spillway-balancer:v9")
    assert (found.pull_policy, found.pull_secrets) == ("Always", ("mirror",))
    # Values are merged: what is not said stays.
    assert found.resources == {"requests": {"cpu": "0.1", "memory": "96Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


def test_the_gateways_are_told_by_the_names_of_their_services(render, tmp_path):
    objects = render(VALUES["sidecars"])
    ports = {one["metadata"]["name"]: one["spec"]["ports"][0]["port"] for one in of_kind(objects, "Service")}
    for gateway, url in told(objects, tmp_path).gateways.items():
        if gateway != "internal":
            host, _, port = url.removeprefix("http://").partition(":")
            service, namespace, _ = host.split(".")
            assert namespace == "spillway-system"
            assert ports[service] == int(port or 80)


def test_api_servers_and_sidecars_of_all_namespaces_reach_the_operator(render):
    policy = named(render(VALUES["sidecars"]), "NetworkPolicy", "spillway-operator")["spec"]
    by_port = {rule["ports"][0]["port"]: rule for rule in policy["ingress"]}
    assert {"namespaceSelector": {}} in by_port["stream"]["from"]
    assert "from" not in by_port["https-webhook"]


def test_without_sidecars_there_is_nothing_of_them(render):
    text = yaml.safe_dump_all(render())
    for word in ("sidecar", "webhook", CA_CONFIG_MAP, "9444"):
        assert word not in text.replace("mutatingwebhookconfigurations", "").lower(), word


def test_an_upgrade_that_keeps_the_values_of_a_release_without_sidecars_gives_them_resources(render, tmp_path):
    """`helm upgrade --reuse-values --set sidecars.enabled=true`: values that are new in the chart are not there."""
    nothing = dict.fromkeys(("routes", "gatewayURLs", "pullSecrets", "failurePolicy", "resources"))
    objects = render({"sidecars": {**nothing, "enabled": True}})
    assert told(objects, tmp_path) == told(render({"sidecars": {"enabled": True}}), tmp_path)
    (found,) = of_kind(objects, "MutatingWebhookConfiguration")
    assert {hook["failurePolicy"] for hook in found["webhooks"]} == {"Ignore"}
    assert not of_kind(render({"sidecars": None}), "MutatingWebhookConfiguration")
