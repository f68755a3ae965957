"""The credential that a client shows, out of the two headers that clients of these APIs put theirs into."""

from __future__ import annotations

from collections.abc import Mapping

HEADERS = ("authorization", "x-api-key")
"""OpenAI's and most others'; Anthropic's and Azure's kin."""


def client_key(headers: Mapping[str, str]) -> str:
    """The key of `Authorization: Bearer KEY`, else of `x-api-key: KEY`; empty where the client shows none.

    `headers` finds names in whatever case. A scheme that is no Bearer (RFC 6750) is of something else on the way.
    """
    scheme, _, rest = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and rest.strip():
        return rest.strip()
    return headers.get("x-api-key", "").strip()
