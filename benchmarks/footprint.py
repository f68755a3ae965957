"""What a sidecar takes of every Pod: memory when idle, and time from exec until it is ready and follows the operator.

The stream server of the operator on a real socket with TLS, and `spillway run` as a process of its own: with bytecode
of everything, as in the image, with none of Spillway's, and with none at all. Beside it a gateway of the same snapshot,
and a Python that only imports what speaks HTTP. All rows are of one run, so that their ratios compare. Linux only.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from tests.kube.plane import free_port
from tests.operator.rig import Rig, served, token_file

import spillway_api
import spillway_balancer
from spillway_api.snapshot import Endpoint, Pool, Route, RouteRule, RouteTier, Snapshot, Target
from spillway_api.types import ActiveHealth, Capacity, Dispatch, Health, Metrics, Model, Retry, Timeouts

Table = tuple[str, list[str], list[list[str]]]

GATEWAY = "chat"
POOLS, ENDPOINTS = 20, 8
STARTS = 5
SETTLED = 3.0
"""Seconds after which what starting takes is over, and for which it is looked at then."""
BARE = "import asyncio, ssl, aiohttp.web, uvloop, sys; print(flush=True); sys.stdin.read()"
SPILLWAY = "from spillway_balancer.cli import main; main()"

_pods = itertools.count()


class Taken(NamedTuple):
    """Of one process. Seconds, and bytes."""

    ready: float
    """From exec to 200 on /readyz."""
    follows: float
    """… to the operator's snapshot in force, acknowledged."""
    cpu: float
    """Its CPU until then."""
    idle: float
    """Part of a core that it takes after that."""
    rss: float
    pss: float
    """The same, with what several processes share in equal parts."""
    own: float
    """What is no other's: the cost of one more."""


def footprint() -> Table:
    """Medians of a few starts each."""
    rows = asyncio.run(_rows())
    least = rows["bare Python with aiohttp"]
    head = ["", "ready", "follows", "CPU until then", "when idle", "RSS when idle", "ratio", "PSS", "own alone"]
    title = f"A process when idle: {POOLS} pools with {ENDPOINTS} endpoints each; medians of {STARTS} starts"
    return title, head, [[name, *_shown(taken, least)] for name, taken in rows.items()]


def _shown(taken: Taken, least: Taken) -> list[str]:
    times = [f"{each * 1000:.0f} ms" if each else "-" for each in (taken.ready, taken.follows, taken.cpu)]
    rss, pss, own = (f"{each / 1e6:.1f} MB" for each in (taken.rss, taken.pss, taken.own))
    return [*times, f"{taken.idle:.2%}", rss, f"{taken.rss / least.rss:.2f}", pss, own]


async def _rows() -> dict[str, Taken]:
    async with served() as rig:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "ca.crt").write_bytes(rig.made.authority)
            return {
                "bare Python with aiohttp": await _median(lambda: _bare(folder)),
                "sidecar": await _median(lambda: _spillway(rig, folder)),
                "… rules with conditions": await _median(
                    lambda: _spillway(rig, folder, when='headers["x-tier"] == "premium"')
                ),
                "… no bytecode of Spillway": await _median(lambda: _spillway(rig, folder, without="Spillway")),
                "… no bytecode at all": await _median(lambda: _spillway(rig, folder, without="all")),
                "gateway": await _median(lambda: _spillway(rig, folder, beside=False)),
            }


async def _median(once: Callable[[], Awaitable[Taken]]) -> Taken:
    """Of several, after one that nobody looks at: it leaves its bytecode, and files in the machine's cache."""
    taken = [await once() for _ in range(STARTS + 1)][1:]
    return Taken(*(statistics.median(each) for each in zip(*taken, strict=True)))


async def _bare(folder: Path) -> Taken:
    begun = monotonic()
    async with _process(folder / "bytecode", "-c", BARE) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        took, spent = monotonic() - begun, _cpu(process.pid)
        return Taken(took, 0.0, spent, 0.0, *_memory(process.pid))


