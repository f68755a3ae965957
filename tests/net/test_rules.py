"""Rules over real sockets: which one decides, by header, body and bucket, and what is told of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from msgspec import structs

EXPLAIN = "x-spillway-explain"
MESSAGES = [{"role": "user", "content": "hello"}]


def rule(name: str, when: str | None = None) -> dict[str, Any]:
    """Leads to the pool of the same name."""
    made: dict[str, Any] = {"name": name, "tiers": [{"name": "only", "pools": [{"name": name}]}]}
    return made if when is None else {**made, "when": when}


@pytest.fixture
def ruled(serve, endpoint, say, objects):
    """`await ruled(rule, …)`: a balancer with these rules, each with a pool whose answer is the rule's name."""

    async def start(*rules: dict[str, Any], **pool: Any) -> Any:
        docs = [objects.pool(each["name"], await endpoint(say.well(each["name"])), **pool) for each in rules]
        return await serve(docs=[*docs, objects.route(rules=list(rules))])

    return start


async def answered(dial: Any, lb: Any, headers: Any = (), **fields: Any) -> str:
    client = await dial(lb)
    reply = await client.chat(headers, **fields)
    assert reply.status == 200, reply.body
    return str(reply.text)


async def test_a_header_chooses_the_rule_as_written(ruled, dial) -> None:
    lb = await ruled(rule("premium", 'headers["x-tier"] == "premium"'), rule("default"))
    assert await answered(dial, lb, [("X-Tier", "premium")]) == "premium"
    assert await answered(dial, lb, [("x-tier", "basic")]) == "default"
    assert await answered(dial, lb) == "default"
    assert lb.sample("spillway_rule_errors_total", rule="premium", reason="missing") == 1
    assert lb.sample("spillway_tier_requests_total", rule="premium", tier="only") == 1
    assert lb.sample("spillway_tier_requests_total", rule="default", tier="only") == 2


async def test_tokens_used_of_a_caller_without_a_limit_is_0(ruled, dial) -> None:
    lb = await ruled(rule("near-limit", "tokens_used > 75"), rule("below", "tokens_used <= 75"), rule("default"))
    assert await answered(dial, lb) == "below"
    assert lb.sample("spillway_rule_errors_total", rule="near-limit", reason="error") == 0


async def test_the_first_rule_that_holds_wins(ruled, dial) -> None:
    lb = await ruled(rule("never", "false"), rule("large", "tokens.input > 100"), rule("any", "true"), rule("default"))
    assert await answered(dial, lb) == "any"
    assert await answered(dial, lb, messages=[{"role": "user", "content": "word " * 200}]) == "large"


async def test_four_fifths_of_the_sessions_go_one_way_and_stay(ruled, dial) -> None:
    lb = await ruled(
        rule("control", "bucket < 80"), rule("canary"), dispatch={"key": [{"type": "Header", "name": "x-session-id"}]}
    )
    client = await dial(lb)
    sides: dict[int, set[str]] = {}
    for session in [*range(400)] * 2:
        reply = await client.chat([("x-session-id", f"user-{session}")])
        sides.setdefault(session, set()).add(reply.text)
    assert all(len(seen) == 1 for seen in sides.values())
    split = Counter(side for seen in sides.values() for side in seen)
    assert 280 <= split["control"] <= 360  # 320, five standard deviations either way


