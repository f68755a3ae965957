"""Who asks: the key of a request, as each family takes it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import NamedTuple

from .families import Family
from .refusals import Refusal
from .sigv4 import SignatureWrong, Signed, verify

_MISSING = {
    "x-api-key": "x-api-key header is required",
    "amazon": "Missing Authentication Token",
    "bearer": "You didn't provide an API key. You need to provide your API key in an Authorization header.",
    "api-key": "Access denied due to invalid subscription key or wrong API endpoint.",
}
_WRONG = {
    "x-api-key": "invalid x-api-key",
    "amazon": "The security token included in the request is invalid.",
    "bearer": "Incorrect API key provided.",
    "api-key": "Access denied due to invalid subscription key or wrong API endpoint.",
}


class Key(NamedTuple):
    """An account. `secret` is a key as it is sent; for signatures it is ID:SECRET or ID:SECRET:SESSION."""

    name: str
    secret: str

    @classmethod
    def read(cls, said: str) -> Key:
        """NAME=VALUE; ValueError for anything else."""
        name, _, secret = said.partition("=")
        if not name or not secret:
            raise ValueError("a key is given as NAME=VALUE")
        return cls(name, secret)


def holder(family: Family, keys: tuple[Key, ...], headers: Mapping[str, str], signed: Signed, now: float) -> str:
    """The name of the account that a request is of. Raises a Refusal in the words of the family.

    `signed` is what a signature covers, `now` Unix time in seconds, which signatures are dated with.
    """
    if family.auth == "x-api-key" and "anthropic-version" not in headers:
        raise Refusal("invalid", "anthropic-version: header is required")
    authorization = headers.get("authorization", "")
    if family.auth == "amazon" and authorization.startswith("AWS4-HMAC-SHA256 "):
        return _signer(keys, signed, now)
    given = authorization.removeprefix("Bearer ") if authorization.startswith("Bearer ") else ""
    if family.auth in ("x-api-key", "api-key"):
        given = headers.get(family.auth) or given
    elif family.type == "gemini":
        given = headers.get("x-goog-api-key") or given
    if not given:
        raise Refusal("forbidden" if family.auth == "amazon" else "auth", _MISSING[family.auth])
    for key in keys:
        signs = family.auth == "amazon" and ":" in key.secret
        if not signs and hmac.compare_digest(key.secret.encode(), given.encode("utf-8", "replace")):
            return key.name
    raise Refusal("auth", _WRONG[family.auth])


def _signer(keys: tuple[Key, ...], signed: Signed, now: float) -> str:
    for key in keys:
        id, _, rest = key.secret.partition(":")
        secret, _, session = rest.partition(":")
        if not secret or id != signed.key_id():
            continue
        try:
            verify(signed, secret, session, now)
        except SignatureWrong as wrong:
            raise Refusal("forbidden", str(wrong)) from None
        return key.name
    raise Refusal("auth", _WRONG["amazon"])
