"""What the operator takes for a large cluster, beside a small one: memory, CPU, time until everything is in force.

A real API server, the operator as a process, one real balancer, and one subscriber that notes when a change arrives.
Pools are of Services whose EndpointSlices are written by hand, so no Pod needs to run. Needs what the tests of the
tier `kube` need. The API server shares the machine's cores with what is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from tests.kube.access import until
from tests.kube.assets import HERE, folder_of
from tests.kube.plane import ControlPlane, free_port

from spillway_api import stream

Table = tuple[str, list[str], list[list[str]]]
Object = dict[str, Any]

POOL_ENDPOINTS = 10
CHANGES = 30
BIN = Path(sys.executable).parent
SPACE = "default"
API = "/apis/spillway.dev/v1alpha1/namespaces/default"


class Size(NamedTuple):
    policies: int
    endpoints: int

    @property
    def pools(self) -> int:
        return self.endpoints // POOL_ENDPOINTS


SIZES = (Size(200, 500), Size(2000, 5000))


def cluster() -> Table:
    """Figures of the operator by the size of the cluster."""
    rows = [_measured(size) for size in SIZES]
    columns = list(zip(*rows, strict=True))
    names = (
        "from the operator's start to the first snapshot",
        "… to every status Programmed",
        "memory of the operator then (RSS)",
        "… at its highest",
        "CPU of the operator until then",
        "memory of a balancer that serves it",
        "one endpoint changes: until subscribers have it, median",
        "… slowest of 30",
        "CPU of the operator for one such change",
        "operator started anew: until it serves balancers again",
    )
    head = ["", *(f"{size.policies} policies, {size.endpoints} endpoints" for size in SIZES)]
    return "operator", head, [[name, *values] for name, values in zip(names, columns, strict=True)]


def _measured(size: Size) -> list[str]:
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        plane = held.enter_context(ControlPlane(folder_of()))
        _fill(plane, size)
        for name, pod in zip(("token", "other"), _gateway(plane), strict=True):
            (folder / name).write_text(plane.token_of(SPACE, "spillway-gateway", audience=stream.AUDIENCE, pod=pod))
        own = plane.token_of(SPACE, "spillway-operator", audience=stream.AUDIENCE)
        (folder / "own").write_text(own)
        port = free_port()
        began = time.monotonic()
        operator = held.enter_context(_operator(plane, folder, port))
        until(lambda: _authority(plane, folder), "the authority")
        first = asyncio.run(_first(port, folder, began))
        balancer, other = (held.enter_context(_balancer(folder, port, token)) for token in ("token", "other"))
        until(lambda: _programmed(plane) == size.policies, "every status", 600)
        whole = time.monotonic() - began
        memory, highest, spent = _rss(operator), _highest(operator), _cpu(operator)
        other.terminate()  # the subscriber of the next step takes its place
        other.wait()
        took, cost = asyncio.run(_changes(plane, size, port, folder, operator))
        serving = _rss(balancer)
        operator.terminate()
        operator.wait()
        began = time.monotonic()
        held.enter_context(_operator(plane, folder, port))
        asyncio.run(_first(port, folder, began))
        back = time.monotonic() - began
    return [
        f"{first:.1f} s",
        f"{whole:.1f} s",
        f"{memory / 2**20:.0f} MiB",
        f"{highest / 2**20:.0f} MiB",
        f"{spent:.1f} s",
        f"{serving / 2**20:.0f} MiB",
        f"{statistics.median(took) * 1000:.0f} ms",
        f"{max(took) * 1000:.0f} ms",
        f"{cost * 1000:.0f} ms",
        f"{back:.1f} s",
    ]


def _fill(plane: ControlPlane, size: Size) -> None:
    files = [argument for path in sorted((HERE.parents[1] / "crds").glob("*.yaml")) for argument in ("-f", str(path))]
    plane.kubectl("apply", "--server-side", *files)
    plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", *files)
    until(lambda: plane.has_account(SPACE), "the namespace")
    with ThreadPoolExecutor(4) as threads:
        for part in threads.map(lambda number: _post(plane, list(_objects(size))[number::4]), range(4)):
            assert part is None


def _post(plane: ControlPlane, objects: list[tuple[str, Object]]) -> None:
    with plane.api.again() as api:
        for path, body in objects:
            api.call("POST", path, body)


def _objects(size: Size) -> Iterator[tuple[str, Object]]:
    for number in range(size.pools):
        name = f"pool-{number}"
        # Without a selector its slices are ours to write.
        yield f"/api/v1/namespaces/{SPACE}/services", {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}
        yield f"/apis/discovery.k8s.io/v1/namespaces/{SPACE}/endpointslices", _slice(number, POOL_ENDPOINTS)
        source = {"service": {"name": name, "port": 80}}
        quiet = {"metrics": {"mode": "None"}, "health": {"active": {"mode": "None"}}}  # nobody lives at the addresses
        yield f"{API}/modelpools", _own("ModelPool", name, {"models": [{"name": "m"}], "source": source, **quiet})
    for number in range(size.policies):
        pools = [{"name": f"pool-{(number * step + step) % size.pools}"} for step in (1, 7)]
        tiers = [{"name": f"t{at}", "pools": [pool]} for at, pool in enumerate(pools)]
        spec = {"models": [f"model-{number}"], "rules": [{"name": "default", "tiers": tiers}]}
        yield f"{API}/routepolicies", _own("RoutePolicy", f"route-{number}", spec)


def _own(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": "spillway.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _slice(number: int, endpoints: int) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"pool-{number}-x", "labels": {"kubernetes.io/service-name": f"pool-{number}"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8000}],
        "endpoints": [
            {
                "addresses": [f"10.{number // 250}.{number % 250}.{each + 1}"],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "name": f"pod-{number}-{each}", "namespace": SPACE},
            }
            for each in range(endpoints)
        ],
    }


def _gateway(plane: ControlPlane) -> list[str]:
    """The gateway's Deployment, for its two Pods' names: who shows their tokens is a balancer."""
    labels = {"app": "gateway"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"serviceAccountName": "spillway-gateway", "containers": [{"name": "balancer", "image": "none"}]},
    }
    plane.apply(
        *(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": f"spillway-{each}"}}
            for each in ACCOUNTS
        ),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "spillway-gateway", "labels": {"spillway.dev/gateway": "default"}},
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
        },
    )
    found: list[str] = []

    def made() -> bool:
        items = plane.api.get(f"/api/v1/namespaces/{SPACE}/pods?labelSelector=app%3Dgateway")["items"]
        found[:] = [item["metadata"]["name"] for item in items]
        return len(found) == 2

    until(made, "the gateway's Pods")
    return found


ACCOUNTS = ("gateway", "operator")


@contextmanager
def _process(log: Path, *command: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], stdout=out, stderr=out, env=os.environ | environ
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _operator(plane: ControlPlane, folder: Path, port: int) -> Any:
    return _process(
        folder / "operator.log",
        *("spillway-operator", "run", f"--namespace={SPACE}", "--name=operator", "--host=127.0.0.1"),
        *(f"--port={port}", f"--admin-port={free_port()}", "--tls-name=localhost", f"--token-file={folder / 'own'}"),
        KUBECONFIG=str(plane.kubeconfig),
    )


def _balancer(folder: Path, port: int, token: str) -> Any:
    (folder / f"state-{token}").mkdir()
    return _process(
        folder / "balancer.log",
        *("spillway", "run", f"--operator=https://localhost:{port}", f"--token-file={folder / token}"),
        *(f"--ca-file={folder / 'ca.crt'}", f"--state={folder / f'state-{token}'}", f"--port={free_port()}"),
    )


def _authority(plane: ControlPlane, folder: Path) -> bool:
    path = f"/api/v1/namespaces/{SPACE}/configmaps/spillway-operator-ca"
    if not plane.answers(path):
        return False
    (folder / "ca.crt").write_text(plane.api.get(path)["data"]["ca.crt"])
    return True


def _programmed(plane: ControlPlane) -> int:
    text = json.dumps(plane.api.get(f"{API}/routepolicies"))
    return len(re.findall(r'"reason": "Programmed", "status": "True", "type": "Ready"', text))


class _Subscriber:
    """A balancer as the operator sees one, that only notes what comes."""

    def __init__(self, port: int, folder: Path) -> None:
        self._url = f"https://localhost:{port}{stream.PATH}"
        self._headers = {"authorization": f"Bearer {(folder / 'other').read_text()}"}
        self._tls = ssl.create_default_context(cafile=folder / "ca.crt")

    async def __aenter__(self) -> aiohttp.ClientWebSocketResponse:
        self._session = aiohttp.ClientSession()
        while True:
            try:
                socket = await self._session.ws_connect(
                    self._url, headers=self._headers, ssl=self._tls, max_msg_size=stream.MAX_BYTES
                )
                break
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.05)
        await socket.send_str(stream.encode(stream.Hello("default", None, "benchmark")).decode())
        return socket

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()


async def _first(port: int, folder: Path, began: float) -> float:
    """Seconds until the first snapshot is there."""
    async with _Subscriber(port, folder) as socket:
        stream.from_operator(await socket.receive_str())
        return time.monotonic() - began


async def _changes(
    plane: ControlPlane, size: Size, port: int, folder: Path, operator: subprocess.Popen[bytes]
) -> tuple[list[float], float]:
    """Seconds from a change of a slice to its delta, for each of many; and the operator's CPU for one."""
    took = []
    async with _Subscriber(port, folder) as socket:
        await _taken(socket)
        await asyncio.sleep(3.0)  # statuses of the connection itself
        before = _cpu(operator)
        with plane.api.again() as api:
            for number in range(CHANGES):
                pool = number * 13 % size.pools
                path = f"/apis/discovery.k8s.io/v1/namespaces/{SPACE}/endpointslices/pool-{pool}-x"
                began = time.monotonic()
                await asyncio.to_thread(api.call, "PUT", path, _slice(pool, POOL_ENDPOINTS - 1))
                delta = await _taken(socket)
                took.append(time.monotonic() - began)
                assert isinstance(delta, stream.Delta)
                assert len(delta.pools[0].endpoints) == POOL_ENDPOINTS - 1
                await asyncio.sleep(0.3)
        return took, (_cpu(operator) - before) / CHANGES


async def _taken(socket: aiohttp.ClientWebSocketResponse) -> stream.FromOperator:
    """The next message, acknowledged: a balancer is sent the next one only then."""
    message = stream.from_operator(await socket.receive_str())
    await socket.send_str(stream.encode(stream.Ack(message.digest)).decode())
    return message


def _field(process: subprocess.Popen[bytes], name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _rss(process: subprocess.Popen[bytes]) -> int:
    return _field(process, "VmRSS")


def _highest(process: subprocess.Popen[bytes]) -> int:
    return _field(process, "VmHWM")


def _cpu(process: subprocess.Popen[bytes]) -> float:
    """Seconds of user and system time so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
