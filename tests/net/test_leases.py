"""Budgets that several balancers share, over sockets: real balancers, a real config stream, relay and treasury, and a
provider that keeps books."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from tests.net.bookkeeper import INPUT, OUTPUT, Bookkeeper
from tests.net.lenders import Replica, Shelf
from tests.net.operators import PATIENCE, pool, route, state
from tests.operator.rig import Rig, token_of

from spillway_api.budgets import budgets
from spillway_api.snapshot import Snapshot
from spillway_api.types import Budget, Model, Price, Queue
from spillway_balancer.app import Balancer, Settings
from spillway_balancer.core.spends import shared
from spillway_balancer.net.operator_source import Where
from spillway_operator.certificates import needed

AMOUNT = Decimal("0.20")
BUDGET = Budget(str(AMOUNT), period="Month")
NAME = "pool/default/cloud/USD/Month"
ASK = {"model": "chat", "max_tokens": 20, "messages": [{"role": "user", "content": "Tell me of rivers. " * 10}]}


def served(provider: Bookkeeper, budget: Budget = BUDGET) -> Snapshot:
    model = Model("demo", price=Price(input=INPUT, cached_input="0.25", output=OUTPUT))
    cloud = pool("cloud", provider.url.removesuffix("/v1"), models=(model,), budget=budget)
    way = msgspec.structs.replace(route("cloud"), queue=Queue(max_requests=0))  # who is kept out is told at once
    return state(cloud, way, gateway="chat")


class Fleet:
    """Replicas of the operator, and balancers at any of them."""

    def __init__(self, folder: Path, snapshot: Snapshot) -> None:
        made = needed(None, ("localhost", "spillway-operator.infra.svc"), datetime.now(UTC))
        assert made is not None
        self._made = made
        self._folder = folder
        (folder / "ca.crt").write_bytes(made.authority)
        self.snapshot = snapshot
        self.shelf = Shelf()
        self.replicas: list[Replica] = []
        self.balancers: list[Balancer] = []
        self._client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def replica(self) -> Replica:
        rig = Rig(self._made, name=f"operator-{len(self.replicas)}")
        one = Replica(rig, self._folder, self.shelf, budgets(self.snapshot))
        await one.start()
        one.rig.publish(self.snapshot)
        self.replicas.append(one)
        return one

    def lead(self, leader: Replica) -> None:
        for each in self.replicas:
            each.turn(leader)

    async def balancer(self, at: Replica, pod: str = "") -> Balancer:
        pod = pod or f"pod-{len(self.balancers)}"
        token = self._folder / f"token-of-{pod}"
        token.write_text(token_of("chat", pod))
        where = Where(f"https://localhost:{at.rig.server.port}", "chat", token, self._folder / "ca.crt")
        one = Balancer(Settings(operator=where, gateway="chat", port=0, seed=1))
        self.balancers.append(one)
        await one.start()
        return one

    async def ask(self, at: Balancer) -> int:
        async with self._client.post(f"http://127.0.0.1:{at.port}/v1/chat/completions", json=ASK) as answer:
            await answer.read()
            return answer.status

    async def page(self, of: Balancer) -> str:
        async with self._client.get(f"http://127.0.0.1:{of.port}/metrics") as answer:
            return await answer.text()

    async def stop(self) -> None:
        await asyncio.gather(*(each.stop() for each in self.balancers))
        await asyncio.gather(*(each.stop() for each in self.replicas))
        await self._client.close()


MakeFleet = Callable[..., Awaitable[Fleet]]


@pytest.fixture
async def fleet(tmp_path: Path, provider: Bookkeeper) -> AsyncIterator[MakeFleet]:
    made: list[Fleet] = []

    async def make(replicas: int = 1, balancers: int = 1) -> Fleet:
        """Balancers in turn at the replicas, of which the first one leads; each has something to spend."""
        one = Fleet(tmp_path, served(provider))
        made.append(one)
        for _ in range(replicas):
            await one.replica()
        one.lead(one.replicas[0])
        for number in range(balancers):
            await one.balancer(one.replicas[number % replicas])
        await until(lambda: all(ceiling(each) > 0 for each in one.balancers))
        return one

    yield make
    for one in made:
        await one.stop()


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not check():  # noqa: ASYNC110 - what is waited for is state, which tells nobody
            await asyncio.sleep(0.01)


def ceiling(one: Balancer) -> Decimal:
    assert one._leasing is not None
    return one._leasing.leased().get(NAME, (Decimal(0), Decimal(0)))[1]


def spent(one: Balancer) -> Decimal:
    return shared(one.serving.current)[NAME].spent


class Codes(list[int]):
    """Statuses of answers as they came."""

    def __init__(self) -> None:
        super().__init__()
        self._served = asyncio.get_running_loop().time()

    def append(self, code: int) -> None:
        super().append(code)
        if code == 200:
            self._served = asyncio.get_running_loop().time()

    @property
    def closed(self) -> bool:
        """Nobody has been let in for longer than anything takes here."""
        return asyncio.get_running_loop().time() - self._served > 3.0


async def all_ask(
    fleet: Fleet,
    at: list[Balancer],
    width: int = 6,
    enough: Callable[[Codes], bool] = lambda codes: codes.closed,
) -> Codes:
    """So many clients at each, one request after the other; the statuses."""
    codes = Codes()

    async def client(one: Balancer) -> None:
        while not enough(codes):
            codes.append(await fleet.ask(one))
            if codes[-1] != 200:
                await asyncio.sleep(0.05)

    async with asyncio.timeout(3 * PATIENCE):
        await asyncio.gather(*(client(one) for one in at for _ in range(width)))
    return codes


async def test_three_balancers_spend_one_budget_and_no_more(fleet, provider) -> None:
    """Two at the replica that leads, one at a follower; eighteen clients at once."""
    made = await fleet(replicas=2, balancers=3)
    codes = await all_ask(made, made.balancers)
    assert set(codes) == {200, 429}
    assert sum(map(spent, made.balancers), Decimal(0)) == Decimal(provider.bill.numerator) / provider.bill.denominator
    assert Fraction(AMOUNT) * Fraction(98, 100) < provider.bill <= Fraction(AMOUNT)
    assert min(map(spent, made.balancers)) > AMOUNT / 10  # the one behind the relay as well
    await until(lambda: made.replicas[0].treasury.totals()[NAME].spent == sum(map(spent, made.balancers), Decimal(0)))
    assert made.replicas[1].treasury.totals() == {}
    page = await made.page(made.balancers[0])
    assert f'spillway_budget_spent{{budget="{NAME}"}} {float(spent(made.balancers[0]))}' in page
    assert f'spillway_budget_granted{{budget="{NAME}"}} {float(ceiling(made.balancers[0]))}' in page
    assert made.shelf.writes < 20


async def test_without_an_operator_each_spends_what_it_has_and_then_it_is_the_budget(fleet, provider) -> None:
    made = await fleet(balancers=2)
    await made.replicas[0].stop()
    had = [ceiling(each) for each in made.balancers]
    codes = await all_ask(made, made.balancers)
    assert 200 in codes
    assert 0 < provider.bill <= Fraction(sum(had, Decimal(0)))
    made.replicas.clear()


async def test_what_was_spent_is_not_forgotten_when_all_operators_restart(fleet, provider) -> None:
    made = await fleet(replicas=2, balancers=2)
    await all_ask(made, made.balancers, 2, lambda codes: len(codes) > 60)
    for each in made.replicas:
        await each.stop()
    for each in made.balancers:  # nor by balancers that never come back
        await each.stop()
    before = provider.bill
    assert before > 0
    made.balancers.clear()
    made.replicas.clear()
    made.lead(await made.replica())
    late = await made.balancer(made.replicas[0], "pod-late")
    await until(lambda: ceiling(late) > 0)
    await all_ask(made, [late])
    assert before < provider.bill <= Fraction(AMOUNT)
    total = made.replicas[0].treasury.totals()[NAME]
    assert Fraction(total.spent) <= provider.bill <= Fraction(total.spent + total.leased)
    assert total.spent + total.leased > AMOUNT * 98 / 100  # what the two before may have spent counts as spent


async def test_leadership_moves_and_nobody_is_granted_twice(fleet, provider) -> None:
    made = await fleet(replicas=2, balancers=3)
    work = asyncio.ensure_future(all_ask(made, made.balancers, width=3))
    for turn in range(4):
        await asyncio.sleep(1.0)
        leader, other = made.replicas[(turn + 1) % 2], made.replicas[turn % 2]
        leader.turn(leader)  # and for a moment both believe that they lead
        await asyncio.sleep(0.3)
        other.turn(leader)
    await work
    assert Fraction(AMOUNT) * Fraction(9, 10) < provider.bill <= Fraction(AMOUNT)


async def test_who_comes_before_the_first_grant_waits_for_it(fleet, provider) -> None:
    """A balancer that has just started has no lease yet; its requests are not refused for that."""
    made = await fleet(balancers=0)
    made.replicas[0].leads = False  # and nobody does
    way = msgspec.structs.replace(made.snapshot.routes[0], queue=None)
    made.replicas[0].rig.publish(msgspec.structs.replace(made.snapshot, routes=(way,)))
    one = await made.balancer(made.replicas[0])
    await until(lambda: one.serving.ready)
    early = asyncio.ensure_future(made.ask(one))
    await asyncio.sleep(0.3)
    assert not early.done()
    made.lead(made.replicas[0])
    async with asyncio.timeout(PATIENCE):
        assert await early == 200


async def test_one_that_leaves_gives_back_what_it_has_not_used(fleet, provider) -> None:
    made = await fleet(replicas=2, balancers=3)
    leader = made.replicas[0]
    assert await made.ask(made.balancers[1]) == 200
    await made.balancers[1].stop()  # that at the follower
    await until(lambda: len(leader.treasury._arbiter.holders()) == 2)
    total = leader.treasury.totals()[NAME]
    assert Fraction(total.spent) == provider.bill
    assert total.leased == sum(ceiling(each) for each in (made.balancers[0], made.balancers[2]))


async def test_without_an_api_server_nothing_is_granted(fleet, provider, caplog) -> None:
    made = await fleet(balancers=1)
    made.shelf.away = True
    had = ceiling(made.balancers[0])
    await all_ask(made, made.balancers)
    assert provider.bill <= Fraction(had)
    await until(lambda: "budgets cannot be granted" in caplog.text)
    made.shelf.away = False
    await until(lambda: ceiling(made.balancers[0]) > had)
    assert await made.ask(made.balancers[0]) == 200


async def test_with_an_operator_that_leases_nothing_each_counts_for_itself(fleet, provider, monkeypatch) -> None:
    """One of before: it takes no subprotocol."""
    monkeypatch.setattr(web, "WebSocketResponse", partial(_without_protocols, web.WebSocketResponse))
    made = await fleet(balancers=0)
    one = await made.balancer(made.replicas[0])
    await until(lambda: one.serving.ready and one._leasing.leased() == {})
    await all_ask(made, [one])
    assert Fraction(AMOUNT) * Fraction(9, 10) < provider.bill <= Fraction(AMOUNT)


def _without_protocols(made: Any, **options: Any) -> Any:
    del options["protocols"]
    return made(**options)
