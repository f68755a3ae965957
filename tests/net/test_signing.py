"""What accounts of AWS show: signatures that hold before the fakes' own check, and keys as all others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spillway_api.snapshot import Credential, Endpoint
from spillway_balancer.net.credentials import Credentials
from spillway_balancer.net.signing import shown
from spillway_balancer.provider.sigv4 import SignatureWrong, Signed, verify

NOW = 1_900_000_000.0
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
START = b"POST /model/eu.amazon.nova-lite-v1%3A0/converse HTTP/1.1\r\nhost: bedrock-runtime.eu-west-1.amazonaws.com\r\n"
BODY = [b'{"messages":[', memoryview(b'{"role":"user"}'), b"]}"]
SPEC = Endpoint(
    "main", "https://x", 100, Credential("default/aws", "api-key", "Authorization", "Bearer "), region="eu-west-1"
)


def said(
    tmp_path: Path, value: str, body: list[bytes | memoryview] | None = None, start: bytes = START
) -> dict[str, str]:
    (tmp_path / "aws").mkdir(exist_ok=True)
    (tmp_path / "aws" / "api-key").write_text(value)
    lines = shown(Credentials(tmp_path, {}), SPEC, "bedrock", start, BODY if body is None else body, lambda: NOW)
    return dict(line.split(": ", 1) for line in lines.decode().split("\r\n") if line)


def check(headers: dict[str, str], session: str = "", body: bytes = b"".join(BODY), now: float = NOW) -> None:
    host = "bedrock-runtime.eu-west-1.amazonaws.com"
    path = "/model/eu.amazon.nova-lite-v1%3A0/converse"
    verify(Signed("POST", path, "", headers | {"host": host}, body), SECRET, session, now)


def test_keys_sign_the_request_as_it_is_written(tmp_path: Path) -> None:
    headers = said(tmp_path, json.dumps({"accessKeyId": "AKID", "secretAccessKey": SECRET}))
    assert headers.keys() == {"x-amz-date", "authorization"}
    assert "Credential=AKID/" in headers["authorization"]
    assert "/eu-west-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date," in headers["authorization"]
    check(headers)
    with pytest.raises(SignatureWrong):
        check(headers, body=b"{}")
    with pytest.raises(SignatureWrong, match="expired"):
        check(headers, now=NOW + 301)


def test_keys_that_end_show_their_token(tmp_path: Path) -> None:
    keys = f"[default]\naws_access_key_id = AKID\naws_secret_access_key = {SECRET}\naws_session_token = tok/en==\n"
    headers = said(tmp_path, keys)
    assert headers["x-amz-security-token"] == "tok/en=="
    check(headers, "tok/en==")


def test_a_bearer_key_is_shown_as_it_is(tmp_path: Path) -> None:
    assert said(tmp_path, "ABSKQmVkcm9ja0FQSUtleS1leGFtcGxl") == {
        "Authorization": "Bearer ABSKQmVkcm9ja0FQSUtleS1leGFtcGxl"
    }


def test_who_has_nothing_shows_nothing(tmp_path: Path) -> None:
    assert shown(Credentials(tmp_path, {}), SPEC, "bedrock", START, BODY) == b""
    bare = Endpoint("main", "https://x", 100)
    assert shown(Credentials(tmp_path, {}), bare, "bedrock", START, BODY) == b""
