"""Guards over real sockets: where data may go, what is told when it may go nowhere, and what is written down of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

PERSONAL = [("x-data-class", "personal")]
PUBLIC = [("x-data-class", "public")]
EU = {"dataHandling": {"jurisdictions": ["EU"], "maxSensitivity": "Confidential"}}
US = {"dataHandling": {"jurisdictions": ["US"], "maxSensitivity": "Confidential"}}
GUARD = {
    "name": "eu-only",
    "when": 'headers["x-data-class"] != "public"',
    "require": {"jurisdictions": ["EU"], "maxSensitivity": "Internal"},
}
TIERS = [
    {"name": "cloud", "pools": [{"name": "us"}]},
    {"name": "home", "pools": [{"name": "eu"}, {"name": "us-2", "weight": 1000}]},
]


@pytest.fixture
def guarded(serve, endpoint, say, objects):
    """`await guarded()`: a tier of a US pool before one of an EU and a US pool; each answers with its name."""

    async def start(guards: Any = (GUARD,), behave: dict[str, Any] | None = None, **route: Any) -> Any:
        docs = []
        for name, declared in (("us", US), ("eu", EU), ("us-2", US)):
            one = await endpoint((behave or {}).get(name, say.well(name)))
            docs.append(objects.pool(name, one, **declared))
        return await serve(docs=[*docs, objects.route(tiers=TIERS, guards=list(guards), **route)])

    return start


def lines(caplog: Any) -> list[dict[str, Any]]:
    return [json.loads(each.getMessage()) for each in caplog.records if each.name == "spillway.audit"]


async def test_bound_data_stays_and_other_goes_where_the_rule_leads(guarded, dial, caplog) -> None:
    lb = await guarded()
    client = await dial(lb)
    assert [(await client.chat(PERSONAL)).text for _ in range(20)] == ["eu"] * 20
    assert (await client.chat(PUBLIC)).text == "us"
    assert lb.sample("spillway_guard_holds_total", route="default/chat", guard="eu-only", result="held") == 20
    assert len(lines(caplog)) == 20


async def test_a_request_that_does_not_say_what_it_is_counts_as_bound(guarded, dial, caplog) -> None:
    lb = await guarded()
    client = await dial(lb)
    assert (await client.chat()).text == "eu"
    assert (await client.chat([*PUBLIC, *PUBLIC])).text == "eu"  # "public, public"
    assert lb.sample("spillway_guard_holds_total", guard="eu-only", result="missing") == 1
    assert [line.get("unknown") for line in lines(caplog)] == [{"eu-only": "missing"}, None]


async def test_the_line_that_is_written(guarded, dial, caplog, say) -> None:
    lb = await guarded()
    client = await dial(lb)
    await client.chat([*PERSONAL, ("authorization", f"Bearer {say.KEY}"), ("x-note", "quagga")], user="zebra")
    (line,) = lines(caplog)
    assert line.pop("time").endswith("Z")
    assert line == {
        "route": "default/chat",
        "model": "chat",
        "rule": "all",
        "guards": ["eu-only"],
        "leftOut": [{"tier": "cloud", "pool": "default/us"}, {"tier": "home", "pool": "default/us-2"}],
        "sentTo": [{"tier": "home", "pool": "default/eu", "endpoint": "e1"}],
        "status": 200,
        "result": "ok",
        "tokens": {"input": 1, "output": 1},
    }
    written = " ".join(each.getMessage() for each in caplog.records if each.name == "spillway.audit")
    assert not any(word in written for word in ("zebra", "quagga", "personal", say.KEY))


async def test_a_guard_without_audit_is_counted_only(guarded, dial, caplog) -> None:
    lb = await guarded([{**GUARD, "audit": False}])
    client = await dial(lb)
    assert (await client.chat(PERSONAL)).text == "eu"
    assert lines(caplog) == []
    assert lb.sample("spillway_guard_holds_total", guard="eu-only", result="held") == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["error", "reset", "close", "garbage"])
async def test_all_compliant_pools_failing_is_503_and_never_another_pool(
    guarded, dial, say, caplog, fault: str, stream: bool
) -> None:
    steps = {"error": [say.error(503)], "reset": [say.RESET], "close": [say.CLOSE], "garbage": [b"220 ESMTP\r\n\r\n"]}
    lb = await guarded(behave={"eu": say.steps(*steps[fault])})
    client = await dial(lb)
    for _ in range(12):  # until it is ejected, and beyond
        reply = await client.chat(PERSONAL, stream=stream)
        assert (reply.status, reply.error["code"]) == (503, "no_compliant_target")
        assert 'guard "eu-only"' in reply.error["message"]
    assert lb.sample("spillway_attempts_total", pool="default/us") == 0
    assert lb.sample("spillway_attempts_total", pool="default/us-2") == 0
    assert (await client.chat(PUBLIC)).text == "us"
    assert {line["result"] for line in lines(caplog)} == {"no_compliant_target"}
    assert {line["status"] for line in lines(caplog)} == {503}


async def test_a_limit_of_the_compliant_pool_is_told_as_one(guarded, dial, say) -> None:
    async def limit(call: Any) -> None:
        call.write(say.error(429, **{"retry-after": "120"}))

    lb = await guarded(behave={"eu": limit})
    client = await dial(lb)
    for _ in range(3):
        reply = await client.chat(PERSONAL)
        assert (reply.status, reply.error["code"]) == (429, "rate_limited")
        assert 100 <= int(reply.header("retry-after") or 0) <= 120
    assert lb.sample("spillway_attempts_total", pool="default/us") == 0
    assert lb.sample("spillway_attempts_total", pool="default/us-2") == 0


async def test_no_compliant_pool_at_all_is_503_and_nothing_is_tried(guarded, dial, caplog) -> None:
    lb = await guarded([{"name": "ch-only", "require": {"jurisdictions": ["CH"]}}])
    client = await dial(lb)
    reply = await client.chat(PUBLIC)
    assert (reply.status, reply.error["code"]) == (503, "no_compliant_target")
    assert reply.header("retry-after") is None  # waiting mends nothing
    assert lb.sample("spillway_attempts_total") == 0
    (line,) = lines(caplog)
    assert (line["sentTo"], line["status"], line["result"]) == ([], 503, "no_compliant_target")


async def test_a_failed_attempt_is_in_the_line_as_well(serve, endpoint, say, objects, dial, caplog) -> None:
    """Whatever became of it, the data has been there."""

    async def fail(call: Any) -> None:
        call.write(say.error(503))

    docs = [
        objects.pool("a", await endpoint(fail), **EU),
        objects.pool("b", await endpoint(say.well("b")), **EU),
        objects.route(
            tiers=[{"name": "one", "pools": [{"name": "a"}]}, {"name": "two", "pools": [{"name": "b"}]}], guards=[GUARD]
        ),
    ]
    client = await dial(await serve(docs=docs))
    assert (await client.chat(PERSONAL)).text == "b"
    (line,) = lines(caplog)
    assert [each["pool"] for each in line["sentTo"]] == ["default/a", "default/b"]


async def test_no_copy_goes_to_a_pool_that_a_guard_excludes(guarded, dial) -> None:
    mirror = {"pool": {"name": "us-2"}, "percent": 100}
    lb = await guarded(mirror=mirror)
    client = await dial(lb)
    assert (await client.chat(PERSONAL)).text == "eu"
    assert lb.sample("spillway_mirror_requests_total") == 0
    await client.chat(PUBLIC)
    await lb.until(lambda: lb.sample("spillway_mirror_requests_total", pool="default/us-2") == 1)


async def test_the_line_of_a_request_that_was_sent_nowhere_tells_of_no_copy(guarded, dial, caplog) -> None:
    mirror = {"pool": {"name": "eu"}, "percent": 100}
    lb = await guarded(mirror=mirror, explain={"auditLogPercent": 100})
    client = await dial(lb)
    for headers in (PERSONAL, PUBLIC):
        assert (await client.chat(headers)).status == 200
    lb.balancer.serving.current.pools["default/eu"].endpoints["e1"].keyed = False  # its credential is missing
    assert (await client.chat(PERSONAL)).status == 503
    assert [(len(line["sentTo"]), line.get("mirroredTo")) for line in lines(caplog)] == [
        (1, "default/eu"),
        (1, "default/eu"),
        (0, None),
    ]


async def test_a_pool_that_stands_twice_in_a_tier_is_told_once(serve, endpoint, say, objects, dial, caplog) -> None:
    models = [{"name": "large"}, {"name": "small"}]
    pools = [{"name": "us", "model": "large"}, {"name": "us", "model": "small"}]
    lb = await serve(
        docs=[
            objects.pool("us", await endpoint(say.well()), models=models, **US),
            objects.route(tiers=[{"name": "cloud", "pools": pools}], guards=[GUARD]),
        ]
    )
    client = await dial(lb)
    reply = await client.chat(PERSONAL)
    assert reply.error["attempts"] == ["cloud default/us: not compliant"]
    assert lines(caplog)[0]["leftOut"] == [{"tier": "cloud", "pool": "default/us"}]


async def test_decisions_are_sampled_where_no_guard_holds(guarded, dial, caplog) -> None:
    lb = await guarded(explain={"auditLogPercent": 50})
    client = await dial(lb)
    for _ in range(100):
        assert (await client.chat(PUBLIC)).status == 200
    seen = lines(caplog)
    assert 25 <= len(seen) <= 75  # five standard deviations either way
    assert seen[0]["sentTo"] == [{"tier": "cloud", "pool": "default/us", "endpoint": "e1"}]
    assert "guards" not in seen[0]


@pytest.mark.parametrize(("percent", "expected"), [(0, 0), (100, 10)])
async def test_none_and_all_are_exact(guarded, dial, caplog, percent, expected) -> None:
    lb = await guarded(explain={"auditLogPercent": percent})
    client = await dial(lb)
    for _ in range(10):
        assert (await client.chat(PUBLIC)).status == 200
    assert len(lines(caplog)) == expected


async def test_a_request_waits_for_a_compliant_pool_and_goes_to_no_other_that_has_room(
    serve, endpoint, say, objects, dial, caplog
) -> None:
    free = asyncio.Event()

    async def behave(call: Any) -> None:
        await free.wait()
        call.write(say.completion("eu"))

    eu = objects.pool("eu", await endpoint(behave), capacity={"maxInFlightPerEndpoint": 1}, **EU)
    us = objects.pool("us", await endpoint(say.well("us")), **US)
    tiers = [{"name": "home", "pools": [{"name": "eu"}]}, {"name": "cloud", "pools": [{"name": "us"}]}]
    lb = await serve(docs=[eu, us, objects.route(tiers=tiers, guards=[GUARD])])
    clients = [await dial(lb) for _ in range(3)]
    asked = [asyncio.ensure_future(client.chat(PERSONAL)) for client in clients]
    await lb.until(lambda: lb.sample("spillway_queue_requests") == 2 or lb.balancer.proxy.in_flight == 3)
    assert (await (await dial(lb)).chat(PUBLIC)).text == "us"
    free.set()
    assert [(await each).text for each in asked] == ["eu"] * 3
    assert lb.sample("spillway_attempts_total", pool="default/us") == 1
    assert [line["status"] for line in lines(caplog)] == [200] * 3


async def test_a_guard_that_comes_while_a_request_waits_binds_it(serve, endpoint, say, objects, dial, caplog) -> None:
    free = asyncio.Event()

    async def behave(call: Any) -> None:
        await free.wait()
        call.write(say.completion("us"))

    us = objects.pool("us", await endpoint(behave), capacity={"maxInFlightPerEndpoint": 1}, **US)
    lb = await serve(docs=[us, objects.route("us")])
    first = asyncio.ensure_future((await dial(lb)).chat(PERSONAL))
    await lb.until(lambda: lb.in_flight == 1)
    second = asyncio.ensure_future((await dial(lb)).chat(PERSONAL))
    await lb.until(lambda: lb.balancer.proxy.in_flight == 2)
    before = lb.balancer.serving.current.digest
    lb.write(us, objects.route("us", guards=[GUARD]))
    await lb.until(lambda: lb.balancer.serving.current.digest != before)
    reply = await second
    assert (reply.status, reply.error["code"]) == (503, "no_compliant_target")
    (line,) = lines(caplog)
    assert (line["guards"], line["sentTo"], line["result"]) == (["eu-only"], [], "no_compliant_target")
    free.set()
    assert (await first).text == "us"
