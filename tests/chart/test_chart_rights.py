"""Rights of the chart's ServiceAccounts: no more than are used, and each is explained."""

from __future__ import annotations

import re

from tests.chart.found import named
from tests.chart.value_sets import ROOT, VALUES


def rules_of(objects, *kinds):
    for one in objects:
        if one["kind"] in kinds and not one["metadata"]["name"].endswith(("-view", "-edit")):
            for rule in one["rules"]:
                yield one["metadata"].get("namespace"), rule


def test_the_operator_lists_secrets_only_for_consumers_and_writes_none_but_its_own(objects):
    (operator,) = (
        one for one in objects if one["kind"] == "Deployment" and one["metadata"]["name"].endswith("-operator")
    )
    listed = "--consumers" in operator["spec"]["template"]["spec"]["containers"][0]["args"]
    listing = [rule for _, rule in rules_of(objects, "Role", "ClusterRole") if rule["verbs"] == ["list"]]
    assert any(rule["resources"] == ["secrets"] for rule in listing) is listed
    for namespace, rule in rules_of(objects, "Role", "ClusterRole"):
        assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
        if "secrets" in rule["resources"]:
            assert rule["verbs"] == ["list"] or not {"list", "watch", "delete", "update"} & set(rule["verbs"])
            if {"create", "patch"} & set(rule["verbs"]):
                assert namespace == "spillway-system"
                assert all(name.startswith("spillway-") for name in rule["resourceNames"])
        if not {"list", "watch", "get"} >= set(rule["verbs"]) and "resourceNames" not in rule:
            assert (tuple(rule["resources"]), tuple(rule["verbs"])) in {
                (("modelpools/status", "routepolicies/status"), ("patch",)),
                (("events",), ("create", "patch")),
                (("deployments/scale", "statefulsets/scale"), ("get", "patch")),
                (("leaderworkersets/scale",), ("get", "patch")),
                (("pods/status",), ("patch",)),
                (("tokenreviews",), ("create",)),
                (("leases",), ("create",)),
            }


def test_with_watch_namespaces_nothing_of_other_namespaces_can_be_read(render):
    objects = render(VALUES["watch-namespaces"])
    everywhere = {resource for _, rule in rules_of(objects, "ClusterRole") for resource in rule["resources"]}
    assert everywhere == {"tokenreviews"}
    in_all = [rule for _, rule in rules_of(render(), "ClusterRole")]
    for namespace in VALUES["watch-namespaces"]["watchNamespaces"]:
        there = [rule for where, rule in rules_of(objects, "Role") if where == namespace]
        assert there
        assert all(rule in in_all for rule in there)
        (binding,) = [
            one for one in objects if one["kind"] == "RoleBinding" and one["metadata"]["namespace"] == namespace
        ]
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": "spillway-operator", "namespace": "spillway-system"}
        ]
    operator = named(objects, "Deployment", "spillway-operator")["spec"]["template"]["spec"]["containers"][0]
    watched = [text for text in operator["args"] if text.startswith("--watch-namespace")]
    assert watched == ["--watch-namespace=team-a", "--watch-namespace=team-b"]


def test_a_given_certificate_is_read_and_never_written(render):
    for given, verbs in ((True, ["get"]), (False, ["get", "create", "patch"])):
        objects = render({"operator": {"tls": {"given": given}}})
        rules = [
            rule for _, rule in rules_of(objects, "Role") if "spillway-operator-tls" in rule.get("resourceNames", ())
        ]
        assert [rule["verbs"] for rule in rules] == [verbs]
        operator = named(objects, "Deployment", "spillway-operator")["spec"]["template"]["spec"]["containers"][0]
        assert ("--given-tls" in operator["args"]) is given


def test_each_rule_is_explained_in_the_documentation(render):
    page = (ROOT / "docs" / "chart.md").read_text().split("## Rights, rule by rule")[1].split("\n## ")[0]
    rows = [re.findall(r"`([a-z/]+)`", cell) for cell in re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE)]
    verbs = [re.findall(r"`([a-z]+)`", cell) for cell in re.findall(r"^\| `.*?` \| (`.*?`) \|", page, re.MULTILINE)]
    explained = {(tuple(resources), tuple(how)) for resources, how in zip(rows, verbs, strict=True)}
    granted = {
        (tuple(rule["resources"]), tuple(rule["verbs"]))
        for values in (
            {},
            {"operator": {"tls": {"given": True}}},
            {"consumers": {"enabled": True}},
            VALUES["watch-namespaces"],
            VALUES["sidecars"],
            VALUES["watch-namespaces"] | VALUES["sidecars"],
        )
        for _, rule in rules_of(render(values), "Role", "ClusterRole")
    }
    assert explained == granted
