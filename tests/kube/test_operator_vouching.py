"""A gateway goes by what a Pod sends on, as long as the Pod is there: with tokens as kubelets project them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.kube.access import Object, until
from tests.kube.objects import Reader, policy, pool, static
from tests.kube.operating import Installation
from tests.kube.plane import ControlPlane
from tests.kube.pretend import PretendNode
from tests.kube.processes import Answer

from spillway_api.stream import AT_GATEWAY, AUDIENCE, Vouched, Whose
from spillway_operator.cluster import Cluster
from spillway_operator.vouching import Vouching

FORWARDED = 'spillway_forwarded_requests_total{vouched="%s"}'


def pod(name: str) -> Object:
    spec = {"containers": [{"name": "app", "image": "app"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


async def said_of(plane: ControlPlane, token: str) -> Vouched:
    """By an operator that has never heard of it."""
    cluster = await Cluster.connect(plane.kubeconfig)
    told: asyncio.Future[Vouched] = asyncio.get_running_loop().create_future()
    try:
        Vouching(cluster).hear("default", "gateway-1", Whose(7, token), told.set_result)
        return await asyncio.wait_for(told, 30)
    finally:
        await cluster.close()


async def test_the_api_server_knows_a_pod_s_token_for_gateways_as_long_as_the_pod_is_there(
    plane: ControlPlane, namespace: str
) -> None:
    plane.apply(pod("shop-1"), namespace=namespace)
    bound = plane.token_of(namespace, "default", audience=AT_GATEWAY, pod="shop-1")
    assert await said_of(plane, bound) == Vouched(7, "Known", namespace, "shop-1")
    strangers = (
        plane.token_of(namespace, "default", audience=AUDIENCE, pod="shop-1"),
        plane.token_of(namespace, "default", audience=AT_GATEWAY),
        plane.token_of(namespace, "default"),
        bound[:-6] + "quagga",
        "quagga",
    )
    for stranger in strangers:
        assert await said_of(plane, stranger) == Vouched(7, "Unknown")
    plane.kubectl("delete", "-n", namespace, "pod", "shop-1", "--force", "--grace-period=0")
    for _ in range(30):  # the API server itself keeps what it knows of a token for ten seconds
        answer = await said_of(plane, bound)
        if answer.state == "Unknown":
            break
        await asyncio.sleep(1.0)
    assert answer == Vouched(7, "Unknown")


@pytest.fixture
def installed(
    plane: ControlPlane, node: PretendNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    options = ("--sidecar-routes", "All", "--log-level", "debug")
    with Installation(plane, tmp_path_factory.mktemp("vouching"), options=options) as installed:
        installed.operator()
        yield installed


def test_a_gateway_enters_the_tier_that_a_pod_names(
    plane: ControlPlane, namespace: str, installed: Installation
) -> None:
    mine = Reader(plane, namespace)
    route = policy("chat", "chat", "near")
    route["spec"]["rules"][0]["tiers"].append({"name": "far", "pools": [{"name": "far"}], "enterOn": ["Capacity"]})
    mine.apply(
        pool("near", static(installed.engine("near-engine"))),
        pool("far", static(installed.engine("far-engine"))),
        route,
        pod("shop-1"),
    )
    operator = installed.operators[0]
    balancer = installed.balancer("balancer", f"https://localhost:{operator.port}")
    mine.ready("routepolicy/chat")
    until(lambda: balancer.ask("chat").status == 200, "the balancer serves")
    token = plane.token_of(namespace, "default", audience=AT_GATEWAY, pod="shop-1")

    def ask(token: str, tier: str = "far") -> Answer:
        said = f"route={namespace}/chat; rule=default; tier={tier}; attempts=2; deadline=20"
        return balancer.ask("chat", x_spillway_forwarded=said, x_spillway_pod=f"Bearer {token}")

    def far() -> float:
        labels = f'route="{namespace}/chat",rule="default",spilled="true",tier="far"'
        return balancer.metric(f"spillway_tier_requests_total{{{labels}}}") or 0.0

    answer = ask(token)
    assert (answer.status, answer.headers.get("x-spillway-served-by")) == (200, "gateway")
    until(lambda: far() == 1.0, "it was served in the tier far")
    assert ask(token[:-6] + "quagga").status == 401
    assert "x-spillway-served-by" not in balancer.ask("chat").headers

    with plane.away():  # nobody new can be asked about
        assert ask(token).headers.get("x-spillway-served-by") == "gateway"
        other = ask("a.new.token")
        assert (other.status, other.headers.get("x-spillway-served-by")) == (200, "gateway"), "as anybody's is"
    operator.kill()
    assert ask(token).headers.get("x-spillway-served-by") == "gateway"
    until(lambda: far() == 3.0, "they were served in the tier far, too")
    until(lambda: balancer.metric(FORWARDED % "known") == 3.0, "and are counted")
    assert balancer.metric(FORWARDED % "unavailable") == 1.0
    for log in (operator.log, balancer.log):
        assert token not in log
        assert token.split(".")[2] not in log
