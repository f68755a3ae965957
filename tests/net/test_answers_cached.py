"""What an answer adds to an endpoint's cache is known by the time of the next turn, however the answer came."""

from __future__ import annotations

import json

import pytest

from spillway_balancer.wire import openai
from spillway_balancer.wire.paths import PATHS
from spillway_balancer.wire.prompt_blocks import seed_of

QUESTION = {"role": "user", "content": "Tell me everything about animals. " * 20}


@pytest.mark.parametrize("options", [{"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}, {}])
async def test_the_next_turn_finds_prompt_and_answer_in_the_mirror(serve, engine, dial, options) -> None:
    lb = await serve(await engine(), pool={"dispatch": {"strategy": "Adaptive"}})
    reply = await (await dial(lb)).chat(messages=[QUESTION], max_tokens=300, **options)
    await lb.until(lambda: lb.in_flight == 0)
    turns = [QUESTION, {"role": "assistant", "content": reply.text}]
    body = json.dumps({"model": "demo", "messages": turns}, indent=1).encode()
    found = openai.peek(PATHS["/v1/chat/completions"], "", body).prompt(seed_of("demo", None))
    assert found is not None
    assert len(reply.text) > 1000
    mirror = lb.endpoint("e1").cache
    assert mirror.match(found.prompt.blocks) == len(found.prompt.blocks) == found.prompt.size // 256 > 6


async def test_responses_teach_it_too(serve, engine, dial) -> None:
    lb = await serve(await engine(), pool={"dispatch": {"strategy": "Adaptive"}})
    client = await dial(lb)
    for stream in (False, True):
        asked = {
            "model": "chat",
            "input": QUESTION["content"] + str(stream),
            "max_output_tokens": 300,
            "stream": stream,
        }
        reply = await client.post("/v1/responses", asked)
        await lb.until(lambda: lb.in_flight == 0)
        said = json.loads(reply.events[-1])["response"] if stream else reply.json()
        turns = [{"role": "user", "content": asked["input"]}, *said["output"]]
        body = json.dumps({"model": "demo", "input": turns}).encode()
        found = openai.peek(PATHS["/v1/responses"], "", body).prompt(seed_of("demo", None))
        assert found is not None
        assert lb.endpoint("e1").cache.match(found.prompt.blocks) == len(found.prompt.blocks) > 6
