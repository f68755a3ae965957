"""examples/providers.yaml: each provider is asked as the type that it is, and for what it serves."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.net.staging import EXAMPLES, KEY


@pytest.fixture
def staged(serve, endpoint, say, tmp_path):
    """`lb, asked = await staged(groq=behaviour)`: the example, its providers by pool at endpoints of the test."""

    async def start(**behaviours: Any) -> Any:
        docs, asked = list(yaml.safe_load_all((EXAMPLES / "providers.yaml").read_text())), {}
        for doc in docs:
            if doc["kind"] != "ModelPool":
                continue
            name, provider = doc["metadata"]["name"], doc["spec"]["source"]["provider"]
            asked[name] = await endpoint(behaviours.get(name, say.well(name)))
            azure = provider["type"] == "AzureOpenAI"
            provider |= {"baseURL": asked[name].url + ("" if azure else "/v1"), "allowPlainHTTP": True}
            for account in provider["accounts"]:
                folder = tmp_path / "keys" / account["secretRef"]["name"]
                folder.mkdir(parents=True)
                (folder / "api-key").write_text(KEY)
        return await serve(docs=docs, secrets=tmp_path / "keys"), asked

    return start


async def test_a_provider_at_its_limit_hands_over_to_the_next(staged, dial, say) -> None:
    lb, asked = await staged(groq=say.steps(say.error(429, "rate_limit_exceeded", retry_after="30")))
    reply = await (await dial(lb)).chat(model="assistant")
    assert (reply.status, reply.text) == (200, "azure")
    (call,) = asked["azure"].calls
    assert (call.target, call.json()["model"]) == ("/openai/v1/chat/completions", "gpt-mini-eu")
    assert (call.header("api-key"), call.header("authorization")) == (KEY, None)
    (call,) = asked["groq"].calls
    assert (call.json()["model"], call.header("authorization")) == ("llama-3.3-70b-versatile", f"Bearer {KEY}")


async def test_embeddings_go_past_who_has_none(staged, dial) -> None:
    lb, asked = await staged()
    client = await dial(lb)
    assert (await client.chat(model="search")).text == "groq"
    assert (await client.post("/v1/embeddings", {"model": "search", "input": "x"})).status == 200
    (call,) = asked["mistral"].calls
    assert (call.target, call.json()["model"]) == ("/v1/embeddings", "mistral-embed")
    assert [call.target for call in asked["groq"].calls] == ["/v1/chat/completions"]
