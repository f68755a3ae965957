"""A key that its provider refuses, from the Secret to the status and back."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from tests.kube.access import until
from tests.kube.keys import mount
from tests.kube.objects import Reader, policy, pool, provider, secret
from tests.kube.operating import GATEWAY, Installation
from tests.kube.plane import ControlPlane
from tests.kube.pretend import PretendNode
from tests.kube.processes import BalancerProcess

from spillway_api.credentials import file_of

ROTATED = 14.0
"""Seconds until a new value of a Secret is with the gateway: 10 to see it, 1 to join others, and some to spare."""
MARKER = "sk-quagga-5f2e1c"


@pytest.fixture(scope="module")
def installed(
    plane: ControlPlane, node: PretendNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with Installation(plane, tmp_path_factory.mktemp("credentials"), replicas=2) as installed:
        installed.operator()
        yield installed


class Keyed(BaseHTTPRequestHandler):
    """A provider that takes one key."""

    refused = 0

    def do_POST(self) -> None:
        good = self.headers["authorization"] == f"Bearer {MARKER}-good"
        answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
        Keyed.refused += not good
        body = json.dumps(answer if good else {"error": {"message": "Incorrect API key provided"}}).encode()
        self.send_response(200 if good else 401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def keyed() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Keyed) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def test_a_refused_key_shows_in_the_status_until_its_secret_has_changed(
    mine: Reader, installed: Installation, balancer: BalancerProcess, keyed: str
) -> None:
    space = mine.namespace
    source = provider(("main", "key", "api-key"))
    source["provider"] |= {"type": "OpenAICompatible", "baseURL": keyed, "allowPlainHTTP": True}
    mine.apply(secret("key", **{"api-key": f"{MARKER}-bad"}), pool("cloud", source))
    mine.apply(policy("chat", f"{space}-chat", "cloud"))
    file = file_of(f"{space}/key", "api-key")

    def brought(value: str) -> bool:
        data = installed.child("secrets", f"{GATEWAY}-credentials").get("data") or {}
        return base64.b64decode(data.get(file, "")).decode() == value

    until(lambda: brought(f"{MARKER}-bad"), "the key is with the gateway", ROTATED)
    mount(installed, balancer)
    mine.ready("routepolicy/chat")
    until(lambda: balancer.serves(f"{space}/cloud", "main"), "the pool is in force", 10.0)
    mine.comes("ModelPool", "cloud", "Ready", "True", "EndpointsReady")

    def refused() -> bool:
        return balancer.ask(f"{space}-chat").status >= 400 and Keyed.refused > 0

    until(refused, "the balancer has the key, and the provider refuses it", 5.0)
    mine.comes("ModelPool", "cloud", "Ready", "False", "CredentialsRefused")
    mine.apply(secret("key", **{"api-key": f"{MARKER}-good"}))
    until(lambda: brought(f"{MARKER}-good"), "the new key is with the gateway", ROTATED)
    mount(installed, balancer)
    mine.comes("ModelPool", "cloud", "Ready", "True", "EndpointsReady")
    assert balancer.ask(f"{space}-chat").status == 200
