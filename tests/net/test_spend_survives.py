"""Budgets outlive the process: with `--state` one that starts anew goes on with what the one before has spent."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from time import time
from typing import Any

import msgspec
import pytest
from tests.net.test_limits_on_sockets import PARAGRAPH, cloud, only

from spillway_api import snapshot
from spillway_api.periods import period_end
from spillway_api.types import Budget
from spillway_balancer.core.runtime import Runtime
from spillway_balancer.core.spends import counted
from spillway_balancer.net.spending import FILE, Spending, Spent, read

MONTH = {"amount": "0.0060", "period": "Month"}


@pytest.mark.parametrize("where", ["tier", "pool"])
async def test_a_restart_does_not_fill_a_budget_again(where, serve, objects, provider, dial, tmp_path) -> None:
    on_tier, on_pool = ({"budget": MONTH}, {}) if where == "tier" else ({"requestsPerMinute": 99}, {"budget": MONTH})
    docs = [cloud(objects, provider, **on_pool), objects.route(tiers=only(on_tier))]
    first = await serve(docs=docs, state=tmp_path / "state")
    ask = {"messages": [PARAGRAPH], "max_tokens": 200}
    client = await dial(first)
    while (reply := await client.chat(**ask)).status == 200:
        pass
    assert reply.json()["error"]["code"] == "budget_spent"
    served = len(provider.requests)
    await first.balancer.stop()
    second = await serve(docs=docs, state=tmp_path / "state")
    assert (await (await dial(second)).chat(**ask)).status == 429
    assert len(provider.requests) == served > 0
    (spend,) = counted(second.balancer.serving.current).values()
    assert Fraction(spend.spent) == provider.bill
    forgetful = await serve(docs=docs)
    assert (await (await dial(forgetful)).chat(**ask)).status == 200


async def test_what_is_kept_is_written_while_it_serves(serve, objects, provider, dial, tmp_path) -> None:
    """A process that is killed has no last moment."""
    docs = [cloud(objects, provider, budget=MONTH), objects.route(tiers=only({}))]
    lb = await serve(docs=docs, state=tmp_path)
    assert (await (await dial(lb)).chat(messages=[PARAGRAPH], max_tokens=200)).status == 200
    file = tmp_path / FILE
    await lb.until(lambda: file.exists() and Fraction(json.loads(file.read_text()).popitem()[1]["amount"]) > 0)
    ((name, kept),) = json.loads(file.read_text()).items()
    assert name == "pool/default/cloud/USD/Month"
    assert Fraction(kept["amount"]) == provider.bill
    assert kept["ends"] == period_end(time(), "Month")


def runtime(*budgets: tuple[str, Budget]) -> Runtime:
    made = [msgspec.structs.replace(POOL, name=name, budget=budget) for name, budget in budgets]
    return Runtime(snapshot.Snapshot("default", tuple(made), ()))


POOL: Any = msgspec.json.decode(
    b'{"name":"default/a","models":[{"name":"m"}],"engine":"Auto","provider":null,"endpoints":[],"dispatch":{},'
    b'"capacity":{},"metrics":{},"health":{}}',
    type=snapshot.Pool,
)
DAY = Budget("5")


def spent(one: Runtime, amount: str) -> None:
    (spend,) = counted(one).values()
    held = spend.reserve(time(), Decimal(amount))
    assert held is not None
    spend.settle(held, time(), Decimal(amount))


async def test_a_budget_that_is_away_for_a_while_comes_back_as_it_was(tmp_path: Path) -> None:
    books = Spending(tmp_path)
    books.follow(one := runtime(("default/a", DAY)))
    spent(one, "2.5")
    books.follow(runtime())
    assert [each.amount for each in books.now().values()] == ["2.5"]
    await books.close()
    after = Spending(tmp_path)
    after.follow(runtime())
    after.follow(late := runtime(("default/a", DAY)))
    (spend,) = counted(late).values()
    assert spend.spent == Decimal("2.5")
    after.follow(late)  # once
    assert spend.spent == Decimal("2.5")


async def test_what_is_under_way_counts_as_estimated_for_a_process_that_is_killed(tmp_path: Path) -> None:
    books = Spending(tmp_path)
    books.follow(one := runtime(("default/a", DAY)))
    (spend,) = counted(one).values()
    assert spend.reserve(time(), Decimal(3)) is not None
    await books.close()
    assert [each.amount for each in read(tmp_path).values()] == ["3"]


def test_a_period_that_is_over_is_forgotten(tmp_path: Path) -> None:
    name = "pool/default/a/USD/Day"
    (tmp_path / FILE).write_bytes(msgspec.json.encode({name: Spent(86400.0, "4"), "pool/b": Spent(1e18, "1")}))
    books = Spending(tmp_path)
    books.follow(one := runtime(("default/a", DAY)))
    assert counted(one)[name].spent == 0
    assert list(books.now()) == ["pool/b"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a": 3}', '{"a": {"ends": 1, "amount": "NaN"}}', '{"a":{"ends":1,"amount":"x"}}']
)
def test_a_file_that_makes_no_sense_is_passed_over(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_text(text)
    assert read(tmp_path) == {}
    assert "budgets begin anew" in caplog.text


async def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "no").write_text("a file stands where the folder should be")
    books = Spending(tmp_path / "no")
    books.follow(one := runtime(("default/a", DAY)))
    spent(one, "1")
    await books.close()
    await books.close()
    assert caplog.text.count("cannot be kept") == 1
