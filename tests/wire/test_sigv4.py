"""Signatures, by AWS's published test suite and the worked example of its documentation."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_balancer.core.grants import AwsKeys
from spillway_balancer.wire.sigv4 import signed, signing_key

KEYS = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
WHEN = 1440938160.0
"""2015-08-30 12:36:00 UTC, as in all of the suite."""
HOST = ("Host", "example.amazonaws.com")
EMPTY = hashlib.sha256(b"").hexdigest()

# aws-sig-v4-test-suite: method, target, headers beside Host, body, names signed, signature.
SUITE = {
    "get-vanilla": ("GET", "/", (), b"", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    "get-relative": (
        "GET", "/example/..", (), b"", "",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    "get-slashes": (
        "GET", "//example//", (), b"", "",
        "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
    ),
    "get-slash-pointless-dot": (
        "GET", "/./example", (), b"", "",
        "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
    ),
    "get-vanilla-query-order-key-case": (
        "GET", "/?Param2=value2&Param1=value1", (), b"", "",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    "get-header-value-trim": (
        "GET", "/", (("My-Header1", " value1"), ("My-Header2", ' "a   b   c"')), b"", "my-header1;my-header2;",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    "get-header-key-duplicate": (
        "GET", "/", (("My-Header1", "value2"), ("My-Header1", "value2"), ("My-Header1", "value1")), b"", "my-header1;",
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    ),
    "post-vanilla": ("POST", "/", (), b"", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    "post-x-www-form-urlencoded": (
        "POST", "/", (("Content-Type", "application/x-www-form-urlencoded"),), b"Param1=value1", "content-type;",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SUITE)
def test_published_vectors(case: str) -> None:
    method, target, headers, body, names, signature = SUITE[case]
    digest = hashlib.sha256(body).hexdigest()
    made = dict(signed(method, target, (HOST, *headers), digest, KEYS, "us-east-1", "service", WHEN))
    listed = ";".join(sorted([*filter(None, names.split(";")), "host", "x-amz-date"]))
    assert made == {
        "x-amz-date": "20150830T123600Z",
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={listed}, Signature={signature}",
    }


def test_the_documentations_example() -> None:
    key = signing_key(KEYS.secret_access_key, "20150830", "us-east-1", "iam")
    assert key.hex() == "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
    headers = (("Host", "iam.amazonaws.com"), ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"))
    target = "/?Action=ListUsers&Version=2010-05-08"
    made = dict(signed("GET", target, headers, EMPTY, KEYS, "us-east-1", "iam", WHEN))
    assert made["authorization"].endswith("=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7")


def test_a_session_token_is_sent_and_signed() -> None:
    keys = AwsKeys("AKIDEXAMPLE", KEYS.secret_access_key, "a/token+==")
    made = dict(signed("POST", "/", (HOST,), EMPTY, keys, "us-east-1", "bedrock", WHEN))
    assert made["x-amz-security-token"] == "a/token+=="
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token," in made["authorization"]


SAID = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=12)


@given(SAID, st.binary(max_size=20), st.floats(0, 4e9), st.sampled_from(["path", "body", "time", "secret", "region"]))
def test_a_signature_is_for_one_request_alone(path: str, body: bytes, when: float, changed: str) -> None:
    def made(**other: bool) -> str:
        keys = AwsKeys("AKIDEXAMPLE", "other" if other.get("secret") else "secret")
        digest = hashlib.sha256(body + b"!" * other.get("body", False)).hexdigest()
        region = "eu-west-1" if other.get("region") else "us-east-1"
        target = f"/model/{path.partition('?')[0]}x" + "y" * other.get("path", False)
        at = when + 1.0 * other.get("time", False)
        return dict(signed("POST", target, (HOST,), digest, keys, region, "bedrock", at))["authorization"]

    assert made() == made()
    assert made() != made(**{changed: True})
