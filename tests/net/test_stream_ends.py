"""A stream ends well when it has said so itself, whatever the connection does behind that."""

from __future__ import annotations

from typing import Any

import pytest
from tests.conftest import Say as say  # by its full name, as pytest has imported it

WHOLE = say.SSE + say.chunks(say.role(), say.word("hello"), say.delta("stop"), say.DONE)


@pytest.mark.parametrize("then", [say.RESET, say.CLOSE, say.HANG])
async def test_what_breaks_behind_the_end_is_no_cut(serve, endpoint, dial, then: Any) -> None:
    engine = await endpoint(say.steps(WHOLE, say.PAUSE, then))
    lb = await serve(engine, route={"timeouts": {"streamIdle": "300ms"}})
    client = await dial(lb)
    reply = await client.chat(stream=True)
    assert (reply.whole, reply.text, reply.events[-1]) == (True, "hello", "[DONE]")
    await lb.until(lambda: lb.sample("spillway_attempts_total", reason="ok") == 1)
    assert lb.sample("spillway_requests_total", code="200") == 1
    assert (await client.chat(stream=True)).text == "hello", "the client's connection goes on"
