"""The simulator against the live system: the same requests in virtual time, and through real sockets in real time.

Live there is `spillway run` and four `spillway engine`, each a process of its own, and a client that sends each turn
when it is due. The simulator has the same engines' timing and the same dispatch, and nothing else: what is between the
two figures is sockets, JSON, event loops and metrics that are read a moment late: some 3 ms to a
first token.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final, NamedTuple

import aiohttp
import uvloop

from spillway_api import snapshot
from spillway_api.types import Capacity, Dispatch, Health, Metrics, Model
from spillway_balancer.city.chat import Refused, chunks, content
from spillway_balancer.city.layout import Engine, Layout
from spillway_balancer.city.town import Town
from spillway_balancer.core.keys import key_of
from spillway_balancer.engine.profiles import profile
from spillway_balancer.simulate.balancers import CoreBalancer
from spillway_balancer.simulate.measure import Figures, Recorder
from spillway_balancer.simulate.plan import Arrivals, Plan
from spillway_balancer.simulate.request import Request
from spillway_balancer.simulate.sessions import Talk, sessions
from spillway_balancer.simulate.world import Setting, World

from . import town
from .chats import MODEL, Chat

Table = tuple[str, list[str], list[list[str]]]

STRATEGIES: Final = ("Adaptive", "CHWBL", "LeastLoad", "RoundRobin", "Random")
SECONDS: Final = 90.0
ENGINES: Final = 4
PROFILE: Final = "laptop-demo"
TALK: Final = Talk((900, 0.5), 6, (140, 0.6), (40, 0.5), 3.0, 60)
"""Chats as the engines of this profile can take: shorter in everything, their people quicker."""
RATE: Final = 2.5
"""Sessions a second: four fifths of what round robin holds here with p90 within OBJECTIVE, two fifths of Adaptive's."""
SEED: Final = 1
WORLDS: Final = 7
"""Simulations of the same requests, sent some milliseconds earlier or later: how much of a difference is chance."""
SHIFT: Final = 0.01
"""Seconds."""
OBJECTIVE: Final = 1.0
SESSION: Final = "x-session-id"
TIMES: Final = ("ttft_mean", "ttft_p50", "ttft_p90", "e2e_mean")
"""Figures of a run that are compared."""
HEAD: Final = ["", "", "requests", "TTFT mean ms", "p50", "p90", "e2e mean", "hits", "sent late", "busiest core"]
BLOCK_TOKENS: Final = 64
"""Of the workload and, live and simulated, of the engines' caches. With vLLM's usual 16 first tokens come up to 8 %
sooner: of what was said before less has to be computed again."""


class Lived(NamedTuple):
    """What came of a live run."""

    figures: Figures
    failed: list[str]
    late: float
    """Seconds, the worst by which the client sent something too late."""
    busiest: float
    """Share of a core that the busiest process took."""


def live(seconds: float = SECONDS, requests: int | None = None, strategies: Sequence[str] = STRATEGIES) -> Table:
    """Every strategy, live and simulated."""
    rows, means = [], []
    for strategy in strategies:
        print(f"{strategy}: {seconds:.0f} s live", file=sys.stderr)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            lived = runner.run(_live(strategy, seconds, requests))
        runs = [_simulated(strategy, seconds, requests, number) for number in range(WORLDS)]
        rows.append(_row(strategy, lived, runs))
        print("\n".join("  ".join(line[1:]) for line in rows[-1]), file=sys.stderr)  # minutes may be left to wait
        means.append((lived.figures.ttft_mean, _mean([run.ttft_mean for run in runs]), strategy))
    orders = [[strategy for *_, strategy in sorted(means, key=lambda each: each[side])] for side in (0, 1)]
    verdict = "the same order live and simulated" if orders[0] == orders[1] else "NOT the same order simulated"
    title = (
        f"Live against simulated, {ENGINES} engines {PROFILE}, {RATE:g} sessions/s; {verdict}: {' < '.join(orders[0])}"
    )
    return title, HEAD, [line for row in rows for line in row]


