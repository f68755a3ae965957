"""Thousands of mixed requests through a balancer with pools over all families: its costs, and the providers' books.

Every family is a fake provider with two accounts and prices of its own, and the next family behind it for what fails.
Each has three models, by what becomes of their answers (`mixed.Lot`), since only answers that came whole, or failed
before they began, can be reported to the last digit: of others the usage never came, and reports are estimates.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from spillway_balancer.provider.books import Page, Prices, plain
from spillway_balancer.provider.faults import Fault, parse
from spillway_balancer.provider.keys import Key
from spillway_balancer.provider.server import ProviderServer
from spillway_balancer.provider.state import Pace, Settings

from . import town
from .mixed import LOTS, Lot, Mixed, mixed
from .snapshots import Table

TYPES: Final = {
    "openai": "OpenAI",
    "azure": "AzureOpenAI",
    "gemini": "Gemini",
    "vertex": "VertexAI",
    "anthropic": "Anthropic",
    "bedrock": "Bedrock",
    "mistral": "Mistral",
    "groq": "Groq",
    "together": "Together",
    "fireworks": "Fireworks",
    "deepseek": "DeepSeek",
    "openrouter": "OpenRouter",
    "xai": "xAI",
}
"""Types of fakes, and what a ModelPool calls them."""
ACCOUNTS: Final = ("a", "b")
UPSTREAM: Final = {"anthropic": "claude-sonnet-4-5-{lot}", "bedrock": "anthropic.claude-sonnet-4-5-{lot}-v1:0"}
FAULTS: Final = """[
  {"kind": "error", "error": "overloaded", "percent": 2, "models": [WHOLE]},
  {"kind": "error", "error": "server-error", "percent": 2, "models": [WHOLE]},
  {"kind": "error", "error": "rate-limited", "retry_after": 0.2, "percent": 2, "models": [WHOLE]},
  {"kind": "error-event", "chunks": 0, "percent": 2, "models": [WHOLE]},
  {"kind": "reset", "percent": 1, "models": [WHOLE]},
  {"kind": "slow", "seconds": 0.05, "percent": 2, "models": [WHOLE]},
  {"kind": "error", "error": "quota-exhausted", "count": 1, "keys": ["b"], "models": [WHOLE], "percent": 3},
  {"kind": "cut", "chunks": 2, "how": "close", "percent": 15, "models": [CUT]},
  {"kind": "cut", "chunks": 3, "how": "mid-frame", "percent": 15, "models": [CUT]},
  {"kind": "cut", "chunks": 2, "how": "no-end", "percent": 15, "models": [CUT]},
  {"kind": "error-event", "chunks": 3, "percent": 15, "models": [CUT]},
  {"kind": "broken", "chunks": 3, "percent": 15, "models": [CUT]}
]"""
WORKERS: Final = 24
SETTLED: Final = 15.0
"""Seconds in which all that is under way when the last answer has come must have ended."""


class Sums(NamedTuple):
    """One family and one lot: what was billed, of it what was told with answers, and what the balancer reports."""

    billed: int
    untold: int
    books: Decimal
    told: Decimal
    reported: Decimal

    @property
    def missed(self) -> Decimal:
        """What is billed and not reported."""
        return self.books - self.reported


class Played(NamedTuple):
    """`answers` counts statuses of answers by lot; `sums` are by family and lot."""

    answers: Counter[tuple[Lot, int]]
    sums: dict[tuple[str, Lot], Sums]

    def of(self, lot: Lot) -> Sums:
        found = [each for (_, of), each in self.sums.items() if of == lot]
        return Sums(*(sum(values) for values in zip(*found, strict=True)))  # type: ignore[arg-type]


def upstream(family: str, lot: Lot) -> str:
    """The provider's name of a model."""
    return UPSTREAM.get(family, "m-{lot}").format(lot=lot)


def prices(family: str) -> Prices:
    """Of a million tokens; primes, so that no mistake hides behind another."""
    at = list(TYPES).index(family)
    each = [Decimal(base + 10 * at) for base in (3, 1, 7, 17, 11)]
    return Prices(*(one / 10 for one in each))


def settings(family: str) -> Settings:
    names = {lot: upstream(family, lot) for lot in LOTS}
    faults: tuple[Fault, ...] = parse(
        FAULTS.replace("WHOLE", f'"{names["whole"]}"').replace("CUT", f'"{names["cut"]}"')
    )
    keys = tuple(Key(account, f"key-of-{family}-{account}") for account in ACCOUNTS)
    table = tuple((names[lot], prices(family)) for lot in LOTS)
    return Settings(family, keys, tuple(names.values()), table, pace=Pace(0.0, 0.002), faults=faults)


def objects(urls: dict[str, str]) -> Iterable[dict[str, Any]]:
    """Pools and policies, a family's behind the one before it."""
    names = tuple(urls)
    for at, family in enumerate(names):
        by = prices(family)
        price = {"input": by.input, "cachedInput": by.cached, "cacheWrite": by.written, "output": by.output}
        price = {name: str(each) for name, each in (price | {"cacheWriteLong": by.written_1h}).items()}
        models = [{"name": f"{family}-{lot}", "upstreamName": upstream(family, lot), "price": price} for lot in LOTS]
        place = {"vertex": {"region": "europe-west4", "project": "p"}, "bedrock": {"region": "eu-west-1"}}
        accounts = [
            {"name": each, "secretRef": {"name": f"{family}-{each}", "key": "key"}} | place.get(family, {})
            for each in ACCOUNTS
        ]
        provider = {"type": TYPES[family], "baseURL": urls[family], "allowPlainHTTP": True, "accounts": accounts}
        yield _object("ModelPool", family, {"models": models, "source": {"provider": provider}})
        behind = names[(at + 1) % len(names)]
        for lot in LOTS:
            tiers = [{"name": "first", "pools": [{"name": family, "model": f"{family}-{lot}"}]}]
            tiers.append({"name": "second", "pools": [{"name": behind, "model": f"{behind}-{lot}"}]})
            rules = [{"name": "all", "tiers": tiers}]
            retry = {"attempts": 4, "budgetPercent": 100}
            yield _object(
                "RoutePolicy", f"{family}-{lot}", {"models": [f"{family}-{lot}"], "rules": rules, "retry": retry}
            )


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "spillway.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


