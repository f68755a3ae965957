"""Requests that no tier is open to wait: for whom, in which order, for how long, and what the client is told."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from tests.conftest import Say as say

ONE = {"capacity": {"maxInFlightPerEndpoint": 1}}


class Gate:
    """An endpoint that answers a request when it is let go, in the order in which they came."""

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = endpoint
        self._may = asyncio.Semaphore(0)

    @classmethod
    async def behind(cls, endpoint: Any) -> Gate:
        gate = cls(await endpoint())
        gate.endpoint.then = gate._answer
        return gate

    async def _answer(self, call: Any) -> None:
        await self._may.acquire()
        await say.well()(call)

    def let(self, requests: int = 1) -> None:
        for _ in range(requests):
            self._may.release()

    @property
    def url(self) -> str:
        return str(self.endpoint.url)

    @property
    def seen(self) -> list[str]:
        """Who has been served, by the field `user`."""
        return [json.loads(call.body)["user"] for call in self.endpoint.calls]


@pytest.fixture
async def gate(endpoint: Any) -> Gate:
    return await Gate.behind(endpoint)


@pytest.fixture
async def ask(dial: Any) -> Any:
    """`ask(lb, "a1")`: a task that asks as this user; it waits in line when it comes back, unless `waits` is False."""
    tasks: list[asyncio.Task[Any]] = []

    async def start(lb: Any, user: str, *headers: tuple[str, str], waits: bool = True, **fields: Any) -> Any:
        before = lb.sample("spillway_queue_requests")
        client = await dial(lb)
        tasks.append(asyncio.create_task(client.chat(headers, user=user, **fields)))
        tasks[-1].client = client  # type: ignore[attr-defined]
        if waits:
            await lb.until(lambda: lb.sample("spillway_queue_requests") == before + 1 or tasks[-1].done())
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()


def key(caller: str) -> tuple[str, str]:
    return "authorization", f"Bearer {caller}"


async def first(lb: Any, gate: Gate, ask: Any, *headers: tuple[str, str]) -> Any:
    """The one that takes the only room there is."""
    task = await ask(lb, "first", *headers, waits=False)
    await gate.endpoint.call()
    return task


async def test_a_burst_over_capacity_is_served_whole_in_the_order_it_came(serve, gate, ask) -> None:
    lb = await serve(gate, pool=ONE)
    tasks = [await first(lb, gate, ask)]
    tasks += [await ask(lb, f"r{number}") for number in range(8)]
    assert lb.sample("spillway_queue_bytes") > 8 * len(say.PROMPT)
    gate.let(9)
    replies = await asyncio.gather(*tasks)
    assert [reply.status for reply in replies] == [200] * 9
    assert gate.seen == ["first", *(f"r{number}" for number in range(8))]
    assert lb.sample("spillway_queue_requests") == lb.sample("spillway_queue_bytes") == 0
    assert lb.sample("spillway_queue_wait_seconds_count", route="default/chat", rule="all") == 8
    assert lb.sample("spillway_queue_rejects_total") == 0


async def test_no_endpoint_ever_holds_more_than_its_bound(serve, engine, ask) -> None:
    engines = [await engine(), await engine()]
    lb = await serve(*engines, pool={"capacity": {"maxInFlightPerEndpoint": 2}})
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, *(each.load.in_flight for each in lb.known))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    tasks = [await ask(lb, f"r{number}", waits=False, max_tokens=8) for number in range(40)]
    replies = await asyncio.gather(*tasks)
    watching.cancel()
    assert {reply.status for reply in replies} == {200}
    assert most == 2


async def test_callers_take_turns_so_that_one_with_many_does_not_keep_another_waiting(serve, gate, ask) -> None:
    lb = await serve(gate, pool=ONE)
    tasks = [await first(lb, gate, ask, key("many"))]
    tasks += [await ask(lb, f"many{number}", key("many")) for number in range(20)]
    tasks += [await ask(lb, "one", key("one"))]
    gate.let(len(tasks))
    assert {reply.status for reply in await asyncio.gather(*tasks)} == {200}
    assert gate.seen.index("one") == 2
    assert [user for user in gate.seen if user.startswith("many")] == [f"many{number}" for number in range(20)]


@pytest.mark.parametrize(("fairness", "place"), [("None", 5), ("Session", 2)])
async def test_whom_turns_are_taken_between_is_for_the_policy_to_say(serve, gate, ask, fairness, place) -> None:
    lb = await serve(gate, pool=ONE, route={"queue": {"fairness": fairness}})
    tasks = [await first(lb, gate, ask)]
    tasks += [await ask(lb, f"many{number}", ("x-session-id", "many")) for number in range(4)]
    tasks += [await ask(lb, "one", ("x-session-id", "one"))]
    gate.let(len(tasks))
    await asyncio.gather(*tasks)
    assert gate.seen.index("one") == place


async def test_a_header_lowers_the_priority_and_does_not_raise_it(serve, gate, ask) -> None:
    lb = await serve(gate, pool=ONE, route={"priority": {"default": 5, "header": "x-priority"}})
    tasks = [await first(lb, gate, ask)]
    for user, priority in (("low", "1"), ("usual", "5"), ("lowest", "-4000"), ("raised", "99"), ("odd", "1e9")):
        tasks.append(await ask(lb, user, key(user), ("x-priority", priority)))
    tasks.append(await ask(lb, "silent", key("silent")))
    gate.let(len(tasks))
    await asyncio.gather(*tasks)
    assert gate.seen == ["first", "usual", "raised", "odd", "silent", "low", "lowest"]


async def test_one_that_leaves_frees_its_place_at_once(serve, gate, ask) -> None:
    lb = await serve(gate, pool=ONE, route={"queue": {"maxRequests": 2}})
    tasks = [await first(lb, gate, ask), await ask(lb, "stays"), await ask(lb, "leaves")]
    assert (await (await ask(lb, "refused"))).status == 503
    tasks.pop().client.close()
    await lb.until(lambda: lb.sample("spillway_queue_requests") == 1)
    tasks.append(await ask(lb, "comes"))
    gate.let(3)
    assert [reply.status for reply in await asyncio.gather(*tasks)] == [200] * 3
    assert gate.seen == ["first", "stays", "comes"]


async def test_a_full_queue_answers_at_once_and_says_when_to_come_again(serve, gate, ask) -> None:
    lb = await serve(gate, pool=ONE, route={"queue": {"maxRequests": 2}})
    tasks = [await first(lb, gate, ask)]
    tasks += [await ask(lb, f"r{number}") for number in range(2)]
    for number in range(2, 8):  # it moves by one every 50 ms
        await asyncio.sleep(0.05)
        gate.let()
        await lb.until(lambda: lb.sample("spillway_queue_requests") == 1)
        tasks.append(await ask(lb, f"r{number}"))
    refused = await (await ask(lb, "refused"))
    assert (refused.status, refused.error["code"], refused.error["type"]) == (503, "queue_full", "overloaded_error")
    assert 0.05 < int(refused.header("retry-after-ms")) / 1000 < 0.6  # three places at some 50 ms
    assert lb.sample("spillway_queue_rejects_total", route="default/chat", rule="all", reason="requests") == 1
    gate.let(10)
    assert {reply.status for reply in await asyncio.gather(*tasks)} == {200}


async def test_the_bytes_of_those_that_wait_are_bounded(serve, gate, ask) -> None:
    lb = await serve(gate, pool=ONE, route={"queue": {"maxBytes": 3000}})
    tasks = [await first(lb, gate, ask), await ask(lb, "a", padding="x" * 2000)]
    refused = await (await ask(lb, "b", padding="x" * 2000))
    assert (refused.status, refused.error["code"]) == (503, "queue_full")
    assert lb.sample("spillway_queue_rejects_total", reason="bytes") == 1
    tasks.append(await ask(lb, "c"))
    gate.let(3)
    assert {reply.status for reply in await asyncio.gather(*tasks)} == {200}


async def test_who_has_waited_as_long_as_the_policy_lets_is_told_so(serve, gate, ask) -> None:
    lb = await serve(gate, pool=ONE, route={"queue": {"maxWait": "200ms"}})
    task = await first(lb, gate, ask)
    began = time.monotonic()
    late = await (await ask(lb, "late"))
    assert 0.2 <= time.monotonic() - began < 2.0
    assert (late.status, late.error["code"]) == (503, "queue_timeout")
    assert 1 <= int(late.header("retry-after-ms")) <= 400
    assert lb.sample("spillway_queue_rejects_total", reason="timeout") == 1
    gate.let()
    assert (await task).status == 200
    assert gate.seen == ["first"]


async def test_the_total_time_of_a_request_rules_over_its_wait(serve, gate, ask) -> None:
    timeouts = {"total": "200ms", "firstByte": "200ms", "connect": "200ms"}
    lb = await serve(gate, pool=ONE, docs=None, route={"timeouts": timeouts})
    task = await first(lb, gate, ask)
    late = await (await ask(lb, "late"))
    assert (late.status, late.error["code"]) == (504, "deadline_exceeded")
    gate.let()
    await task


async def test_without_a_queue_it_fails_at_once(serve, gate, ask) -> None:
    lb = await serve(gate, pool=ONE, route={"queue": {"maxRequests": 0}})
    task = await first(lb, gate, ask)
    refused = await (await ask(lb, "refused"))
    assert (refused.status, refused.error["code"]) == (503, "no_ready_endpoint")
    gate.let()
    assert (await task).status == 200


async def test_an_endpoint_that_comes_with_a_new_configuration_is_for_those_that_wait(
    serve, gate, endpoint, objects, ask
) -> None:
    lb = await serve(gate, pool=ONE)
    tasks = [await first(lb, gate, ask), await ask(lb, "waits")]
    other = await Gate.behind(endpoint)
    other.let()
    lb.write(objects.pool("local", gate, other, **ONE), objects.route("local"))
    assert (await tasks[1]).status == 200
    assert other.seen == ["waits"]
    gate.let()
    assert (await tasks[0]).status == 200


async def test_who_waits_for_a_model_that_is_gone_is_told_so(serve, gate, objects, ask) -> None:
    lb = await serve(gate, pool=ONE)
    tasks = [await first(lb, gate, ask), await ask(lb, "a"), await ask(lb, "b")]
    lb.write(objects.pool("local", gate, **ONE), objects.route("local", models=["another"]))
    assert [(await task).error["code"] for task in tasks[1:]] == ["model_not_found"] * 2
    gate.let()
    assert (await tasks[0]).status == 200


async def test_who_waits_goes_to_the_rule_that_is_now_for_it(serve, gate, endpoint, objects, ask) -> None:
    lb = await serve(gate, pool=ONE)
    tasks = [await first(lb, gate, ask), await ask(lb, "a"), await ask(lb, "b")]
    other = await Gate.behind(endpoint)
    other.let(2)
    route = objects.route("other")
    route["spec"]["rules"][0]["name"] = "new"
    lb.write(objects.pool("other", other, **ONE), route)
    assert [(await task).status for task in tasks[1:]] == [200, 200]
    assert sorted(other.seen) == ["a", "b"]
    gate.let()
    assert (await tasks[0]).status == 200
    route["spec"]["rules"][0]["name"] = "third"
    lb.write(objects.pool("other", other, **ONE), route)
    await lb.until(lambda: not lb.balancer.proxy.queue._lines)


async def test_an_account_at_its_limit_is_waited_for_when_it_is_back_soon(serve, endpoint, dial) -> None:
    one = await endpoint()
    one.plan.append(say.steps(say.error(429, **{"retry-after-ms": "400"})))
    lb = await serve(one, route={"retry": {"maxRetryAfter": "0s"}})
    limited = await (await dial(lb)).chat()
    assert (limited.status, limited.error["code"]) == (429, "rate_limited")
    began = time.monotonic()
    reply = await (await dial(lb)).chat()
    assert reply.status == 200
    assert 0.2 < time.monotonic() - began < 3.0
    assert len(one.calls) == 2


async def test_one_that_is_back_only_after_the_longest_wait_is_not_waited_for(serve, endpoint, dial) -> None:
    one = await endpoint(say.steps(say.error(429, **{"retry-after": "40"})))
    lb = await serve(one)
    await (await dial(lb)).chat()
    began = time.monotonic()
    reply = await (await dial(lb)).chat()
    assert (reply.status, reply.header("retry-after")) == (429, "40")
    assert time.monotonic() - began < 1.0
    assert lb.sample("spillway_queue_wait_seconds_count") == 0


async def test_the_drain_answers_those_that_wait(serve, gate, ask) -> None:
    lb = await serve(gate, pool=ONE, drain_seconds=1.5, linger_seconds=0.0)
    tasks = [await first(lb, gate, ask), await ask(lb, "a"), await ask(lb, "b")]
    drain = asyncio.create_task(lb.balancer.drain())
    gate.let()
    assert (await tasks[0]).status == 200
    told = await tasks[2]
    assert (told.status, told.error["code"]) == (503, "draining")
    gate.let()
    assert (await tasks[1]).status == 200
    assert await drain


async def test_a_room_beside_one_that_is_full_is_not_given_to_an_ejected_endpoint(serve, gate, refusing, ask) -> None:
    """Where all are out, one that is ejected is better than nothing; where another is only full, it is not."""
    health = {"passive": {"consecutiveFailures": 1, "baseEjection": "1m"}, "active": {"mode": "None"}}
    lb = await serve(gate, refusing, pool={**ONE, "health": health, "dispatch": {"strategy": "RoundRobin"}})
    tasks = [await first(lb, gate, ask)]
    tasks += [await ask(lb, "a"), await ask(lb, "b")]
    gate.let(3)
    assert {reply.status for reply in await asyncio.gather(*tasks)} == {200}
    assert lb.sample("spillway_attempts_total", reason="connect") <= 1


COMMENTS = ("x-spillway-queue", "comments")


async def test_a_stream_is_told_its_place_in_comments_when_it_asks(serve, gate, ask, dial) -> None:
    lb = await serve(gate, pool=ONE)
    tasks = [await first(lb, gate, ask), await ask(lb, "ahead")]
    client = await dial(lb)
    body = client.chat_body(user="told", stream=True)
    await client.send(client.request("/v1/chat/completions", body, [COMMENTS]))
    head = await client.head()
    assert (head.status, head.header("content-type")) == (200, "text/event-stream; charset=utf-8")
    comment = await client.chunk()
    assert comment.startswith(b": spillway-queue position=2 expected_wait=")
    assert comment.endswith(b"\n\n")
    gate.let(3)
    assert [(await task).status for task in tasks] == [200, 200]
    reply = await client.rest(head)
    assert reply.whole
    assert reply.text == "hello"


async def test_who_was_told_its_place_gets_errors_as_events(serve, gate, ask, dial) -> None:
    lb = await serve(gate, pool=ONE, route={"queue": {"maxWait": "100ms"}})
    task = await first(lb, gate, ask)
    client = await dial(lb)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True, user="u"), [COMMENTS]))
    head = await client.head()
    assert head.status == 200
    await client.chunk()
    reply = await client.rest(head)
    assert (reply.whole, reply.error["code"]) == (True, "queue_timeout")
    assert lb.sample("spillway_requests_total", code="503") == 1
    gate.let()
    await task


@pytest.mark.parametrize(("headers", "stream"), [([COMMENTS], False), ([], True)])
async def test_nobody_else_is_told_anything_before_the_answer(serve, gate, ask, headers, stream) -> None:
    lb = await serve(gate, pool=ONE, route={"queue": {"maxWait": "100ms"}})
    task = await first(lb, gate, ask)
    assert (await (await ask(lb, "late", *headers, stream=stream))).status == 503
    gate.let()
    await task


async def test_a_full_queue_is_an_http_status_also_for_who_asks_for_comments(serve, gate, ask) -> None:
    lb = await serve(gate, pool=ONE, route={"queue": {"maxRequests": 1}})
    tasks = [await first(lb, gate, ask), await ask(lb, "a")]
    assert (await (await ask(lb, "b", COMMENTS, stream=True))).status == 503
    gate.let(2)
    await asyncio.gather(*tasks)


async def test_one_that_needs_what_is_closed_does_not_keep_back_one_that_does_not(
    serve, gate, endpoint, objects, ask
) -> None:
    other = await Gate.behind(endpoint)
    able, plain = ([{"name": "demo", "capabilities": each}] for each in (["Chat", "Tools"], ["Chat"]))
    tiers = [{"name": "both", "select": "InOrder", "pools": [{"name": "able"}, {"name": "plain"}]}]
    docs = [objects.pool("able", gate, models=able, **ONE), objects.pool("plain", other, models=plain, **ONE)]
    lb = await serve(docs=[*docs, objects.route(tiers=tiers)])
    tool = [{"type": "function", "function": {"name": "f"}}]
    tasks = [await first(lb, gate, ask), await ask(lb, "second", waits=False)]
    await other.endpoint.call()
    tasks += [await ask(lb, f"tool{number}", tools=tool) for number in range(3)]
    tasks += [await ask(lb, "plain")]
    other.let(2)
    await asyncio.gather(tasks[1], tasks[-1])
    assert other.seen == ["second", "plain"]
    assert lb.sample("spillway_queue_requests") == 3
    gate.let(4)
    assert {reply.status for reply in await asyncio.gather(*tasks)} == {200}
    assert gate.seen == ["first", "tool0", "tool1", "tool2"]


async def test_where_the_limit_of_the_next_tier_is_spent_requests_wait_at_home(
    serve, gate, endpoint, objects, ask
) -> None:
    cloud = await endpoint()
    tiers = [
        {"name": "home", "pools": [{"name": "local"}]},
        {"name": "cloud", "pools": [{"name": "cloud"}], "limits": {"requestsPerMinute": 1}},
    ]
    docs = [objects.pool("local", gate, **ONE), objects.pool("cloud", cloud), objects.route(tiers=tiers)]
    lb = await serve(docs=docs)
    tasks = [await first(lb, gate, ask), await ask(lb, "spilled", waits=False)]
    assert (await tasks[1]).status == 200
    tasks.append(await ask(lb, "waits"))
    assert lb.sample("spillway_queue_requests") == 1
    gate.let(2)
    assert {reply.status for reply in await asyncio.gather(*tasks)} == {200}
    assert gate.seen == ["first", "waits"]
    assert len(cloud.calls) == 1


async def test_a_queue_that_is_full_for_a_limit_says_so_and_when_it_ends(serve, endpoint, objects, ask) -> None:
    engine = await endpoint()
    tiers = [{"name": "only", "pools": [{"name": "local"}], "limits": {"requestsPerMinute": 1}}]
    queue = {"maxRequests": 1, "maxWait": "5m"}
    lb = await serve(docs=[objects.pool("local", engine), objects.route(tiers=tiers, queue=queue)])
    assert (await (await ask(lb, "served", waits=False))).status == 200
    waits = await ask(lb, "waits")
    refused = await (await ask(lb, "refused"))
    assert (refused.status, refused.error["code"]) == (429, "rate_limited")
    assert 50 <= int(refused.header("retry-after")) <= 62
    waits.client.close()
    await lb.until(lambda: lb.sample("spillway_queue_requests") == 0)
