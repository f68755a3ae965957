"""`spillway city`: build the city, play the load, compare, then serve until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from rich.console import Console

from . import guide, summary
from .layout import QUICKSTART, Layout, Trouble, find_examples, moved, read_layout, under
from .load import Session, plan
from .stage import empty_caches, perform
from .summary import Result
from .town import Town, check_ports, free_port

OTHER: Final = "RoundRobin"
"""What the strategy of the YAML is compared with: what a Service or an ordinary proxy does."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the person asked for. `seconds` is the length of one load."""

    seconds: float
    seed: int
    port: int
    base_port: int | None
    compare: bool
    exit: bool


def run_city(
    *,
    seconds: float = 22.0,
    seed: int = 1,
    port: int = 8787,
    base_port: int | None = None,
    compare: bool = True,
    exit: bool = False,
) -> int:
    """Run the whole demo and return the exit code: 0, or 1 when something failed, 2 when it could not begin.

    `base_port` moves the engines there, from where the YAML has them. Everything that is started ends before this
    returns.
    """
    options = Options(seconds, seed, port, base_port, compare, exit)
    console = Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="spillway-city-"))
    city = City(options, console, folder)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(city.run())
    except KeyboardInterrupt:  # before the signal handlers stood, or after
        pass
    if not city.keep_logs:
        shutil.rmtree(folder, ignore_errors=True)
    return city.code


class City:
    """One run of the demo. `code` is the exit code so far; `keep_logs` is set when somebody will want to read them."""

    def __init__(self, options: Options, console: Console, folder: Path) -> None:
        self._options = options
        self._console = console
        self._folder = folder
        self.code = 0
        self.keep_logs = False

    async def run(self) -> None:
        """Returns when all is over, also on Ctrl-C, SIGTERM and when the terminal is closed."""
        loop = asyncio.get_running_loop()
        this = asyncio.current_task()
        assert this is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, this.cancel)
        try:
            await self._run()
        except asyncio.CancelledError:
            self._say("")
        except Trouble as trouble:
            self._fail(str(trouble))

    async def _run(self) -> None:
        options = self._options
        try:
            layout = self._layout()
            check_ports(layout, options.port)
            sessions = plan(options.seed, options.seconds)
        except (Trouble, ValueError) as trouble:
            self._fail(str(trouble), 2)
            return
        client = aiohttp.ClientSession(trust_env=False)
        async with Town(self._folder) as town, client:
            self._introduce(layout, sessions)
            for engine in layout.engines:
                town.start_engine(engine)
            balancer = town.start_balancer("balancer", layout, options.port)
            await town.ready(client, town.children)
            results = [await perform(client, self._console, layout, balancer, sessions, options.seconds)]
            if options.compare:
                results.append(await self._other(client, town, layout, sessions))
            self._conclude(results)
            if not options.exit:
                guide.show(self._console, layout, town, balancer)
                raise Trouble(await guide.serve(self._console, town, balancer))

    def _layout(self) -> Layout:
        examples = find_examples(Path.cwd())
        layout = read_layout(examples / QUICKSTART, examples / "secrets")
        if self._options.base_port is not None:
            layout = moved(layout, self._options.base_port, self._folder)
        return layout

    async def _other(
        self, client: aiohttp.ClientSession, town: Town, layout: Layout, sessions: tuple[Session, ...]
    ) -> Result:
        """The same load, from empty caches, by a second balancer that differs in the strategy alone."""
        other = under(layout, OTHER, self._folder)
        await empty_caches(client, layout.engines)
        balancer = town.start_balancer(f"balancer-{OTHER}", other, free_port())
        await town.ready(client, [balancer])
        self._say(f"\nThe same people again, under {OTHER}, with empty caches.\n")
        result = await perform(client, self._console, other, balancer, sessions, self._options.seconds)
        await town.stop(balancer)
        return result

    def _introduce(self, layout: Layout, sessions: tuple[Session, ...]) -> None:
        own = sum(1 for engine in layout.engines if engine.fake is None)
        self._say(f"Starting {own} simulated engines, a fake provider, and Spillway before them.")
        self._say(f"Then {len(sessions)} people chat with the model {layout.model!r}. Ctrl-C ends everything.\n")

    def _conclude(self, results: list[Result]) -> None:
        self._say("")
        self._console.print(summary.table(results))
        self._say("")
        if len(results) > 1:
            self._console.print(summary.sentence(results[0], results[1]), highlight=False, markup=False)
            self._say("")
        complaints = [line for result in results for line in summary.complaints(result)]
        if complaints:
            self._fail("\n".join(("requests failed that should not have:", *complaints)))

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def _fail(self, text: str, code: int = 1) -> None:
        self.code = code
        self.keep_logs = code == 1
        Console(stderr=True).print(text, soft_wrap=True, highlight=False, markup=False, style="red")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where there is one: the people of the city share the machine with what they measure."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop
    return None