def _row(strategy: str, lived: Lived, runs: Sequence[Figures]) -> list[list[str]]:
    """Three lines: live, simulated (the mean of the runs), and how far off that is."""
    real = lived.figures
    found = {name: _mean([getattr(run, name) for run in runs]) for name in (*TIMES, "requests", "hit_share")}
    means = [run.ttft_mean for run in runs]
    chance = f" ({min(means) * 1e3:.0f} to {max(means) * 1e3:.0f})"
    first, *others = TIMES
    lines = [
        [
            strategy, "live", str(real.requests), *(f"{getattr(real, name) * 1e3:.0f}" for name in TIMES),
            f"{real.hit_share:.1%}", f"{lived.late * 1e3:.0f} ms", f"{lived.busiest:.0%}",
        ],
        [
            "", "simulated", f"{found['requests']:.0f}", f"{found[first] * 1e3:.0f}{chance}",
            *(f"{found[name] * 1e3:.0f}" for name in others), f"{found['hit_share']:.1%}", "", "",
        ],
        [
            "", "off", "", *(f"{found[name] / getattr(real, name) - 1:+.1%}" for name in TIMES),
            f"{(found['hit_share'] - real.hit_share) * 100:+.1f} points", "", "",
        ],
    ]  # fmt: skip
    if lived.failed:
        lines.append(["", "FAILED", str(len(lived.failed)), lived.failed[0], *[""] * (len(HEAD) - 4)])
    return lines


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def arrivals(seconds: float, requests: int | None, shift: Random | None = None) -> Arrivals:
    """The requests, the same each time, until `seconds` are over; `shift` sends some a little later."""
    plan = Plan(RATE, SEED, ENGINES, requests or round(RATE * TALK.turns * seconds))
    made = sessions(TALK)(plan)

    def until(request: Request) -> Request | None:
        if request.at >= seconds:
            return None
        if shift is not None:
            request.at += shift.random() * SHIFT
        if (goes_on := request.follow) is not None:

            def follow(answered: Request, now: float) -> Request | None:
                following = goes_on(answered, now)
                return following and until(following)

            request.follow = follow
        return request

    firsts = [first for each in made.requests if (first := until(each)) is not None]
    firsts.sort(key=lambda each: each.at)
    return Arrivals(iter(firsts), made.most)


# ---- simulated -----------------------------------------------------------------------------------------------------


class _Facts:
    """Of a request, as the proxy would find them: only the header that names the session."""

    client_ip = None

    def __init__(self, session: str) -> None:
        self._session = session

    def header(self, name: str) -> str | None:
        return self._session if name == SESSION else None

    def body(self, name: str) -> str | None:
        return None

    def prefix(self, chars: int | None) -> bytes | None:
        return None


class _Balancer(CoreBalancer):
    """Its ring sees the keys that the live one sees, so that sessions fall to the same endpoints."""

    @staticmethod
    def _key(request: Request) -> int:
        key = key_of(Dispatch().key, _Facts(_session(request)))
        assert key is not None
        return key


def _session(request: Request) -> str:
    return f"session-{request.session}"


def _pool(strategy: str) -> snapshot.Pool:
    return snapshot.Pool(
        name="default/bench",
        models=(Model(MODEL),),
        engine="vLLM",
        provider=None,
        endpoints=tuple(snapshot.Endpoint(f"e{index}", f"http://e{index}") for index in range(ENGINES)),
        dispatch=Dispatch(strategy=strategy),  # type: ignore[arg-type]
        capacity=Capacity(),
        metrics=Metrics(),
        health=Health(),
    )


def _simulated(strategy: str, seconds: float, requests: int | None, number: int) -> Figures:
    asked = arrivals(seconds, requests, Random(number) if number else None)
    recorder = Recorder(OBJECTIVE, asked.most)
    setting = Setting((profile(PROFILE),) * ENGINES, BLOCK_TOKENS)
    dice = Random(f"balancer {number}")
    World(setting, lambda world, _: _Balancer(world, _pool(strategy), dice), recorder, number).run(asked)
    return recorder.figures()


