"""A policy in Shadow looks on: it counts what it would do, and nobody is sent anywhere or kept waiting by it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.net.test_consumer_limits import sample

from spillway_balancer.core import shadows
from spillway_balancer.net.credentials import Credentials
from spillway_balancer.net.filesource import judge
from spillway_balancer.net.serving import summary

DECISIONS = "spillway_shadow_decisions_total"


def shadow(objects: Any, name: str, *pools: str, rules: Any = None, **spec: Any) -> dict[str, Any]:
    made = objects.route(*pools, mode="Shadow", **spec)
    made["metadata"]["name"] = name
    if rules is not None:
        made["spec"]["rules"] = rules
    return dict(made)


def decisions(lb: Any) -> dict[tuple[str, ...], float]:
    families = lb.balancer.telemetry.registry.collect()
    samples = [each for family in families for each in family.samples if each.name == DECISIONS]
    return {tuple(each.labels[name] for name in ("rule", "tier", "pool", "agrees")): each.value for each in samples}


async def test_it_counts_what_it_would_do_and_sends_nothing(serve, objects, endpoint, dial) -> None:
    local, trial = await endpoint(), await endpoint()
    rules = [
        {"name": "pro", "when": 'headers["x-tier"] == "pro"', "tiers": [{"name": "new", "pools": [{"name": "trial"}]}]},
        {"name": "rest", "tiers": [{"name": "old", "pools": [{"name": "local"}]}]},
    ]
    lb = await serve(
        docs=[
            objects.pool("local", local),
            objects.pool("trial", trial),
            objects.route("local"),
            shadow(objects, "next", rules=rules),
        ]
    )
    client = await dial(lb)
    for headers in ([("x-tier", "pro")], [("x-tier", "free")], [("x-tier", "free")], []):
        assert (await client.chat(headers)).status == 200
    assert decisions(lb) == {
        ("pro", "new", "default/trial", "false"): 1.0,
        ("rest", "old", "default/local", "true"): 3.0,
    }
    assert lb.sample("spillway_rule_errors_total", route="default/next", rule="pro", reason="missing") == 1.0
    assert (len(local.calls), len(trial.calls)) == (4, 0)
    assert lb.sample("spillway_tier_requests_total", route="default/next") == 0.0
    assert lb.sample("spillway_requests_total", route="default/chat") == 4.0
    assert [each["id"] for each in (await client.get("/v1/models")).json()["data"]] == ["chat"]


async def test_each_of_several_looks_on_wherever_the_request_ends(serve, objects, endpoint, dial, say) -> None:
    failing = await endpoint(say.steps(say.error(500)))
    tiers = [
        {"name": "first", "pools": [{"name": "failing"}]},
        {"name": "second", "pools": [{"name": "local"}]},
    ]
    lb = await serve(
        docs=[
            objects.pool("failing", failing),
            objects.pool("local", await endpoint()),
            objects.route(tiers=tiers),
            shadow(objects, "to-local", "local"),
            shadow(objects, "to-failing", "failing", models=("*",)),
        ]
    )
    assert (await (await dial(lb)).chat()).status == 200
    assert decisions(lb) == {
        ("all", "only", "default/local", "true"): 1.0,  # where it was answered
        ("all", "only", "default/failing", "false"): 1.0,
    }


async def test_a_shadow_alone_serves_no_name(serve, objects, endpoint, dial) -> None:
    local = await endpoint()
    lb = await serve(docs=[objects.pool("local", local), shadow(objects, "chat", "local")])
    client = await dial(lb)
    assert (await client.chat()).status == 404
    assert (await client.get("/v1/models")).json()["data"] == []
    assert decisions(lb) == {}
    assert local.calls == []


async def test_a_shadow_put_in_force_takes_over_without_a_lost_request(serve, objects, endpoint, dial, say) -> None:
    pools = [
        objects.pool("local", await endpoint(say.well("old"))),
        objects.pool("trial", await endpoint(say.well("new"))),
    ]
    candidate = shadow(objects, "chat-next", "trial")
    lb = await serve(docs=[*pools, objects.route("local"), candidate])
    client = await dial(lb)
    assert (await client.chat()).text == "old"
    candidate["spec"]["mode"] = "Enforce"
    lb.write(*pools, candidate)
    await lb.until(lambda: not lb.balancer.serving.current.routes.shadows)
    assert (await client.chat()).text == "new"


async def test_whatever_befalls_a_shadow_the_request_is_served(serve, objects, endpoint, dial, monkeypatch) -> None:
    lb = await serve(
        docs=[objects.pool("local", await endpoint()), objects.route("local"), shadow(objects, "s", "local")]
    )

    def fails(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(shadows, "look", fails)
    assert (await (await dial(lb)).chat()).status == 200
    assert decisions(lb) == {}


async def test_who_asks_is_told_what_it_would_have_done(serve, objects, endpoint, dial) -> None:
    rules = [{"name": "never", "when": "false", "tiers": [{"name": "t", "pools": [{"name": "local"}]}]}]
    lb = await serve(
        docs=[
            objects.pool("local", await endpoint()),
            objects.pool("trial", await endpoint()),
            objects.route("local"),
            shadow(objects, "next", "trial"),
            shadow(objects, "strict", rules=rules),
        ]
    )
    reply = await (await dial(lb)).chat([("x-spillway-explain", "1")])
    told = dict(pair.split("=", 1) for pair in (reply.header("x-spillway-explain") or "").split("; "))
    assert told["shadow"] == "default/next:all:only:default/trial,default/strict::nowhere"
    assert told["pool"] == "default/local"


def test_who_serves_from_files_is_told_that_a_policy_only_looks_on(objects, tmp_path) -> None:
    pool, only = objects.pool("local", "http://127.0.0.1:1"), objects.route("local")
    file = tmp_path / "spillway.yaml"
    for docs, said in (
        ([pool, only], "1 pools, 1 endpoints, models chat"),
        ([pool, only, shadow(objects, "next", "local")], "1 pools, 1 endpoints, models chat, 1 in Shadow"),
        ([pool, shadow(objects, "next", "local")], "1 pools, 1 endpoints, models (none), 1 in Shadow"),
    ):
        file.write_text(yaml.safe_dump_all(docs))
        found = judge([file], "default", Credentials(None)).snapshot
        assert found is not None
        assert summary(found) == said


async def test_callers_that_are_turned_away_are_not_looked_at_and_copies_are_not_charged_to_them(
    serve, objects, endpoint, dial, say
) -> None:
    consumers = {"secretSelector": {"matchLabels": {"app": "key"}}, "defaults": {"tokensPerMinute": 1000}}
    secret = {"apiVersion": "v1", "kind": "Secret", "stringData": {"api-key": say.KEY}}
    trial = await endpoint()
    lb = await serve(
        docs=[
            objects.pool("local", await endpoint()),
            objects.pool("trial", trial),
            objects.route("local", consumers=consumers, mirror={"pool": {"name": "trial"}, "percent": 100}),
            shadow(objects, "next", "trial"),
            {**secret, "metadata": {"name": "team-a", "labels": {"app": "key"}}},
        ]
    )
    client = await dial(lb)
    mine = [("authorization", f"Bearer {say.KEY}")]
    assert (await client.chat()).status == 401
    assert (await client.chat(mine, max_tokens=5000)).status == 429
    assert decisions(lb) == {}
    reply = await client.chat(mine)
    assert reply.status == 200
    assert decisions(lb) == {("all", "only", "default/trial", "false"): 1.0}
    await lb.until(lambda: lb.sample("spillway_mirror_requests_total", result="ok") == 1)
    assert "authorization" not in dict(trial.calls[0].headers)
    who = {"consumer": "team-a", "limit": "tokensPerMinute"}
    assert sample(lb, "spillway_consumer_limit_used_percent", **who) == pytest.approx(0.2)  # two tokens, not four
