"""Own engines that spill to providers in two other APIs: keys from Secrets to the wire, rotated, refused and mended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal

import openai
import pytest
from tests.kube.access import Object, until
from tests.kube.keys import mount, telling, told
from tests.kube.listener import Listener
from tests.kube.objects import Reader, policy, pool, secret, static
from tests.kube.operating import Installation
from tests.kube.plane import ControlPlane, free_port
from tests.kube.pretend import PretendNode
from tests.kube.processes import BalancerProcess, Process, fetch

SEEN = 20.0
"""Seconds for a change of a Secret to be in force: 10 to see it, 1 to join others, and some for a busy machine."""
MARKER = "sk-quagga-71c9e4"
SIGNS = ("AKIAQUAGGA71C9E4", f"{MARKER}-signs", f"{MARKER}-session")
PRICE = {"input": "3", "cachedInput": "0.3", "cacheWrite": "3.75", "output": "15"}
BILL = "3,0.3,3.75,15"


@pytest.fixture(scope="module")
def installed(
    plane: ControlPlane, node: PretendNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with Installation(plane, tmp_path_factory.mktemp("providers"), replicas=2) as installed:
        installed.operator()
        yield installed


class Fake(Process):
    """`spillway provider`: one account for each key."""

    def __init__(self, installed: Installation, type: str, *keys: str) -> None:
        self.port = free_port()
        options = [part for key in keys for part in ("--key", key)]
        command = ("provider", "--type", type, "--port", str(self.port), "--price", f"some-model={BILL}")
        super().__init__(
            installed.folder, type, "spillway", *command, "--first-token", "0", "--tokens-per-second", "0", *options
        )
        until(self._answers, f"{type} answers; {self.log}")

    def _answers(self) -> bool:
        try:
            return fetch(self.port, "/health").status == 200
        except OSError:
            return False

    @property
    def served(self) -> dict[str, int]:
        """Requests that were answered, by account."""
        accounts = fetch(self.port, "/books").json["keys"]
        return {name: each["requests"] - each["refused"] for name, each in accounts.items()}

    @property
    def amount(self) -> Decimal:
        return Decimal(fetch(self.port, "/books").json["amount"])


@pytest.fixture
def anthropic(installed: Installation) -> Iterator[Fake]:
    fake = Fake(installed, "anthropic", f"old={MARKER}-old", f"new={MARKER}-new")
    yield fake
    fake.kill()


@pytest.fixture
def bedrock(installed: Installation) -> Iterator[Fake]:
    fake = Fake(installed, "bedrock", f"signed={':'.join(SIGNS)}")
    yield fake
    fake.kill()


def cloud(name: str, type: str, port: int, **account: str) -> Object:
    accounts = [{"name": "main", "secretRef": {"name": name}, **account}]
    at = {"type": type, "accounts": accounts, "baseURL": f"http://127.0.0.1:{port}", "allowPlainHTTP": True}
    made = pool(name, {"provider": at}, budget={"amount": "50"})
    made["spec"]["models"] = [{"name": "m", "upstreamName": "some-model", "price": PRICE}]
    return made


def ask(balancer: BalancerProcess, model: str, words: str = "hello", times: int = 1) -> list[str]:
    """What OpenAI's client is told, all at once, every other as a stream. Raises its errors."""

    async def one(client: openai.AsyncOpenAI, number: int) -> str:
        messages = [{"role": "user", "content": f"{words} {number}"}]
        if number % 2:
            answer = await client.chat.completions.create(model=model, messages=messages, max_tokens=20)
            return answer.choices[0].message.content or ""
        stream = await client.chat.completions.create(model=model, messages=messages, max_tokens=20, stream=True)
        return "".join([part.choices[0].delta.content or "" async for part in stream if part.choices])

    async def all_of_them() -> list[str]:
        url = f"http://127.0.0.1:{balancer.port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            return list(await asyncio.gather(*(one(client, number) for number in range(times))))

    return asyncio.run(all_of_them())


def keys_of(values: tuple[str, ...]) -> str:
    names = ("accessKeyId", "secretAccessKey", "sessionToken")
    return json.dumps(dict(zip(names, values, strict=True)))


