"""A policy that is edited to something bad: its last good version serves on, and nobody else notices."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator

import pytest
from tests.kube.access import until
from tests.kube.background import Junction
from tests.kube.objects import Reader, policy, pool, static
from tests.kube.operating import Installation
from tests.kube.plane import ControlPlane
from tests.kube.pretend import PretendNode
from tests.kube.processes import BalancerProcess

from spillway_operator.plan import saved_in


@pytest.fixture(scope="module")
def installed(
    plane: ControlPlane, node: PretendNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with Installation(plane, tmp_path_factory.mktemp("last-good")) as installed:
        installed.operator()
        yield installed


@pytest.fixture(scope="module")
def engine(installed: Installation) -> int:
    return installed.engine("engine")


@pytest.fixture(scope="module")
def service(installed: Installation) -> Iterator[Junction]:
    """The operator's Service, as far as balancers need one."""
    with Junction(("127.0.0.1", installed.operators[0].port)) as junction:
        yield junction


@pytest.fixture(scope="module")
def balancer(installed: Installation, service: Junction) -> BalancerProcess:
    return installed.balancer("balancer", f"https://localhost:{service.port}")


@pytest.fixture
def mine(plane: ControlPlane, namespace: str, balancer: BalancerProcess) -> Reader:
    return Reader(plane, namespace)


@pytest.fixture(scope="module", autouse=True)
def lasting(plane: ControlPlane, balancer: BalancerProcess, engine: int) -> Iterator[Reader]:
    """Two policies that are there from the start: what boots a balancer is written some seconds after a change."""
    with plane.new_namespace(f"lasting-{os.urandom(3).hex()}") as namespace:
        reader = Reader(plane, namespace)
        reader.apply(
            pool("llama", static(engine)),
            policy("chat", f"{namespace}-chat", "llama"),
            policy("other", f"{namespace}-other", "llama"),
        )
        reader.ready("modelpool/llama", "routepolicy/chat", "routepolicy/other")
        yield reader


def test_a_policy_that_was_never_good_serves_nothing_and_harms_nobody(
    mine: Reader, balancer: BalancerProcess, engine: int
) -> None:
    space = mine.namespace
    mine.apply(
        pool("llama", static(engine)),
        policy("good", f"{space}-good", "llama"),
        policy("bad", f"{space}-bad", {"name": "llama", "model": "absent"}),
    )
    mine.comes("RoutePolicy", "bad", "Accepted", "False", "ModelNotInPool")
    mine.ready("routepolicy/good")
    assert balancer.ask(f"{space}-good").status == 200
    assert balancer.ask(f"{space}-bad").status == 404
    assert "nothing of it can be served" in mine.conditions("RoutePolicy", "bad")["Programmed"].message


def test_a_deleted_policy_is_gone_at_once_also_after_a_bad_edit(
    plane: ControlPlane, mine: Reader, balancer: BalancerProcess, engine: int
) -> None:
    model = f"{mine.namespace}-chat"
    mine.apply(pool("llama", static(engine)), policy("chat", model, "llama"))
    mine.ready("routepolicy/chat")
    mine.apply(policy("chat", model, "absent"))
    mine.comes("RoutePolicy", "chat", "Ready", "False", "PoolNotFound")
    assert balancer.ask(model).status == 200
    mine.delete("routepolicy", "chat")
    until(lambda: balancer.ask(model).status == 404, "its model is unknown", 5.0)
    mine.apply(policy("chat", model, "absent"))  # a new one of the name inherits nothing
    mine.comes("RoutePolicy", "chat", "ResolvedRefs", "False", "PoolNotFound")
    assert balancer.ask(model).status == 404


def test_a_bad_edit_serves_on_as_before_through_a_restart_of_the_operator_until_it_is_mended(
    plane: ControlPlane, lasting: Reader, installed: Installation, balancer: BalancerProcess, service: Junction
) -> None:
    mine, space = lasting, lasting.namespace
    chat, other = f"{space}-chat", f"{space}-other"
    assert balancer.ask(chat).status == balancer.ask(other).status == 200

    mine.apply(policy("chat", chat, "lama"))
    resolved = mine.comes("RoutePolicy", "chat", "ResolvedRefs", "False", "PoolNotFound")
    assert 'ModelPool "lama"' in resolved.message
    assert resolved.message.endswith("its last good version goes on serving")
    mine.comes("RoutePolicy", "chat", "Programmed", "False", "Pending")
    mine.comes("RoutePolicy", "chat", "Ready", "False", "PoolNotFound")
    mine.comes("RoutePolicy", "other", "Ready", "True", "Programmed")
    assert balancer.ask(chat).status == balancer.ask(other).status == 200

    # What new balancers boot from, and what the next operator knows the good version from.
    def kept() -> bool:
        saved = saved_in(installed.child("configmaps", "spillway-gateway-boot"))
        names = {f"{space}/chat", f"{space}/other"}
        return saved is not None and names <= {route.name for route in saved.snapshot.routes}

    until(kept, "the ConfigMap has both policies", 20.0)
    installed.operators[0].kill()
    assert balancer.ask(chat).status == 200
    plane.kubectl("delete", "lease", "spillway-operator", "-n", installed.namespace)  # instead of waiting for its end
    after = installed.operator()
    service.backends = [("127.0.0.1", after.port)]
    until(lambda: after.metric("spillway_operator_connections") == 1, "the balancer has come back")
    until(lambda: installed.leader() == after.name, "the new operator leads", 30.0)
    mine.comes("RoutePolicy", "other", "Programmed", "True", "Programmed")
    assert balancer.ask(chat).status == balancer.ask(other).status == 200
    assert "goes on serving" in mine.conditions("RoutePolicy", "chat")["Programmed"].message

    mine.apply(policy("chat", chat, "llama", retry={"attempts": 2}))
    mine.comes("RoutePolicy", "chat", "Ready", "True", "Programmed")
    assert mine.status("RoutePolicy", "chat")["observedGeneration"] == 3
    assert balancer.ask(chat).status == 200


def test_a_new_balancer_boots_from_the_config_map_while_no_operator_is_there(
    lasting: Reader, installed: Installation, balancer: BalancerProcess, service: Junction
) -> None:
    """One that has nothing at all is not ready, until an operator is back."""
    model = f"{lasting.namespace}-chat"
    held = installed.child("configmaps", "spillway-gateway-boot")["binaryData"]
    boot = base64.b64decode(held["snapshot.json.gz"])
    for operator in installed.operators:
        if operator.running:
            assert operator.stop() == 0
    fresh = installed.balancer("fresh", f"https://localhost:{service.port}", boot=boot)
    assert fresh.ask(model).status == balancer.ask(model).status == 200
    late = installed.balancer("unlucky", f"https://localhost:{service.port}", wait=False)
    until(lambda: late.says("/healthz"), "it is alive")
    assert not late.says("/readyz")  # nothing to serve from, and nobody to ask
    back = installed.operator()
    service.backends = [("127.0.0.1", back.port)]
    until(lambda: late.says("/readyz"), "it has asked", 30.0)
    assert late.ask(model).status == fresh.ask(model).status == 200
