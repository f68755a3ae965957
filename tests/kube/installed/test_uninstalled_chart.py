"""After all other tests of the installed chart: it goes, and what belongs to users stays."""

from __future__ import annotations

import json

from tests.kube.access import until
from tests.kube.installed import objects
from tests.kube.installed.release import SYSTEM

KINDS = "deployments,pods,services,serviceaccounts,secrets,configmaps,leases,poddisruptionbudgets,networkpolicies"
RIGHTS = "roles,rolebindings,clusterroles,clusterrolebindings"
OF_THE_CLUSTER = {"ServiceAccount/default", "ConfigMap/kube-root-ca.crt"}


def test_uninstalled_it_leaves_the_objects_of_users(release):
    release.kubectl("delete", "pod", "client", "--ignore-not-found")
    ours = release.kubectl("get", "modelpools,routepolicies", "-o", "name").split()
    release.helm("uninstall", "spillway", "--wait", "--timeout", "3m")

    def left(kinds):
        items = json.loads(release.kubectl("get", kinds, "-o", "json", namespace=SYSTEM))["items"]
        return {f"{each['kind']}/{each['metadata']['name']}" for each in items}

    until(lambda: not list(left("pods")), "no Pod", 120.0)
    until(lambda: left(KINDS) <= OF_THE_CLUSTER, f"nothing of ours: {left(KINDS)}", 30.0)
    assert not [one for one in left(RIGHTS) if "spillway" in one]
    assert len(ours) >= len(objects.MODELS) * 2
    assert release.kubectl("get", "modelpools,routepolicies", "-o", "name").split() == ours
    assert len(release.kubectl("get", "crds", "-o", "name").split()) >= 2
