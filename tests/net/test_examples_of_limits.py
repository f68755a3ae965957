"""examples/hybrid.yaml and examples/managed-only.yaml do what they say, over sockets."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.net.bookkeeper import Bookkeeper

EXAMPLES = Path(__file__).parents[2] / "examples"
TALK = {"role": "user", "content": "Tell me all that you know of rivers and the lands they run through. " * 8}


@pytest.fixture
def secrets(tmp_path: Path, say: Any) -> Path:
    """The keys of all accounts, as a cluster mounts them."""
    for name in ("openai-key", "openai-europe", "openai-spare"):
        (tmp_path / "keys" / name).mkdir(parents=True)
        (tmp_path / "keys" / name / "api-key").write_text(f"{say.KEY}-{name}")
    return tmp_path / "keys"


def docs_of(name: str, provider: Bookkeeper, engines: Any = ()) -> list[dict[str, Any]]:
    """An example whose endpoints are these, and neither probed nor scraped."""
    docs = list(yaml.safe_load_all((EXAMPLES / name).read_text()))
    for doc in docs:
        if doc["kind"] != "ModelPool":
            continue
        source = doc["spec"]["source"]
        if "provider" in source:
            source["provider"] |= {"type": "OpenAICompatible", "baseURL": provider.url, "allowPlainHTTP": True}
        else:
            for each, engine in zip(source["static"]["endpoints"], engines, strict=True):
                each["url"] = engine.url
            doc["spec"] |= {"metrics": {"mode": "None"}, "health": {"active": {"mode": "None"}}}
    return docs


async def test_hybrid_keeps_a_burst_within_its_share_and_its_money(serve, engine, dial, provider, secrets) -> None:
    """Home is more than full, so every session would leave: 30 % of the requests do, and nobody sees an error."""
    model = "meta-llama/Llama-3.3-70B-Instruct"
    engines = [await engine(models=(model,)) for _ in range(2)]
    docs = docs_of("hybrid.yaml", provider, engines)
    lb = await serve(docs=docs, secrets=secrets)
    ballast = [lb.endpoint(f"gpu-{n}", "llama-70b").load.lease(10, 10, 10) for n in (0, 1) for _ in range(60)]

    async def session(number: int) -> None:
        client = await dial(lb)
        for turn in range(6):
            reply = await client.chat(
                [("x-session-id", f"s{number}")], messages=[TALK], max_tokens=20, stream=bool(turn % 2)
            )
            assert reply.status == 200
            assert reply.whole

    await asyncio.gather(*(session(number) for number in range(40)))
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    for lease in ballast:
        lease.release()
    away = lb.sample("spillway_tier_requests_total", tier="cloud")
    home = lb.sample("spillway_tier_requests_total", tier="local")
    assert away + home == 240
    assert len(provider.requests) == away
    assert 0.15 <= away / 240 <= 0.30 + 1 / 240
    money = lb.balancer.serving.current.routes.all[0].limits["default", "cloud"].money
    assert money.reserved == 0
    assert 0 < Fraction(money.spent) < 50


async def test_managed_only_goes_to_the_other_account_and_then_to_the_smaller_model(
    serve, dial, provider, secrets
) -> None:
    docs = docs_of("managed-only.yaml", provider)
    limits = docs[1]["spec"]["rules"][0]["tiers"][0]["limits"]
    lb = await serve(docs=docs, secrets=secrets)
    client = await dial(lb)

    async def asked() -> str:
        reply = await client.chat(messages=[TALK], max_tokens=100)
        assert reply.status == 200
        return provider.requests[-1]["model"]

    provider.fate = lambda number: "429" if number == 0 else ""
    assert await asked() == "gpt-5"
    assert len(provider.requests) == 2
    asked_of = [lb.sample("spillway_attempts_total", endpoint=account) for account in ("europe", "spare")]
    assert asked_of == [1, 1]  # one of them said 429, and the client has seen nothing of it
    assert lb.sample("spillway_attempts_total", reason="rate-limited") == 1
    limits["budget"]["amount"] = "0.002"
    lb.write(*docs)
    money = lb.balancer.serving.current.routes.all[0].limits["default", "large"].money
    await lb.until(lambda: float(money.limit) == 0.002)
    assert await asked() == "gpt-5-mini"