async def test_requests_without_a_session_are_split_as_well(ruled, dial) -> None:
    lb = await ruled(
        rule("control", "bucket < 80"), rule("canary"), dispatch={"key": [{"type": "Header", "name": "x-session-id"}]}
    )
    client = await dial(lb)
    split = Counter([(await client.chat()).text for _ in range(200)])
    assert 130 <= split["control"] <= 190


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
TOOL = [{"type": "function", "function": {"name": "f"}}]
BODIES = [
    ("request.stream", {"stream": True}, {}),
    ("request.tools", {"tools": TOOL}, {"tools": []}),
    ("request.images", {"messages": IMAGE}, {"messages": [{"role": "user", "content": '"image_url"'}]}),
    ("request.json", {"response_format": {"type": "json_object"}}, {"response_format": {"type": "text"}}),
    ("request.max_tokens > 100", {"max_tokens": 101}, {"max_tokens": 100}),
    ("request.max_tokens == 0", {}, {"max_completion_tokens": 7}),
    ("request.max_tokens > 1000000", {"max_tokens": 10**30}, {"max_tokens": -(10**30)}),
    ('request.user == "ann"', {"user": "ann"}, {"user": "bob"}),
    ("tokens.total >= 1000", {"max_tokens": 1000}, {"max_tokens": 10}),
    ('path == "/v1/chat/completions" && model == "chat" && now > timestamp("2020-01-01T00:00:00Z")', {}, None),
    ('pools["default"].ready == 1 && pools["default"].saturation < 0.5', {}, None),
    ('consumer.name == "" && size(consumer.labels) == 0', {}, None),
    ('headers["x-many"] == "a, b"', {}, None),
]


@pytest.mark.parametrize(("when", "yes", "no"), BODIES, ids=[when for when, _, _ in BODIES])
async def test_what_a_body_says_can_be_asked(ruled, dial, when, yes, no) -> None:
    lb = await ruled(rule("asked", when), rule("default"))
    headers = [("x-many", "a"), ("x-many", "b"), ("x-odd", "\xff")]
    assert await answered(dial, lb, headers, **yes) == "asked"
    if no is not None:
        assert await answered(dial, lb, headers, **no) == "default"


async def test_a_request_that_no_rule_is_for_is_told_so(ruled, dial, say) -> None:
    lb = await ruled(rule("premium", 'headers["x-tier"] == "premium"'))
    client = await dial(lb)
    reply = await client.chat([("x-tier", say.KEY)])
    assert (reply.status, reply.error["code"]) == (404, "no_rule")
    assert await answered(dial, lb, [("x-tier", "premium")]) == "premium"


async def test_an_error_of_an_expression_tells_nobody_what_was_asked(ruled, dial, say, caplog) -> None:
    caplog.set_level("DEBUG")
    lb = await ruled(rule("odd", "int(request.user) > 3 || pools[request.user].ready > 0"), rule("default"))
    client = await dial(lb)
    reply = await client.chat(user=say.KEY)
    assert (reply.status, reply.text) == (200, "default")
    page = (await client.get("/metrics")).body.decode()
    assert say.KEY not in page
    assert say.KEY not in caplog.text
    errors = [line for line in page.splitlines() if line.startswith("spillway_rule_errors_total{")]
    assert len(errors) == 1
    assert 'rule="odd"' in errors[0]


async def test_the_caller_can_ask_which_rule_it_was(ruled, dial) -> None:
    lb = await ruled(rule("premium", 'headers["x-tier"] == "premium"'), rule("default"))
    client = await dial(lb)
    for tier, name in (("premium", "premium"), ("none", "default")):
        reply = await client.chat([("x-tier", tier), (EXPLAIN, "1")])
        assert (reply.header(EXPLAIN) or "").startswith(f"rule={name}; tier=only; ")


async def test_a_changed_expression_comes_into_force(ruled, dial) -> None:
    lb = await ruled(rule("first", "tokens.input > 100000"), rule("default"))
    assert await answered(dial, lb) == "default"
    before = lb.balancer.serving.current.digest
    lb.write(lb.file.read_text().replace("100000", "0"))
    await lb.until(lambda: lb.balancer.serving.current.digest != before)
    assert await answered(dial, lb) == "first"


async def test_a_rule_without_any_pool_gives_503_and_never_another_rules_pool(ruled, dial) -> None:
    lb = await ruled(rule("premium", 'headers["x-tier"] == "premium"'), rule("default"))
    now = lb.balancer.serving.current.spec
    (route,) = now.routes
    emptied = structs.replace(route, rules=(structs.replace(route.rules[0], tiers=()), route.rules[1]))
    lb.balancer.serving.swap(structs.replace(now, routes=(emptied,)))
    client = await dial(lb)
    reply = await client.chat([("x-tier", "premium")])
    assert (reply.status, reply.error["code"]) == (503, "no_ready_endpoint")
    assert await answered(dial, lb) == "default"
