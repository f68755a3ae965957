"""The fake of Amazon Bedrock: keys and signatures, frames, validation, caches."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from binascii import crc32
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from spillway_balancer.provider.keys import Key
from spillway_balancer.provider.sigv4 import SignatureWrong, Signed, verify

from .conftest import Fake, bill

HELLO: Any = [{"role": "user", "content": [{"text": "Hello there"}]}]
SPEC: Any = {"name": "get_weather", "inputSchema": {"json": {"type": "object", "properties": {"city": {}}}}}
TOOLS: Any = {"tools": [{"toolSpec": SPEC}]}
USE: Any = {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t1", "name": "get_weather", "input": {}}}]}
RESULT: Any = {"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [{"text": "sunny"}]}}]}
BEARER = {"authorization": "Bearer fake-key"}
LONG = "a long prompt of many words " * 200


def frames(data: bytes) -> list[tuple[dict[str, str], Any]]:
    """Of an event stream, after AWS's description of it; both checksums must hold."""
    found = []
    while data:
        total, named = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
        assert crc32(data[:8]) == int.from_bytes(data[8:12], "big")
        assert crc32(data[: total - 4]) == int.from_bytes(data[total - 4 : total], "big")
        headers, rest = {}, data[12 : 12 + named]
        while rest:
            at = 1 + rest[0]
            size = int.from_bytes(rest[at + 1 : at + 3], "big")
            headers[rest[1:at].decode()] = rest[at + 3 : at + 3 + size].decode()
            rest = rest[at + 3 + size :]
        found.append((headers, json.loads(data[12 + named : total - 4])))
        data = data[total:]
    return found


async def test_a_stream_is_frames_and_says_the_same_as_the_whole(fake: Fake, session: aiohttp.ClientSession) -> None:
    server = await fake("bedrock")
    body = {"messages": HELLO, "inferenceConfig": {"maxTokens": 6}}
    async with session.post(f"{server.url}/model/m/converse", json=body, headers=BEARER) as response:
        whole = await response.json()
        assert response.headers["x-amzn-requestid"]
    async with session.post(f"{server.url}/model/m/converse-stream", json=body, headers=BEARER) as response:
        assert response.content_type == "application/vnd.amazon.eventstream"
        events = frames(await response.read())
    names = [headers[":event-type"] for headers, _ in events]
    assert names == [
        "messageStart", *["contentBlockDelta"] * 6, "contentBlockStop", "messageStop", "metadata"
    ]  # fmt: skip
    said = "".join(each["delta"]["text"] for _, each in events if "delta" in each)
    assert said == whole["output"]["message"]["content"][0]["text"]
    assert events[-1][1]["usage"] == whole["usage"]
    assert whole["stopReason"] == events[-2][1]["stopReason"] == "max_tokens"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": []}, "must not be empty"),
        ({"messages": HELLO + HELLO}, "must alternate between user and assistant"),
        ({"messages": [USE]}, "must start with a user message"),
        ({"messages": [*HELLO, USE, RESULT]}, "The toolConfig field must be defined"),
        ({"messages": [*HELLO, USE, *HELLO], "toolConfig": TOOLS}, "Expected toolResult blocks at messages.2.content"),
        ({"messages": [RESULT], "toolConfig": TOOLS}, "exceeds the number of toolUse blocks"),
        ({"messages": [{"role": "user", "content": [{"text": " "}]}]}, "is blank"),
        ({"temperature": 1}, "extraneous key [temperature] is not permitted"),
        ({"toolConfig": {"tools": []}}, "toolConfig.tools"),
        ({"inferenceConfig": {"maxTokens": 0}}, "maxTokens"),
    ],
)
async def test_requests_are_validated(
    fake: Fake, session: aiohttp.ClientSession, change: dict[str, Any], message: str
) -> None:
    server = await fake("bedrock")
    url = f"{server.url}/model/m/converse"
    async with session.post(url, json={"messages": HELLO} | change, headers=BEARER) as response:
        assert response.status == 400
        assert response.headers["x-amzn-errortype"] == "ValidationException"
        assert message in (await response.json())["message"]


