"""A sidecar before the real operator: what it sends itself, what its gateway sends for it, and that neither is missed
for the rest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kube.access import until
from tests.kube.objects import Reader, policy, pool, static
from tests.kube.operating import Installation
from tests.kube.plane import ControlPlane
from tests.kube.pretend import PretendNode
from tests.kube.processes import BalancerProcess


@pytest.fixture
def installed(
    plane: ControlPlane, node: PretendNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with Installation(plane, tmp_path_factory.mktemp("sidecars"), options=("--sidecar-routes", "All")) as installed:
        installed.operator()
        yield installed


def tiers(balancer: BalancerProcess, route: str) -> float:
    """Requests that it has sent to endpoints by that route."""
    series = (line for line in balancer.metrics.splitlines() if line.startswith("spillway_tier_requests_total{"))
    return sum(float(line.rpartition(" ")[2]) for line in series if f'route="{route}"' in line)


def endpoints(balancer: BalancerProcess, pool: str) -> int:
    """Of a pool, as it has it."""
    series = (line for line in balancer.metrics.splitlines() if line.startswith("spillway_endpoint_state{"))
    return len({line.split('endpoint="')[1].split('"')[0] for line in series if f'pool="{pool}"' in line})


def test_a_sidecar_sends_what_it_can_itself_and_misses_nobody_for_it(
    plane: ControlPlane, namespace: str, installed: Installation
) -> None:
    mine = Reader(plane, namespace)
    counted = policy("counted", "counted", "near")
    counted["spec"]["rules"][0]["tiers"][0]["limits"] = {"requestsPerMinute": 1000}
    engine = installed.engine("engine")
    mine.apply(pool("near", static(engine)), policy("chat", "chat", "near"), counted)
    operator = installed.operators[0]
    gateway = installed.balancer("gateway", f"https://localhost:{operator.port}")
    mine.ready("routepolicy/chat", "routepolicy/counted")
    programmed = mine.status("RoutePolicy", "chat")["conditions"]
    with plane.new_namespace(f"{namespace}-shop"):
        beside = installed.sidecar("shop-1", operator, gateway, f"{namespace}-shop", f"{namespace}/chat")
        state = 'spillway_operator_sidecars{gateway="default",state="Current"}'
        until(lambda: operator.metric(state) == 1.0, "the operator has brought it to what is in force")
        assert beside.ask("chat").status == 200
        until(lambda: tiers(beside, f"{namespace}/chat") == 1.0, "it has sent that itself")
        assert tiers(gateway, f"{namespace}/chat") == 0.0
        assert beside.ask("counted").status == 200  # a route that it has not asked for
        until(lambda: tiers(gateway, f"{namespace}/counted") == 1.0, "the gateway has sent that")
        assert operator.metric('spillway_operator_subscribers{gateway="default"}') == 1.0
        assert mine.status("RoutePolicy", "chat")["conditions"] == programmed

        mine.apply(pool("near", static(engine, installed.engine("other"))))
        until(lambda: endpoints(beside, f"{namespace}/near") == 2, "it follows")

        operator.kill()
        fresh = installed.sidecar("shop-2", operator, gateway, f"{namespace}-shop")
        before = tiers(gateway, f"{namespace}/chat")
        assert fresh.ask("chat").status == 200  # by the gateway, for it knows nothing
        until(lambda: tiers(gateway, f"{namespace}/chat") == before + 1, "the gateway has sent that")

        gateway.kill()
        assert beside.ask("chat").status == 200
        beside.close()
        again = installed.sidecar("shop-1", operator, gateway, f"{namespace}-shop", f"{namespace}/chat")
        assert again.ask("chat").status == 200, "by its last good state"
        assert again.ask("counted").status >= 500
        assert fresh.ask("chat").status >= 500
