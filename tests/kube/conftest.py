"""A real Kubernetes for tests, in two tiers; which one a test is of follows from the fixtures that it asks for.

- `kube`: `plane`, an API server with its controllers and no node;
- `cluster`: `cluster`, a whole cluster of one node in which Pods run.

Each is started once in a run, and by one process only, whatever the number of pytest-xdist's workers: a plane takes
550 MB and a second of both cores, a cluster three times that.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from tests.kube.access import Kubernetes
from tests.kube.assets import HERE, Unavailable, folder_of
from tests.kube.cluster import Cluster
from tests.kube.listener import Listener
from tests.kube.objects import Reader
from tests.kube.operating import Installation
from tests.kube.plane import ControlPlane
from tests.kube.pretend import PretendNode
from tests.kube.processes import BalancerProcess

ROOT = HERE.parents[1]
CRDS = ROOT / "crds"
Found = TypeVar("Found")
CLUSTER_TIMEOUT = 400
"""Seconds for a test in which Pods run, start of the cluster included, where the test does not say otherwise."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks each test with its tier, and keeps the tests of a tier on one worker (`--dist loadgroup`)."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        for tier, fixture in (("cluster", "cluster"), ("kube", "plane")):
            if fixture in fixtures:
                item.add_marker(tier)
                item.add_marker(pytest.mark.xdist_group(tier))
                _group(config, item, tier)
        if "cluster" in fixtures and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(CLUSTER_TIMEOUT))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to a failure what Kubernetes shows of the test's namespace at that moment, before it is taken away."""
    report = yield
    given = getattr(item, "funcargs", {})
    kube = given.get("cluster", given.get("plane"))
    if report.failed and call.when != "teardown" and kube is not None:
        report.sections.append(("Kubernetes", kube.picture(given.get("namespace", "default"))))
    return report


def _group(config: pytest.Config, item: pytest.Item, name: str) -> None:
    """What pytest-xdist does with an `xdist_group` and, up to 3.8.0, does in vain on pytest 9.2 and later.

    It writes the group to where pytest no longer reads it: https://github.com/pytest-dev/pytest-xdist/issues/1386.
    """
    structured = getattr(item, "_id", None)
    if getattr(config.option, "loadgroup", False) and structured is not None:
        item._id = type(structured).parse(f"{item.nodeid}@{name}")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds what is not in the cache before any test's time runs: it takes minutes, once."""
    if not session.config.option.collectonly and any(item.get_closest_marker("kube") for item in session.items):
        with contextlib.suppress(Unavailable, subprocess.CalledProcessError):  # told to the tests by the fixtures
            folder_of()


def _required(get: Callable[[], Found]) -> Found:
    """What `get` finds. Without it the test is skipped, but fails on CI: a skip there would hide all of these tests."""
    try:
        return get()
    except Unavailable as error:
        why = str(error)
    if os.environ.get("CI"):
        pytest.fail(f"on CI this must be there: {why}", pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """The control plane of this run, with Spillway's CRDs."""
    with ControlPlane(_required(folder_of)) as plane:
        _install_crds(plane)
        yield plane


@pytest.fixture(scope="session")
def node(plane: ControlPlane) -> Iterator[PretendNode]:
    """A node on the plane that says of every Pod that it runs."""
    with PretendNode(plane) as node:
        yield node


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of this run, with Spillway's CRDs and the image localhost/spillway:test."""
    _required(Cluster.check)
    with Cluster(ROOT, tmp_path_factory.mktemp("images")) as cluster:
        _install_crds(cluster)
        yield cluster


@pytest.fixture(scope="session")
def helm() -> str:
    """The program that renders the chart with other values than those of deploy/."""
    done = subprocess.run([ROOT / "tests/chart/tools.sh"], capture_output=True, text=True)
    if done.returncode == 3:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return f"{done.stdout.strip()}/helm"


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace on the tier that the test is of."""
    tier = "cluster" if "cluster" in request.fixturenames else "plane"
    kube: Kubernetes = request.getfixturevalue(tier)
    words = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-")
    with kube.new_namespace(f"{words}-{os.urandom(3).hex()}") as name:
        yield name


@pytest.fixture(scope="module")
def listener(installed: Installation) -> Iterator[Listener]:
    """A subscriber of the installation that a file makes of its own, as all of these."""
    with installed.listener() as listener:
        yield listener


@pytest.fixture(scope="module")
def balancer(installed: Installation, listener: Listener) -> BalancerProcess:
    """Of the first operator's, beside the listener."""
    return installed.balancer("balancer", f"https://localhost:{installed.operators[0].port}")


@pytest.fixture
def mine(plane: ControlPlane, namespace: str, listener: Listener) -> Reader:
    """The objects of this test, once there is somebody to whom they can be told."""
    return Reader(plane, namespace)


def _install_crds(kube: Kubernetes) -> None:
    files = [argument for path in sorted(Path(CRDS).glob("*.yaml")) for argument in ("-f", str(path))]
    kube.kubectl("apply", "--server-side", *files)
    kube.kubectl("wait", "--for=condition=Established", "--timeout=30s", *files)
