"""What a node sees of the process of a container: its memory, its beginning, and what it holds."""

from __future__ import annotations

import re
import sys
from typing import Any

from tests.kube.cluster import Cluster

Object = dict[str, Any]
SIDECAR = "initContainerStatuses"
MAIN = "containerStatuses"
BEGAN = """
import os, sys, time
with open(f"/proc/{sys.argv[1]}/stat") as stat, open("/proc/uptime") as uptime:
    ticks = int(stat.read().rpartition(")")[2].split()[19])
    print(time.time() - float(uptime.read().split()[0]) + ticks / os.sysconf("SC_CLK_TCK"))
"""
"""Run on the node: when a process began, in Unix time."""
LOOK = """
import gzip, pathlib, re, sys
process, volumes, secret = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3].encode()

def in_memory():
    spans = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) r", pathlib.Path(f"/proc/{process}/maps").read_text(), re.M)
    with open(f"/proc/{process}/mem", "rb", 0) as memory:
        for begin, end in ((int(a, 16), int(b, 16)) for a, b in spans):
            try:
                memory.seek(begin)
                if secret in memory.read(end - begin):
                    return True
            except (OSError, ValueError, OverflowError):
                pass  # of the kernel's own pages
    return False

def in_files():
    for file in volumes.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            if secret in (gzip.decompress(data) if file.suffix == ".gz" else data):
                return True
    return False

print(*["memory"] * in_memory(), *["files"] * in_files())
"""
"""Run on the node: where a process or its volumes hold a text."""


def process(cluster: Cluster, pod: Object, kind: str = SIDECAR) -> int:
    """The id, on the node, of the process of a Pod's first container of a kind."""
    container = pod["status"][kind][0]["containerID"].removeprefix("containerd://")
    lines = cluster.exec("ctr", "-n", "k8s.io", "task", "ls").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(container))


def rss(cluster: Cluster, pod: Object) -> float:
    """Of a sidecar's process, in MB of 10^6 bytes."""
    status = cluster.exec("cat", f"/proc/{process(cluster, pod)}/status")
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, status
    return int(found[1]) * 1024 / 1e6


def began(cluster: Cluster, pod: Object) -> float:
    """When a sidecar's process began, in Unix time."""
    return float(cluster.exec(sys.executable, "-c", BEGAN, str(process(cluster, pod))))


def holds(cluster: Cluster, pod: Object, kind: str, secret: str) -> list[str]:
    """Where a container has this text: in the memory of its process, with its environment, or in files of the Pod's
    volumes."""
    volumes = f"/var/lib/kubelet/pods/{pod['metadata']['uid']}/volumes"
    return cluster.exec(sys.executable, "-c", LOOK, str(process(cluster, pod, kind)), volumes, secret).split()
