"""AWS keys as people keep them in a Secret."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.core.grants import AwsKeys
from spillway_balancer.wire.identity.aws_keys import aws_keys

ID, HIDDEN, TOKEN = (
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AQoDYXdzEPT//////////wEXAMPLE==",
)
WORDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"accessKeyId": ID, "secretAccessKey": HIDDEN, "sessionToken": TOKEN}),
        json.dumps({"AccessKeyId": ID, "SecretAccessKey": HIDDEN, "SessionToken": TOKEN, "Version": 1}, indent=2),
        f"[default]\naws_access_key_id={ID}\naws_secret_access_key={HIDDEN}\naws_session_token={TOKEN}\n",
        f"[work]\r\naws_access_key_id = {ID}\r\naws_secret_access_key = {HIDDEN}\r\naws_session_token = {TOKEN}\r\n",
        f"[a]\nx=y\n[default]\naws_access_key_id={ID}\naws_secret_access_key={HIDDEN}\naws_session_token={TOKEN}",
        f"# of the team\naws_access_key_id={ID}\naws_secret_access_key={HIDDEN}\naws_session_token={TOKEN}",
    ],
)
def test_all_forms_say_the_same(text: str) -> None:
    assert aws_keys(text) == AwsKeys(ID, HIDDEN, TOKEN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-a-bearer-key",
        "{}",
        "[]",
        "[default]",
        json.dumps({"accessKeyId": ID}),
        json.dumps({"accessKeyId": ID, "secretAccessKey": "two words"}),
        json.dumps({"accessKeyId": ID, "secretAccessKey": HIDDEN, "sessionToken": 3}),
        f"[a]\naws_access_key_id={ID}\naws_secret_access_key={HIDDEN}\n[b]\nx=y",
        "{" * 100_000,
    ],
)
def test_what_is_no_pair_of_keys_is_none(text: str) -> None:
    assert aws_keys(text) is None


@given(WORDS, WORDS, st.none() | WORDS)
def test_whatever_characters_keys_have_they_come_back(key: str, hidden: str, token: str | None) -> None:
    said = {"accessKeyId": key, "secretAccessKey": hidden} | ({} if token is None else {"sessionToken": token})
    assert aws_keys(json.dumps(said)) == AwsKeys(key, hidden, token)


@given(st.text() | st.text().map(lambda text: "[default]\n" + text) | st.text().map(lambda text: "{" + text))
def test_garbage_never_raises(text: str) -> None:
    aws_keys(text)


def test_keys_do_not_show_themselves() -> None:
    shown = f"{AwsKeys(ID, HIDDEN, TOKEN, 1.0)!r} {AwsKeys(ID, HIDDEN, TOKEN)!s}"
    assert HIDDEN not in shown
    assert TOKEN not in shown
