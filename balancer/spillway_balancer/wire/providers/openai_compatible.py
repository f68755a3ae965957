"""OpenAI, and every server that speaks its API: other providers, and the engines themselves."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit

_VERSION = re.compile(r"v\d+(?:(?:alpha|beta)\d*)?").fullmatch


@lru_cache(maxsize=4096)
def join(base_url: str, path: str) -> str:
    """The request target for an API path at a base URL.

    A base URL whose path names an API version is one as SDKs take it, to be followed by `/chat/completions`:
    `https://host/v1`, `https://openrouter.ai/api/v1`, `https://host/v1beta/openai`. Any other is the server's address,
    with or without a prefix of a reverse proxy, to be followed by `/v1/chat/completions`. A query is kept.
    """
    parts = urlsplit(base_url)
    base = parts.path.rstrip("/")
    if any(_VERSION(step) for step in base.split("/")):
        path = path.removeprefix("/v1")
    return f"{base}{path}?{parts.query}" if parts.query else base + path
