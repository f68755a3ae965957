"""Accounts of a provider that enforces its quotas, over sockets: where requests go so that nobody is told 429."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import Any

import pytest
from aiohttp import web
from tests.net.chats import Chats


class Provider(Chats):
    """Counts the requests of each key in windows that begin with their first request, and refuses what is too much."""

    def __init__(self) -> None:
        super().__init__()
        self.quota = 60
        self.window = 60.0
        self.tells: Callable[[str], bool] = lambda _key: False
        """Whether an answer to this key says what is left."""
        self.answered: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._windows: dict[str, tuple[float, int]] = {}

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        now = monotonic()
        start, used = self._windows.get(key, (now, 0))
        if now >= start + self.window:
            start, used = now, 0
        reset = start + self.window - now
        within = used < self.quota
        self._windows[key] = start, used + within
        headers = {}
        if self.tells(key):
            headers = {
                "x-ratelimit-limit-requests": str(self.quota),
                "x-ratelimit-remaining-requests": str(self.quota - used - within),
                "x-ratelimit-reset-requests": f"{reset * 1000:.0f}ms",
            }
        if not within:
            self.refused[key] += 1
            headers["retry-after-ms"] = f"{reset * 1000:.0f}"
            error = {"message": "too many", "type": "requests", "code": "rate_limit_exceeded"}
            return web.json_response({"error": error}, status=429, headers=headers)
        self.answered[key] += 1
        await asyncio.sleep(0.001)
        message = {"role": "assistant", "content": "hello"}
        answer = {"id": "a", "object": "chat.completion", "model": "m", "choices": [{"index": 0, "message": message}]}
        answer["usage"] = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
        return web.json_response(answer, headers=headers)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    one = Provider()
    await one.start()
    yield one
    await one.stop()


def docs(objects: Any, provider: Provider, accounts: list[dict[str, Any]], **route: Any) -> list[dict[str, Any]]:
    pool = objects.provider("cloud", provider.url)
    pool["spec"]["source"]["provider"]["accounts"] = [
        {"secretRef": {"name": each["name"]}, **each} for each in accounts
    ]
    secrets = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"api-key": name}}
        for name in (each["name"] for each in accounts)
    ]
    return [pool, objects.route("cloud", **route), *secrets]


async def ask_all(lb: Any, dial: Any, number: int, at_once: int) -> Counter[int]:
    """The statuses that clients got."""
    left = iter(range(number))

    async def one() -> Counter[int]:
        client = await dial(lb)
        return Counter([(await client.chat(max_tokens=5)).status for _ in left])

    found: Counter[int] = Counter()
    for each in await asyncio.gather(*(one() for _ in range(at_once))):
        found += each
    return found


SIXTY = {"limits": {"requestsPerMinute": 60}}
NO_QUEUE = {"queue": {"maxRequests": 0}}


async def test_two_accounts_of_sixty_a_minute_serve_a_hundred_and_twenty_by_their_limits(
    serve: Any, objects: Any, provider: Provider, dial: Any
) -> None:
    lb = await serve(docs=docs(objects, provider, [{"name": "a", **SIXTY}, {"name": "b", **SIXTY}], **NO_QUEUE))
    assert await ask_all(lb, dial, 120, 30) == {200: 120}
    assert provider.answered == {"a": 60, "b": 60}
    client = await dial(lb)
    reply = await client.chat(max_tokens=5)
    assert (reply.status, reply.error["code"]) == (429, "rate_limited")
    assert 50 <= int(reply.header("retry-after")) <= 61
    assert not provider.refused
    page = (await client.get("/metrics")).body.decode()
    for name in ("a", "b"):
        said = f'endpoint="{name}",limit="requestsPerMinute",pool="default/cloud"'
        assert f"spillway_endpoint_limit_used_percent{{{said}}} 100.0" in page


async def test_tokens_count_as_the_answer_tells_them(serve: Any, objects: Any, provider: Provider, dial: Any) -> None:
    accounts = [{"name": "a", "limits": {"tokensPerMinute": 100}}]
    lb = await serve(docs=docs(objects, provider, accounts, **NO_QUEUE))
    client = await dial(lb)
    statuses = [(await client.chat(max_tokens=60)).status for _ in range(4)]
    assert statuses[0] == 200
    assert provider.answered["a"] == statuses.count(200)
    quota = lb.endpoint("a", "cloud").quota
    assert quota.used_percent(0, monotonic())["tokensPerMinute"] == 11.0 * statuses.count(200)


async def test_an_account_that_is_full_makes_who_comes_wait(
    serve: Any, objects: Any, provider: Provider, dial: Any
) -> None:
    lb = await serve(docs=docs(objects, provider, [{"name": "a", "limits": {"maxInFlight": 2}}]))
    assert await ask_all(lb, dial, 40, 10) == {200: 40}
    assert provider.answered == {"a": 40}


async def test_headers_steer_before_the_429(serve: Any, objects: Any, provider: Provider, dial: Any) -> None:
    """Three quarters of the requests would go to the first account, and half of those would be refused."""
    provider.tells = lambda _key: True
    lb = await serve(docs=docs(objects, provider, [{"name": "a", "weight": 300}, {"name": "b"}], **NO_QUEUE))
    assert await ask_all(lb, dial, 120, 8) == {200: 120}
    assert provider.answered == {"a": 60, "b": 60}
    assert not provider.refused
    page = (await (await dial(lb)).get("/metrics")).body.decode()
    for name in ("a", "b"):
        said = f'endpoint="{name}",kind="requests",pool="default/cloud"'
        assert f"spillway_endpoint_quota_remaining{{{said}}} 0.0" in page


async def test_one_account_by_its_limits_and_one_by_its_headers(
    serve: Any, objects: Any, provider: Provider, dial: Any
) -> None:
    provider.tells = lambda key: key == "b"
    accounts = [{"name": "a", **SIXTY}, {"name": "b", "weight": 300}]
    lb = await serve(docs=docs(objects, provider, accounts, **NO_QUEUE))
    assert await ask_all(lb, dial, 120, 8) == {200: 120}
    assert provider.answered == {"a": 60, "b": 60}
    assert not provider.refused


async def test_an_account_that_was_passed_over_is_back_with_its_quota(
    serve: Any, objects: Any, provider: Provider, dial: Any
) -> None:
    provider.quota, provider.window = 20, 0.5
    provider.tells = lambda _key: True
    lb = await serve(docs=docs(objects, provider, [{"name": "a", "weight": 300}, {"name": "b"}], **NO_QUEUE))
    for number in range(1, 4):
        assert await ask_all(lb, dial, 36, 8) == {200: 36}
        assert sum(provider.answered.values()) == 36 * number
        await asyncio.sleep(provider.window)  # the provider's own clock says when there is more
    assert provider.answered["a"] >= 60
    assert not provider.refused