async def play(count: int, seed: int, families: tuple[str, ...] = tuple(TYPES)) -> Played:
    """Send so many requests, wait until all has ended, and hold the balancer's costs against the books."""
    with town.folder() as folder:
        async with AsyncExitStack() as stack:
            fakes = [await stack.enter_async_context(ProviderServer(settings(family))) for family in families]
            urls = {family: fake.url + _path(fake) for family, fake in zip(families, fakes, strict=True)}
            (folder / "policy.yaml").write_text(yaml.safe_dump_all(objects(urls), sort_keys=False))
            for family in families:
                for account in ACCOUNTS:
                    (folder / "secrets" / f"{family}-{account}").mkdir(parents=True)
                    (folder / "secrets" / f"{family}-{account}" / "key").write_text(f"key-of-{family}-{account}")
            session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)))
            url = await stack.enter_async_context(_balancer(folder))
            answers = await _send(session, url, list(mixed(count, seed, families)))
            reported = await _settled(session, url)
            return Played(answers, {
                (family, lot): _sums(fake, family, lot, reported)
                for family, fake in zip(families, fakes, strict=True) for lot in LOTS
            })  # fmt: skip


def _path(fake: ProviderServer) -> str:
    """What a pool's baseURL has behind the host; Azure's and Vertex AI's are made by the balancer."""
    return "" if fake.settings.type in ("azure", "vertex") else fake.state.family.base


def _sums(fake: ProviderServer, family: str, lot: Lot, reported: dict[tuple[str, str], Decimal]) -> Sums:
    name = upstream(family, lot)
    accounts = fake.state.books.accounts.values()
    told = [account.told.get(name, Page()) for account in accounts]
    untold = [account.untold.get(name, Page()) for account in accounts]
    return Sums(
        sum(page.requests for page in (*told, *untold)),
        sum(page.requests for page in untold),
        sum((page.amount for page in (*told, *untold)), Decimal(0)),
        sum((page.amount for page in told), Decimal(0)),
        reported.get((f"default/{family}", f"{family}-{lot}"), Decimal(0)),
    )


@asynccontextmanager
async def _balancer(folder: Path) -> Any:
    port = town.free_ports(1)[0]
    command = [sys.executable, "-m", "spillway_balancer.cli", "run", "-f", str(folder / "policy.yaml")]
    command += ["--secrets", str(folder / "secrets"), "--port", str(port), "--log-level", "error"]
    process = await asyncio.create_subprocess_exec(*command, env=os.environ)
    try:
        await asyncio.to_thread(town.wait_for, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def _send(session: aiohttp.ClientSession, url: str, requests: list[Mixed]) -> Counter[tuple[Lot, int]]:
    answers: Counter[tuple[Lot, int]] = Counter()
    waiting = iter(requests)

    async def work() -> None:
        for each in waiting:
            answers[each.lot, await _ask(session, url, each)] += 1

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    return answers


async def _ask(session: aiohttp.ClientSession, url: str, each: Mixed) -> int:
    """The status; 0 where the answer was cut."""
    try:
        async with session.post(url + each.path, json=each.body) as response:
            if each.leaves is not None:
                got = 0
                while got < each.leaves and (data := await response.content.readany()):
                    got += len(data)
                response.close()
            else:
                await response.read()
            return response.status
    except (aiohttp.ClientError, ConnectionError):
        return 0


async def _settled(session: aiohttp.ClientSession, url: str) -> dict[tuple[str, str], Decimal]:
    """`spillway_cost_total` by pool and model, once nothing is under way and it stands still.

    A metric is a binary fraction: it is read to twelve places behind the point, ten more than there are cents.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + SETTLED
    last: dict[tuple[str, str], Decimal] | None = None
    while True:
        await asyncio.sleep(1.2)  # the page is made once a second
        async with session.get(f"{url}/metrics") as response:
            page = await response.text()
        costs: dict[tuple[str, str], Decimal] = {}
        busy = 0.0
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == "spillway_requests_in_flight":
                    busy += sample.value
                elif sample.name == "spillway_cost_total":
                    at = sample.labels["pool"], sample.labels["model"]
                    costs[at] = costs.get(at, Decimal(0)) + Decimal(f"{sample.value:.12f}")
        if (not busy and costs == last) or loop.time() > until:
            return costs
        last = costs


def providers() -> Table:
    """Ten thousand requests, as docs/providers.md has them."""
    played = asyncio.run(play(10_000, 1))
    sums = {(family, lot): each for (family, lot), each in played.sums.items()} | {
        ("all", lot): played.of(lot) for lot in LOTS
    }
    rows = [
        [
            family,
            lot,
            f"{each.billed:,}",
            f"{each.untold:,}",
            f"{each.books:f}",
            f"{each.reported:f}",
            plain(each.missed),
        ]
        for (family, lot), each in sums.items()
    ]
    for lot in LOTS:
        statuses = [f"{status}: {many:,}" for (of, status), many in sorted(played.answers.items()) if of == lot]
        rows.append(["answers", lot, ", ".join(statuses), "", "", "", ""])
    head = ["family", "lot", "billed", "without usage", "books, USD", "reported, USD", "missed"]
    return "10,000 mixed requests, fakes of all families, one balancer", head, rows
