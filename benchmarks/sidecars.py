"""What thousands of sidecars cost the operator that serves them: CPU, memory, and time until a change is with all.

One operator's config stream, as a process of its own, on real sockets with TLS; the subscribers say hello, read, and
acknowledge. Their tokens are good without a review, for the API server's part is the same whoever asks. The gateway has
200 RoutePolicies over 500 endpoints; each sidecar asks for three routes, so that there are 100 views, and the pool that
changes is in all of them. While endpoints change, a balancer of the gateway says every second how all of them do, and
sidecars are told. Both columns are of one run; the subscribers share the machine's cores with the operator.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import resource
import statistics
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from spillway_api import stream
from spillway_api.snapshot import Endpoint, Pool, Route, RouteRule, RouteTier, Snapshot, Target, digest
from spillway_api.types import Capacity, Dispatch, Health, Metrics, Model, Retry, Timeouts
from spillway_operator.certificates import ServingTls, needed, trust_in
from spillway_operator.identity import Caller
from spillway_operator.stream import StreamServer

Table = tuple[str, list[str], list[list[str]]]

SIZES: Final = (20, 2000)
ROUTES, POOLS, ENDPOINTS = 200, 50, 10
CHANGES: Final = 10
QUIET: Final = 20.0
"""Seconds in which nothing changes, for what it costs that sidecars are there."""
PAUSE: Final = 1.0
"""Seconds between changes."""
AT_ONCE: Final = 200
"""Handshakes of one process that are under way together."""


def sidecars() -> Table:
    """Figures of an operator by the number of sidecars that it serves."""
    columns = list(zip(*(_measured(count) for count in SIZES), strict=True))
    names = (
        "all start: until the last one has its snapshot",
        "one endpoint changes: until the median has it",
        "… until the last one has it, median of 10",
        "… slowest of 10",
        "CPU of the operator for one such change",
        "CPU of the operator when nothing changes",
        "CPU of the operator when loads are shared",
        "memory of the operator before they come (RSS)",
        "… with them",
        "… at its highest",
    )
    rows = [[name, *values] for name, values in zip(names, columns, strict=True)]
    return "sidecars of one operator", ["", *(f"{count} sidecars" for count in SIZES)], rows


def gateway(moved: int = 0) -> Snapshot:
    """Routes over pools; `moved` is where the first endpoint of the pool that all routes spill over to is."""
    kept = (Dispatch(), Capacity(), Metrics(), Health())
    pools = []
    for number in range(POOLS):
        addresses = [f"10.{number}.0.{index}" for index in range(ENDPOINTS)]
        if number == 0:
            addresses[0] = f"10.200.{moved // 250}.{moved % 250}"
        endpoints = tuple(Endpoint(f"pod-{index}", f"http://{each}:8000") for index, each in enumerate(addresses))
        pools.append(Pool(f"team/pool-{number:03}", (Model("demo"),), "vLLM", None, endpoints, *kept))
    routes = []
    for number in range(ROUTES):
        tiers = tuple(
            RouteTier(name, (Target(pool.name),), "Weighted", ("Capacity",))
            for name, pool in (("own", pools[1 + number % (POOLS - 1)]), ("spill", pools[0]))
        )
        routes.append(Route(f"team/r-{number:03}", (f"m-{number}",), (RouteRule("all", tiers),), Timeouts(), Retry()))
    return Snapshot("default", tuple(pools), tuple(routes))


def _operator(pipe: Connection) -> None:
    """The process that is measured."""
    asyncio.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    made = needed(None, ("localhost",), datetime.now(UTC))
    assert made is not None

    async def known(token: str) -> Caller:
        return Caller("team", "default", token, "uid")

    server = StreamServer(known, lambda caller, name: caller.pod == "gateway", lambda name: None, sidecars="All")
    server.synced = True
    versions = 0

    def publish() -> float:
        nonlocal versions
        versions += 1
        begun = time.monotonic()
        snapshot = gateway(versions)
        server.publish("default", snapshot, digest(snapshot), time.time())
        return begun

    tls = ServingTls(lambda: None)  # type: ignore[arg-type, return-value]  # nobody asks: it is told
    tls.use({"data": made.data()})
    await server.start("127.0.0.1", 0, tls.context)
    publish()
    pipe.send((server.port, made.authority))
    loop = asyncio.get_running_loop()
    while (asked := await loop.run_in_executor(None, pipe.recv)) != "end":
        pipe.send(publish() if asked == "publish" else _figures())
    await server.stop()


def _figures() -> tuple[float, float, float]:
    """Of this process: CPU seconds, and memory now and at its highest, in MiB."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return spent.ru_utime + spent.ru_stime, pages * resource.getpagesize() / 2**20, spent.ru_maxrss / 1024


def _dial(session: aiohttp.ClientSession, url: str, token: str, trust: Any) -> Any:
    return session.ws_connect(
        url,
        headers={"authorization": f"Bearer {token}"},
        ssl=trust,
        heartbeat=stream.HEARTBEAT,
        max_msg_size=stream.MAX_BYTES,
    )


