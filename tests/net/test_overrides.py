"""Override headers over real sockets: obeyed where allowed, refused where not, and never sent on."""

from __future__ import annotations

from typing import Any

import pytest

RULE, POOL, STAY = "x-spillway-rule", "x-spillway-pool", "x-spillway-no-fallback"
ALL = ["Rule", "Pool", "NoFallback"]


@pytest.fixture
def overridable(serve, endpoint, say, objects):
    """`lb, heard = await overridable(overrides)`: pools a and b in two tiers, rules `default` and `turned`."""

    async def start(overrides: Any, down: tuple[str, ...] = (), **route: Any) -> Any:
        heard: list[Any] = []

        def behaves(name: str) -> Any:
            async def behave(call: Any) -> None:
                heard.append(call)
                call.write(say.error(503) if name in down else say.completion(name))

            return behave

        docs = [objects.pool(name, await endpoint(behaves(name))) for name in ("a", "b")]
        tiers = [{"name": name, "pools": [{"name": name}]} for name in ("a", "b")]
        policy = objects.route(tiers=tiers, **route)
        turned = {"name": "turned", "when": "false", "tiers": tiers[::-1]}
        policy["spec"]["rules"] = [turned, {"name": "default", "tiers": tiers}]
        if overrides is not None:
            policy["spec"]["overrides"] = overrides
        return await serve(docs=[*docs, policy]), heard

    return start


async def test_who_may_chooses_rule_and_pool(overridable, dial) -> None:
    lb, heard = await overridable({"allow": ALL})
    client = await dial(lb)
    assert (await client.chat()).text == "a"
    reply = await client.chat([(RULE, "turned"), ("x-spillway-explain", "1")])
    assert reply.text == "b"
    assert reply.header("x-spillway-rule") == "turned"
    assert (await client.chat([(POOL, "b")])).text == "b"
    assert lb.sample("spillway_tier_requests_total", rule="turned", tier="b", spilled="false") == 1
    assert not [name for call in heard for name in (RULE, POOL, STAY) if call.header(name) is not None]


async def test_without_fallback_a_failure_is_told(overridable, dial) -> None:
    lb, _ = await overridable({"allow": ["NoFallback"]}, down=("a",))
    client = await dial(lb)
    assert (await client.chat()).text == "b"
    reply = await client.chat([(STAY, "1")])
    assert (reply.status, reply.error["code"]) == (503, "attempts_failed")
    assert lb.sample("spillway_attempts_total", pool="default/b") == 1


@pytest.mark.parametrize("header", [(RULE, "turned"), (POOL, "b"), (STAY, "1")])
@pytest.mark.parametrize("overrides", [None, {"allow": ALL, "when": 'headers["x-team"] == "platform"'}])
async def test_who_may_not_is_told_and_nothing_is_sent(overridable, dial, overrides, header) -> None:
    lb, heard = await overridable(overrides)
    client = await dial(lb)
    reply = await client.chat([header])
    assert (reply.status, reply.error["code"], reply.error["type"]) == (403, "override_not_allowed", "permission_error")
    assert reply.error["param"] == header[0]
    assert heard == []
    if overrides is not None:
        assert (await client.chat([header, ("x-team", "platform")])).status == 200


async def test_a_name_that_is_not_there_is_told_with_those_that_are(overridable, dial, say) -> None:
    lb, heard = await overridable({"allow": ALL})
    client = await dial(lb)
    for header, names in ((RULE, '"turned", "default"'), (POOL, '"a", "b"')):
        reply = await client.chat([(header, say.KEY)])
        assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "invalid_override", header)
        assert names in reply.error["message"]
        assert say.KEY not in reply.error["message"]
    assert heard == []


async def test_a_guard_binds_who_may_everything(overridable, dial) -> None:
    guards = [{"name": "eu-only", "require": {"jurisdictions": ["EU"]}}]
    lb, heard = await overridable({"allow": ALL}, guards=guards)
    client = await dial(lb)
    for header in ((RULE, "turned"), (POOL, "b"), (STAY, "1")):
        reply = await client.chat([header])
        assert (reply.status, reply.error["code"]) == (503, "no_compliant_target")
        assert reply.error["message"] == 'nothing that is asked for passes guard "eu-only"'
    assert heard == []


async def test_the_callers_key_says_whether_it_may(serve, endpoint, say, objects, dial) -> None:
    docs = [objects.pool(name, await endpoint(say.well(name))) for name in ("a", "b")]
    tiers = [{"name": name, "pools": [{"name": name}]} for name in ("a", "b")]
    selector = {"secretSelector": {"matchLabels": {"kind": "caller"}}}
    overrides = {"allow": ["Pool"], "when": 'consumer.labels["team"] == "platform"'}
    docs.append(objects.route(tiers=tiers, consumers=selector, overrides=overrides))
    for name, labels in (("ann", {"team": "platform"}), ("bob", {"team": "sales"}), ("eve", {})):
        meta = {"name": name, "labels": {"kind": "caller", **labels}}
        key = {"api-key": f"{say.KEY}-{name}"}
        docs.append({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": key})
    client = await dial(await serve(docs=docs))
    for name, expected in (("ann", 200), ("bob", 403), ("eve", 403), ("mallory", 401)):
        reply = await client.chat([(POOL, "b"), ("authorization", f"Bearer {say.KEY}-{name}")])
        assert reply.status == expected
