"""What is granted stands in the cluster first; what cannot be put away, or read, is not granted."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from tests.net.lenders import NAME, Shelf
from tests.operator.rig import PATIENCE, running

from spillway_api.ledger import Books, Grants, Spent
from spillway_api.types import Budget
from spillway_operator import treasury as module
from spillway_operator.treasury import KEY, Treasury

BUDGET = "pool/default/cloud/USD/Hour"
AT = 1_800_000_000.0
ENDS = 1_800_003_600.0


class Desk:
    """A treasury with whoever it grants to."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.leads = True
        self.granted: list[tuple[str, str, str, Grants, int]] = []
        self.treasury = Treasury(
            shelf,
            "infra",
            NAME,
            lambda: self.leads,
            lambda: {each: {BUDGET: Budget("10", "USD", "Hour")} for each in ("chat", "edge")},
            self._grant,
            self._owners,
            lambda: AT,
        )

    def _grant(self, source: str, gateway: str, balancer: str, grants: Grants) -> None:
        self.granted.append((source, gateway, balancer, grants, self.shelf.writes))

    @staticmethod
    async def _owners() -> list[dict[str, Any]]:
        return [{"kind": "Deployment", "name": "spillway-operator", "apiVersion": "apps/v1", "uid": "u"}]

    def hear(self, pod: str = "pod-1", holder: str = "a", asked: str = "0.5", **said: Any) -> None:
        self.treasury.hear("", "chat", pod, Books(holder, (Spent(BUDGET, ENDS, asked=asked, **said),)))


async def until(check: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not check():  # noqa: ASYNC110 - what is waited for is state, which tells nobody
            await asyncio.sleep(0.01)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
async def desk(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(module, "AGAIN", 0.05)
    monkeypatch.setattr(module, "PACE", 0.05)
    monkeypatch.setattr(module, "LOOK", 0.1)
    one = Desk(shelf)
    async with running(one.treasury.run()):
        yield one


async def test_a_grant_goes_the_way_the_books_came_and_stands_in_the_cluster_before(desk: Desk, shelf: Shelf) -> None:
    desk.treasury.hear("operator-1", "chat", "pod-1", Books("a", (Spent(BUDGET, ENDS, asked="0.5"),)))
    await until(lambda: desk.granted)
    source, gateway, balancer, grants, writes = desk.granted[0]
    assert (source, gateway, balancer, grants.holder, writes) == ("operator-1", "chat", "pod-1", "a", 1)
    (grant,) = grants.grants
    assert (grant.budget, grant.ends, grant.ceiling, grant.serial) == (BUDGET, ENDS, "1.000000000", 1)
    assert shelf.found is not None
    assert shelf.found["metadata"]["ownerReferences"][0]["name"] == "spillway-operator"
    assert desk.treasury.totals()[BUDGET].leased == 1


async def test_nothing_is_granted_that_could_not_be_put_away(desk: Desk, shelf: Shelf, caplog: Any) -> None:
    desk.hear()
    await until(lambda: desk.granted)
    shelf.away = True
    desk.hear("pod-2", "b")
    await until(lambda: "budgets cannot be granted" in caplog.text)
    assert {each[2] for each in desk.granted} == {"pod-1"}
    shelf.away = False
    await until(lambda: any(each[2] == "pod-2" for each in desk.granted))
    assert caplog.text.count("budgets cannot be granted") == 1


async def test_of_two_that_believe_that_they_lead_one_is_refused_and_reads_anew(desk: Desk, shelf: Shelf) -> None:
    desk.hear(asked="4")
    await until(lambda: desk.granted)
    other = Desk(shelf)
    async with running(other.treasury.run()):
        other.hear("pod-2", "b", asked="1")
        await until(lambda: other.granted)
        desk.hear("pod-3", "c", asked="4")  # as far as it knows, there are two left
        await until(lambda: desk.treasury._arbiter is None)
        desk.hear("pod-3", "c", asked="1")
        await asyncio.sleep(0.3)
        granted = {each[2]: float(each[3].grants[0].ceiling) for each in (*desk.granted, *other.granted)}
        assert sum(granted.values()) <= 10
        assert granted["pod-1"] == 8


async def test_gateways_that_lead_to_one_pool_share_its_budget(desk: Desk) -> None:
    for gateway in ("chat", "edge"):
        desk.treasury.hear("", gateway, "pod-1", Books("a", (Spent(BUDGET, ENDS, asked="3"),)))
    await until(lambda: len({each[1] for each in desk.granted}) == 2)
    granted = {each[1]: Decimal(each[3].grants[0].ceiling) for each in desk.granted}
    assert all(ceiling >= 3 for ceiling in granted.values())
    assert sum(granted.values()) <= 10
    assert desk.treasury.totals()[BUDGET].leased == sum(granted.values())


async def test_a_gateway_says_nothing_of_budgets_that_it_does_not_serve(desk: Desk, shelf: Shelf) -> None:
    """One that is not to be trusted would spend what is others'."""
    desk.treasury.hear("", "stranger", "pod-1", Books("a", (Spent(BUDGET, ENDS, "9", asked="0.5"),)))
    await asyncio.sleep(0.3)
    assert (desk.granted, shelf.writes, desk.treasury.totals()) == ([], 0, {})


async def test_who_does_not_lead_hears_and_grants_nothing(desk: Desk, shelf: Shelf) -> None:
    desk.leads = False
    desk.hear()
    await asyncio.sleep(0.3)
    assert (desk.granted, shelf.writes, desk.treasury.totals()) == ([], 0, {})


@pytest.mark.parametrize("data", ["", "%%%", base64.b64encode(b"no gzip").decode()])
async def test_notes_that_cannot_be_read_are_not_taken_for_none(
    data: str, desk: Desk, shelf: Shelf, caplog: Any
) -> None:
    """Else all that was granted would be granted again. Who deletes the ConfigMap says that it may be."""
    shelf.found = {"metadata": {"resourceVersion": "7"}, "binaryData": {KEY: data}}
    desk.hear()
    await until(lambda: "cannot be read, so nothing is granted" in caplog.text)
    assert not desk.granted
    shelf.found = None
    desk.hear()
    await until(lambda: desk.granted)


async def test_what_is_too_large_for_a_config_map_is_not_granted(desk: Desk, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr(module, "BYTES", 10)
    desk.hear()
    await until(lambda: "more leases of budgets than fit" in caplog.text)
    assert not desk.granted
