"""The webhook on a real socket with real TLS: an answer in time, and never one that keeps a Pod from being made."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from tests.operator.rig import SERVICE
from tests.operator.test_admission import review

from spillway_operator import webhook as module
from spillway_operator.certificates import Made, ServingTls, trust_in
from spillway_operator.cluster import ApiError
from spillway_operator.injection import Sidecar
from spillway_operator.webhook import AT_ONCE, PATH, Webhook

SIDECAR = Sidecar("example.com/spillway-balancer:1.0", "https://operator:9443", {"default": "http://gateway"})


MANY = 3 * AT_ONCE


class Asking:
    """A webhook and a client of it."""

    def __init__(self, made: Made) -> None:
        self.results: Counter[str] = Counter()
        self.ensured: list[str] = []
        self.fails: Exception | None = None
        self.waits: asyncio.Event | None = None
        self.full = asyncio.Event()
        self.hook = Webhook(SIDECAR, self._ensure, lambda result: self.results.update([result]))
        self._made = made

    async def _ensure(self, namespace: str) -> None:
        self.ensured.append(namespace)
        if len(self.ensured) == MANY:
            self.full.set()
        if self.waits is not None:
            await self.waits.wait()
        if self.fails is not None:
            raise self.fails

    async def start(self) -> None:
        tls = ServingTls(lambda: asyncio.sleep(0, None))
        tls.use({"data": self._made.data()})
        await self.hook.start("127.0.0.1", 0, tls.context)
        self.url = f"https://127.0.0.1:{self.hook.port}{PATH}"
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def stop(self) -> None:
        await self.session.close()
        await self.hook.stop(linger=0.0)

    async def post(self, body: bytes | AsyncIterator[bytes]) -> tuple[int, Any]:
        async with self.session.post(
            self.url,
            data=io.BytesIO(body) if isinstance(body, bytes) else body,
            headers={"content-type": "application/json"},
            ssl=trust_in(self._made.authority),
            server_hostname=SERVICE,
        ) as answer:
            self.closing = answer.headers.get("Connection") == "close"
            text = await answer.text()
            return answer.status, json.loads(text) if answer.content_type == "application/json" else text

    async def __call__(self, pod: Any, **request: Any) -> dict[str, Any]:
        """The response; the Pod is always let in."""
        status, answer = await self.post(review(object=pod, **request))
        assert (status, answer["response"]["allowed"]) == (200, True)
        response: dict[str, Any] = answer["response"]
        return response


@pytest.fixture
async def ask(made: Made) -> AsyncIterator[Asking]:
    one = Asking(made)
    await one.start()
    yield one
    await one.stop()


def pod(label: str | None = "true", **spec: Any) -> dict[str, Any]:
    labels = {} if label is None else {"labels": {"spillway.dev/inject": label}}
    return {"metadata": {"generateName": "app-", **labels}, "spec": {"containers": [{"name": "app"}], **spec}}


async def test_a_pod_without_a_name_yet_gets_its_sidecar(ask: Asking) -> None:
    response = await ask(pod())
    patch = json.loads(base64.b64decode(response["patch"]))
    assert any(each["path"] == "/spec/initContainers" for each in patch)
    assert ask.ensured == ["shop"]
    assert ask.results == {"injected": 1}


async def test_one_that_says_nothing_is_asked_about_for_its_namespace(ask: Asking) -> None:
    assert "patch" in await ask(pod(None))


async def test_a_dry_run_writes_nothing(ask: Asking) -> None:
    assert "patch" in await ask(pod(), dryRun=True)
    assert ask.ensured == []


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        (pod("false"), {}),
        (pod(), {"operation": "UPDATE"}),
        (pod(), {"namespace": ""}),
        (None, {}),
    ],
)
async def test_what_wants_none_is_left_as_it_is(ask: Asking, body: Any, request_: dict[str, Any]) -> None:
    response = await ask(body, **request_)
    assert response.keys() == {"uid", "allowed"}
    assert ask.results == {"unchanged": 1}


async def test_an_annotation_that_means_nothing_is_named_and_takes_nothing_away(ask: Asking) -> None:
    body = pod()
    body["metadata"]["annotations"] = {"spillway.dev/rotues": "chat", "example.com/routes": "x"}
    response = await ask(body)
    assert "patch" in response
    assert response["warnings"] == [
        'spillway.dev/rotues is no annotation of sidecars; did you mean "spillway.dev/routes"?'
    ]


async def test_one_that_cannot_have_one_is_told_why(ask: Asking) -> None:
    response = await ask(pod(hostNetwork=True))
    assert response["warnings"] == [
        "spillway.dev/inject: this Pod gets no sidecar: "
        "it has the network of its node, where the sidecar's ports would be everybody's"
    ]
    assert "patch" not in response
    assert (ask.results, ask.ensured) == ({"refused": 1}, [])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"metadata": {}, "spec": None},
        {"metadata": {"labels": 7}, "spec": {}},
        {"metadata": {}, "spec": {"containers": [1]}},
    ],
)
async def test_one_that_makes_no_sense_is_let_in_for_the_api_server_to_refuse(ask: Asking, body: Any) -> None:
    response = await ask(body)
    assert "patch" not in response
    assert "could not be understood" in response["warnings"][0]
    assert ask.results == {"failed": 1}


async def test_who_makes_a_pod_is_told_what_the_namespace_does_not_take(ask: Asking) -> None:
    ask.fails = ApiError(403, "Forbidden", "exceeded quota: maps, requested: count/configmaps=1")
    response = await ask(pod())
    assert "patch" not in response
    (warning,) = response["warnings"]
    assert warning.endswith("ConfigMap spillway-ca: exceeded quota: maps, requested: count/configmaps=1")
    assert ask.results == {"failed": 1}


async def test_where_the_authority_cannot_be_written_the_pod_goes_without(ask: Asking) -> None:
    ask.fails = ApiError(503, "ServiceUnavailable", "etcd")
    response = await ask(pod())
    assert "patch" not in response
    assert "could not be made in time" in response["warnings"][0]
    assert ask.results == {"failed": 1}


async def test_nobody_waits_longer_than_an_api_server_does(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE", 0.05)
    ask.waits = asyncio.Event()
    response = await ask(pod())
    assert "patch" not in response
    assert ask.results == {"failed": 1}


async def test_a_question_that_does_not_end_is_ended(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE", 0.05)

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with asyncio.timeout(10):
        status, _ = await ask.post(slowly())
    assert status == 408


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"{}", 400), (b"[" * 5000, 400), (b" " * (module.MAX_BYTES + 1), 413)],
    ids=["nothing", "no review", "deep", "large"],
)
async def test_what_is_no_question_is_refused_and_the_next_one_answered(ask: Asking, body: bytes, status: int) -> None:
    assert (await ask.post(body))[0] == status
    assert "patch" in await ask(pod())


async def test_however_many_wait_for_a_namespace_each_gets_its_sidecar(ask: Asking) -> None:
    ask.waits = asyncio.Event()
    waiting = [asyncio.create_task(ask(pod())) for _ in range(MANY)]
    async with asyncio.timeout(10):
        await ask.full.wait()
        ask.waits.set()
        assert all("patch" in response for response in await asyncio.gather(*waiting))


async def test_who_sends_slowly_holds_nobody_up_for_long(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE", 0.2)

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with asyncio.timeout(20):
        slow = [asyncio.create_task(ask.post(slowly())) for _ in range(AT_ONCE)]
        assert {status for status, _ in await asyncio.gather(*slow)} == {408}
        assert "patch" in await ask(pod())


async def test_at_its_end_it_answers_for_a_while_and_the_last_time_on_each_connection(made: Made) -> None:
    ask = Asking(made)
    await ask.start()
    assert "patch" in await ask(pod())
    assert not ask.closing
    ends = asyncio.create_task(ask.hook.stop(linger=0.5))
    await asyncio.sleep(0)
    assert "patch" in await ask(pod())
    assert ask.closing
    await ends
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(pod())
    await ask.session.close()


def test_what_never_listened_ends_at_once() -> None:
    asyncio.run(Webhook(SIDECAR, lambda _: asyncio.sleep(0), lambda _: None).stop())
