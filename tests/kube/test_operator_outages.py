"""Operators and API servers come and go; who is served is served on, and one operator at a time writes."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kube.access import until
from tests.kube.background import Background, Junction
from tests.kube.listener import Listener
from tests.kube.objects import BLACK_HOLE, Reader, policy, pool, static
from tests.kube.operating import ACCOUNT, Installation
from tests.kube.plane import ControlPlane, free_port
from tests.kube.pretend import PretendNode
from tests.kube.processes import BalancerProcess, OperatorProcess, Traffic, fetch

from spillway_operator.app import Operator
from spillway_operator.cluster import Cluster
from spillway_operator.settings import Settings

LOST = 22.0
"""Seconds until another leads for one that was killed: 15 of the Lease, the look after them, and a start's load."""
GIVEN = 5.0
"""Seconds until another leads for one that gives up."""
AWAY = 10.0


@pytest.fixture(scope="module")
def installed(
    plane: ControlPlane, node: PretendNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """Two operators, the first of which leads, and a gateway of two balancers."""
    with Installation(plane, tmp_path_factory.mktemp("outages"), replicas=2) as installed:
        installed.operator()
        installed.operator()
        yield installed


@pytest.fixture(scope="module")
def service(installed: Installation) -> Iterator[Junction]:
    with Junction(*(("127.0.0.1", each.port) for each in installed.operators)) as junction:
        yield junction


@pytest.fixture(scope="module")
def balancer(installed: Installation, service: Junction) -> BalancerProcess:
    return installed.balancer("balancer", f"https://localhost:{service.port}")


@pytest.fixture(scope="module", autouse=True)
def lasting(
    plane: ControlPlane, installed: Installation, balancer: BalancerProcess, listener: Listener
) -> Iterator[Reader]:
    """A policy that is served all the time."""
    engine = installed.engine("engine")
    with plane.new_namespace(f"outages-{installed.namespace}") as namespace:
        reader = Reader(plane, namespace)
        reader.apply(pool("llama", static(engine)), policy("chat", model_of(reader), "llama"))
        reader.ready("modelpool/llama", "routepolicy/chat")
        yield reader


@pytest.fixture(scope="module")
def listener(installed: Installation, balancer: BalancerProcess) -> Iterator[Listener]:
    """The other balancer of the gateway; it takes to the operator that leads last."""
    with installed.listener() as listener:
        yield listener


def model_of(reader: Reader) -> str:
    return f"{reader.namespace}-chat"


def roles(installed: Installation) -> tuple[OperatorProcess, OperatorProcess]:
    """Who leads and who follows."""
    running = [each for each in installed.operators if each.running]
    until(lambda: installed.leader() in {each.name for each in running}, "somebody leads", LOST)
    (leader,) = (each for each in running if each.name == installed.leader())
    (follower,) = (each for each in running if each is not leader)
    return leader, follower


def replace(installed: Installation, service: Junction) -> OperatorProcess:
    """A new replica in the place of the one that has gone."""
    fresh = installed.operator()
    service.backends = [("127.0.0.1", each.port) for each in installed.operators if each.running]
    return fresh


def test_only_the_leader_writes_and_it_knows_of_balancers_that_follow_another(
    plane: ControlPlane, lasting: Reader, installed: Installation, namespace: str, listener: Listener
) -> None:
    leader, follower = roles(installed)
    mine = Reader(plane, namespace)
    listener.move(installed.ports(follower))
    try:
        until(lambda: listener.port == follower.port, "it follows the follower")
        listener.holding = True
        mine.apply(pool("one", static(BLACK_HOLE)), policy("chat", model_of(mine), "one"))
        until(lambda: "chat" in listener.routes(namespace), "the follower has told it")
        mine.comes("RoutePolicy", "chat", "Programmed", "False", "PartiallyProgrammed")
        mine.says("RoutePolicy", "chat", "Programmed", "in force on 1 of 2 balancers of gateway default")
        listener.acknowledge()
        mine.comes("RoutePolicy", "chat", "Programmed", "True", "Programmed", seconds=5.0)
        (gateway,) = mine.status("RoutePolicy", "chat")["gateways"]
        assert gateway["programmedReplicas"] == gateway["replicas"] == 2
    finally:
        listener.holding = False
        listener.move(installed.ports())
    reads = {"get", "list", "watch"}
    by_leader, by_follower = (
        {each.resource for each in installed.asked_by(operator) if each.verb not in reads}
        for operator in (leader, follower)
    )
    assert by_follower == {"tokenreviews"}
    assert {"modelpools", "routepolicies", "configmaps", "secrets", "leases"} <= by_leader
    assert follower.metric("spillway_operator_leads") == 0.0
    assert leader.leads


def test_a_leader_that_goes_hands_over_at_once_and_no_status_turns(
    plane: ControlPlane, lasting: Reader, installed: Installation, service: Junction, balancer: BalancerProcess,
    listener: Listener,
) -> None:  # fmt: skip
    leader, follower = roles(installed)
    seen: list[str] = []
    ended = threading.Event()

    def watch() -> None:
        path = f"/apis/spillway.dev/v1alpha1/namespaces/{lasting.namespace}/routepolicies"
        for event in plane.api.watch(path, 30):
            conditions = event["object"].get("status", {}).get("conditions", ())
            seen.extend(each["status"] for each in conditions if each["type"] == "Programmed")
            if ended.is_set():
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    until(lambda: bool(seen), "the watch is open")
    with Traffic(balancer, model_of(lasting)) as traffic:
        began = time.monotonic()
        leader.send(signal.SIGTERM)
        until(lambda: installed.leader() == follower.name, "the other leads", LOST)
        took = time.monotonic() - began
        assert took < GIVEN
        until(lambda: not leader.running, "it has ended")
        assert leader.stop() == 0
        until(lambda: listener.port == follower.port, "balancers have gone over")
        until(lambda: follower.metric("spillway_operator_connections") == 2, "both of them", 20.0)
        # An edit makes the new leader write the status; that is the last event of the watch.
        ended.set()
        lasting.apply(policy("chat", model_of(lasting), "llama", timeouts={"total": "9m"}))
        lasting.comes("RoutePolicy", "chat", "Ready", "True", "Programmed")
    watcher.join(10)
    assert set(seen) == {"True"}
    assert traffic.answered
    assert not traffic.failures
    replace(installed, service)


def test_a_killed_leader_is_followed_by_another(
    lasting: Reader, installed: Installation, service: Junction, balancer: BalancerProcess, listener: Listener
) -> None:
    leader, follower = roles(installed)
    with Traffic(balancer, model_of(lasting)) as traffic:
        began = time.monotonic()
        leader.kill()
        # Balancers need no leader: what is edited reaches them at once.
        lasting.apply(policy("extra", f"{model_of(lasting)}-extra", "llama"))
        until(lambda: "extra" in listener.routes(lasting.namespace), "the follower serves what is new", 10.0)
        until(lambda: installed.leader() == follower.name, "the other leads", LOST)
        took = time.monotonic() - began
        assert GIVEN < took < LOST
        lasting.comes("RoutePolicy", "extra", "Ready", "True", "Programmed")
    assert traffic.answered
    assert not traffic.failures
    replace(installed, service)


def test_a_watch_that_has_died_in_silence_is_opened_anew(
    plane: ControlPlane, lasting: Reader, installed: Installation, namespace: str
) -> None:
    """As behind a firewall that forgets a connection: nothing comes, no end either."""
    own = int(plane.url.rpartition(":")[2])
    with Junction(("127.0.0.1", own)) as line:
        operator = installed.operator(api_port=line.port, options=("--silence", "2"))
        with installed.listener(operator) as listener:
            until(lambda: listener.snapshot is not None, "it is served")
            line.hush()
            opened = line.accepted
            mine = Reader(plane, namespace)
            mine.apply(pool("one", static(BLACK_HOLE)), policy("chat", model_of(mine), "one"))
            until(lambda: "chat" in listener.routes(namespace), "the change has arrived", 20.0)
            assert line.accepted > opened
            assert operator.says("/healthz")
        operator.stop()


class InProcess(Background):
    """An operator in this process."""

    def __init__(self, settings: Settings, kubeconfig: Path) -> None:
        super().__init__()
        self._settings = settings
        self._kubeconfig = kubeconfig

    async def _main(self) -> None:
        operator = Operator(self._settings, await Cluster.connect(self._kubeconfig), random.Random(1))
        await operator.start()
        self._begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await operator.stop()

    def end(self, name: str) -> None:
        """Ends the task of that name."""
        self._soon(lambda: [task.cancel() for task in asyncio.all_tasks() if task.get_name() == name])


def test_a_watch_that_has_ended_for_good_is_told_by_healthz(
    plane: ControlPlane, installed: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """kopf does not end by itself when one of its watches does: a restart is what helps."""
    kubeconfig = plane.kubeconfig_of(installed.namespace, ACCOUNT)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    admin = free_port()
    settings = Settings(
        installed.namespace,
        "in-process",
        "127.0.0.1",
        host="127.0.0.1",
        port=free_port(),
        admin_port=admin,
        tls_names=("localhost",),
        token_file=tmp_path / "none",
    )
    with InProcess(settings, kubeconfig) as operator:
        until(lambda: fetch(admin, "/readyz").status == 200, "it is ready")
        assert fetch(admin, "/healthz").status == 200
        operator.end("watcher for endpointslices.v1.discovery.k8s.io@None")
        until(lambda: fetch(admin, "/healthz").status == 503, "it is not well", 10.0)
        assert "endpointslices" in fetch(admin, "/healthz").text


def test_while_the_api_server_is_away_everybody_serves_on_and_catches_up_after(
    plane: ControlPlane, lasting: Reader, installed: Installation, balancer: BalancerProcess, listener: Listener
) -> None:
    before = listener.digest
    with Traffic(balancer, model_of(lasting)) as traffic:
        with plane.away():
            began = time.monotonic()
            # A balancer that connects anew is still believed: its token was reviewed before.
            listener.move(installed.ports())
            try:
                until(lambda: listener.port is not None, "it is connected again", AWAY)
            except TimeoutError as error:
                raise AssertionError(f"{error}; {listener.faults[-4:]}") from None
            until(lambda: time.monotonic() - began > AWAY, "it has been away for long enough")
            assert all(each.says("/healthz") for each in installed.operators if each.running)
        lasting.apply(policy("after", f"{model_of(lasting)}-after", "llama"))
        until(lambda: "after" in listener.routes(lasting.namespace), "what was written after it", 20.0)
        lasting.comes("RoutePolicy", "after", "Ready", "True", "Programmed", seconds=LOST + 20.0)
    assert listener.digest != before
    assert traffic.answered
    assert not traffic.failures
    assert all(each.says("/healthz") and each.says("/readyz") for each in installed.operators if each.running)
