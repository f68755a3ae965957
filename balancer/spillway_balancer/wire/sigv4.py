"""Signature Version 4, with which AWS is shown who asks: pure, with the time as an argument.

What is signed is the method, the target, `host`, every `x-amz-…` header and the SHA-256 of the body; other headers may
change on the way. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html; paths are
encoded once more than they are sent, as for every service but S3.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from datetime import UTC, datetime
from posixpath import normpath
from typing import Final
from urllib.parse import quote

from ..core.grants import AwsKeys

Header = tuple[str, str]

ALGORITHM: Final = "AWS4-HMAC-SHA256"
_TERMINATOR: Final = "aws4_request"


def signed(
    method: str,
    target: str,
    headers: Iterable[Header],
    digest: str,
    keys: AwsKeys,
    region: str,
    service: str,
    when: float,
) -> list[Header]:
    """The headers to add to a request, the signature among them.

    `target` is path and query as they are sent; `headers` are those to be signed, `host` among them; `digest` is the
    SHA-256 of the body in hex; `when` is Unix time in seconds: AWS takes what is within five minutes of its own.
    """
    stamp = datetime.fromtimestamp(when, UTC).strftime("%Y%m%dT%H%M%SZ")
    added = [("x-amz-date", stamp)]
    if keys.session_token is not None:
        added.append(("x-amz-security-token", keys.session_token))
    names, canonical = canonical_request(method, target, [*headers, *added], digest)
    scope = f"{stamp[:8]}/{region}/{service}/{_TERMINATOR}"
    text = "\n".join((ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = signing_key(keys.secret_access_key, stamp[:8], region, service)
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={keys.access_key_id}/{scope}"
    return [*added, ("authorization", f"{ALGORITHM} {credential}, SignedHeaders={names}, Signature={signature}")]


def canonical_request(method: str, target: str, headers: Iterable[Header], digest: str) -> tuple[str, str]:
    """The names of the headers that are signed, and the text that is."""
    path, _, query = target.partition("?")
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name.lower().strip(), []).append(" ".join(value.split()))
    listed = sorted(values)
    names = ";".join(listed)
    lines = [f"{name}:{','.join(values[name])}" for name in listed]
    return names, "\n".join((method, _path(path), _query(query), *lines, "", names, digest))


def _path(path: str) -> str:
    """Without empty steps, `.` and `..`; a slash at its end stays."""
    plain = normpath("/" + path.lstrip("/"))
    if path.endswith(("/", "/.", "/..")) and plain != "/":
        plain += "/"
    return quote(plain, safe="/-_.~")


def _query(query: str) -> str:
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&") if pair)
    return "&".join(f"{name}={value}" for name, value in pairs)


def signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    """The key of one day (YYYYMMDD), region and service."""
    key = f"AWS4{secret}".encode()
    for step in (day, region, service, _TERMINATOR):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return key
