"""The official OpenAI SDK against the balancer, in front of simulated engines, unchanged."""

from __future__ import annotations

import asyncio

import openai
import pytest

from spillway_balancer.engine.faults import parse

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def sdk(serve, engine):
    lb = await serve(await engine(), await engine())
    async with openai.AsyncOpenAI(base_url=f"{lb.url}/v1", api_key="anything", max_retries=0) as client:
        yield client


async def test_chat(sdk) -> None:
    answer = await sdk.chat.completions.create(model="chat", messages=HELLO, max_tokens=8)
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 8


async def test_chat_streamed(sdk) -> None:
    stream = await sdk.chat.completions.create(model="chat", messages=HELLO, max_tokens=8, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].choices[0].finish_reason


async def test_completions_embeddings_and_responses(sdk) -> None:
    assert (await sdk.completions.create(model="chat", prompt="once", max_tokens=4)).choices[0].text
    assert len((await sdk.embeddings.create(model="chat", input=["a", "b"])).data) == 2
    assert (await sdk.responses.create(model="chat", input="hello", max_output_tokens=8)).output_text
    stream = await sdk.responses.create(model="chat", input="hello", max_output_tokens=8, stream=True)
    assert [event.type async for event in stream][-1].startswith("response.")


async def test_audio_and_images_pass_through(sdk) -> None:
    heard = await sdk.audio.transcriptions.create(model="chat", file=("a.wav", b"RIFF" + b"\0" * 400))
    assert heard.text
    spoken = await sdk.audio.speech.create(model="chat", voice="alloy", input="hello")
    assert spoken.content
    assert (await sdk.images.generate(model="chat", prompt="a weir")).data


async def test_models(sdk) -> None:
    assert [model.id async for model in await sdk.models.list()] == ["chat"]
    assert (await sdk.models.retrieve("chat")).id == "chat"
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"


async def test_errors_are_the_sdks_own_types(serve, engine) -> None:
    one = await engine()
    lb = await serve(one)
    async with openai.AsyncOpenAI(base_url=f"{lb.url}/v1", api_key="anything", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="nobody", messages=HELLO)
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="chat", messages="no list")  # type: ignore[arg-type]
        await one.set_faults(parse('{"kind": "status", "status": 429, "headers": {"retry-after": "7"}}'))
        with pytest.raises(openai.RateLimitError) as limited:
            await client.chat.completions.create(model="chat", messages=HELLO)
        assert limited.value.response.headers["retry-after"] == "7"


async def test_signs_of_life_and_a_cut_that_is_gone_on_with_are_nothing_to_the_sdk(serve, engine) -> None:
    cut = parse('{"kind": "cut", "chunks": 5}')
    slow = {"profile": "laptop-demo", "speed": 1.0}
    engines = [await engine(faults=cut, **slow), await engine(faults=cut, **slow), await engine()]
    pool = {"engine": "vLLM", "dispatch": {"strategy": "RoundRobin"}}
    lb = await serve(*engines, pool=pool, route={"streams": {"keepAlive": "100ms", "resume": "SameModel"}})
    calm = await serve(engines[2])
    said = []
    for each in (calm, lb, lb, lb):  # whoever is first in the round
        async with openai.AsyncOpenAI(base_url=f"{each.url}/v1", api_key="anything", max_retries=0) as client:
            stream = await client.chat.completions.create(model="chat", messages=HELLO, max_tokens=40, stream=True)
            chunks = [chunk async for chunk in stream]
            said.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
            assert len({chunk.id for chunk in chunks}) == 1
            assert chunks[-1].choices[0].finish_reason == "length"
    assert len(set(said)) == 1
    await lb.until(lambda: lb.sample("spillway_resumed_streams_total", result="ok") >= 1)


async def test_a_failure_behind_signs_of_life_is_an_error_of_the_sdk(serve, endpoint, say) -> None:
    async def fails_late(call) -> None:
        await asyncio.sleep(0.3)
        call.write(say.error(500))

    lb = await serve(await endpoint(fails_late), route={"streams": {"keepAlive": "100ms"}})
    async with openai.AsyncOpenAI(base_url=f"{lb.url}/v1", api_key="anything", max_retries=0) as client:
        stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as caught:
            async for _ in stream:
                pass
    assert caught.value.code == "attempts_failed"
