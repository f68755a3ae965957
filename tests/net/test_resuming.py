"""Streams that an engine cuts and another one goes on with: the client sees one answer, or is told that it was cut."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

import pytest
from tests.conftest import Say as say  # by its full name, as pytest has imported it

from spillway_balancer.engine.faults import parse

RESUME: dict[str, Any] = {"streams": {"resume": "SameModel"}}
POOL: dict[str, Any] = {"engine": "vLLM"}
BODY = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": say.PROMPT + " tell me a story"}]}
OTHER_ID = b'"id": "c2"'


def chunks_of(reply: Any) -> list[dict[str, Any]]:
    return [json.loads(event) for event in reply.events if event != "[DONE]"]


async def story(dial: Any, lb: Any, **fields: Any) -> Any:
    return await (await dial(lb)).post("/v1/chat/completions", {**BODY, **fields})


HOW = [
    {"kind": "reset", "stage": "mid-stream", "chunks": 7},
    {"kind": "cut", "chunks": 7, "how": "close"},
    {"kind": "cut", "chunks": 7, "how": "mid-event"},
    {"kind": "cut", "chunks": 7, "how": "no-done"},
    {"kind": "stall", "stage": "mid-stream", "chunks": 7},
]


@pytest.mark.parametrize("fields", [{}, {"max_tokens": 40}, {"stream_options": {"include_usage": True}}])
@pytest.mark.parametrize("fault", HOW, ids=lambda fault: fault.get("how", fault["kind"]))
async def test_an_engine_that_breaks_in_the_middle_is_not_seen_in_the_text(serve, engine, dial, fault, fields) -> None:
    calm = await serve(await engine(), pool=POOL)
    uncut = await story(dial, calm, **fields)
    broken = [await engine(faults=parse(json.dumps(fault))) for _ in range(2)]
    lb = await serve(
        *broken,
        await engine(),
        pool={**POOL, "dispatch": {"strategy": "RoundRobin"}},
        route={**RESUME, "timeouts": {"streamIdle": "500ms"}},
    )
    reply = await story(dial, lb, **fields)
    assert (reply.status, reply.whole, reply.events[-1]) == (200, True, "[DONE]")
    assert lb.sample("spillway_attempts_total", reason="interrupted") >= 1
    assert reply.text == uncut.text
    seen = chunks_of(reply)
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in seen} == {
        (seen[0]["id"], seen[0]["created"], seen[0]["model"])
    }
    assert [chunk["choices"][0]["finish_reason"] for chunk in seen[-1:]] == [
        chunk["choices"][0]["finish_reason"] for chunk in chunks_of(uncut) if chunk["choices"]
    ][-1:]
    assert sum("role" in chunk["choices"][0]["delta"] for chunk in seen) == 1
    await lb.until(lambda: lb.sample("spillway_resumed_streams_total", result="ok", pool="default/local") == 1)
    assert lb.sample("spillway_requests_total", code="200") == 1
    assert lb.in_flight == 0


async def test_an_engine_that_is_killed_is_not_seen_in_the_text(serve, engine, dial) -> None:
    calm = await serve(await engine(), pool=POOL)
    uncut = await story(dial, calm, max_tokens=200)
    engines = [await engine(speed=3.0) for _ in range(2)]
    lb = await serve(*engines, pool=POOL, route=RESUME)
    client = await dial(lb)
    asking = asyncio.create_task(client.post("/v1/chat/completions", {**BODY, "max_tokens": 200}))
    await lb.until(lambda: lb.sample("spillway_endpoint_time_to_first_byte_seconds_count") == 1)
    (busy,) = [each for each in engines if each.engine.in_flight]
    await busy.stop()
    reply = await asking
    assert (reply.text, reply.events[-1]) == (uncut.text, "[DONE]")
    await lb.until(lambda: lb.sample("spillway_resumed_streams_total", result="ok") == 1)


@pytest.fixture
def pair(serve, endpoint):
    """A balancer before scripted endpoints that share a plan."""

    async def build(*plan: Any, count: int = 2, pool: Any = POOL, **route: Any) -> Any:
        engines = [await endpoint() for _ in range(count)]
        shared = deque(plan)
        for each in engines:
            each.plan = shared
        lb = await serve(*engines, pool=pool, route={**RESUME, "timeouts": {"streamIdle": "500ms"}, **route})
        return lb, [call for each in engines for call in [each.calls]]

    return build


BEGUN = say.SSE + say.chunks(say.role(), say.word("It "), say.word("was "))
REST = [
    say.delta(role="assistant", content="").replace(b'"id": "c1"', OTHER_ID),
    say.word(" a").replace(b'"id": "c1"', OTHER_ID),
    say.word(" cat").replace(b'"id": "c1"', OTHER_ID),
    say.delta("stop").replace(b'"id": "c1"', OTHER_ID),
    say.DONE,
]
ENDS = say.steps(say.SSE + say.chunks(*REST) + say.END)


async def test_what_is_asked_of_the_second_and_what_the_client_gets(pair, dial) -> None:
    lb, calls = await pair(say.steps(BEGUN, say.RESET), ENDS)
    client = await dial(lb)
    reply = await client.chat([("x-spillway-explain", "1")], stream=True, max_tokens=50)
    assert (reply.text, reply.events[-1]) == ("It was a cat", "[DONE]")
    assert {chunk["id"] for chunk in chunks_of(reply)} == {"c1"}
    assert b": x-spillway-attempts: 2" in reply.body
    asked = [call.json() for each in calls for call in each]
    first, second = sorted(asked, key=lambda body: "continue_final_message" in body)
    assert second["messages"] == [*first["messages"], {"role": "assistant", "content": "It was"}]
    assert (second["continue_final_message"], second["add_generation_prompt"]) == (True, False)
    assert (first["max_tokens"], second["max_tokens"] < 50) == (50, True)
    assert (await client.chat(stream=True)).text == "hello", "the client's connection goes on"


async def test_a_second_cut_is_gone_on_with_too_as_far_as_attempts_go(pair, dial) -> None:
    more = say.steps(say.SSE + say.chunks(*REST[:2]), say.PAUSE, say.RESET)
    lb, _ = await pair(say.steps(BEGUN, say.RESET), more, ENDS, count=3)
    reply = await (await dial(lb)).chat(stream=True)
    assert (reply.text, reply.events[-1]) == ("It was a a cat", "[DONE]")
    lb, calls = await pair(say.steps(BEGUN, say.RESET), more, ENDS, count=3, retry={"attempts": 2})
    reply = await (await dial(lb)).chat(stream=True)
    assert reply.error["code"] == "stream_interrupted"
    assert sum(map(len, calls)) == 2
    await lb.until(lambda: lb.sample("spillway_requests_total", code="502") == 1)
    assert lb.sample("spillway_resumed_streams_total", result="failed") == 1


async def test_one_that_does_not_answer_is_passed_over(pair, dial) -> None:
    lb, _ = await pair(say.steps(BEGUN, say.RESET), say.steps(say.error(500)), ENDS, count=3)
    assert (await (await dial(lb)).chat(stream=True)).text == "It was a cat"


async def test_with_nobody_left_the_cut_is_said(pair, dial) -> None:
    lb, _ = await pair(say.steps(BEGUN, say.RESET), count=1)
    client = await dial(lb)
    reply = await client.chat(stream=True)
    assert (reply.whole, reply.error["code"]) == (True, "stream_interrupted")
    await lb.until(lambda: lb.sample("spillway_requests_total", code="502") == 1)


TOOL = {"tools": [{"type": "function", "function": {"name": "f"}}]}


@pytest.mark.parametrize(
    ("pool", "route", "fields"),
    [
        (POOL, {"streams": {"keepAlive": "10s"}}, {}),
        ({"metrics": {"mode": "None"}}, {}, {}),
        ({"engine": "Generic"}, {}, {}),
        (POOL, {}, TOOL),
        (POOL, {}, {"n": 2}),
        (POOL, {}, {"response_format": {"type": "json_object"}}),
    ],
    ids=["not asked for", "an engine that nobody knows", "another engine", "tools", "two choices", "a grammar"],
)
async def test_where_it_would_not_be_exact_a_cut_is_a_cut(pair, dial, pool, route, fields) -> None:
    lb, calls = await pair(say.steps(BEGUN, say.RESET), ENDS, pool=pool, **route)
    reply = await (await dial(lb)).chat(stream=True, **fields)
    assert reply.error["code"] == "stream_interrupted"
    assert sum(map(len, calls)) == 1


@pytest.mark.parametrize(
    "event", [say.delta(reasoning_content="hm"), say.delta("stop"), say.event({"error": {"message": "no"}})]
)
async def test_a_stream_that_had_more_than_text_is_not_gone_on_with(pair, dial, event) -> None:
    lb, calls = await pair(say.steps(BEGUN, say.PAUSE, say.chunk(event), say.RESET), ENDS)
    reply = await (await dial(lb)).chat(stream=True)
    assert reply.events[-1] != "[DONE]"
    assert sum(map(len, calls)) == 1


async def test_a_client_that_leaves_between_the_parts_ends_it(pair, dial) -> None:
    lb, calls = await pair(say.steps(BEGUN, say.RESET), say.steps(say.HANG))
    client = await dial(lb)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    await lb.until(lambda: sum(map(len, calls)) == 2)
    client.reset()
    await lb.until(lambda: lb.sample("spillway_requests_total", code="499") == 1)
    await lb.until(lambda: lb.in_flight == 0)


async def test_the_winner_of_a_race_is_gone_on_with(serve, endpoint, objects, dial) -> None:
    engines = [await endpoint() for _ in range(3)]
    shared = deque([say.steps(say.HANG), say.steps(BEGUN, say.RESET), ENDS])
    for each in engines:
        each.plan = shared
    tier = {"name": "only", "pools": [{"name": "local"}], "hedge": {"after": "100ms", "maxPercent": 100}}
    route = objects.route(tiers=[tier], **RESUME, retry={"attempts": 4})
    lb = await serve(docs=[objects.pool("local", *engines, **POOL), route])
    assert (await (await dial(lb)).chat(stream=True)).text == "It was a cat"


async def test_what_is_set_aside_for_limits_is_settled_for_every_attempt_of_a_race_and_of_a_rest(
    serve, endpoint, objects, dial
) -> None:
    engines = [await endpoint() for _ in range(4)]
    for each in engines:
        each.plan = engines[0].plan
    plan = engines[0].plan
    limits = {"requestsPerMinute": 100, "tokensPerMinute": 100000, "budget": {"amount": "50.00"}}
    hedge = {"after": "100ms", "maxPercent": 100}
    tier = {"name": "only", "pools": [{"name": "local"}], "hedge": hedge, "limits": limits}
    models = [{"name": "m", "price": {"input": "10.00", "output": "40.00"}}]
    pool = objects.pool("local", *engines, models=models, **POOL)
    lb = await serve(docs=[pool, objects.route(tiers=[tier], **RESUME, retry={"attempts": 6})])
    client = await dial(lb)
    for steps in (
        [say.steps(say.HANG), say.steps(BEGUN, say.RESET), ENDS],
        [say.steps(BEGUN, say.RESET), say.steps(say.error(500)), ENDS],
        [say.steps(say.HANG), say.steps(say.error(500))],
    ):
        plan.extend(steps)
        asking = asyncio.create_task(client.chat(stream=True))
        if len(steps) == 2:
            await lb.until(lambda: lb.sample("spillway_hedges_total") >= 1 and not plan)
            client.reset()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        else:
            assert (await asking).text == "It was a cat"
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    (limited,) = [each.limits for each in lb.balancer.serving.current.routes.all[0].rules[0]]
    assert limited.money.reserved == 0
    assert limited.money.spent > 0


async def test_an_engine_that_is_known_by_its_metrics_is_gone_on_with(serve, engine, dial) -> None:
    broken = [await engine(faults=parse(json.dumps(HOW[1]))) for _ in range(2)]
    pool = {"dispatch": {"strategy": "RoundRobin"}, "metrics": {"mode": "Auto", "interval": "100ms"}}
    lb = await serve(*broken, await engine(), pool=pool, route={**RESUME, "retry": {"attempts": 4}})
    await lb.until(lambda: all(lb.endpoint(name).dialect == "vLLM" for name in ("e1", "e2", "e3")))
    for _ in range(3):  # whoever is first in the round
        assert (await story(dial, lb)).events[-1] == "[DONE]"
    assert lb.sample("spillway_attempts_total", reason="interrupted") >= 1
    await lb.until(lambda: lb.sample("spillway_resumed_streams_total", result="ok") >= 1)
