"""The engine's API through the official SDK and as plain HTTP: shapes, usage, errors in vLLM's form."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

LONG = [{"role": "system", "content": "You are a helpful guide. " * 40}, {"role": "user", "content": "hello"}]
CHAT = {"model": "demo", "messages": [{"role": "user", "content": "hello"}]}


async def test_chat(serve: Any, sdk: Any) -> None:
    server = await serve()
    answer = await sdk(server).chat.completions.create(model="demo", messages=LONG, max_tokens=20)
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.completion_tokens == 20
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 20
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


async def test_stream_is_the_same_answer_in_pieces(serve: Any, sdk: Any) -> None:
    client = sdk(await serve())
    whole = await client.chat.completions.create(model="demo", messages=LONG, max_completion_tokens=33)
    stream = await client.chat.completions.create(
        model="demo",
        messages=LONG,
        max_completion_tokens=33,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert not chunks[0].choices[0].delta.content
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert sum(bool(piece) for piece in pieces) == 33  # one event a token
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-2:] == [None, "length"]
    assert chunks[-1].usage.completion_tokens == 33
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0  # the first request left it behind
    assert len({chunk.id for chunk in chunks}) == 1


async def test_the_next_turn_of_a_chat_is_cached(serve: Any, sdk: Any) -> None:
    client = sdk(await serve())
    first = await client.chat.completions.create(model="demo", messages=LONG, max_tokens=100)
    history = [*LONG, {"role": "assistant", "content": first.choices[0].message.content}]
    second = await client.chat.completions.create(
        model="demo", messages=[*history, {"role": "user", "content": "and then?"}], max_tokens=5
    )
    seen = first.usage.total_tokens
    assert seen - 32 < second.usage.prompt_tokens_details.cached_tokens <= seen
    salted = await client.chat.completions.create(
        model="demo", messages=LONG, max_tokens=5, extra_body={"cache_salt": "another tenant"}
    )
    assert salted.usage.prompt_tokens_details.cached_tokens == 0


async def test_without_a_limit_the_prompt_draws_the_length(serve: Any, sdk: Any) -> None:
    client = sdk(await serve(speed=1000))
    answers = [
        await client.completions.create(model="demo", prompt=prompt)
        for prompt in ("one prompt", "one prompt", "another")
    ]
    lengths = [answer.usage.completion_tokens for answer in answers]
    assert lengths[0] == lengths[1] != lengths[2]
    assert all(24 <= length <= 256 for length in lengths)
    assert answers[0].choices[0].finish_reason == "stop"
    assert answers[0].choices[0].text == answers[1].choices[0].text


async def test_completions_stream_and_take_token_ids(serve: Any, sdk: Any) -> None:
    client = sdk(await serve())
    stream = await client.completions.create(model="demo", prompt=[5, 6, 7], max_tokens=4, stream=True)
    chunks = [chunk async for chunk in stream]
    assert sum(bool(chunk.choices[0].text) for chunk in chunks) == 4
    assert chunks[-1].choices[0].finish_reason == "length"
    whole = await client.completions.create(model="demo", prompt=[[5, 6, 7]], max_tokens=4)
    assert whole.usage.prompt_tokens == 3
    assert whole.choices[0].text == "".join(chunk.choices[0].text for chunk in chunks)


async def test_responses(serve: Any, sdk: Any) -> None:
    client = sdk(await serve())
    whole = await client.responses.create(model="demo", input="tell me", instructions="be brief")
    assert whole.status == "completed"
    assert len(whole.output_text) > 20
    assert whole.usage.output_tokens >= 24
    short = await client.responses.create(model="demo", input="tell me", max_output_tokens=3)
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens")


async def test_responses_stream_builds_up_the_answer(serve: Any, sdk: Any) -> None:
    client = sdk(await serve())
    items = [{"role": "user", "content": [{"type": "input_text", "text": "tell me"}]}]
    async with client.responses.stream(model="demo", input=items) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    kinds = list(dict.fromkeys(event.type for event in events))
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == final.output_text


async def test_embeddings_in_both_encodings(serve: Any, sdk: Any, session: Any) -> None:
    server = await serve()
    client = sdk(server)
    floats = await client.embeddings.create(model="demo", input=["a text", "b"], encoding_format="float")
    packed = await client.embeddings.create(model="demo", input=["a text", "b"])  # base64 on the wire
    for one, other in zip(floats.data, packed.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert floats.data[0].embedding != floats.data[1].embedding
    assert floats.usage.prompt_tokens == 2
    small = await client.embeddings.create(model="demo", input=[1, 2, 3], dimensions=8)
    assert len(small.data[0].embedding) == 8
    assert small.usage.prompt_tokens == 3


async def test_models(serve: Any, sdk: Any) -> None:
    client = sdk(await serve(models=("demo", "org/large")))
    assert [model.id async for model in client.models.list()] == ["demo", "org/large"]
    assert (await client.models.retrieve("org/large")).id == "org/large"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("none")


async def test_media_routes(serve: Any, sdk: Any) -> None:
    client = sdk(await serve())
    heard = await client.audio.transcriptions.create(model="demo", file=("a.wav", b"\0" * 64_000))
    assert heard.text
    spoken = await client.audio.speech.create(model="demo", voice="alloy", input="say this")
    assert spoken.content[:4] == b"RIFF"
    drawn = await client.images.generate(model="demo", prompt="a cat", n=2)
    assert len(drawn.data) == 2
    with pytest.raises(openai.NotFoundError):
        await client.audio.transcriptions.create(model="none", file=("a.wav", b"\0"))


async def test_rerank(serve: Any, session: Any) -> None:
    server = await serve()
    body = {"model": "demo", "query": "red fox", "documents": ["a blue sky", {"text": "one red fox"}], "top_n": 1}
    async with session.post(f"{server.url}/v1/rerank", json=body) as response:
        answer = await response.json()
    assert [result["index"] for result in answer["results"]] == [1]
    assert 0 <= answer["results"][0]["relevance_score"] <= 1


async def test_unknown_model_in_vllms_words(serve: Any, session: Any) -> None:
    server = await serve()
    async with session.post(f"{server.url}/v1/chat/completions", json=CHAT | {"model": "none"}) as response:
        assert response.status == 404
        assert (await response.json())["error"] == {
            "message": "The model `none` does not exist.",
            "type": "NotFoundError",
            "param": "model",
            "code": 404,
        }


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not valid JSON"),
        (b'{"model":"demo","messages":[{}],"tools":' + b"[" * 100_000, "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"{}", "`model`"),
        (b'{"model":"demo"}', "`messages`"),
        (b'{"model":"demo","messages":[]}', "`$.messages`"),
        (b'{"model":"demo","messages":[{}],"max_tokens":0}', "`$.max_tokens`"),
        (b'{"model":"demo","messages":[{}],"n":3}', "n must be 1"),
        (b'{"model":"demo","messages":[{}],"stream_options":{}}', "stream=True"),
    ],
)
async def test_bad_bodies_are_the_clients_fault(serve: Any, session: Any, body: bytes, said: str) -> None:
    server = await serve()
    async with session.post(f"{server.url}/v1/chat/completions", data=body) as response:
        assert response.status == 400
        error = (await response.json())["error"]
        assert said in error["message"]
        assert error["code"] == 400


async def test_context_length(serve: Any, sdk: Any) -> None:
    client = sdk(await serve(profile="laptop-demo"))
    for prompt, limit in (("x" * 70_000, None), ("x" * 4000, 15_500)):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": prompt}], max_tokens=limit
            )
        assert caught.value.code == "context_length_exceeded"


async def test_the_key_guards_the_api_only(serve: Any, sdk: Any, session: Any) -> None:
    server = await serve(api_key="s3cret")
    assert (await sdk(server, "s3cret").models.list()).data
    with pytest.raises(openai.AuthenticationError):
        await sdk(server, "wrong").models.list()
    for path in ("/health", "/metrics", "/version"):
        async with session.get(server.url + path) as response:
            assert response.status == 200


async def test_of_several_keys_any_will_do(serve: Any, sdk: Any) -> None:
    server = await serve(api_key=["old", "new"])
    for key in ("old", "new"):
        assert (await sdk(server, key).models.list()).data
    with pytest.raises(openai.AuthenticationError):
        await sdk(server, "oldnew").models.list()


async def test_every_answer_says_who_gave_it(serve: Any, session: Any) -> None:
    server = await serve(name="north")
    for path in ("/v1/models", "/health", "/v1/none", "/none"):
        async with session.get(server.url + path) as response:
            assert response.headers["x-spillway-engine"] == "north"
    async with session.post(f"{server.url}/v1/chat/completions", json=CHAT | {"stream": True}) as response:
        assert response.headers["x-spillway-engine"] == "north"
        assert (await response.read()).endswith(b"data: [DONE]\n\n")


async def test_metrics_add_up_and_parse(serve: Any, sdk: Any, session: Any) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    server = await serve(models=('de"mo', "alias"))
    client = sdk(server)
    for _ in range(2):
        await client.chat.completions.create(model="alias", messages=LONG, max_tokens=10)
    await client.completions.create(model="alias", prompt="x")
    async with session.get(f"{server.url}/metrics") as response:
        assert response.content_type == "text/plain"
        page = await response.text()
    values = {
        (sample.name, sample.labels.get("finished_reason"), sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.labels["model_name"] == 'de"mo' and sample.labels["engine"] == "0"
    }

    def value(name: str, reason: str | None = None, le: str | None = None) -> float:
        return values[f"vllm:{name}", reason, le]

    assert value("num_requests_running") == value("num_requests_waiting") == 0
    assert value("kv_cache_usage_perc") == 0
    assert 0 < value("prefix_cache_hits_total") < value("prefix_cache_queries_total")
    assert value("prefix_cache_queries_total") == value("prompt_tokens_total")
    assert value("generation_tokens_total") >= 44
    assert value("request_success_total", "length") == 2
    assert value("request_success_total", "stop") == 1
    assert value("time_to_first_token_seconds_count") == 3
    assert value("e2e_request_latency_seconds_bucket", le="+Inf") == 3


async def test_a_fuller_batch_is_slower_but_not_by_as_much(serve: Any, sdk: Any) -> None:
    server = await serve(speed=20)
    client = sdk(server)
    loop = asyncio.get_running_loop()

    async def one(i: int) -> float:
        began = loop.time()
        await client.completions.create(model="demo", prompt=f"{i} " * 100, max_tokens=60)
        return loop.time() - began

    alone = await one(0)
    together = max(await asyncio.gather(*(one(i) for i in range(1, 17))))
    assert alone < together < 8 * alone


async def test_state_and_reset(serve: Any, sdk: Any, session: Any, until: Any) -> None:
    server = await serve(speed=1)
    client = sdk(server)
    task = asyncio.create_task(client.completions.create(model="demo", prompt="x", max_tokens=500))
    await until(lambda: server.engine.pacer.timing.running == 1)
    async with session.post(f"{server.url}/sim/reset") as response:
        assert response.status == 409
    task.cancel()
    await until(lambda: server.engine.in_flight == 0)
    async with session.get(f"{server.url}/sim/state") as response:
        state = await response.json()
    assert (state["running"], state["cancelled"], state["in_flight"]) == (0, 1, 0)
    assert state["paths"] == {"/v1/completions": 1}
    async with session.post(f"{server.url}/sim/reset") as response:
        assert response.status == 204
    async with session.get(f"{server.url}/sim/state") as response:
        state = await response.json()
    assert (state["requests"], state["cancelled"], state["computed_tokens"], state["cached_blocks"]) == (0, 0, 0, 0)


async def test_a_provider_is_far_away(serve: Any, sdk: Any) -> None:
    client = sdk(await serve(profile="provider", speed=10))
    loop = asyncio.get_running_loop()
    began = loop.time()
    await client.chat.completions.create(model="demo", messages=LONG, max_tokens=1)
    assert loop.time() - began > 0.03


@pytest.mark.parametrize("settings", [{"models": ()}, {"speed": 0}, {"profile": "none"}])
def test_bad_settings_are_refused_at_once(settings: dict[str, Any]) -> None:
    from spillway_balancer.engine.server import EngineServer

    with pytest.raises(ValueError, match=r"at least one|above 0|there are: h100"):
        EngineServer(**settings)