def test_requests_spill_to_anthropic_and_bedrock_by_keys_that_change_meanwhile(
    mine: Reader, installed: Installation, balancer: BalancerProcess, listener: Listener, anthropic: Fake, bedrock: Fake
) -> None:
    space = mine.namespace
    tiers: list[Object] = [
        {"name": "own", "pools": [{"name": "own"}]},
        {"name": "away", "pools": [{"name": "claude", "weight": 50}, {"name": "aws", "weight": 50}]},
    ]
    tiers[1]["enterOn"] = ["Capacity", "Transient", "Auth"]
    chat = policy("chat", f"{space}-chat", "own")
    chat["spec"]["rules"] = [{"name": "default", "tiers": tiers}]
    mine.apply(
        pool("own", static(installed.engine("engine")), capacity={"maxInFlightPerEndpoint": 1}),
        cloud("claude", "Anthropic", anthropic.port),
        cloud("aws", "Bedrock", bedrock.port, region="eu-west-1"),
        policy("claude", f"{space}-claude", "claude"),
        policy("aws", f"{space}-aws", "aws"),
        chat,
    )
    # Without its Secret an account is left out, and its pool says what is missing.
    for name in ("claude", "aws"):
        condition = mine.comes("ModelPool", name, "ResolvedRefs", "False", "SecretNotFound")
        assert f'"{name}"' in condition.message
        mine.comes("ModelPool", name, "Ready", "False", "NoEndpoints")
    mine.apply(secret("claude", **{"api-key": f"{MARKER}-old"}), secret("aws", **{"api-key": keys_of(SIGNS)}))

    def spills() -> bool:
        mount(installed, balancer)
        ask(balancer, f"{space}-chat", times=8)
        return anthropic.served["old"] > 0 and bedrock.served["signed"] > 0

    mine.ready("modelpool/own", "routepolicy/chat")
    until(lambda: balancer.serves(f"{space}/own", "e0"), "the own engine is in force")
    until(spills, "both providers are spilled to", SEEN)
    mine.ready("modelpool/claude", "modelpool/aws")

    # A key is rotated: no request fails, and the old one is shown no more.
    mine.apply(secret("claude", **{"api-key": f"{MARKER}-new"}))

    def rotated() -> bool:
        mount(installed, balancer)
        ask(balancer, f"{space}-claude")
        return anthropic.served["new"] > 0

    until(rotated, "the new key is shown", SEEN)
    before = anthropic.served["old"]
    ask(balancer, f"{space}-claude", times=4)
    assert anthropic.served["old"] == before

    # Keys that AWS does not know close the account, and say so; requests go to the other one.
    wrong = (SIGNS[0], f"{MARKER}-wrong", SIGNS[2])
    mine.apply(secret("aws", **{"api-key": keys_of(wrong)}))

    def refused() -> bool:
        mount(installed, balancer)
        return balancer.ask(f"{space}-aws").status != 200

    until(refused, "the wrong key is shown and refused", SEEN)
    assert len(ask(balancer, f"{space}-chat", times=8)) == 8
    mine.comes("ModelPool", "aws", "Ready", "False", "CredentialsRefused")
    mine.apply(secret("aws", **{"api-key": keys_of(SIGNS)}))

    def mended() -> bool:
        mount(installed, balancer)
        return balancer.ask(f"{space}-aws").status == 200

    until(mended, "the right key is shown again", SEEN)
    mine.comes("ModelPool", "aws", "Ready", "True", "EndpointsReady")

    # What was spent is what the two have charged, to the last digit, and it is shown.
    def reported() -> Decimal:
        lines = (line for line in balancer.metrics.splitlines() if line.startswith("spillway_pool_spent_total{"))
        return sum((Decimal(line.rpartition(" ")[2]) for line in lines if f"{space}/" in line), Decimal(0))

    charged = anthropic.amount + bedrock.amount
    assert charged > 0
    until(lambda: reported() == charged, f"{charged} is reported", 5.0)
    places = told(installed, balancer, listener)
    places |= {"describe": installed.plane.kubectl("describe", "modelpools,routepolicies", "-n", space)}
    assert telling(places, MARKER) == []
    assert telling(places, SIGNS[0]) == []
