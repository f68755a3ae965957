"""A labelled Secret becomes a consumer that a balancer serves; deleted, it is refused; and no key is ever told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from tests.kube.access import Object, until
from tests.kube.assets import HERE
from tests.kube.keys import mount, telling, told
from tests.kube.objects import Reader, policy, pool, secret, static
from tests.kube.operating import Installation
from tests.kube.plane import ControlPlane
from tests.kube.pretend import PretendNode

ROOT = HERE.parents[1]
MARKER = "sk-quagga-9a41d0"
LABELS = {"spillway.dev/consumer": "chat"}
SEEN = 20.0
"""Seconds to wait for a change of Secrets to be in force: 10 to see it, 1 to join others, what the API server, the
stream and the balancer's own look take, and some to spare for a busy machine."""
KINDS = ("ServiceAccount", "Service", "Deployment", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


@pytest.fixture
def installed(
    plane: ControlPlane, node: PretendNode, helm: str, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """The chart with consumers, for this namespace alone."""

    def rendered(release: str) -> list[Object]:
        values = json.dumps({"watchNamespaces": [namespace], "consumers": {"enabled": True}})
        command = [helm, "template", "spillway", str(ROOT / "charts/spillway"), "--namespace", release, "--values", "-"]
        done = subprocess.run(command, input=values, capture_output=True, text=True, check=True)
        return [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] in KINDS]

    options = ("--log-level", "debug")
    with Installation(plane, tmp_path_factory.mktemp("consumers"), render=rendered, options=options) as installed:
        installed.operator()
        yield installed


def test_a_labelled_secret_is_a_consumer_until_it_is_deleted(
    plane: ControlPlane, namespace: str, installed: Installation
) -> None:
    mine = Reader(plane, namespace)
    mine.apply(
        secret("team-a", labels=LABELS, **{"api-key": f"{MARKER}-a"}),
        secret("other", **{"api-key": f"{MARKER}-other"}),
        pool("one", static(installed.engine("engine"))),
        policy("chat", "chat", "one", consumers={"secretSelector": {"matchLabels": LABELS}}),
    )
    balancer = installed.balancer("balancer", f"https://localhost:{installed.operators[0].port}")
    with installed.listener() as listener:
        mine.ready("routepolicy/chat")

        def answers(key: str, status: int) -> bool:
            mount(installed, balancer)
            return balancer.ask("chat", key).status == status

        until(lambda: answers(f"{MARKER}-a", 200), "team-a is served", SEEN)
        assert balancer.ask("chat").status == 401
        assert balancer.ask("chat", f"{MARKER}-other").status == 401
        assert balancer.ask("chat", f"{MARKER}-b").status == 401

        mine.apply(secret("team-b", labels=LABELS, **{"api-key": f"{MARKER}-b"}))
        until(lambda: answers(f"{MARKER}-b", 200), "team-b is served", SEEN)
        assert balancer.ask("chat", f"{MARKER}-a").status == 200

        mine.apply(secret("team-b", labels=LABELS, **{"api-key": f"{MARKER}-b2"}))
        until(lambda: answers(f"{MARKER}-b2", 200), "team-b's new key is served", SEEN)
        assert balancer.ask("chat", f"{MARKER}-b").status == 401

        mine.delete("secret", "team-a")
        until(lambda: balancer.ask("chat", f"{MARKER}-a").status == 401, "team-a is refused", SEEN)
        assert balancer.ask("chat", f"{MARKER}-b2").status == 200
        mine.delete("secret", "team-b")
        mine.comes("RoutePolicy", "chat", "ResolvedRefs", "False", "SecretNotFound")
        until(lambda: balancer.ask("chat", f"{MARKER}-b2").status == 401, "nobody is left", SEEN)

        places = told(installed, balancer, listener)
    assert telling(places, MARKER) == []
    assert 'consumer="team-b"' not in places["the balancer's metrics"], "series go with the consumer"
