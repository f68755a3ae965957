"""One load against one balancer, while the balancer's /metrics are watched and shown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final, Protocol

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.live import Live

from . import view
from .chat import Player
from .figures import Figures, Window, read
from .layout import Engine, Layout, Trouble
from .load import CROWD_SECONDS, Session
from .summary import Result
from .town import Child

LOOK_SECONDS: Final = 0.5
"""How often the page is read in a terminal; the balancer makes a new one every second."""

LINE_SECONDS: Final = 3.0
"""How often a line is printed where there is no terminal."""

SETTLE_SECONDS: Final = 1.2
"""How long after its last request a load is in the page for certain."""

CROWD_FELT: Final = 3.0
"""Seconds for which the view speaks of the crowd: it comes within one, and is served for some more."""


class Screen(Protocol):
    """Where the view is shown."""

    def show(self, scene: view.Scene, window: Window) -> None: ...


async def perform(
    client: aiohttp.ClientSession,
    console: Console,
    layout: Layout,
    balancer: Child,
    sessions: Sequence[Session],
    seconds: float,
) -> Result:
    """Play the sessions and show what happens. Trouble when the balancer goes down meanwhile."""
    player = Player(f"http://127.0.0.1:{balancer.port}/v1", layout.model)
    loop = asyncio.get_running_loop()
    start = loop.time()
    window = Window()

    def scene() -> view.Scene:
        elapsed = loop.time() - start
        crowd = 0 <= elapsed - seconds / 2 < CROWD_SECONDS + CROWD_FELT
        return view.Scene(layout.strategy, layout.pool, elapsed, seconds, player.open, player.errors, crowd)

    async def look() -> None:
        if (ended := balancer.ended) is not None:
            raise Trouble(f"{balancer.name} {ended}\n{balancer.tail()}")
        page = await fetch(client, balancer, loop.time())
        if page is not None:
            window.add(page)

    with _screen(console) as screen:
        playing = asyncio.create_task(player.play(sessions))
        try:
            while not playing.done():
                await look()
                screen.show(scene(), window)
                await asyncio.wait((playing,), timeout=LOOK_SECONDS)
            await playing
            await asyncio.sleep(SETTLE_SECONDS)
            await look()
            screen.show(scene(), window)
        finally:
            playing.cancel()
    last = window.last
    queried, cached = await cache_counts(client, layout.engines)
    spilled = last.spilled_share if last else None
    money = await bill(client, layout.engines)
    return Result(layout.strategy, tuple(player.answers), queried, cached, spilled, money)


async def fetch(client: aiohttp.ClientSession, balancer: Child, now: float) -> Figures | None:
    """The balancer's page; None when it did not answer in time, as a scrape of Prometheus would have a gap."""
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with client.get(
            f"http://127.0.0.1:{balancer.port}/metrics", timeout=aiohttp.ClientTimeout(2.0)
        ) as response:
            if response.status == 200:
                return read(await response.text(), now)
    return None


async def cache_counts(client: aiohttp.ClientSession, engines: Sequence[Engine]) -> tuple[float, float]:
    """Prompt tokens that the self-hosted engines looked up in their caches, and those found, by their own pages.

    Of the engines themselves, because what the balancer knows of them is up to two seconds old. An engine that has
    been ended counts nothing.
    """
    queried = cached = 0.0
    for engine in engines:
        if engine.fake is not None:
            continue
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with client.get(f"{engine.url}/metrics", timeout=aiohttp.ClientTimeout(2.0)) as response:
                for family in text_string_to_metric_families(await response.text()):
                    total = sum(sample.value for sample in family.samples)
                    if family.name == "vllm:prefix_cache_queries":
                        queried += total
                    elif family.name == "vllm:prefix_cache_hits":
                        cached += total
    return queried, cached


async def bill(client: aiohttp.ClientSession, engines: Sequence[Engine]) -> Decimal | None:
    """What the providers charged, in dollars, by their own books; None where none of them has a price."""
    total: Decimal | None = None
    for engine in engines:
        if engine.fake is None or engine.fake.price is None:
            continue
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with client.get(f"{engine.url}/books", timeout=aiohttp.ClientTimeout(2.0)) as response:
                total = (total or Decimal(0)) + Decimal((await response.json())["amount"])
    return total


async def empty_caches(client: aiohttp.ClientSession, engines: Sequence[Engine]) -> None:
    """Every engine as it was at the start. Trouble when one is still at work after a second; gone ones are let be."""
    for engine in engines:
        for _ in range(20):
            try:
                async with client.post(f"{engine.url}/sim/reset", timeout=aiohttp.ClientTimeout(2.0)) as response:
                    if response.status < 300:
                        break
            except (aiohttp.ClientError, OSError, TimeoutError):
                break
            await asyncio.sleep(0.05)
        else:
            raise Trouble(f"{engine.name} did not empty its cache (answer {response.status} to POST /sim/reset)")


class _Terminal:
    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, scene: view.Scene, window: Window) -> None:
        self._live.update(view.live(scene, window), refresh=True)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = LINE_SECONDS

    def show(self, scene: view.Scene, window: Window) -> None:
        if scene.elapsed >= self._next:
            self._next += LINE_SECONDS
            self._console.print(view.line(scene, window), soft_wrap=True, highlight=False, markup=False)


@contextlib.contextmanager
def _screen(console: Console) -> Iterator[Screen]:
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(console)
        return
    # No refreshing thread: everything here happens on the one loop.
    with Live(console=console, auto_refresh=False) as live:
        yield _Terminal(live)