async def _shares(url: str, trust: Any) -> None:
    """A balancer of the gateway that says how all endpoints are doing, which is never as it was."""
    async with (
        aiohttp.ClientSession() as session,
        _dial(session, f"{url}{stream.PATH}?gateway=default", "gateway", trust) as socket,
    ):
        await socket.send_str(stream.encode(stream.Hello("default", None, "benchmark")).decode())
        for second in itertools.count():
            pools = (
                stream.PoolLoad(
                    f"team/pool-{number:03}",
                    tuple(
                        stream.EndpointLoad(f"pod-{index}", 0.5, float(second % 9), float(number), second % 97 / 97)
                        for index in range(ENDPOINTS)
                    ),
                )
                for number in range(POOLS)
            )
            await socket.send_str(stream.encode(stream.Loads(tuple(pools))).decode())
            await asyncio.sleep(1.0)


class _Head(msgspec.Struct):
    """As much of a snapshot or a delta as is needed to acknowledge it."""

    type: str
    digest: str = ""


_head = msgspec.json.Decoder(_Head)


class _Sidecar:
    """Says hello, reads, acknowledges, and notes when."""

    def __init__(self, number: int) -> None:
        first = number % 100
        self.pod = f"pod-{number}"
        self.routes = tuple(f"team/r-{(first + step) % ROUTES:03}" for step in range(3))
        self.had = 0.0
        self.messages = 0
        self.loads = 0
        self.news = asyncio.Event()

    async def run(self, session: aiohttp.ClientSession, url: str, trust: Any, door: asyncio.Semaphore) -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with door:
                dialling = _dial(session, f"{url}{stream.PATH}?gateway=default&sidecar=1", self.pod, trust)
                socket = await stack.enter_async_context(dialling)
            hello = stream.Hello("default", None, "benchmark", True, self.routes)
            await socket.send_str(stream.encode(hello).decode())
            async for message in socket:
                packed = message.type is aiohttp.WSMsgType.BINARY
                said = _head.decode(stream.unpacked(message.data) if packed else message.data)
                if not said.digest:
                    self.loads += said.type == "loads"
                    continue
                self.had = time.monotonic()
                self.messages += 1
                self.news.set()
                await socket.send_str(stream.encode(stream.Ack(said.digest)).decode())

    async def next(self) -> None:
        await self.news.wait()
        self.news.clear()


@contextlib.asynccontextmanager
async def _together(port: int, authority: bytes, count: int) -> AsyncIterator[list[_Sidecar]]:
    all_of_them = [_Sidecar(number) for number in range(count)]
    trust, door = trust_in(authority), asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.run(session, f"https://localhost:{port}", trust, door)) for each in all_of_them]
        yield all_of_them
        for task in tasks:
            task.cancel()


def _measured(count: int) -> list[str]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8 * count)), hard))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_operator, args=(theirs,))
    process.start()
    try:
        return asyncio.run(_told(ours, count))
    finally:
        ours.send("end")
        process.join()


async def _told(pipe: Connection, count: int) -> list[str]:
    loop = asyncio.get_running_loop()

    async def ask(what: str) -> Any:
        pipe.send(what)
        return await loop.run_in_executor(None, pipe.recv)

    port, authority = await loop.run_in_executor(None, pipe.recv)
    _, before, _ = await ask("figures")
    begun = time.monotonic()
    async with _together(port, authority, count) as all_of_them:
        await asyncio.gather(*(each.next() for each in all_of_them))
        started = max(each.had for each in all_of_them) - begun
        await asyncio.sleep(PAUSE)
        spent, _, _ = await ask("figures")
        await asyncio.sleep(QUIET)
        after, _, _ = await ask("figures")
        quiet = (after - spent) / QUIET
        sharing = loop.create_task(_shares(f"https://localhost:{port}", trust_in(authority)))
        await asyncio.sleep(2 * PAUSE)
        spent, _, _ = await ask("figures")
        await asyncio.sleep(QUIET)
        after, _, _ = await ask("figures")
        shared = (after - spent) / QUIET
        assert min(each.loads for each in all_of_them) >= QUIET / 4
        median, last = [], []
        for _ in range(CHANGES):
            at = await ask("publish")
            await asyncio.gather(*(each.next() for each in all_of_them))
            median.append(statistics.median(each.had for each in all_of_them) - at)
            last.append(max(each.had for each in all_of_them) - at)
            await asyncio.sleep(PAUSE)
        changed, memory, highest = await ask("figures")
        assert {each.messages for each in all_of_them} == {1 + CHANGES}
        assert not sharing.done()
        sharing.cancel()
    change = (changed - after) / CHANGES - shared * (PAUSE + statistics.mean(last))
    return [
        f"{started:.1f} s",
        f"{statistics.median(median) * 1000:.0f} ms",
        f"{statistics.median(last) * 1000:.0f} ms",
        f"{max(last) * 1000:.0f} ms",
        f"{change * 1000:.0f} ms",
        f"{quiet:.1%} of a core",
        f"{shared:.1%} of a core",
        f"{before:.0f} MiB",
        f"{memory:.0f} MiB",
        f"{highest:.0f} MiB",
    ]
