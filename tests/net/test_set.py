"""A rule's clamps over real sockets: what the endpoint gets, whichever it is, and what the balancer reckons with."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.fixture
def clamping(serve, endpoint, say, objects):
    """`lb, heard = await clamping(set)`: a rule with `set` for premium callers, and one without."""

    async def start(clamp: dict[str, Any]) -> Any:
        heard: list[Any] = []

        async def fail(call: Any) -> None:
            heard.append(call.json())
            call.write(say.error(503))

        async def behave(call: Any) -> None:
            heard.append(call.json())
            call.write(say.completion())

        tiers = [{"name": "a", "pools": [{"name": "a"}]}, {"name": "b", "pools": [{"name": "b"}]}]
        docs = [
            objects.pool("a", await endpoint(fail)),
            objects.pool("b", await endpoint(behave)),
            objects.route(tiers=tiers),
        ]
        free, bound = {"name": "free", "tiers": tiers}, {"name": "bound", "tiers": tiers, "set": clamp}
        docs[-1]["spec"]["rules"] = [{**bound, "when": 'headers["x-tier"] == "basic"'}, free]
        return await serve(docs=docs), heard

    return start


BASIC = [("x-tier", "basic")]


async def test_every_attempt_gets_the_lowered_request_and_others_their_own(clamping, dial) -> None:
    lb, heard = await clamping({"maxOutputTokens": 50, "reasoningEffort": "low"})
    client = await dial(lb)
    asked = {"max_tokens": 4000, "reasoning_effort": "high", "temperature": 0.5}
    assert (await client.chat(BASIC, **asked)).status == 200
    assert len(heard) == 2
    for body in heard:
        assert (body["max_tokens"], body["reasoning_effort"], body["temperature"]) == (50, "low", 0.5)
    heard.clear()
    assert (await client.chat(**asked)).status == 200
    assert [(body["max_tokens"], body["reasoning_effort"]) for body in heard] == [(4000, "high")] * len(heard)


async def test_a_request_without_limits_gets_them(clamping, dial) -> None:
    lb, heard = await clamping({"maxOutputTokens": 50, "reasoningEffort": "none"})
    client = await dial(lb)
    assert (await client.chat(BASIC)).status == 200
    assert heard[-1]["max_tokens"] == 50
    assert heard[-1]["reasoning_effort"] == "none"


async def test_what_two_could_read_differently_is_refused_before_anything_is_sent(clamping, dial) -> None:
    lb, heard = await clamping({"reasoningEffort": "low"})
    client = await dial(lb)
    body = json.dumps({"model": "chat", "messages": [], "reasoning": {"effort": "low"}})
    twice = body.replace('"effort": "low"', '"effort": "low", "effort": "high"')
    reply = await client.post("/v1/chat/completions", twice.encode(), [("content-type", "application/json"), *BASIC])
    assert (reply.status, reply.error["code"]) == (400, "ambiguous_key")
    assert heard == []


async def test_an_engine_stops_at_the_clamp(serve, engine, objects, dial) -> None:
    docs = [objects.pool("local", await engine()), objects.route("local")]
    docs[-1]["spec"]["rules"][0]["set"] = {"maxOutputTokens": 3}
    client = await dial(await serve(docs=docs))
    for path, body in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/completions", {"prompt": "hi", "max_tokens": 500}),
    ):
        reply = await client.post(path, {"model": "chat", **body})
        assert reply.status == 200, reply.body
        assert reply.json()["usage"]["completion_tokens"] <= 3
