"""A whole Kubernetes cluster of one node in which Pods really run, in namespaces of its own on this machine.

The shell scripts beside this file do it; see `node-up.sh` for what is real and what is not. The cluster ends with the
process that started it, also when that one is killed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kube.access import Api, Kubernetes, checked, until
from tests.kube.assets import HERE, Unavailable, folder_of

IMAGE = "localhost/spillway:test"
SOURCES = ("crds/spillway_api", "balancer/spillway_balancer", "operator/spillway_operator")
COMMANDS = {"spillway": "spillway_balancer.cli:main", "spillway-operator": "spillway_operator.cli:main"}
# What develops and tests Spillway and no Pod runs, as pip names it; half of the environment's bytes.
TOOLS = (
    "ast-serialize grimp hatchling hypothesis import-linter mypy pathspec pytest pytest-xdist ruff trove-classifiers uv"
)
NEEDED = "containerd containerd-shim-runc-v2 runc ctr iptables conntrack nsenter unshare ip openssl curl pgrep"
START_SECONDS = 240


class Cluster(Kubernetes):
    """etcd, API server, controllers, scheduler, kubelet, containerd, kube-proxy, CoreDNS; ready in about 20 s."""

    def __init__(self, root: Path, images: Path) -> None:
        """`root`: the checkout whose sources the image gets; `images`: a folder to make archives in."""
        self._root = root
        self._archive = images / "spillway.tar"
        self.state = Path(tempfile.mkdtemp(prefix="spillway-cluster-", dir=_place()))
        # `containerd` is no place for a password, but the log-ins of the cluster lie here too.
        self.state.chmod(0o755)
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        owner = str(os.getpid())
        self._environment = os.environ | {
            "STATE": str(self.state),
            "OWNER": owner,
            "PYTHON": sys.executable,
            "PATH": path,
        }

    @staticmethod
    def check() -> None:
        """Raises Unavailable, with what lacks, where no cluster can be started."""
        if sys.platform != "linux" or os.geteuid() != 0:
            raise Unavailable("a cluster in which Pods run needs root on Linux")
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        missing = [program for program in NEEDED.split() if not shutil.which(program, path=path)]
        if not Path("/usr/lib/cni/bridge").exists():
            missing.append("containernetworking-plugins")
        if missing:
            raise Unavailable(f"missing: {', '.join(missing)} (tests/kube/packages.sh installs them)")
        folder_of("kubebin")
        folder_of("coredns")
        folder_of("pause")

    def __enter__(self) -> Self:
        try:
            make_image(self._root, self._archive)
            self._script("node-up.sh", str(self._archive), timeout=START_SECONDS)
            programs = Path((self.state / "programs").read_text().strip())
            config = json.loads(self._kubeconfig(programs))
            url = config["clusters"][0]["cluster"]["server"]
            token = config["users"][0]["user"]["token"]
            super().__init__(self.state, programs, Api(url, token, self.state / "pki" / "ca.crt"))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if hasattr(self, "api"):
            self.api.close()
        try:
            self._script("node-down.sh", timeout=60)
        finally:
            shutil.rmtree(self.state, ignore_errors=True)

    def inside(self, *command: str) -> list[str]:
        """The command line, to be run on this machine, that runs `command` on the cluster's node."""
        return ["env", f"STATE={self.state}", str(HERE / "node-exec.sh"), *command]

    def exec(self, *command: str, timeout: float = 60.0) -> str:
        """What a command prints that runs on the node: Pods and Services are reached by address from there.

        Raises CalledProcessError when it fails.
        """
        return checked(self.inside(*command), timeout=timeout)

    def until_served(self, namespace: str, service: str) -> str:
        """Waits until a Service leads to a Pod, and returns its address, "10.96.0.7:80".

        As on every cluster, kube-proxy learns of ready Pods a moment after `kubectl rollout status` does.
        """
        path = "jsonpath={.spec.clusterIP}/{.spec.ports[0].port}"
        at = self.kubectl("get", "service", service, "-n", namespace, "-o", path)

        def connects() -> bool:
            command = self.inside("timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/{at}")
            return subprocess.run(command, capture_output=True, timeout=30).returncode == 0

        until(connects, f"a connection to the Service {service} at {at}")
        return at.replace("/", ":")

    def import_image(self, archive: Path) -> None:
        """Brings an archive of mkimage.py to the node."""
        self.exec("ctr", "-n", "k8s.io", "images", "import", str(archive))

    def _kubeconfig(self, programs: Path) -> str:
        file = str(self.state / "kubeconfig")
        return checked([str(programs / "kubectl"), "--kubeconfig", file, "config", "view", "--raw", "-o", "json"])

    def _script(self, name: str, *arguments: str, timeout: float) -> None:
        subprocess.run(
            [str(HERE / name), *arguments], env=self._environment, check=True, timeout=timeout, stdin=subprocess.DEVNULL
        )


def make_image(root: Path, archive: Path) -> None:
    """The image that Pods of tests run: this environment without its tools, Spillway's sources and commands."""
    folders = [root / source for source in SOURCES if (root / source).is_dir()]
    present = {folder.name for folder in folders}
    scripts = [f"{name}={at}" for name, at in COMMANDS.items() if at.partition(".")[0] in present]
    command = [sys.executable, str(HERE / "image" / "mkimage.py"), str(archive), IMAGE, "--python"]
    command += ["--without", *TOOLS.split(), "--script", *scripts]
    checked([*command, "--add", *(f"{folder}:/app/{folder.name}" for folder in folders)])


def _place() -> str:
    """Where layers of images can be put over each other: not on a filesystem that is made of layers itself."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", tempfile.gettempdir()], capture_output=True, text=True).stdout
    return "/dev/shm" if kind.strip() == "overlayfs" else tempfile.gettempdir()  # noqa: S108