async def _spillway(
    rig: Rig, folder: Path, *, beside: bool = True, without: str | None = None, when: str | None = None
) -> Taken:
    rig.publish(world(when))
    pod = f"pod-{next(_pods)}"
    port = free_port()
    state = folder / f"state-{pod}"
    state.mkdir()
    bytecode = folder / ("none" if without == "all" else "bytecode")
    if without == "Spillway":
        for package in (spillway_api, spillway_balancer):
            assert package.__file__ is not None
            shutil.rmtree(bytecode / Path(package.__file__).parent.relative_to("/"), ignore_errors=True)
    options = [
        *("run", f"--operator=https://localhost:{rig.server.port}", f"--gateway={GATEWAY}", f"--state={state}"),
        *(f"--token-file={token_file(folder, GATEWAY, pod)}", f"--ca-file={folder / 'ca.crt'}", "--port=0"),
        *(f"--admin-port={port}", "--log-level=warning"),
        *(("--sidecar", "--gateway-url=http://127.0.0.1:9") if beside else ()),
    ]

    async def follows() -> bool:
        if beside:
            return rig.server.sidecars(GATEWAY)["Current"] > 0
        known = rig.subscriber(pod, GATEWAY)
        return known is not None and known.digest == rig.server.published(GATEWAY)

    async def gone() -> bool:
        return not rig.server.sidecars(GATEWAY)

    begun = monotonic()
    async with _process(bytecode, "-c", SPILLWAY, *options, keep=without is None) as process:
        await _until(lambda: _ready(port))
        ready = monotonic() - begun
        await _until(follows)
        followed, spent = monotonic() - begun, _cpu(process.pid)
        await asyncio.sleep(SETTLED)
        before = _cpu(process.pid)
        await asyncio.sleep(SETTLED)
        idle = (_cpu(process.pid) - before) / SETTLED
        memory = _memory(process.pid)
    await _until(gone)
    return Taken(ready, followed, spent, idle, *memory)


def world(when: str | None = None) -> Snapshot:
    """A gateway's: a model of its own for each pool, which spills over to the next. Nobody lives at the addresses."""

    def pool(number: int) -> Pool:
        name = f"model-{number}"
        return Pool(
            name=f"ml/{name}",
            models=(Model(name, f"org/{name}"),),
            engine="vLLM",
            provider=None,
            endpoints=tuple(
                Endpoint(f"{name}-{each}", f"http://10.0.{number}.{each + 1}:8000") for each in range(ENDPOINTS)
            ),
            dispatch=Dispatch(),
            capacity=Capacity(),
            metrics=Metrics(mode="None"),
            health=Health(active=ActiveHealth(mode="None")),
        )

    def route(number: int) -> Route:
        own, other = (Target(f"ml/model-{each}") for each in (number, (number + 1) % POOLS))
        tiers = (
            RouteTier("own", (own,), "Weighted", ()),
            RouteTier("spill", (other,), "Weighted", ("Capacity", "Transient")),
        )
        rules = (RouteRule("default", tiers),)
        if when is not None:
            rules = (RouteRule("special", tiers[1:], when), *rules)
        return Route(f"ml/route-{number:02}", (f"model-{number}",), rules, Timeouts(), Retry())

    pools = sorted((pool(number) for number in range(POOLS)), key=lambda each: each.name)
    return Snapshot(GATEWAY, tuple(pools), tuple(route(number) for number in range(POOLS)))


@asynccontextmanager
async def _process(bytecode: Path, *words: str, keep: bool = True) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python that finds bytecode in this folder, and keeps there what is missing if it is to."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"PYTHONPYCACHEPREFIX": str(bytecode)} | ({} if keep else {"PYTHONDONTWRITEBYTECODE": "1"})
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environ
    )
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


async def _until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while True:
            if await check():
                return
            await asyncio.sleep(0.002)


async def _ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(b"GET /readyz HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.startswith(b"HTTP/1.1 200")


def _memory(pid: int) -> tuple[int, int, int]:
    """RSS, PSS and USS of a process, as the kernel counts them; bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {name: int(size) * 1024 for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return found["Rss"], found["Pss"], found["Private_Clean"] + found["Private_Dirty"]


def _cpu(pid: int) -> float:
    """Seconds that its threads have run so far (https://docs.kernel.org/scheduler/sched-stats.html)."""
    return sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