async def test_cache_points_are_written_and_read(fake: Fake, session: aiohttp.ClientSession) -> None:
    server = await fake("bedrock")
    body = {"system": [{"text": LONG}, {"cachePoint": {"type": "default"}}], "messages": HELLO}
    told = []
    for _ in range(2):
        async with session.post(f"{server.url}/model/m/converse", json=body, headers=BEARER) as response:
            told.append((await response.json())["usage"])
    assert told[0]["cacheWriteInputTokens"] == told[1]["cacheReadInputTokens"] >= 1400
    assert told[0]["inputTokens"] == told[1]["inputTokens"] < 100
    assert told[1]["totalTokens"] == sum(told[1][f"{k}Tokens"] for k in ("input", "output", "cacheReadInput"))
    assert (await bill(session, server))["keys"]["main"]["told"]["m"]["cached"] >= 1400


# The example of AWS's documentation and test suite ("get-vanilla"), which is for a service called `service`.
VANILLA = Signed(
    "GET",
    "/",
    "",
    {
        "host": "example.amazonaws.com",
        "x-amz-date": "20150830T123600Z",
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, "
        "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    },
    b"",
)
WHEN = 1440938160.0


def test_amazons_example_of_a_signature_holds() -> None:
    secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    verify(VANILLA, secret, "", WHEN, service="service")
    with pytest.raises(SignatureWrong, match="correct service"):
        verify(VANILLA, secret, "", WHEN)
    with pytest.raises(SignatureWrong, match="does not match"):
        verify(VANILLA, secret[:-1], "", WHEN, service="service")
    with pytest.raises(SignatureWrong, match="expired"):
        verify(VANILLA, secret, "", WHEN + 301, service="service")
    with pytest.raises(SignatureWrong, match="does not match"):
        verify(VANILLA._replace(path="/other"), secret, "", WHEN, service="service")


def signed(url: str, body: bytes, id: str, secret: str, token: str | None = None) -> dict[str, str]:
    """A third hand at it, in one piece, for requests of these tests."""
    host, _, path = url.removeprefix("http://").partition("/")
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {"host": host, "x-amz-date": when} | ({"x-amz-security-token": token} if token else {})
    names = ";".join(sorted(headers))
    lines = ["POST", quote(f"/{path}", safe="/-_.~"), "", *(f"{name}:{headers[name]}" for name in sorted(headers))]
    canonical = "\n".join([*lines, "", names, hashlib.sha256(body).hexdigest()])
    scope = f"{when[:8]}/eu-west-1/bedrock/aws4_request"
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    said = f"AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return headers | {"authorization": said}


@pytest.mark.parametrize(
    ("id", "secret", "token", "status", "error"),
    [
        ("AKID", "s1", None, 200, None),
        ("AKID", "s2", None, 403, "AccessDeniedException"),
        ("OTHER", "s1", None, 403, "UnrecognizedClientException"),
        ("ASIA", "s3", "token", 200, None),
        ("ASIA", "s3", None, 403, "AccessDeniedException"),
    ],
)
async def test_signed_requests(
    fake: Fake, session: aiohttp.ClientSession, id: str, secret: str, token: str | None, status: int, error: str | None
) -> None:
    server = await fake("bedrock", keys=(Key("long", "AKID:s1"), Key("short", "ASIA:s3:token")))
    url = f"{server.url}/model/eu.anthropic.claude-x-v1%3A0/converse"
    body = json.dumps({"messages": HELLO}).encode()
    headers = signed(url, body, id, secret, token)

    async with session.post(URL(url, encoded=True), data=body, headers=headers) as response:
        assert response.status == status
        assert response.headers.get("x-amzn-errortype") == error


async def test_a_key_that_signs_is_no_bearer(fake: Fake, session: aiohttp.ClientSession) -> None:
    server = await fake("bedrock", keys=(Key("long", "AKID:s1"),))
    headers = {"authorization": "Bearer AKID:s1"}
    async with session.post(f"{server.url}/model/m/converse", json={"messages": HELLO}, headers=headers) as response:
        assert response.status == 403
