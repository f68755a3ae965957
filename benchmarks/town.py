"""Processes of a benchmark: endpoints, balancers, and what they use of the machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

POLICY = """
apiVersion: spillway.dev/v1alpha1
kind: ModelPool
metadata: {{name: bench}}
spec:
  models: [{{name: bench}}]
  engine: {engine}
  dispatch: {{strategy: {strategy}}}
  health: {{active: {{interval: 1s, timeout: 1s}}}}
  source:
    static:
      endpoints:
{endpoints}
---
apiVersion: spillway.dev/v1alpha1
kind: RoutePolicy
metadata: {{name: bench}}
spec:
  models: [bench]
  rules: [{{name: default, tiers: [{{name: local, pools: [{{name: bench}}]}}]}}]
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(port: int, seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")


@contextmanager
def running(
    *command: str, core: int | None = None, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process, on one core where `taskset` is there to say so."""
    if core is not None and shutil.which("taskset") and (os.cpu_count() or 1) > 1:
        command = ("taskset", "-c", str(core), *command)
    process = subprocess.Popen(command, env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def endpoints(ports: list[int], chunk_ms: float = 50.0) -> Iterator[None]:
    """All endpoints in one process on the second core."""
    args = [str(port) for port in ports]
    env = {"BENCH_CHUNK_MS": str(chunk_ms)}
    with running(sys.executable, "-m", "benchmarks.endpoint", *args, core=1, env=env):
        for port in ports:
            wait_for(port)
        yield


def write_policy(folder: Path, ports: list[int], strategy: str = "CHWBL", engine: str = "Generic") -> Path:
    rows = "\n".join(f'      - {{name: e{i}, url: "http://127.0.0.1:{port}"}}' for i, port in enumerate(ports))
    file = folder / "policy.yaml"
    partial = folder / "policy.tmp"
    partial.write_text(POLICY.format(endpoints=rows, strategy=strategy, engine=engine))
    partial.rename(file)
    return file


@contextmanager
def balancer(file: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`spillway run` on the first core."""
    command = (sys.executable, "-m", "spillway_balancer.cli", "run", "-f", str(file), "--port", str(port))
    with running(*command, "--log-level", "error", core=0) as process:
        wait_for(port)
        yield process


@contextmanager
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, to the nanosecond: the clock that clock_getcpuclockid(3) names (Linux;
    /proc counts in hundredths of a second)."""
    return time.clock_gettime((~pid << 3) | 2)


def rss_mib(pid: int) -> float:
    """Resident memory of a process (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
