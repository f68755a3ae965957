"""AWS Signature Version 4, from the side that verifies it. Time is an argument.

Source: AWS General Reference, "Create a signed AWS API request" and the "Signature Version 4 test suite". The path is
encoded a second time before it is signed, as for every service but S3.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from calendar import timegm
from collections.abc import Mapping
from time import strptime
from typing import NamedTuple
from urllib.parse import quote

SKEW = 300.0
"""Seconds by which the clocks may differ."""

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request, ?"
    r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})"
)


class SignatureWrong(Exception):
    """Why a signature does not hold, in AWS's words."""


class Signed(NamedTuple):
    """What is signed. `path` and `query` as they were sent; names of headers in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    def key_id(self) -> str | None:
        """Of the access key that is said to have signed."""
        found = _AUTHORIZATION.fullmatch(self.headers.get("authorization", ""))
        return found[1] if found else None


def verify(signed: Signed, secret: str, session: str, now: float, service: str = "bedrock") -> None:
    """Raises SignatureWrong unless the request was signed with this secret, for this service, and lately.

    `session` is the token that has to come with temporary keys; empty for others.
    """
    found = _AUTHORIZATION.fullmatch(signed.headers.get("authorization", ""))
    if found is None:
        raise SignatureWrong("Authorization header requires 'Credential', 'SignedHeaders' and 'Signature'.")
    _, day, region, scoped, names, signature = found.groups()
    when = signed.headers.get("x-amz-date", "")
    try:
        age = now - timegm(strptime(when, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise SignatureWrong("Authorization header requires existence of an 'X-Amz-Date' header.") from None
    if abs(age) > SKEW or not when.startswith(day):
        raise SignatureWrong(f"Signature expired: {when} is not within 5 minutes of now.")
    if scoped != service:
        raise SignatureWrong(f"Credential should be scoped to correct service: '{service}'.")
    if session and signed.headers.get("x-amz-security-token") != session:
        raise SignatureWrong("The security token included in the request is invalid.")
    chosen = names.split(";")
    if "host" not in chosen or (session and "x-amz-security-token" not in chosen):
        raise SignatureWrong("'Host' must be a 'SignedHeader' in the AWS Authorization.")
    payload = signed.headers.get("x-amz-content-sha256") or hashlib.sha256(signed.body).hexdigest()
    if payload != hashlib.sha256(signed.body).hexdigest():
        raise SignatureWrong("The provided 'x-amz-content-sha256' header does not match what was computed.")
    lines = [signed.method, quote(signed.path, safe="/-_.~"), _query(signed.query)]
    lines += [f"{name}:{' '.join(signed.headers.get(name, '').split())}" for name in chosen]
    canonical = "\n".join([*lines, "", names, payload])
    scope = f"{day}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    right = hmac.new(key, f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{digest}".encode(), "sha256").hexdigest()
    if not hmac.compare_digest(right, signature):
        raise SignatureWrong(
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method."
        )


def _query(query: str) -> str:
    return "&".join(sorted(part if "=" in part else f"{part}=" for part in query.split("&") if part))
