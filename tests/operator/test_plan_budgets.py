"""What statuses say of budgets: of all balancers together, by the arbiter's books where there are any."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import tests.operator.objects as make
from tests.operator.balancers import Balancer
from tests.operator.fleets import Fleet

from spillway_api.stream import PoolReport, Report, TierReport
from spillway_operator.arbiter import Total

PRICED = [{"name": "m", "price": {"input": "1", "output": "2"}}]
POOL, CHAT = "ModelPool/default/cloud", "RoutePolicy/default/chat"
CLOUD = {"name": "cloud", "pools": [{"name": "cloud"}], "limits": {"budget": {"amount": "50.00"}}}


def pool() -> dict[str, Any]:
    body = make.model_pool("cloud", budget={"amount": "200", "currency": "USD", "period": "Month"})
    body["spec"]["models"] = PRICED
    return body


@pytest.fixture
def fleet() -> Fleet:
    """Two balancers, each with its own part to tell."""
    made = Fleet().see(pool(), make.route_policy("chat", CLOUD, models=("m",))).acknowledge()
    report = Report(
        (PoolReport("default/cloud", spent="70.5"),),
        (TierReport("default/chat", "default", "cloud", "Open", 1, 0, "6.20"),),
    )
    mark = made.progress["default"].digest
    made.balancers["default"] = tuple(Balancer(f"b{number}", mark, report=report) for number in range(2))
    return made


def test_what_balancers_say_is_added_up(fleet: Fleet) -> None:
    assert fleet.status(POOL)["budgetSummary"] == "141.00 of 200 USD a month"
    assert fleet.status(CHAT)["budgetSummary"] == "default/cloud: 12.40 of 50.00 USD a day"


def test_the_books_of_leases_know_of_those_that_have_gone_as_well(fleet: Fleet) -> None:
    fleet.totals = {
        "pool/default/cloud/USD/Month": Total(Decimal(200), Decimal("150.009"), Decimal(3)),
        "tier/default/chat/default/cloud/USD/Day": Total(Decimal(50), Decimal("13.1"), Decimal(1)),
    }
    assert fleet.status(POOL)["budgetSummary"] == "150.00 of 200 USD a month"
    assert fleet.status(CHAT)["budgetSummary"] == "default/cloud: 13.10 of 50.00 USD a day"
    assert fleet.status(CHAT)["tiers"][0]["spent"] == "13.1"


def test_a_pool_without_a_budget_says_nothing(fleet: Fleet) -> None:
    fleet.see(make.model_pool("cloud"), make.route_policy("chat", "cloud"))
    assert "budgetSummary" not in fleet.status(POOL)


@pytest.mark.parametrize("used", [True, False])
def test_a_pool_none_of_whose_models_can_be_paid_for_is_not_ready(used: bool) -> None:
    body = make.model_pool("cloud", budget={"amount": "200", "currency": "EUR"})
    body["spec"]["models"] = PRICED
    fleet = Fleet().see(body, *([make.route_policy("chat", "cloud", models=("m",))] if used else [])).acknowledge()
    assert fleet.condition(POOL, "Accepted") == ("False", "Invalid")
    assert fleet.condition(POOL, "Ready") == ("False", "Invalid")
    assert fleet.message(POOL, "Ready").startswith(
        'no requests come here: ModelPool "cloud" has its price for "m" in USD'
    )
    assert fleet.status(POOL)["endpointSummary"] == "0/1"
    if used:
        assert fleet.condition(CHAT, "Ready") == ("False", "AllPoolsUnready")


def test_a_pool_one_of_whose_models_can_be_paid_for_serves_that_one() -> None:
    body = pool()
    body["spec"]["models"] = [*PRICED, {"name": "other"}]
    fleet = Fleet().see(body, make.route_policy("chat", "cloud", models=("m",))).acknowledge()
    assert fleet.condition(POOL, "Accepted") == ("False", "Invalid")
    assert fleet.condition(POOL, "Ready") == ("True", "EndpointsReady")
    assert fleet.condition(CHAT, "Ready") == ("True", "Programmed")
