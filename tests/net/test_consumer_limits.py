"""What a consumer may use, on real sockets: the right refusal, a true Retry-After, and headers that clients know."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

import openai
import pytest
from tests.net.staging import staged

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def closed(objects: Any, say: Any) -> Any:
    """`closed(limits, pools…)`: documents of a route whose only caller, team-a, has these limits."""

    def make(limits: dict[str, Any], *pools: dict[str, Any], **route: Any) -> list[dict[str, Any]]:
        consumers = {"secretSelector": {"matchLabels": {"app": "key"}}, "defaults": limits}
        meta = {"name": "team-a", "labels": {"app": "key"}}
        names = [each["metadata"]["name"] for each in pools]
        return [
            *pools,
            objects.route(*names, consumers=consumers, **route),
            {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"api-key": say.KEY}},
        ]

    return make


@pytest.fixture
def mine(say: Any) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {say.KEY}")]


def priced(objects: Any, name: str, endpoint: Any, price: dict[str, str] | None = None) -> dict[str, Any]:
    models = [{"name": "demo", **({} if price is None else {"price": price})}]
    found: dict[str, Any] = objects.pool(name, endpoint, models=models)
    return found


async def test_requests_a_minute(serve: Any, endpoint: Any, dial: Any, objects: Any, closed: Any, mine: Any) -> None:
    lb = await serve(docs=closed({"requestsPerMinute": 2}, objects.pool("local", await endpoint())))
    client = await dial(lb)
    first, second, third = [await client.chat(mine, max_tokens=2) for _ in range(3)]
    assert (first.status, second.status, third.status) == (200, 200, 429)
    assert first.header("x-ratelimit-limit-requests") == "2"
    left = [each.header("x-ratelimit-remaining-requests") for each in (first, second, third)]
    assert left == ["1", "0", "0"]
    assert first.header("x-ratelimit-reset-requests") in ("1m0s", "1m1s")
    assert first.header("x-ratelimit-limit-tokens") is None
    assert (third.error["type"], third.error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert "2 requests per minute (requestsPerMinute)" in third.error["message"]
    assert 55 <= int(third.header("retry-after")) <= 61
    who = {"consumer": "team-a", "route": "default/chat"}
    assert sample(lb, "spillway_consumer_requests_total", **who, result="ok") == 2
    assert sample(lb, "spillway_consumer_requests_total", **who, result="limited") == 1
    assert sample(lb, "spillway_consumer_limit_used_percent", **who, limit="requestsPerMinute") == 100


def sample(lb: Any, name: str, **labels: str) -> float:
    """As a scrape would find it now."""
    lb.balancer.telemetry.endpoints.read(lb.balancer.serving.current, monotonic())
    return float(lb.sample(name, **labels))


async def test_tokens_a_minute_count_what_was_used_and_not_what_was_allowed(
    serve: Any, endpoint: Any, dial: Any, objects: Any, closed: Any, mine: Any
) -> None:
    lb = await serve(docs=closed({"tokensPerMinute": 1000}, objects.pool("local", await endpoint())))
    client = await dial(lb)
    for _ in range(5):  # each may come to 900 and comes to 2
        reply = await client.chat(mine, max_tokens=900)
        assert reply.status == 200
    assert int(reply.header("x-ratelimit-remaining-tokens")) < 100  # while it is under way
    assert (await client.chat(mine, max_tokens=2)).header("x-ratelimit-limit-tokens") == "1000"
    refused = await client.chat(mine, max_tokens=2000)
    assert (refused.status, refused.header("retry-after")) == (429, None)
    assert "less than this request alone may use" in refused.error["message"]


async def test_requests_at_once_are_given_back_however_they_end(
    serve: Any, endpoint: Any, dial: Any, objects: Any, closed: Any, mine: Any, say: Any
) -> None:
    engine = await endpoint(say.steps(say.HANG))
    lb = await serve(docs=closed({"maxInFlight": 1}, objects.pool("local", engine)))
    waiting, other = await dial(lb), await dial(lb)
    await waiting.send(waiting.request(body=waiting.chat_body(), headers=mine))
    await engine.call()
    refused = await other.chat(mine)
    assert (refused.status, refused.header("retry-after")) == (429, "1")
    assert "1 requests at once (maxInFlight)" in refused.error["message"]
    waiting.close()
    await lb.until(lambda: sample(lb, "spillway_consumer_requests_total", result="left") == 1)
    for behaviour, status in ((say.well(), 200), (say.steps(say.error(400)), 400), (say.well(), 200)):
        engine.then = behaviour
        assert (await other.chat(mine)).status == status
    assert sample(lb, "spillway_consumer_requests_total", result="failed") == 1
    assert sample(lb, "spillway_consumer_limit_used_percent", limit="maxInFlight") == 0


async def test_an_endpoints_own_quota_is_not_the_callers(
    serve: Any, endpoint: Any, dial: Any, objects: Any, closed: Any, mine: Any, say: Any
) -> None:
    body = say.completion().partition(b"\r\n\r\n")[2]
    answer = say.message(body=body, x_ratelimit_limit_requests="9999", x_ratelimit_remaining_tokens="1")
    lb = await serve(docs=closed({"requestsPerMinute": 5}, objects.pool("local", await endpoint(say.steps(answer)))))
    reply = await (await dial(lb)).chat(mine)
    assert reply.header("x-ratelimit-limit-requests") == "5"
    assert reply.header("x-ratelimit-remaining-tokens") is None


EURO = {"input": "1000000", "output": "1000000", "currency": "EUR"}
"""A euro a token; a scripted answer has one of each sort."""


async def test_a_budget_is_spent_to_the_cent_and_then_only_what_is_free_is_left(
    serve: Any, endpoint: Any, dial: Any, objects: Any, closed: Any, mine: Any, say: Any
) -> None:
    cloud = priced(objects, "cloud", await endpoint(say.well("cloud")), EURO)
    free = priced(objects, "free", await endpoint(say.well("free")))
    tiers = [{"name": name, "pools": [{"name": name}]} for name in ("cloud", "free")]
    budget = {"amount": "300", "currency": "EUR", "period": "Day"}
    lb = await serve(docs=closed({"budget": budget}, cloud, free, tiers=tiers))
    client = await dial(lb)
    # A request comes to 2 euros and may come to far more, so the cloud is left before all is spent, and for good.
    said = [(await client.chat(mine, max_tokens=50)).text for _ in range(150)]
    assert said == ["cloud"] * said.count("cloud") + ["free"] * said.count("free")
    assert 1 < said.count("cloud") < 150
    assert sample(lb, "spillway_consumer_spent_total", consumer="team-a", currency="EUR") == 2 * said.count("cloud")


async def test_without_anything_free_a_spent_budget_says_when_there_is_money_again(
    serve: Any, endpoint: Any, dial: Any, objects: Any, closed: Any, mine: Any
) -> None:
    cloud = priced(objects, "cloud", await endpoint(), EURO)
    budget = {"amount": "300", "currency": "EUR", "period": "Hour"}
    lb = await serve(docs=closed({"budget": budget}, cloud))
    client = await dial(lb)
    replies = [await client.chat(mine, max_tokens=50) for _ in range(150)]
    refused = replies[-1]
    assert (replies[0].status, refused.status) == (200, 429)
    assert (refused.error["type"], refused.error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert "budget of 300 EUR each hour (budget)" in refused.error["message"]
    assert 0 < int(refused.header("retry-after")) <= 3600
    too_dear = await client.chat(mine, max_tokens=5000)
    assert (too_dear.status, too_dear.header("retry-after")) == (429, None)


async def test_a_price_in_another_currency_is_never_paid(
    serve: Any, endpoint: Any, dial: Any, objects: Any, closed: Any, mine: Any
) -> None:
    cloud = priced(objects, "cloud", await endpoint(), EURO)
    lb = await serve(docs=closed({"budget": {"amount": "1000000"}}, cloud))
    assert (await (await dial(lb)).chat(mine)).error["code"] == "insufficient_quota"


async def test_limits_outlive_a_reload(
    serve: Any, endpoint: Any, dial: Any, objects: Any, closed: Any, mine: Any
) -> None:
    one = objects.pool("local", await endpoint())
    lb = await serve(docs=closed({"requestsPerMinute": 2}, one))
    client = await dial(lb)
    assert [(await client.chat(mine)).status for _ in range(2)] == [200, 200]
    for most, status in ((3, 200), (1, 429)):
        seen = lb.sample("spillway_config_reloads_total")
        lb.write(*closed({"requestsPerMinute": most}, one))
        await lb.until(lambda seen=seen: lb.sample("spillway_config_reloads_total") > seen)
        assert (await client.chat(mine)).status == status


async def test_who_leaves_early_has_used_what_was_made_until_then(
    serve: Any, endpoint: Any, dial: Any, objects: Any, closed: Any, mine: Any, say: Any
) -> None:
    words = say.chunks(*(say.word("word " * 8) for _ in range(10)))
    engine = await endpoint(say.steps(say.SSE + words, say.HANG))
    lb = await serve(docs=closed({"tokensPerMinute": 1000}, objects.pool("local", engine)))
    client = await dial(lb)
    await client.send(client.request(body=client.chat_body(stream=True, max_tokens=500), headers=mine))
    await client.head()
    heard = b""
    while heard.count(b"word") < 80:
        heard += await client.chunk()
    client.close()
    allowance = lb.balancer.serving.current.routes.all[0].callers.members[0].allowance
    await lb.until(lambda: lb.balancer.proxy.in_flight == 0)
    assert 80 < allowance.tokens.used(monotonic()) < 200


async def test_streams_are_counted_exactly_and_say_no_more_than_was_asked_for(
    serve: Any, engine: Any, dial: Any, objects: Any, closed: Any, mine: Any
) -> None:
    lb = await serve(docs=closed({"tokensPerMinute": 1000}, objects.pool("local", await engine())))
    client = await dial(lb)
    tokens = lb.balancer.serving.current.routes.all[0].callers.members[0].allowance.tokens
    used = (await client.chat(mine, max_tokens=9)).json()["usage"]["total_tokens"]
    assert tokens.used(monotonic()) == used
    stream = await client.chat(mine, max_tokens=9, stream=True)
    assert not any('"usage"' in event for event in stream.events)
    assert tokens.used(monotonic()) == 2 * used


async def test_near_limit_downgrade(serve: Any, engine: Any, tmp_path: Path) -> None:
    """examples/near-limit.yaml with the official SDK."""
    pools = {name: await engine(models=(model,)) for name, model in (("large", "llama-70b"), ("small", "llama-8b"))}
    docs = staged("near-limit.yaml", {name: each.url for name, each in pools.items()}, tmp_path)
    lb = await serve(docs=docs)

    def sdk(key: str) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=f"{lb.url}/v1", api_key=key, max_retries=0, default_headers={"x-spillway-explain": "1"}
        )

    async with sdk("try-me-a") as team_a, sdk("try-me-b") as team_b, sdk("try-me-c") as nobody:

        async def pool(client: openai.AsyncOpenAI, tokens: int) -> str:
            raw = await client.chat.completions.with_raw_response.create(
                model="chat", messages=HELLO, max_tokens=tokens
            )
            assert raw.parse().usage.completion_tokens == tokens
            return str(raw.headers["x-spillway-pool"])

        assert [await pool(team_a, 260) for _ in range(3)] == ["default/large"] * 3
        assert await pool(team_a, 8) == "default/small"
        assert await pool(team_b, 260) == "default/large"
        with pytest.raises(openai.RateLimitError) as caught:
            await team_a.chat.completions.create(model="chat", messages=HELLO, max_tokens=500)
        assert caught.value.code == "rate_limit_exceeded"
        assert 50 < int(caught.value.response.headers["retry-after"]) <= 61
        with pytest.raises(openai.AuthenticationError):
            await nobody.chat.completions.create(model="chat", messages=HELLO)
