"""Budgets that balancers share outlive whoever leads: what is spent stands in the cluster before it is granted."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from tests.kube.access import until
from tests.kube.background import Junction
from tests.kube.objects import Reader, policy, pool, static
from tests.kube.operating import Installation
from tests.kube.plane import ControlPlane
from tests.kube.pretend import PretendNode
from tests.kube.processes import BalancerProcess

PRICED = [{"name": "m", "price": {"input": "1000", "output": "1000"}}]
"""A thousandth for each token."""
GRANTED = 6.0
"""Seconds within which more is granted where there is more."""
KEPT = "spillway-operator-budgets"


@pytest.fixture(scope="module")
def installed(
    plane: ControlPlane, node: PretendNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with Installation(plane, tmp_path_factory.mktemp("budgets"), replicas=2) as installed:
        yield installed


def kept(installed: Installation) -> dict[str, Any]:
    """What the ConfigMap says of the only budget: its page of the present period."""
    data = installed.child("configmaps", KEPT)["binaryData"]["budgets.json.gz"]
    ((page,),) = json.loads(gzip.decompress(base64.b64decode(data))).values()
    return dict(page)


def taken(page: dict[str, Any]) -> Decimal:
    """What counts as spent."""
    holders = (max(Decimal(spent), Decimal(top)) for spent, top, _, _ in page["holders"].values())
    return Decimal(page["closed"]) + sum(holders, Decimal(0))


def spend(at: BalancerProcess, model: str) -> Decimal:
    """Ask until nothing has been had for some time; what the balancer has spent."""
    served = time.monotonic()
    while time.monotonic() - served < GRANTED:
        if at.ask(model).status == 200:
            served = time.monotonic()
        else:
            time.sleep(0.1)
    return spent(at)


def spent(at: BalancerProcess) -> Decimal:
    lines = [line for line in at.metrics.splitlines() if line.startswith("spillway_pool_spent_total{")]
    return Decimal(lines[0].rpartition(" ")[2])


def test_what_is_spent_is_known_to_operators_that_start_anew(installed: Installation, namespace: str) -> None:
    budget = Decimal("1.5")
    first = installed.operator()
    engine = installed.engine("engine")
    mine = Reader(installed.plane, namespace)
    own = pool("paid", static(engine), budget={"amount": str(budget), "period": "Month"})
    own["spec"]["models"] = PRICED
    model = f"{namespace}-paid"
    mine.apply(own, policy("paid", model, "paid", queue={"maxRequests": 0}))
    mine.ready("modelpool/paid")
    with Junction(("127.0.0.1", first.port)) as service:
        url = f"https://localhost:{service.port}"
        one = installed.balancer("one", url)
        until(lambda: one.serves(f"{namespace}/paid", "e0"), "it serves")
        until(lambda: one.ask(model).status == 200, "it has something to spend")
        for _ in range(10):
            one.ask(model)
        until(lambda: installed.has_child("configmaps", KEPT), "it stands in the cluster")
        until(lambda: mine.status("ModelPool", "paid").get("budgetSummary", "0.00")[:4] != "0.00", "it is told", 30.0)
        assert mine.status("ModelPool", "paid")["budgetSummary"].endswith(" of 1.5 USD a month")
        first.kill()
        one.kill()  # and it says nothing any more
        before = taken(kept(installed))
        assert before > 0
        second = installed.operator()
        service.backends = [("127.0.0.1", second.port)]
        two = installed.balancer("two", url)
        until(lambda: two.ask(model).status == 200, "the next one has something to spend", 40.0)
        had = spend(two, model)
        assert had + before <= budget + Decimal("0.001")
        until(lambda: taken(kept(installed)) > before, "it is counted on top")
        assert budget * 9 / 10 < taken(kept(installed)) <= budget
        assert two.stop() == 0  # what it has not used is free again
        until(lambda: Decimal(kept(installed)["closed"]) == had, "it has given back", 20.0)
