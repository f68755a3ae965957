"""The chart on a cluster in which Pods run: what an installation is worth, before and while it is used."""

from __future__ import annotations

import re
import time

import pytest
from tests.kube.access import Refused, until
from tests.kube.installed import objects
from tests.kube.installed.release import GATEWAY, OPERATOR, SYSTEM, restarts

IN_FORCE_SECONDS = 1.0
"""From the change of a Pod's labels to the last balancer; so the API server and the slices' controller count too."""


def test_objects_become_ready(release):
    release.kubectl("wait", "--for=condition=Ready", "modelpool/by-pods", "modelpool/by-service", "--timeout=60s")
    release.kubectl("wait", "--for=condition=Ready", "modelpool/keyed", "routepolicy/chat", "--timeout=60s")
    count = f"{objects.ENGINES}/{objects.ENGINES}"
    well = {"ready": "True", "reason": "EndpointsReady"}
    release.shows("modelpool", "by-pods", source="Pods", endpoints=count, metrics="True", **well)
    release.shows("modelpool", "by-service", source="Service", endpoints=count, metrics="True", **well)
    release.shows("modelpool", "keyed", source="Provider", endpoints="1/1", **well)
    for name in objects.MODELS:
        row = release.shows("routepolicy", name, ready="True", reason="Programmed", spilling="False")
        assert row["models"] == f'["{name}"]'
        assert row["tiers"] == "default: local=Open"


def test_all_pods_run_as_restricted_pods_do(release):
    """That they run says that Pod Security let them in; what they cannot do is asked of them."""
    labels = release.kubectl("get", "namespace", SYSTEM, "-o", "jsonpath={.metadata.labels}")
    assert '"pod-security.kubernetes.io/enforce":"restricted"' in labels
    for app in (GATEWAY, OPERATOR):
        release.settled(app, 2)
        for pod in release.pods(app):
            assert restarts(pod) == 0
            name = pod["metadata"]["name"]
            tokens = [volume["name"] for volume in pod["spec"]["volumes"] if volume["name"].startswith("kube-api")]
            assert bool(tokens) == (app == OPERATOR), f"{name} holds {tokens}"


def test_helm_test_passes(release):
    said = release.helm("test", "spillway", "--logs", "--timeout", "2m")
    assert re.search(r"Phase:\s+Succeeded", said), said
    assert all(model in said.partition("serves")[2] for model in objects.MODELS), said
    # It stays, or its log could not be read; Helm's `uninstall` knows nothing of it.
    release.kubectl("delete", "pod", "spillway-test", namespace=SYSTEM)


def test_memory_of_idle_pods(release):
    """Bounds are loose: they are there to catch a leak, the figures to be read."""
    for app, most in ((GATEWAY, 120), (OPERATOR, 200)):
        for pod in release.pods(app):
            rss = _rss(release, pod["metadata"]["uid"])
            print(f"{pod['metadata']['name']}: RSS {rss:.0f} MiB")
            assert 10 < rss < most


def _rss(release, uid):
    """Of all processes of a Pod, in MiB, as its cgroup has it (version 1, or 2)."""
    script = (
        f"for f in $(find /sys/fs/cgroup -path '*pod{uid}*' -name memory.stat -not -path '*/pod{uid}/*/*/*'); do"
        " grep -H -E '^(rss|anon) ' $f; done"
    )
    lines = release.cluster.exec("sh", "-c", script).splitlines()
    return max(int(line.split()[-1]) for line in lines) / 2**20


def test_endpoint_changes_are_in_force_within_a_second(release):
    """A Pod that keeps running loses a label that pool and Service select by, and gets it back, again and again.

    Each change concerns two pools, one by Pods and one by EndpointSlice; the later one counts.
    """
    gateways = release.names(GATEWAY)
    pod = release.names("engines")[0]
    taken = []
    for turn in range(6):
        there = bool(turn % 2)
        began = time.time()
        release.serve(pod, there)

        def seen(there=there):
            found = [release.endpoints(gateway, pool) for gateway in gateways for pool in ("by-pods", "by-service")]
            return all(any(pod in name for name in names) == there for names in found)

        until(seen, f"turn {turn}", 15.0)
        # Pages are rendered once a second; what they say is exact.
        taken.append(max(release.in_force_since(gateway) for gateway in gateways) - began)
    release.shows("modelpool", "by-pods", ready="True", endpoints=f"{objects.ENGINES}/{objects.ENGINES}")
    print(
        f"an endpoint change is in force on both balancers after {', '.join(f'{each * 1000:.0f}' for each in taken)} ms"
    )
    assert max(taken) < IN_FORCE_SECONDS


def test_columns_say_that_all_engines_are_gone_and_back(release):
    engines = release.names("engines")
    for pod in engines:
        release.serve(pod, False)
    release.shows("modelpool", "by-pods", ready="False", reason="NoEndpoints", endpoints="0/0")
    release.shows("modelpool", "by-service", ready="False", reason="NoEndpoints", endpoints="0/0")
    release.shows("routepolicy", "chat", ready="False", reason="AllPoolsUnready", tiers="default: local=Unavailable")
    release.shows("routepolicy", "keyed", ready="True", reason="Programmed", tiers="default: local=Open")
    with pytest.raises(Refused) as refused:
        release.ask(release.names(GATEWAY)[0], "/v1/chat/completions", objects.question("chat"))
    assert refused.value.status == 503
    for pod in engines:
        release.serve(pod, True)
    count = f"{objects.ENGINES}/{objects.ENGINES}"
    release.shows("modelpool", "by-pods", ready="True", reason="EndpointsReady", endpoints=count)
    release.shows("routepolicy", "chat", ready="True", reason="Programmed", tiers="default: local=Open")
    events = release.kubectl("get", "events", "--field-selector", "involvedObject.name=by-pods")
    assert "NoEndpoints" in events
    assert "EndpointsReady" in events
