"""A balancer in this process, and simulated engines beside it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.net.bookkeeper import Bookkeeper

from spillway_balancer.app import Balancer, Settings
from spillway_balancer.engine.server import EngineServer

PATIENCE = 15.0
"""Seconds that a test waits for what should come at once; only a failing test waits so long."""


@pytest.fixture
async def engine() -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """`await engine()`: a simulated engine of the model `demo`, a hundred times as fast as life."""
    started: list[EngineServer] = []

    async def start(**settings: Any) -> EngineServer:
        one = EngineServer(**{"speed": 100.0, "models": ("demo",), **settings})
        await one.start()
        started.append(one)
        return one

    yield start
    for one in started:
        await one.stop()


QUIET: dict[str, Any] = {"metrics": {"mode": "None"}, "health": {"active": {"mode": "None"}}}
"""A pool that is neither probed nor scraped, so that what an endpoint hears is what clients say."""


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for name, value in over.items():
        old = out.get(name)
        out[name] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


class Objects:
    """ModelPools and RoutePolicies as they stand in a file."""

    @staticmethod
    def pool(name: str, *endpoints: Any, models: Any = None, **spec: Any) -> dict[str, Any]:
        urls = [each if isinstance(each, str) else each.url for each in endpoints]
        listed = [{"name": f"e{number}", "url": url} for number, url in enumerate(urls, 1)]
        base = {"models": models or [{"name": "demo"}], "source": {"static": {"endpoints": listed}}, **QUIET}
        return Objects._object("ModelPool", name, merged(base, spec))

    @staticmethod
    def provider(name: str, url: str, *accounts: str, models: Any = None, **spec: Any) -> dict[str, Any]:
        """Accounts a, b, … with the Secrets of those names."""
        listed = [{"name": each, "secretRef": {"name": each}} for each in accounts]
        source = {"type": "OpenAICompatible", "baseURL": url, "allowPlainHTTP": True, "accounts": listed}
        base = {"models": models or [{"name": "cloud-mini"}], "source": {"provider": source}}
        return Objects._object("ModelPool", name, merged(base, spec))

    @staticmethod
    def route(*pools: str, models: Iterable[str] = ("chat",), tiers: Any = None, **spec: Any) -> dict[str, Any]:
        """One tier of these pools, or the tiers given."""
        tiers = tiers or [{"name": "only", "pools": [{"name": pool} for pool in pools]}]
        return Objects._object(
            "RoutePolicy", "chat", {"models": list(models), "rules": [{"name": "all", "tiers": tiers}], **spec}
        )

    @staticmethod
    def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        return {"apiVersion": "spillway.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture
async def provider() -> AsyncIterator[Bookkeeper]:
    """One that keeps books of what it would charge."""
    one = Bookkeeper()
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
def objects() -> type[Objects]:
    return Objects


class Balancing:
    """A balancer that runs in this process from a file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "spillway.yaml"
        self.balancer: Any = None
        self.known: set[Any] = set()
        """Every endpoint that there ever was, those gone since included."""

    async def start(self, **settings: Any) -> None:
        self.balancer = Balancer(Settings(paths=(self.file,), port=0, seed=1, **settings))
        self.balancer.serving.follow(self._note)
        await self.balancer.start()

    def _note(self, runtime: Any) -> None:
        self.known.update(each for pool in runtime.pools.values() for each in pool.endpoints.values())

    @property
    def port(self) -> int:
        return int(self.balancer.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def write(self, *docs: Mapping[str, Any] | str) -> None:
        """Replace the file as editors do: a new one, moved over the old."""
        text = "---\n".join(doc if isinstance(doc, str) else yaml.safe_dump(doc, sort_keys=False) for doc in docs)
        new = self.file.with_suffix(".new")
        new.write_text(text)
        os.replace(new, self.file)

    def endpoint(self, name: str, pool: str = "local") -> Any:
        """What the balancer knows of an endpoint."""
        return self.balancer.serving.current.pools[f"default/{pool}"].endpoints[name]

    @property
    def in_flight(self) -> int:
        """Leases held now, in requests."""
        assert all((each.load.in_flight == 0) == (each.load.tokens == 0) for each in self.known)
        return sum(each.load.in_flight for each in self.known)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - what is waited for is state of the balancer, which tells nobody
                await asyncio.sleep(0.005)

    def sample(self, name: str, **labels: str) -> float:
        """The value of a metric, summed over the series that have these labels; 0.0 without any."""
        samples = [each for family in self.balancer.telemetry.registry.collect() for each in family.samples]
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())

    def series(self) -> set[str]:
        families = self.balancer.telemetry.registry.collect()
        return {f"{each.name}{sorted(each.labels.items())}" for family in families for each in family.samples}


class Serve:
    """Starts balancers: `lb = await serve(engine_1, engine_2)` is one pool `local` of endpoints e1, e2 under the
    model `chat`; `serve(docs=[...])` is whatever stands there."""

    def __init__(self, folder: Path, objects: type[Objects]) -> None:
        self._folder = folder
        self._objects = objects
        self.running: list[Balancing] = []

    async def __call__(
        self,
        *endpoints: Any,
        pool: Mapping[str, Any] | None = None,
        route: Mapping[str, Any] | None = None,
        docs: Iterable[Mapping[str, Any] | str] | None = None,
        **settings: Any,
    ) -> Balancing:
        folder = self._folder / f"balancer-{len(self.running)}"
        folder.mkdir()
        one = Balancing(folder)
        make = self._objects
        one.write(*(docs or [make.pool("local", *endpoints, **(pool or {})), make.route("local", **(route or {}))]))
        await one.start(**settings)
        self.running.append(one)
        return one


@pytest.fixture
async def serve(tmp_path: Path, caplog: pytest.LogCaptureFixture, say: Any, objects: Any) -> AsyncIterator[Serve]:
    """Start balancers. In the end no lease may be held, no bug be logged, and nothing secret be said."""
    caplog.set_level(logging.DEBUG, "spillway")
    serving = Serve(tmp_path, objects)
    yield serving
    said = []
    for one in serving.running:
        await one.until(lambda one=one: one.in_flight == 0 and one.balancer.proxy.in_flight == 0)
        said += one.series()
        await one.balancer.stop()
    for record in caplog.get_records("call"):
        said.append(record.getMessage() + (record.exc_text or ""))
        own = record.name in ("asyncio", "spillway.proxy", "spillway.http", "spillway.endpoints", "spillway.mirror")
        assert not (own and record.levelno >= logging.ERROR), said[-1]
    for secret in (say.PROMPT, say.KEY):
        assert not [line for line in said if secret in line]
