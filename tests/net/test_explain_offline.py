"""What `spillway explain` says offline is what the balancer answers over sockets, word for word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spillway_balancer.commands import app

EXPLAIN = "x-spillway-explain"
LONG = "In the beginning the reef was without form, and void; and darkness was upon the face of the deep. " * 40


def offline(file: Path, body: dict[str, Any], headers: list[tuple[str, str]]) -> dict[str, Any]:
    options = [part for name, value in headers for part in ("-H", f"{name}: {value}")]
    found = CliRunner().invoke(app, ["explain", "-", "-f", str(file), "--json", *options], input=json.dumps(body))
    assert found.exit_code in (0, 1), found.output
    account: dict[str, Any] = json.loads(found.stdout)
    return account


def rule(name: str, when: str | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "tiers": [{"name": "only", "pools": [{"name": name}]}]}
    return made if when is None else {**made, "when": when}


SPILL = {"inFlightPerEndpoint": {"start": 4, "full": 8}}
POLICIES: dict[str, dict[str, Any]] = {
    "one tier": {"tiers": [{"name": "only", "pools": [{"name": "one"}]}]},
    "a tier that spills": {
        "tiers": [
            {"name": "own", "pools": [{"name": "one"}], "spill": SPILL},
            {"name": "away", "pools": [{"name": "two"}]},
        ]
    },
    "two pools by weight": {"tiers": [{"name": "only", "pools": [{"name": "one"}, {"name": "two", "weight": 50}]}]},
    "rules": {"rules": [rule("one", 'headers["x-tier"] == "premium"'), rule("two")]},
    "by length": {"rules": [rule("one", "tokens.input > 500"), rule("two")]},
    "by bucket": {"rules": [rule("one", "bucket < 50"), rule("two")]},
    "a guard": {
        "tiers": [{"name": "first", "pools": [{"name": "one"}]}, {"name": "second", "pools": [{"name": "two"}]}],
        "guards": [{"name": "eu", "require": {"jurisdictions": ["EU"]}}],
    },
    "no rule": {"rules": [rule("one", "false")]},
    "a clamp": {"rules": [{**rule("one"), "set": {"maxOutputTokens": 7}}]},
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
async def test_offline_and_served_say_the_same(serve, engine, objects, dial, policy: dict[str, Any]) -> None:
    pools = [
        objects.pool("one", await engine()),
        objects.pool("two", await engine(), dataHandling={"jurisdictions": ["EU"]}),
    ]
    spec = dict(policy)
    lb = await serve(docs=[*pools, objects.route(tiers=spec.pop("tiers", None), **spec)])
    # The first request of all: what is learned of it changes the numbers of the next.
    headers = [("x-session-id", "ann"), ("x-tier", "premium"), (EXPLAIN, "1")]
    body = {"model": "chat", "max_tokens": 10, "messages": [{"role": "user", "content": LONG}]}
    account = offline(lb.file, body, headers)
    reply = await (await dial(lb)).post("/v1/chat/completions", body, headers)
    outcome = account["outcome"]
    if outcome["type"] == "served":
        assert reply.status == 200
        assert reply.header(EXPLAIN) == account["header"]
    else:
        assert (reply.status, reply.error["code"]) == (outcome["status"], outcome["code"])


async def test_rules_and_pools_agree_for_many_requests(serve, engine, objects, dial) -> None:
    pools = [objects.pool("one", await engine()), objects.pool("two", await engine())]
    rules = [rule("one", "tokens.input > 500 || bucket < 30"), rule("two", "request.stream"), rule("both")]
    rules[-1]["tiers"] = [{"name": "only", "pools": [{"name": "one", "weight": 30}, {"name": "two", "weight": 70}]}]
    lb = await serve(docs=[*pools, objects.route(rules=rules)])
    client = await dial(lb)
    seen = set()
    for number in range(30):
        headers = [("x-session-id", f"user-{number}"), (EXPLAIN, "1")]
        text = LONG if number % 7 == 0 else "hello"
        body = {"model": "chat", "max_tokens": 4, "messages": [{"role": "user", "content": text}]}
        body |= {"stream": True} if number % 3 == 0 else {}
        account = offline(lb.file, body, headers)
        reply = await client.post("/v1/chat/completions", body, headers)
        told = dict(pair.split("=", 1) for pair in (reply.header(EXPLAIN) or "").split("; "))
        assert (told["rule"], told["pool"]) == (account["rule"], account["outcome"]["pool"])
        seen.add((told["rule"], told["pool"]))
    assert len(seen) >= 4
