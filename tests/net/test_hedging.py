"""Two attempts at one answer, over real sockets: who is let through, what becomes of the other, and what is counted."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest
from tests.conftest import Say as say  # by its full name, as pytest has imported it

LIMITS = {"timeouts": {"connect": "2s", "firstByte": "5s", "streamIdle": "5s", "total": "20s"}}


def later(seconds: float, behave: Any) -> Any:
    async def late(call: Any) -> None:
        await asyncio.sleep(seconds)
        await behave(call)

    return late


@pytest.fixture
def race(serve, endpoint, objects):
    """A balancer before two endpoints that share a plan: the first to be asked gets the first of it."""

    async def build(*plan: Any, percent: int = 100, **route: Any) -> Any:
        one, two = await endpoint(), await endpoint()
        one.plan = two.plan = deque(plan)
        tier = {"name": "only", "pools": [{"name": "local"}], "hedge": {"after": "100ms", "maxPercent": percent}}
        lb = await serve(docs=[objects.pool("local", one, two), objects.route(tiers=[tier], **{**LIMITS, **route})])
        return lb, one, two

    return build


async def test_the_second_answers_and_the_first_is_ended_at_once(race, dial) -> None:
    lb, one, two = await race(say.steps(say.HANG), say.well("second"))
    client = await dial(lb)
    reply = await client.chat([("x-spillway-explain", "1")], stream=True)
    assert (reply.status, reply.text, reply.events[-1]) == (200, "second", "[DONE]")
    slow, quick = (one, two) if reply.header("x-spillway-endpoint") == "e2" else (two, one)
    assert reply.header("x-spillway-attempts") == "2"
    assert "slow, hedged at default/local/e" in reply.header("x-spillway-explain")
    assert (len(one.calls), len(two.calls)) == (1, 1)
    await slow.calls[0].gone()
    assert not quick.calls[0].left.done()
    await lb.until(lambda: lb.in_flight == 0)
    assert lb.sample("spillway_hedges_total", result="won", tier="only", rule="all") == 1
    assert lb.sample("spillway_hedge_wasted_tokens_total", pool="default/local") > 0
    assert lb.sample("spillway_attempts_total", reason="outrun") == 1
    assert lb.sample("spillway_attempts_total", reason="ok") == 1
    assert lb.sample("spillway_requests_total", code="200") == 1
    assert (await client.chat(stream=True)).text == "hello", "the client's connection goes on"


async def test_the_first_that_answers_after_all_wins_and_the_later_one_never_writes(race, dial) -> None:
    late = later(0.25, say.well("late"))
    lb, *_ = await race(later(0.15, say.well("first")), late)
    reply = await (await dial(lb)).chat([("x-spillway-explain", "1")], stream=True)
    assert (reply.text, reply.events[-1]) == ("first", "[DONE]")
    assert reply.header("x-spillway-attempts") == "2"
    await lb.until(lambda: lb.sample("spillway_hedges_total", result="lost") == 1)
    assert lb.sample("spillway_attempts_total", reason="outrun") == 1


async def test_both_at_the_same_time_make_one_answer(race, dial) -> None:
    """As often as it takes for their bytes to come in the same turn of the loop."""
    go = asyncio.Event()
    lb, one, two = await race()
    for endpoint in (one, two):
        endpoint.then = say.steps(go, say.SSE + say.chunks(say.role(), say.word("once"), say.DONE) + say.END)
    client = await dial(lb)
    for _ in range(20):
        before = len(one.calls) + len(two.calls)
        asking = asyncio.create_task(client.chat(stream=True))
        await lb.until(lambda before=before: len(one.calls) + len(two.calls) == before + 2)
        go.set()
        reply = await asking
        go.clear()
        assert (reply.text, reply.events.count("[DONE]")) == ("once", 1)
    await lb.until(lambda: lb.sample("spillway_hedges_total") == 20)


async def test_what_is_quick_is_not_hedged(race, dial) -> None:
    lb, one, two = await race()
    client = await dial(lb)
    for _ in range(3):
        assert (await client.chat(stream=True)).text == "hello"
    assert (len(one.calls) + len(two.calls), lb.sample("spillway_hedges_total")) == (3, 0)


async def test_a_bound_holds_for_those_who_come_at_once(serve, endpoint, objects, dial) -> None:
    """All are chosen for in one turn of the loop, before any of their attempts has had its own."""
    only = await endpoint(say.steps(say.HANG))
    tier = {"name": "only", "pools": [{"name": "local"}], "hedge": {"after": "5s"}}
    pool = objects.pool("local", only, capacity={"maxInFlightPerEndpoint": 1})
    lb = await serve(docs=[pool, objects.route(tiers=[tier], queue={"maxRequests": 0}, **LIMITS)])
    clients = [await dial(lb) for _ in range(8)]
    asking = [asyncio.create_task(client.chat(stream=True)) for client in clients]
    done, waiting = await asyncio.wait(asking, timeout=2, return_when=asyncio.ALL_COMPLETED)
    assert [(await each).status for each in done] == [503] * 7
    assert (len(only.calls), len(waiting)) == (1, 1)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_stream_that_has_begun_is_not_hedged_however_slow_it_goes_on(race, dial) -> None:
    begun = say.SSE + say.chunks(say.role(), say.word("be"))
    lb, one, two = await race(say.steps(begun, *[say.PAUSE] * 12, say.chunks(say.word("gun"), say.DONE), say.END))
    assert (await (await dial(lb)).chat(stream=True)).text == "begun"
    assert len(one.calls) + len(two.calls) == 1


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/v1/chat/completions", {}), ("/v1/responses", {"stream": True}), ("/v1/embeddings", {"input": "x"})],
)
async def test_what_may_keep_something_and_what_is_not_streamed_is_not_hedged(race, dial, path, fields) -> None:
    answer = later(0.25, say.steps(say.completion("hello")))
    lb, one, two = await race(answer)
    reply = await (await dial(lb)).post(path, {"model": "chat", "messages": [], **fields})
    assert (reply.status, len(one.calls) + len(two.calls)) == (200, 1)


async def test_the_budget_bounds_how_many_are_hedged(race, dial) -> None:
    slow = later(0.15, say.well("slow"))
    lb, one, two = await race(slow, slow, slow, slow, percent=50)
    client = await dial(lb)
    assert (await client.chat(stream=True)).text == "slow"
    assert len(one.calls) + len(two.calls) == 1, "one request at 50 percent pays for no hedge yet"
    assert (await client.chat(stream=True)).text == "slow"
    assert len(one.calls) + len(two.calls) == 3


async def test_when_both_fail_the_client_learns_of_both_and_no_third_is_asked(race, dial) -> None:
    fault = later(0.2, say.steps(say.RESET))
    lb, one, two = await race(fault, fault)
    reply = await (await dial(lb)).chat(stream=True)
    assert (reply.status, reply.error["code"]) == (503, "attempts_failed")
    assert sum("connect" in attempt for attempt in reply.error["attempts"]) == 2
    assert sum("hedged at" in attempt for attempt in reply.error["attempts"]) == 1
    assert len(one.calls) + len(two.calls) == 2
    assert lb.sample("spillway_hedges_total", result="failed") == 1


async def test_when_one_fails_the_other_is_waited_for(race, dial) -> None:
    for plan in (
        (later(0.2, say.steps(say.error(500))), later(0.3, say.well("second"))),
        (later(0.4, say.well("second")), later(0.1, say.steps(say.RESET))),
    ):
        lb, one, two = await race(*plan)
        assert (await (await dial(lb)).chat(stream=True)).text == "second"
        assert len(one.calls) + len(two.calls) == 2


async def test_what_both_would_refuse_is_the_clients_at_once(race, dial) -> None:
    lb, *_ = await race(later(0.2, say.steps(say.error(422))), say.steps(say.HANG))
    reply = await (await dial(lb)).chat(stream=True)
    assert (reply.status, reply.error["message"]) == (422, "no")
    await lb.until(lambda: lb.in_flight == 0)
    assert lb.sample("spillway_attempts_total", reason="outrun") == 1


async def test_a_client_that_leaves_ends_both(race, dial) -> None:
    lb, one, two = await race(say.steps(say.HANG), say.steps(say.HANG))
    client = await dial(lb)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    await lb.until(lambda: len(one.calls) + len(two.calls) == 2)
    client.reset()
    for call in (*one.calls, *two.calls):
        await call.gone()
    await lb.until(lambda: lb.sample("spillway_requests_total", code="499") == 1)
    assert lb.sample("spillway_attempts_total", reason="client-gone") == 2
    assert lb.sample("spillway_hedges_total", result="client-gone") == 1


async def test_a_slow_client_slows_the_one_that_answers(race, dial) -> None:
    """Back-pressure follows the winner, and does not end with the loser."""
    text = "x" * 65536
    words = [say.chunks(say.word(text)) for _ in range(160)]
    wrote = 0

    async def pour(call: Any) -> None:
        nonlocal wrote
        call.write(say.SSE + say.chunk(say.role()))
        for word in words:
            call.write(word)
            await call.writer.drain()
            wrote += 1
        call.write(say.chunk(say.DONE) + say.END)

    lb, *_ = await race(say.steps(say.HANG), pour)
    client = await dial(lb, receive_buffer=4096)
    await client.send(client.request("/v1/chat/completions", client.chat_body(stream=True)))
    await lb.until(lambda: wrote > 1)
    before = -1
    while before != wrote:
        before = wrote
        await asyncio.sleep(0.3)
    assert wrote < len(words), "the endpoint is held up"
    reply = await client.reply()
    assert reply.events[-1] == "[DONE]"


async def test_a_cut_of_the_winner_is_a_cut(race, dial) -> None:
    words = say.chunks(say.role(), say.word("one "))
    lb, *_ = await race(say.steps(say.HANG), say.steps(say.SSE, words, say.RESET))
    reply = await (await dial(lb)).chat(stream=True)
    assert reply.error["code"] == "stream_interrupted"
    await lb.until(lambda: lb.sample("spillway_requests_total", code="502") == 1)
