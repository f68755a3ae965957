"""The chart on the cluster, engines and a steady load: put there once, for all tests of this folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator

import pytest
from tests.kube.cluster import Cluster
from tests.kube.installed import objects
from tests.kube.installed.load import Load
from tests.kube.installed.release import MODELS, SYSTEM, Release, helm_program

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="session")
def release(cluster: Cluster) -> Release:
    """Installed, with engines, pools and policies, and nobody who asks anything."""
    try:
        helm = helm_program()
    except subprocess.CalledProcessError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(error.stderr.strip())
    for name in (SYSTEM, MODELS):
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    release = Release(cluster, helm)
    try:
        release.install()
    except subprocess.CalledProcessError as error:
        error.add_note(release.kubectl("get", "pods,events", namespace=SYSTEM))
        error.add_note(release.kubectl("logs", "-l", "app.kubernetes.io/name=spillway", "--tail=30", namespace=SYSTEM))
        raise
    cluster.apply(
        objects.engines("engines", objects.ENGINES, "--log-requests"),
        objects.keyed(objects.OLD),
        objects.service("engines"),
        objects.service("keyed"),
        objects.secret(objects.OLD),
        *objects.pools(MODELS),
        *objects.policies(),
        namespace=MODELS,
    )
    release.settled("engines", objects.ENGINES)
    release.settled("keyed", 2)
    return release


@pytest.fixture(scope="session")
def load(release: Release) -> Load:
    """The client Pod, asking from now on to the end of the tests."""
    release.kubectl("wait", "--for=condition=Ready", "modelpool", "--all", "--timeout=60s")
    release.kubectl("wait", "--for=condition=Ready", "routepolicy", "--all", "--timeout=60s")
    release.cluster.until_served(SYSTEM, "spillway")
    release.cluster.apply(*objects.client(f"http://spillway.{SYSTEM}.svc/v1"), namespace=MODELS)
    release.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    load = Load(lambda: release.kubectl("logs", "client"))
    with load.phase(5.0):
        pass
    return load


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to a failure what the two namespaces looked like."""
    report = yield
    release = getattr(item, "funcargs", {}).get("release")
    if report.failed and release is not None:
        for name in (SYSTEM, MODELS):
            report.sections.append((name, release.cluster.picture(name)))
    return report
