"""Tokens of ServiceAccounts, as far as they can be read by those who have asked the API server of them."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Final

LONGEST: Final = 16 << 10
"""Characters of a token that is looked at at all."""


def end_of(token: str) -> float:
    """`exp` of a JSON Web Token that was found good, in seconds of Unix time (RFC 7519, section 4.1.4); a token of
    another form has no end known to us."""
    try:
        payload = token.split(".")[1]
        ends = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
    except (IndexError, ValueError, KeyError, TypeError):
        return float("inf")
    return float(ends) if isinstance(ends, int | float) else float("inf")
