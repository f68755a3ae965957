"""The scenarios. Each returns rows of a table; nothing here asserts, for a busy machine is no bug."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import ExitStack
from time import perf_counter
from urllib.request import urlopen

from . import town
from .client import Tally, closed_loop, connect, open_loop, request

Table = tuple[str, list[str], list[list[str]]]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def overhead() -> Table:
    """CPU and latency of one request, plain and streamed, beside a naive proxy and no proxy."""
    ports = town.free_ports(6)
    rows = []
    with ExitStack() as stack:
        stack.enter_context(town.endpoints(ports[:4], chunk_ms=20))
        file = town.write_policy(stack.enter_context(town.folder()), ports[:4])
        ours = stack.enter_context(town.balancer(file, ports[4]))
        naive = stack.enter_context(
            town.running(sys.executable, "-m", "benchmarks.naive_proxy", *map(str, [ports[5], *ports[:4]]), core=0)
        )
        town.wait_for(ports[5])
        targets = [
            ("no proxy", ports[0], None),
            ("spillway", ports[4], ours.pid),
            ("naive aiohttp", ports[5], naive.pid),
        ]
        loads = {
            "1 KB plain": [request("bench", f"k{i}", 1000, stream=False) for i in range(64)],
            "32 KB plain": [request("bench", f"k{i}", 32_000, stream=False) for i in range(64)],
            "stream of 50": [request("bench", f"k{i}", 1000, stream=True, tokens=50) for i in range(64)],
        }
        for name, requests in loads.items():
            streams = "stream" in name
            costs: dict[str, float] = {}
            for who, port, pid in targets:
                before = town.cpu_seconds(pid) if pid else 0.0
                tally = asyncio.run(closed_loop(port, requests, 50 if streams else 16, 4.0))
                used = town.cpu_seconds(pid) - before if pid else 0.0
                costs[who] = used / max(1, tally.answered) * 1e6
                per_chunk = f"{used / tally.chunks * 1e6:.0f}" if pid and tally.chunks else ""
                ratio = f"{costs[who] / costs['spillway']:.2f}" if pid else ""
                rows.append(
                    [
                        name, who, str(tally.answered), f"{costs[who]:.0f}" if pid else "", per_chunk, ratio,
                        _ms(tally.quantile(tally.first, 0.5)), str(len(tally.failed_before_content)),
                    ]
                )  # fmt: skip
    head = [
        "load",
        "through",
        "answered",
        "µs CPU/request",
        "µs CPU/chunk",
        "to spillway",
        "first byte p50 ms",
        "failed",
    ]
    return "Cost of a request (closed loop, one core)", head, rows


def streams() -> Table:
    """A thousand streams at once through one process: errors and memory over time."""
    count, tokens, chunk_ms, rounds = 1000, 50, 200.0, 3
    ports = town.free_ports(5)
    rows = []
    with ExitStack() as stack:
        stack.enter_context(town.endpoints(ports[:4], chunk_ms=chunk_ms))
        file = town.write_policy(stack.enter_context(town.folder()), ports[:4])
        ours = stack.enter_context(town.balancer(file, ports[4]))
        rows.append(["before", "", "", "", f"{town.rss_mib(ours.pid):.1f}", ""])
        requests = [request("bench", f"k{i}", 2000, stream=True, tokens=tokens) for i in range(count)]

        async def one_round() -> tuple[Tally, float]:
            tally = Tally()

            async def one(data: bytes) -> None:
                connection = await connect(ports[4], tally)
                await connection.ask(data)
                connection.transport.close()

            task = asyncio.gather(*(one(data) for data in requests))
            await asyncio.sleep(tokens * chunk_ms / 2000)
            held = town.rss_mib(ours.pid)
            await task
            return tally, held

        for number in range(rounds):
            before = town.cpu_seconds(ours.pid)
            tally, held = asyncio.run(one_round())
            used = town.cpu_seconds(ours.pid) - before
            rows.append(
                [
                    f"round {number + 1}", str(tally.answered), str(len(tally.failed_before_content)),
                    str(tally.cut_after_content), f"{held:.1f}", f"{used / max(1, tally.chunks) * 1e6:.0f}",
                ]
            )  # fmt: skip
        rows.append(["after", "", "", "", f"{town.rss_mib(ours.pid):.1f}", ""])
    head = ["", "whole", "failed", "cut", "RSS MiB", "µs CPU/chunk"]
    return f"{count} concurrent streams, one chunk each {chunk_ms:.0f} ms", head, rows


def reload() -> Table:
    """The file is rewritten twice a second under load: endpoints come and go, strategies change."""
    ports = town.free_ports(5)
    with ExitStack() as stack:
        stack.enter_context(town.endpoints(ports[:4], chunk_ms=20))
        folder = stack.enter_context(town.folder())
        file = town.write_policy(folder, ports[:4])
        stack.enter_context(town.balancer(file, ports[4]))
        requests = [request("bench", f"k{i}", 1000, stream=i % 2 == 0, tokens=40) for i in range(200)]
        changes = 0

        async def edit() -> None:
            nonlocal changes
            while True:
                await asyncio.sleep(1.2)
                changes += 1
                town.write_policy(folder, ports[: 4 - changes % 3], ["CHWBL", "LeastLoad", "RoundRobin"][changes % 3])

        async def main() -> Tally:
            editing = asyncio.ensure_future(edit())
            tally = await open_loop(ports[4], requests, rate=200, seconds=12.0)
            editing.cancel()
            return tally

        tally = asyncio.run(main())
        taken = _counter(ports[4], 'spillway_config_reloads_total{result="taken"}')
    row = [
        str(changes),
        taken,
        str(tally.answered),
        str(len(tally.failed_before_content)),
        str(tally.cut_after_content),
    ]
    return "Reload under 200 requests/s, half of them streams", ["edits", "in force", "whole", "failed", "cut"], [row]


def killed() -> Table:
    """kill -9 of one of four engines under load: who sees an error before the first content byte."""
    ports = town.free_ports(5)
    rows = []
    with ExitStack() as stack:
        engines: list[subprocess.Popen[bytes]] = [
            stack.enter_context(
                town.running(
                    sys.executable, "-m", "benchmarks.endpoint", str(port), core=1, env={"BENCH_CHUNK_MS": "20"}
                )
            )
            for port in ports[:4]
        ]
        for port in ports[:4]:
            town.wait_for(port)
        file = town.write_policy(stack.enter_context(town.folder()), ports[:4])
        stack.enter_context(town.balancer(file, ports[4]))
        requests = [request("bench", f"k{i}", 1000, stream=i % 2 == 0, tokens=40) for i in range(200)]

        async def main() -> Tally:
            async def strike() -> None:
                await asyncio.sleep(4.0)
                engines[1].send_signal(signal.SIGKILL)  # taskset has become the endpoint itself

            striking = asyncio.ensure_future(strike())
            tally = await open_loop(ports[4], requests, rate=200, seconds=10.0)
            await striking
            return tally

        begun = perf_counter()
        tally = asyncio.run(main())
        rows.append(
            [
                f"{perf_counter() - begun:.0f}", str(tally.answered), str(len(tally.failed_before_content)),
                str(tally.cut_after_content), _ms(tally.quantile(tally.first, 0.99)),
            ]
        )  # fmt: skip
    head = ["seconds", "whole", "failed before content", "cut after content", "first byte p99 ms"]
    return "kill -9 of one of four endpoints under 200 requests/s, half of them streams", head, rows


def _counter(port: int, series: str) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        for line in page.read().decode().splitlines():
            if line.startswith(series):
                return line.rsplit(" ", 1)[1].removesuffix(".0")
    return "0"


SCENARIOS = {"overhead": overhead, "streams": streams, "reload": reload, "killed": killed}