# ---- live ----------------------------------------------------------------------------------------------------------


async def _live(strategy: str, seconds: float, requests: int | None) -> Lived:
    *ports, front = town.free_ports(ENGINES + 1)
    engines = tuple(
        Engine(f"e{index}", port, MODEL, PROFILE, block_size=BLOCK_TOKENS) for index, port in enumerate(ports)
    )
    with town.folder() as folder:
        file = town.write_policy(folder, ports, strategy, "vLLM")
        layout = Layout(file, folder, engines, "bench", strategy, MODEL)
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=120.0)
        async with Town(folder) as city, aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
            for engine in engines:
                city.start_engine(engine)
            await city.ready(client, city.engines)
            city.start_balancer("balancer", layout, front)
            await city.ready(client, city.balancers)
            await asyncio.sleep(2.0)  # the first probes and scrapes are over
            pids = {child.name: child.pid for child in city.children} | {"client": _own()}
            before, begun = _used(pids), monotonic()
            player = _Player(client, f"http://127.0.0.1:{front}/v1/chat/completions")
            recorder = Recorder(OBJECTIVE, 1)
            await player.play(arrivals(seconds, requests), recorder)
            after, took = _used(pids), monotonic() - begun
    busiest = max(after[name] - before[name] for name in pids) / took
    return Lived(recorder.figures(), player.failed, player.late, busiest)


def _own() -> int:
    return int(Path("/proc/self").resolve().name)


def _used(pids: dict[str, int]) -> dict[str, float]:
    return {name: town.cpu_seconds(pid) for name, pid in pids.items()}


class _Player:
    """Sends every request when it is due, whatever has become of the others."""

    def __init__(self, client: aiohttp.ClientSession, url: str) -> None:
        self._client = client
        self._url = url
        self._clock = asyncio.get_running_loop().time
        self._start = 0.0
        self.failed: list[str] = []
        self.late = 0.0

    async def play(self, asked: Arrivals, recorder: Recorder) -> None:
        self._start = self._clock()
        async with asyncio.TaskGroup() as group:
            for first in asked.requests:
                group.create_task(self._converse(first, recorder))

    async def _converse(self, first: Request, recorder: Recorder) -> None:
        chat = Chat()
        request: Request | None = first
        while request is not None:
            body = chat.ask(request)
            await asyncio.sleep(self._start + request.at - self._clock())
            sent = self._clock() - self._start
            self.late = max(self.late, sent - request.at)
            request.at = sent
            recorder.arrived(sent)
            try:
                chat.answered(await self._ask(request, body))
            except (Refused, aiohttp.ClientError, TimeoutError) as error:
                self.failed.append(f"{type(error).__name__}: {error}")
                recorder.turned_away(request)
                return
            assert request.finished_at is not None
            recorder.finished(request, request.finished_at)
            request = request.follow(request, request.finished_at) if request.follow else None

    async def _ask(self, request: Request, body: dict[str, object]) -> str:
        pieces: list[str] = []
        async with self._client.post(self._url, json=body, headers={SESSION: _session(request)}) as answer:
            if answer.status != 200:
                raise Refused(f"{answer.status} {(await answer.read())[:80]!r}")
            async for chunk in chunks(answer.content):
                if piece := content(chunk):
                    if not pieces:
                        request.first_token_at = self._clock() - self._start
                    pieces.append(piece)
                if usage := chunk.get("usage"):
                    self._counted(request, usage)
        request.finished_at = self._clock() - self._start
        return "".join(pieces)

    def _counted(self, request: Request, usage: dict[str, object]) -> None:
        """The engine's own count: the request must have come to it as the simulator has it."""
        said = (usage["prompt_tokens"], usage["completion_tokens"])
        meant = (request.prompt_tokens, request.output_tokens)
        if said != meant:
            self.failed.append(f"{said} tokens instead of {meant}")
        details = usage["prompt_tokens_details"]
        assert isinstance(details, dict)
        request.cached_tokens = details["cached_tokens"]
