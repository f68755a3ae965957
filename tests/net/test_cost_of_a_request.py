"""`retry.maxCost` on the wire: what a client is told, and what is not sent."""

from __future__ import annotations

from collections import deque
from typing import Any

from tests.conftest import Say as say  # by its full name, as pytest has imported it

PRICED: dict[str, Any] = {"models": [{"name": "m", "price": {"input": "10.00", "output": "100.00"}}]}


async def test_one_that_could_cost_too_much_is_refused_and_a_shorter_one_is_served(serve, endpoint, dial) -> None:
    engine = await endpoint()
    lb = await serve(engine, pool=PRICED, route={"retry": {"maxCost": {"amount": "0.05"}}})
    client = await dial(lb)
    reply = await client.chat(max_tokens=1000)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "cost_too_high", "max_tokens")
    assert "0.05 USD" in reply.error["message"]
    assert not engine.calls
    assert (await client.chat(max_tokens=100)).text == "hello"


async def test_a_second_attempt_that_could_bring_it_above_is_not_sent(serve, endpoint, dial) -> None:
    one, two = await endpoint(), await endpoint()
    one.plan = two.plan = deque([say.steps(say.RESET)])
    lb = await serve(one, two, pool=PRICED, route={"retry": {"maxCost": {"amount": "0.05"}}})
    client = await dial(lb)
    reply = await client.chat(max_tokens=400)
    assert (reply.status, reply.error["code"], len(one.calls) + len(two.calls)) == (503, "attempts_failed", 1)
    assert reply.error["attempts"][-1] == "only default/local: budget (retry.maxCost)"
    one.plan.append(say.steps(say.error(500)))
    assert (await client.chat(max_tokens=400)).text == "hello", "who has refused it has not computed it"
