"""Callers with keys of their own: who is let in, what they see, what of them goes on, and that no key is ever told."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from spillway_api.credentials import file_of

HELLO = [{"role": "user", "content": "hello"}]
CLOSED = {"consumers": {"secretSelector": {"matchLabels": {"spillway.dev/consumer": "chat"}}}}


def secret(name: str, key: str | None = None, **labels: str) -> dict[str, Any]:
    meta = {"name": name, "labels": {"spillway.dev/consumer": "chat", **labels}}
    values = {} if key is None else {"stringData": {"api-key": key}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, **values}


@pytest.fixture
def closed(objects: Any, say: Any) -> Any:
    """`closed(engine, …)`: documents of a route `chat` for team-a and team-b, and of one `open` for everybody."""

    def make(*engines: Any, keys: dict[str, str | None] | None = None, **route: Any) -> list[dict[str, Any]]:
        keys = {"team-a": f"{say.KEY}-a", "team-b": f"{say.KEY}-b"} if keys is None else keys
        free = objects.route("local", models=["open"])
        free["metadata"]["name"] = "open"
        return [
            objects.pool("local", *engines),
            objects.route("local", **{**CLOSED, **route}),
            free,
            *(secret(name, key, team=name[-1]) for name, key in keys.items()),
        ]

    return make


@contextlib.asynccontextmanager
async def sdk(lb: Any, key: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{lb.url}/v1", api_key=key, max_retries=0) as client:
        yield client


async def test_who_has_a_key_is_let_in_and_who_has_none_is_not(serve: Any, engine: Any, closed: Any, say: Any) -> None:
    lb = await serve(docs=closed(await engine()))
    async with sdk(lb, f"{say.KEY}-a") as client:
        assert (await client.chat.completions.create(model="chat", messages=HELLO, max_tokens=2)).choices
        assert [model.id async for model in await client.models.list()] == ["chat", "open"]
        assert (await client.models.retrieve("chat")).id == "chat"
    async with sdk(lb, f"{say.KEY}-c") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="chat", messages=HELLO)
        assert caught.value.code == "invalid_api_key"
        assert say.KEY not in str(caught.value.body)
        assert [model.id async for model in await client.models.list()] == ["open"]
        with pytest.raises(openai.AuthenticationError):
            await client.models.retrieve("chat")
        assert (await client.chat.completions.create(model="open", messages=HELLO, max_tokens=2)).choices
    assert lb.sample("spillway_requests_total", route="default/chat", code="401") == 1


async def test_the_other_header_and_none_at_all(serve: Any, engine: Any, closed: Any, dial: Any, say: Any) -> None:
    lb = await serve(docs=closed(await engine()))
    one = await dial(lb)
    assert (await one.chat([("x-api-key", f"{say.KEY}-b")], max_tokens=2)).status == 200
    refused = await one.chat([("x-spillway-explain", "1")], max_tokens=2)
    assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
    assert refused.header("x-spillway-route") is None, "who has no key learns nothing of policies"
    known = await one.chat([("x-api-key", f"{say.KEY}-b"), ("x-spillway-explain", "1")], max_tokens=2)
    assert known.header("x-spillway-route") == "default/chat"
    assert refused.header("www-authenticate") == "Bearer"
    assert (await one.get("/v1/models")).json()["data"][0]["id"] == "open"


async def test_with_nothing_that_is_open_a_stranger_sees_no_list(
    serve: Any, engine: Any, closed: Any, dial: Any
) -> None:
    lb = await serve(docs=[each for each in closed(await engine()) if each["metadata"]["name"] != "open"])
    refused = await (await dial(lb)).get("/v1/models")
    assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")


async def test_no_key_of_a_client_goes_on(serve: Any, endpoint: Any, closed: Any, dial: Any, say: Any) -> None:
    upstream = await endpoint()
    lb = await serve(docs=closed(upstream.url))
    one = await dial(lb)
    shown = [("authorization", f"Bearer {say.KEY}-a"), ("x-api-key", f"{say.KEY}-b"), ("cookie", f"a={say.KEY}")]
    assert (await one.chat(shown)).status == 200
    (call,) = upstream.calls
    assert say.KEY not in str(call.headers)


async def test_expressions_know_who_asks(serve: Any, engine: Any, closed: Any, dial: Any, say: Any) -> None:
    by = {
        "name": 'consumer.name == "team-a" && consumer.namespace == "default"',
        "labels": 'consumer.labels["team"] == "b"',
    }
    tiers = [{"name": "only", "pools": [{"name": "local"}]}]
    rules = [{"name": name, "when": when, "tiers": tiers} for name, when in by.items()]
    lb = await serve(docs=closed(await engine(), rules=rules))
    one = await dial(lb)
    for key in ("a", "b"):
        assert (await one.chat([("authorization", f"Bearer {say.KEY}-{key}")], max_tokens=2)).status == 200
    assert lb.sample("spillway_tier_requests_total", rule="name") == 1
    assert lb.sample("spillway_tier_requests_total", rule="labels") == 1


async def test_keys_come_go_and_change_without_a_restart(
    serve: Any, engine: Any, closed: Any, dial: Any, say: Any, objects: Any
) -> None:
    one = await engine()
    lb = await serve(docs=closed(one))
    asks = await dial(lb)

    async def status(key: str) -> int:
        return int((await asks.chat([("authorization", f"Bearer {say.KEY}-{key}")], max_tokens=2)).status)

    async def becomes(key: str, code: int) -> None:
        seen = lb.sample("spillway_config_reloads_total")
        await lb.until(lambda: lb.sample("spillway_config_reloads_total") > seen)
        assert await status(key) == code

    assert [await status(key) for key in "abc"] == [200, 200, 401]
    lb.write(*closed(one, keys={"team-a": f"{say.KEY}-a"}))
    await becomes("b", 401)
    lb.write(*closed(one, keys={"team-a": f"{say.KEY}-c"}))
    await becomes("c", 200)
    assert await status("a") == 401
    lb.write(*closed(one, keys={}))
    await becomes("c", 401)


async def test_values_may_lie_in_the_folder_of_secrets(
    serve: Any, engine: Any, closed: Any, dial: Any, say: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    file = folder / file_of("default/team-a", "api-key")
    file.write_text(f"{say.KEY}-1\n")
    lb = await serve(docs=closed(await engine(), keys={"team-a": None}), secrets=folder)
    one = await dial(lb)
    assert (await one.chat([("authorization", f"Bearer {say.KEY}-1")], max_tokens=2)).status == 200
    seen = lb.sample("spillway_config_reloads_total")
    file.write_text(f"{say.KEY}-22\n")
    await lb.until(lambda: lb.sample("spillway_config_reloads_total") > seen)
    assert (await one.chat([("authorization", f"Bearer {say.KEY}-1")], max_tokens=2)).status == 401
    assert (await one.chat([("authorization", f"Bearer {say.KEY}-22")], max_tokens=2)).status == 200


async def test_of_two_consumers_with_one_key_the_first_counts(
    serve: Any, engine: Any, closed: Any, dial: Any, say: Any, caplog: Any
) -> None:
    rules = [{"name": "a", "when": 'consumer.name == "team-a"', "tiers": [{"name": "t", "pools": [{"name": "local"}]}]}]
    lb = await serve(docs=closed(await engine(), keys={"team-b": say.KEY, "team-a": say.KEY}, rules=rules))
    one = await dial(lb)
    assert (await one.chat([("authorization", f"Bearer {say.KEY}")], max_tokens=2)).status == 200
    assert "consumers default/team-a and default/team-b have one key" in caplog.text


async def test_the_audit_log_says_who_asked(
    serve: Any, engine: Any, closed: Any, dial: Any, say: Any, caplog: Any
) -> None:
    lb = await serve(docs=closed(await engine(), explain={"auditLogPercent": 100}))
    one = await dial(lb)
    assert (await one.chat([("authorization", f"Bearer {say.KEY}-a")], max_tokens=2)).status == 200
    assert (await one.chat(max_tokens=2)).status == 401
    lines = [json.loads(each.getMessage()) for each in caplog.records if each.name == "spillway.audit"]
    assert [(line.get("consumer"), line["status"]) for line in lines] == [("team-a", 200), (None, 401)]
