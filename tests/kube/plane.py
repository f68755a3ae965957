"""A Kubernetes control plane on loopback: etcd, kube-apiserver and the controllers, but no node.

Objects, defaults, rules, watches, log-ins, RBAC, garbage collection, Deployments that make Pods: all real. No Pod
runs; `PretendNode` says of those there are that they do. Ready in about 4 s, 550 MB. The servers end with the process
that started them, also when that one is killed, and their data with them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.kube.access import Api, Kubernetes
from tests.kube.assets import HERE

PATIENCE = 90.0
"""Seconds that a server is waited for; only a machine under heavy load needs more than five."""

PREFIX = "spillway-plane-"


class ControlPlane(Kubernetes):
    """etcd, kube-apiserver and kube-controller-manager.

    >>> with ControlPlane(folder_of()) as plane:
    ...     plane.kubectl("get", "namespaces")
    """

    def __init__(self, programs: Path) -> None:
        # In memory where there is room: it is thrown away with the plane.
        root = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())  # noqa: S108
        _sweep(root)
        self.state = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=root))
        self.programs = programs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, list[str]] = {}
        self._port = free_port()
        self._key = self.state / "service-accounts.key"

    def __enter__(self) -> Self:
        try:
            self._start_api()
            self._start_controllers()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for program in reversed([*self._running]):
            self._stop(program)
        if hasattr(self, "api"):
            self.api.close()
        shutil.rmtree(self.state, ignore_errors=True)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """For the time of the block the API server is down: connections break and new ones are refused.

        The controllers begin anew after it. Left to themselves they would look for it ever more rarely, and half a
        minute could pass in which nobody makes a ServiceAccount.
        """
        self._stop("kube-apiserver")
        try:
            yield
        finally:
            self._stop("kube-controller-manager")
            self._run("kube-apiserver")
            self._wait("kube-apiserver", self._api_ready)
            self._run("kube-controller-manager")

    def log(self, program: str) -> str:
        """What a server has written."""
        return (self.state / f"{program}.log").read_text(errors="replace")

    def _start_api(self) -> None:
        etcd, peer = free_port(), free_port()
        # The last column is the groups: system:masters may do everything.
        admin, controllers = secrets.token_hex(16), secrets.token_hex(16)
        logins = (f"{admin},admin,admin,system:masters", f"{controllers},controllers,controllers,system:masters")
        tokens = self.state / "tokens.csv"
        tokens.write_text("\n".join(logins) + "\n")
        key = ec.generate_private_key(ec.SECP256R1())
        form = serialization.PrivateFormat.TraditionalOpenSSL
        self._key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        self._run(
            "etcd",
            "--name=test",
            f"--data-dir={self.state / 'etcd'}",
            "--unsafe-no-fsync",  # these data need not outlive a power cut
            "--logger=zap",
            "--log-level=warn",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=test=http://127.0.0.1:{peer}",
        )
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            "--advertise-address=127.0.0.1",
            # 127.0.0.1 may not stand in an EndpointSlice, and nothing here looks for the server by its Service.
            "--endpoint-reconciler-type=none",
            # With no certificate given, it makes one here; the file carries its authority along.
            f"--cert-dir={self.state}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={self._key}",
            f"--service-account-signing-key-file={self._key}",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--audit-policy-file={HERE / 'audit.yaml'}",
            f"--audit-log-path={self.state / 'audit.log'}",
            "--enable-priority-and-fairness=false",
            "--profiling=false",
        )
        authority = self.state / "apiserver.crt"
        self._wait("kube-apiserver", authority.exists)
        url = f"https://127.0.0.1:{self._port}"
        super().__init__(self.state, self.programs, Api(url, admin, authority))
        self._wait("kube-apiserver", self._api_ready)
        self._write_kubeconfig(self.state / "kubeconfig-controllers", controllers, "default")

    def _start_controllers(self) -> None:
        kubeconfig = self.state / "kubeconfig-controllers"
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            # A PretendNode sends no heartbeats: this controller would call it dead.
            "--controllers=*,-node-lifecycle-controller",
            f"--cert-dir={self.state / 'controllers'}",
            f"--root-ca-file={self.state / 'apiserver.crt'}",
            f"--service-account-private-key-file={self._key}",
        )
        self._wait("kube-controller-manager", lambda: self.has_account("default"))

    def _api_ready(self) -> bool:
        return self.answers("/readyz")

    def _run(self, program: str, *arguments: str) -> None:
        """Starts a server, or starts it again as it was."""
        command = self._commands.setdefault(program, [str(self.programs / program), *arguments])
        guard = [sys.executable, "-IS", str(HERE / "guard.py"), str(os.getpid())]
        with (self.state / f"{program}.log").open("ab") as log:
            self._running[program] = subprocess.Popen(
                [*guard, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _stop(self, program: str) -> None:
        # Everything is thrown away, so nothing is asked to end cleanly: an API server takes five seconds for that.
        process = self._running.pop(program)
        process.kill()
        process.wait()

    def _wait(self, what: str, check: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not check():
            for program, process in self._running.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{program} ended with {process.returncode}:\n{self.log(program)[-3000:]}")
            if time.monotonic() > end:
                raise TimeoutError(f"{what} was not ready after {PATIENCE} s:\n{self.log(what)[-3000:]}")
            time.sleep(0.05)


def _sweep(root: Path) -> None:
    """Removes what planes have left whose process was killed; the servers have ended with it."""
    for left in root.glob(f"{PREFIX}*-*"):
        try:
            os.kill(int(left.name.removeprefix(PREFIX).partition("-")[0]), 0)  # only asks whether there is one
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except (PermissionError, ValueError):
            continue


def free_port() -> int:
    """A free TCP port of loopback. Another process could take it meanwhile: the server then says so and ends."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
