"""Types of providers over real sockets: each is asked in its own way, for what it serves, and believed as it speaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spillway_api.providers import PRESETS

GOLDEN = Path(__file__).parents[1] / "wire" / "golden"
EXPLAIN = "x-spillway-explain"


@pytest.fixture
def providing(serve, endpoint, say, objects, tmp_path):
    """`lb, heard = await providing(type, answer, …)`: a pool of this type, whose accounts a, b, … get the answers."""

    async def start(kind: str, *answers: Any, base: str = "/v1", key: str | None = None, **route: Any) -> Any:
        heard: list[Any] = []
        served = {}
        for name, answer in zip("abc", answers or (say.completion(),), strict=False):
            (tmp_path / name).mkdir()
            (tmp_path / name / "api-key").write_text(key or f"{say.KEY}-{name}")
            served[f"{say.KEY}-{name}"] = answer

        async def behave(call: Any) -> None:
            heard.append(call)
            shown = call.header("authorization") or call.header("api-key") or ""
            call.write(served.get(shown.removeprefix("Bearer "), next(iter(served.values()))))

        source = {"provider": {"type": kind}}
        cloud = objects.provider("cloud", f"{(await endpoint(behave)).url}{base}", *"abc"[: len(served)], source=source)
        if kind == "VertexAI":
            for account in cloud["spec"]["source"]["provider"]["accounts"]:
                account |= {"region": "global", "project": "ml"}
        return await serve(docs=[cloud, objects.route("cloud", **route)], secrets=tmp_path), heard

    return start


@pytest.mark.parametrize("kind", sorted(name for name, preset in PRESETS.items() if preset.api == "chat"))
async def test_each_is_asked_at_its_address_with_its_key_in_its_header(providing, dial, say, kind) -> None:
    lb, heard = await providing(kind, base="" if kind == "AzureOpenAI" else "/v1")
    reply = await (await dial(lb)).chat([("api-key", "mine"), ("authorization", "Bearer mine")])
    assert reply.status == 200
    azure = kind == "AzureOpenAI"
    assert heard[0].target == ("/openai/v1/chat/completions" if azure else "/v1/chat/completions")
    assert heard[0].header("api-key") == (f"{say.KEY}-a" if azure else None)
    assert heard[0].header("authorization") == (None if azure else f"Bearer {say.KEY}-a")


async def test_azure_takes_a_token_from_a_secret_that_says_bearer(providing, dial, say) -> None:
    lb, heard = await providing("AzureOpenAI", base="", key=f"Bearer {say.KEY}")
    assert (await (await dial(lb)).chat([("api-key", "mine")])).status == 200
    assert heard[0].header("authorization") == f"Bearer {say.KEY}"
    assert heard[0].header("api-key") is None


async def test_mistral_gets_the_limit_by_the_name_it_knows_and_others_as_it_came(providing, dial) -> None:
    lb, heard = await providing("Mistral")
    assert (await (await dial(lb)).chat(max_completion_tokens=9)).status == 200
    assert (heard[0].json()["max_tokens"], "max_completion_tokens" in heard[0].json()) == (9, False)


async def test_openai_gets_the_limit_as_it_came(providing, dial) -> None:
    lb, heard = await providing("OpenAI")
    assert (await (await dial(lb)).chat(max_completion_tokens=9)).status == 200
    assert heard[0].json()["max_completion_tokens"] == 9


@pytest.mark.parametrize(("kind", "base"), [("OpenAI", "/v1"), ("AzureOpenAI", "")])
async def test_openai_s_models_that_reason_refuse_the_name_that_engines_take(providing, dial, kind, base) -> None:
    lb, heard = await providing(kind, base=base)
    assert (await (await dial(lb)).chat(max_tokens=9)).status == 200
    assert (heard[0].json()["max_completion_tokens"], "max_tokens" in heard[0].json()) == (9, False)


@pytest.mark.parametrize(
    ("kind", "path", "served"),
    [
        ("DeepSeek", "/v1/embeddings", False),
        ("Groq", "/v1/embeddings", False),
        ("xAI", "/v1/embeddings", False),
        ("Mistral", "/v1/responses", False),
        ("Gemini", "/v1/completions", False),
        ("AzureOpenAI", "/v1/rerank", False),
        ("OpenRouter", "/v1/moderations", False),
        ("Mistral", "/v1/embeddings", True),
        ("Groq", "/v1/responses", True),
        ("OpenAICompatible", "/v1/rerank", True),
        ("OpenAI", "/v1/embeddings", True),
    ],
)
async def test_nobody_is_asked_for_what_it_does_not_serve(providing, dial, kind, path, served) -> None:
    lb, heard = await providing(kind)
    body = json.dumps({"model": "chat", "input": "x", "prompt": "x"}).encode()
    reply = await (await dial(lb)).post(path, body, [("content-type", "application/json")])
    if served:
        assert (reply.status, [call.target for call in heard]) == (200, [path])
        return
    assert (reply.status, reply.error["code"], heard) == (400, "no_capable_target", [])
    assert reply.error["attempts"] == [f"only default/cloud: its provider has no {path}"]


async def test_the_next_tier_serves_what_a_provider_does_not(serve, endpoint, objects, dial, say) -> None:
    source = {"provider": {"type": "DeepSeek"}}
    cloud = objects.provider("cloud", f"{(await endpoint(say.well('cloud'))).url}/v1", source=source)
    cloud["spec"]["source"]["provider"]["accounts"] = [{"name": "open"}]
    local = objects.pool("local", await endpoint(say.well("local")))
    tiers = [{"name": "cloud", "pools": [{"name": "cloud"}]}, {"name": "local", "pools": [{"name": "local"}]}]
    client = await dial(await serve(docs=[cloud, local, objects.route(tiers=tiers)]))
    body = json.dumps({"model": "chat", "input": "x"}).encode()
    reply = await client.post("/v1/embeddings", body, [("content-type", "application/json"), (EXPLAIN, "1")])
    assert reply.status == 200
    assert "tier=local" in (reply.header(EXPLAIN) or "")
    assert (await client.chat()).text == "cloud"


def said(say: Any, name: str) -> Any:
    return say.message(int(name.rpartition(".")[2]), body=(GOLDEN / "errors" / f"{name}.json").read_bytes())


@pytest.mark.parametrize("name", ["xai-credits.429", "xai-team.403", "xai-key.400", "gemini-day.429", "gemini-key.400"])
async def test_an_account_that_cannot_pay_or_is_refused_leaves_the_request_to_the_next(
    providing, dial, say, name
) -> None:
    kind = "xAI" if name.startswith("xai") else "Gemini"
    lb, heard = await providing(kind, said(say, name), say.completion())
    client = await dial(lb)
    for _ in range(4):
        assert (await client.chat()).status == 200
    refused = [call for call in heard if call.header("authorization") == f"Bearer {say.KEY}-a"]
    assert len(refused) <= 1  # it is off since


@pytest.mark.parametrize(
    "name", ["azure-content.400", "azure-inner.400", "openrouter-moderation.403", "xai-content.403"]
)
async def test_a_prompt_that_is_refused_is_the_clients_affair_and_no_accounts(providing, dial, say, name) -> None:
    kind = {"azure": "AzureOpenAI", "openrouter": "OpenRouter", "xai": "xAI"}[name.partition("-")[0]]
    lb, heard = await providing(kind, said(say, name), said(say, name))
    client = await dial(lb)
    for times in (1, 2, 3):
        reply = await client.chat()
        assert reply.status == int(name.rpartition(".")[2])
        assert len(heard) == times  # no other account is asked, and none is closed


async def test_the_wait_that_stands_in_a_body_is_the_clients_retry_after(providing, dial, say) -> None:
    lb, _ = await providing("Gemini", said(say, "gemini-minute.429"))
    reply = await (await dial(lb)).chat()
    assert (reply.status, reply.error["code"]) == (429, "rate_limited")
    assert 43 <= int(reply.header("retry-after") or 0) <= 46


COUNTED = [{"name": "only", "pools": [{"name": "cloud"}], "limits": {"tokensPerMinute": 100_000}}]


def streamed(say: Any, name: str) -> bytes:
    return say.SSE + say.chunks((GOLDEN / "streams" / f"{name}.sse").read_bytes()) + say.END


@pytest.mark.parametrize(
    ("kind", "name", "asked"),
    [
        ("Mistral", "mistral-chat", False),
        ("Groq", "groq-chat", True),
        ("DeepSeek", "deepseek-chat", True),
        ("OpenRouter", "openrouter-chat", True),
        ("AzureOpenAI", "azure-chat", True),
    ],
)
async def test_streams_are_asked_for_their_usage_but_where_that_is_an_error(
    providing, dial, say, kind, name, asked
) -> None:
    lb, heard = await providing(kind, streamed(say, name), tiers=COUNTED)
    reply = await (await dial(lb)).chat(stream=True)
    assert reply.status == 200
    assert reply.body == (GOLDEN / "streams" / f"{name}.sse").read_bytes()
    assert heard[0].json().get("stream_options") == ({"include_usage": True} if asked else None)


async def test_mistral_is_not_asked_for_usage_by_a_client_either(providing, dial, say) -> None:
    lb, heard = await providing("Mistral", streamed(say, "mistral-chat"))
    reply = await (await dial(lb)).chat(stream=True, stream_options={"include_usage": True}, max_completion_tokens=9)
    assert reply.body == (GOLDEN / "streams" / "mistral-chat.sse").read_bytes()  # it tells it with its last word
    assert (heard[0].json()["stream_options"], heard[0].json()["max_tokens"]) == ({}, 9)


async def test_a_stream_that_fails_before_its_content_goes_to_the_next_account(providing, dial, say) -> None:
    late = (GOLDEN / "streams" / "openrouter-error-late.sse").read_bytes()
    early = b"\n\n".join(event for event in late.split(b"\n\n") if b'"content":"Hi"' not in event)
    broken = say.SSE + say.chunks(early) + say.END
    lb, heard = await providing("OpenRouter", broken, streamed(say, "openrouter-chat"))
    client = await dial(lb)
    for _ in range(2):
        reply = await client.chat(stream=True)
        assert reply.body == (GOLDEN / "streams" / "openrouter-chat.sse").read_bytes()
    assert {call.header("authorization") for call in heard} == {f"Bearer {say.KEY}-a", f"Bearer {say.KEY}-b"}


async def test_no_copy_goes_to_who_does_not_serve_it(serve, objects, endpoint, dial) -> None:
    trial, local = await endpoint(), await endpoint()
    copy = objects.provider("trial", f"{trial.url}/v1", source={"provider": {"type": "DeepSeek"}})
    copy["spec"]["source"]["provider"]["accounts"] = [{"name": "open"}]
    route = objects.route("local", mirror={"pool": {"name": "trial"}, "percent": 100})
    lb = await serve(docs=[objects.pool("local", local), copy, route])
    client = await dial(lb)
    assert (await client.post("/v1/embeddings", {"model": "chat", "input": "x"})).status == 200
    assert (await client.chat()).status == 200
    await lb.until(lambda: len(trial.calls) == 1)
    assert [call.target for call in trial.calls] == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"message": "no", "type": "insufficient_quota", "code": "insufficient_quota"}, "quota-exhausted"),
        ({"message": "no", "type": "tokens", "code": "rate_limit_exceeded"}, "rate-limited"),
        ({"message": "no", "type": "server_error", "code": None}, "server-error (500)"),
    ],
)
async def test_an_error_in_the_place_of_a_stream_means_what_it_says(providing, dial, say, error, reason) -> None:
    failed = say.SSE + say.chunks(b"data: " + json.dumps({"error": error}).encode() + b"\n\n") + say.END
    lb, _ = await providing("OpenAI", failed)
    reply = await (await dial(lb)).chat(stream=True)
    assert reply.status in (429, 503)
    assert reason in reply.error["attempts"][0]
