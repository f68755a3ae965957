"""A burst of twice what a pool can do: some sessions leave for the next tier, whole, and come home when it is over."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import aiohttp
from tests.net.test_explain import said

CAPACITY = 20.0
"""Requests a second of the pool, about: 4,000 tokens each, on an engine that computes 80,000 a second."""
BURST = 4.0
"""Seconds."""
SPILL = {
    "predictedTTFT": {"start": "200ms", "full": "800ms"},
    "smoothing": "200ms",
    "minDwell": "1s",
}


class Clients:
    """Sessions that ask one question after the other, each about a text of its own."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url
        self._http = http
        self._asked = 0
        self.tiers: dict[str, list[tuple[str, float]]] = {}
        """Where each session was served, and at which share."""
        self.late = 0
        """Requests that left since they themselves would have waited too long."""
        self.waited: list[float] = []
        """Seconds to the first byte of those that were served at home."""

    async def ask(self, session: str) -> None:
        self._asked += 1
        text = f"{self._asked} of {session}. " + "Of coral reefs and their fish. " * 512
        body = {"model": "chat", "stream": True, "max_tokens": 2, "messages": [{"role": "user", "content": text}]}
        headers = {"x-session-id": session, "x-spillway-explain": "1"}
        begun = monotonic()
        async with self._http.post(f"{self._url}/v1/chat/completions", json=body, headers=headers) as answer:
            assert answer.status == 200
            await answer.content.readany()
            waited = monotonic() - begun
            await answer.read()
            told = dict(pair.split("=", 1) for pair in answer.headers["x-spillway-explain"].split("; "))
        share = float(told["spill"].removeprefix("own:"))
        assert 0.0 <= share <= 1.0
        if "for itself" in told.get("before", ""):
            self.late += 1  # it has left since it would have been late, whatever the share
        else:
            self.tiers.setdefault(session, []).append((told["tier"], share))
        if told["tier"] == "own":
            self.waited.append(waited)

    @property
    def went(self) -> list[str]:
        """Where all requests were served."""
        return [tier for served in self.tiers.values() for tier, _ in served]

    async def rush(self, rate: float, seconds: float, sessions: int = 20) -> None:
        """Requests of the sessions by turns, `rate` a second, whether the last have been answered or not."""
        begun = monotonic()
        async with asyncio.TaskGroup() as asking:
            for number in range(round(rate * seconds)):
                await asyncio.sleep(max(0.0, begun + number / rate - monotonic()))
                asking.create_task(self.ask(f"s{number % sessions}"))


async def test_a_burst_of_twice_the_capacity_leaves_in_part_and_comes_home(serve, engine, objects) -> None:
    tiers = [
        {"name": "own", "pools": [{"name": "local"}], "spill": SPILL},
        {"name": "cloud", "pools": [{"name": "cloud"}]},
    ]
    lb = await serve(
        docs=[
            objects.pool("local", await engine(speed=20.0)),
            objects.pool("cloud", await engine(profile="provider")),
            objects.route(tiers=tiers),
        ]
    )
    (spilling,) = lb.balancer.serving.current.routes.all[0].spilling.values()
    async with aiohttp.ClientSession() as http:
        clients = Clients(lb.url, http)
        await clients.rush(CAPACITY / 4, 2.0)  # it learns the rate, and nothing leaves
        assert set(clients.went) == {"own"}
        clients.tiers.clear()
        await clients.rush(2 * CAPACITY, BURST)
        over = monotonic()
        away = clients.went.count("cloud") + clients.late
        assert 0.2 < away / (len(clients.went) + clients.late) < 0.8
        for served in clients.tiers.values():  # whole: each has a share of its own at which it leaves and returns
            home = max((share for tier, share in served if tier == "own"), default=0.0)
            left = min((share for tier, share in served if tier == "cloud"), default=1.0)
            assert home <= left + 0.01
        assert sorted(clients.waited)[len(clients.waited) * 9 // 10] < 1.6
        while spilling.share(monotonic()) > 0.0:
            assert monotonic() - over < 60.0
            await clients.rush(CAPACITY / 4, 0.4)
        clients.tiers.clear()
        await clients.rush(CAPACITY / 4, 2.0)
        assert set(clients.went) == {"own"}
        async with http.get(f"{lb.url}/metrics") as page:
            lines = (await page.text()).splitlines()
    labels = '{route="default/chat",rule="all",tier="own"}'
    assert f"spillway_tier_spill_share{labels} 0.0" in lines


async def test_who_asks_is_told_the_share_of_each_tier_that_was_asked(serve, engine, objects, dial) -> None:
    tiers: list[dict[str, Any]] = [
        {"name": "own", "pools": [{"name": "local"}], "spill": {"inFlightPerEndpoint": {"start": 0, "full": 100}}},
        {"name": "cloud", "pools": [{"name": "cloud"}]},
    ]
    docs = [objects.pool("local", await engine()), objects.pool("cloud", await engine()), objects.route(tiers=tiers)]
    client = await dial(await serve(docs=docs))
    assert said(await client.chat([("x-spillway-explain", "1")]))["spill"] == "own:0.00"
