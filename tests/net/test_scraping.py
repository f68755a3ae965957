"""Scrapes of engines' metrics over sockets: what they cost, when they come, and what they tell of which moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import pytest
import yaml

from spillway_api.snapshot import Snapshot
from spillway_balancer.core.runtime import Runtime
from spillway_balancer.net import polling
from spillway_balancer.net.credentials import Credentials
from spillway_balancer.net.filesource import judge
from spillway_balancer.net.polling import Poller
from spillway_balancer.net.telemetry import KEPT_SECONDS, Telemetry

FILLER = b"# HELP other_seconds Of no interest.\n" + b'other_seconds_bucket{le="0.5"} 1.0\n' * 5000
PAGE = FILLER + (
    b'vllm:num_requests_waiting{engine="0"} 3.0\nvllm:num_requests_running{engine="0"} 5.0\n'
    b'vllm:cache_config_info{block_size="16",num_gpu_blocks="1000",engine="0"} 1.0\n'
)


class Scraping:
    """A poller of one pool, without a balancer about it."""

    def __init__(self, poller: Poller, runtime: Runtime, telemetry: Telemetry) -> None:
        self.poller = poller
        self.pool = runtime.pools["default/local"]
        self.runtime = runtime
        self.telemetry = telemetry
        poller.follow(runtime)

    def sample(self, name: str, **labels: str) -> float:
        families = self.telemetry.registry.collect()
        found = [each for family in families for each in family.samples if each.name == name]
        return sum(each.value for each in found if labels.items() <= each.labels.items())

    @property
    def scrapes(self) -> float:
        return self.sample("spillway_scrapes_total")

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(15):
            while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0.005)


Start = Callable[..., Any]


@pytest.fixture
async def scrape(tmp_path: Path, objects: Any) -> AsyncIterator[Start]:
    """`scrape(endpoint, …, interval=…)`: a poller that scrapes these endpoints as one pool."""
    session = aiohttp.ClientSession()
    started: list[Poller] = []

    def start(*endpoints: Any, interval: str = "100ms", quiet_after: float = 30.0, **spec: Any) -> Scraping:
        metrics: Mapping[str, Any] = {"mode": "Prometheus", "interval": interval, "staleAfter": "30s"}
        doc = objects.pool("local", *endpoints, engine="Auto", metrics=metrics, **spec)
        file = tmp_path / "pool.yaml"
        file.write_text(yaml.safe_dump_all([doc, objects.route("local")]))
        judged = judge((file,), "default", Credentials(None))
        assert judged.snapshot is not None, judged.errors
        telemetry = Telemetry()
        started.append(Poller(session, Credentials(), random.Random(1), telemetry, quiet_after))
        return Scraping(started[-1], Runtime(judged.snapshot), telemetry)

    yield start
    for poller in started:
        await poller.close()
    await session.close()


async def test_many_scrapes_of_a_long_page_go_over_one_connection(scrape, endpoint, say) -> None:
    server = await endpoint()
    server.pages["/metrics"] = say.message(body=PAGE)
    scraping = scrape(server)
    await scraping.until(lambda: scraping.scrapes >= 5)
    assert server.connections == 1
    assert scraping.sample("spillway_scrapes_total", result="ok") == scraping.scrapes
    assert scraping.sample("spillway_scrape_bytes_total") == scraping.scrapes * len(PAGE)
    assert scraping.sample("spillway_scrape_duration_seconds_count", pool="default/local") == scraping.scrapes
    e1 = scraping.pool.endpoints["e1"]
    report = e1.load.report(monotonic(), 30)
    assert (report.waiting, report.running) == (3, 5)  # they stand at the end of the page
    assert e1.learned.cache_tokens == 16_000
    assert scraping.poller.dialects[e1] == "vLLM"


async def test_a_page_is_asked_for_uncompressed(scrape, endpoint, say) -> None:
    asked: list[str | None] = []

    async def behave(call) -> None:
        asked.append(call.header("accept-encoding"))
        call.write(say.message(body=PAGE))

    server = await endpoint(behave)
    del server.pages["/metrics"]
    scraping = scrape(server)
    await scraping.until(lambda: scraping.scrapes)
    assert asked[0] == "identity"


async def test_a_scrape_is_set_against_our_own_counts_of_its_beginning(scrape, endpoint, say) -> None:
    answer = asyncio.Event()
    server = await endpoint()
    server.then = say.steps(answer, say.message(body=PAGE))
    del server.pages["/metrics"]
    scraping = scrape(server)
    book = scraping.pool.endpoints["e1"].load
    first = book.lease(100, 10)
    second = book.lease(70, 10)
    second.first_token()
    await server.call()
    for lease in (first, second):
        lease.release()
    answer.set()
    await scraping.until(lambda: book.report(monotonic(), 30))
    report = book.report(monotonic(), 30)
    assert (report.own, report.own_pending, report.own_context) == (2, 1, 170)
    assert book.others(monotonic(), 30) == 3 + 5 - 2


async def test_first_scrapes_are_spread_over_the_interval(scrape, endpoint, say) -> None:
    servers = [await endpoint() for _ in range(12)]
    at: dict[int, float] = {}
    for number, server in enumerate(servers):

        async def behave(call, number=number) -> None:
            at.setdefault(number, monotonic())
            call.write(say.message(body=b""))

        server.then = behave
        del server.pages["/metrics"]
    begun = monotonic()
    scraping = scrape(*servers, interval="400ms")
    await scraping.until(lambda: len(at) == len(servers))
    places = sorted((each - begun) / 0.4 for each in at.values())
    assert places[-1] - places[0] > 0.5
    assert sum(place < 0.5 for place in places) in range(2, 11)


async def test_a_quiet_pool_is_scraped_a_tenth_as_often_and_at_once_when_it_is_asked(scrape, endpoint, say) -> None:
    server = await endpoint()
    server.pages["/metrics"] = say.message(body=PAGE)
    scraping = scrape(server, interval="100ms", quiet_after=0.25)
    await scraping.until(lambda: scraping.scrapes >= 2)  # a new pool is not quiet
    await asyncio.sleep(0.5)
    before = scraping.scrapes
    await asyncio.sleep(0.8)
    assert scraping.scrapes - before <= 1
    scraping.pool.last_asked = asked = monotonic()
    before = scraping.scrapes
    await scraping.until(lambda: scraping.scrapes > before)
    assert monotonic() - asked < polling.WAKE_SECONDS + 0.1
    scraping.pool.last_asked = monotonic() + 60
    before = scraping.scrapes
    await asyncio.sleep(0.6)
    assert scraping.scrapes - before >= 3


async def test_no_pool_is_quiet_where_sidecars_go_by_what_is_scraped(scrape, endpoint, say) -> None:
    server = await endpoint()
    server.pages["/metrics"] = say.message(body=PAGE)
    scraping = scrape(server, interval="100ms", quiet_after=0.0)
    await scraping.until(lambda: scraping.scrapes)
    await asyncio.sleep(0.25)
    scraping.poller.share(True)
    before = scraping.scrapes
    await asyncio.sleep(polling.WAKE_SECONDS + 0.6)
    assert scraping.scrapes - before >= 3
    scraping.poller.share(False)
    await asyncio.sleep(0.25)
    before = scraping.scrapes
    await asyncio.sleep(0.6)
    assert scraping.scrapes - before <= 1


@pytest.mark.parametrize(
    ("behaviour", "result"),
    [
        (lambda say: (say.message(404),), "status"),
        (lambda say: (say.message(body=b"<html>"),), "unreadable"),
        (lambda say: (say.message(body=b"vllm:num_requests_running NaN"),), "unreadable"),
        (lambda say: (say.message(body=b"x" * (5 << 20)),), "too-large"),
        (lambda say: (say.CLOSE,), "connect"),
        (lambda say: (say.HANG,), "timeout"),
    ],
)
async def test_how_a_scrape_ended_is_counted(
    scrape, endpoint, say, behaviour, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "SCRAPE_TIMEOUT", 0.2)
    server = await endpoint(say.steps(*behaviour(say)))
    del server.pages["/metrics"]
    scraping = scrape(server)
    await scraping.until(lambda: scraping.scrapes)
    assert scraping.sample("spillway_scrapes_total", result=result) == scraping.scrapes
    assert scraping.pool.endpoints["e1"].load.others(monotonic(), 30) == 0


async def test_the_series_of_a_pool_that_is_gone_can_be_scraped_once_more_and_are_gone(scrape, endpoint, say) -> None:
    """What an endpoint did in its last seconds is often why it is gone."""
    server = await endpoint()
    server.pages["/metrics"] = say.message(body=PAGE)
    scraping = scrape(server)
    await scraping.until(lambda: scraping.scrapes)
    await scraping.poller.close()
    nobody = Runtime(Snapshot(gateway="default", pools=(), routes=()))
    scraping.telemetry.follow(scraping.runtime, 0.0)
    scraping.telemetry.follow(nobody, 1000.0)
    assert scraping.scrapes
    scraping.telemetry.follow(scraping.runtime, 1100.0)  # back again, and its time begins anew
    scraping.telemetry.follow(nobody, 1200.0)
    scraping.telemetry.follow(nobody, 1200.0 + KEPT_SECONDS - 1)
    assert scraping.scrapes
    scraping.telemetry.follow(nobody, 1200.0 + KEPT_SECONDS)
    assert not scraping.scrapes
    assert not scraping.sample("spillway_scrape_duration_seconds_count")
