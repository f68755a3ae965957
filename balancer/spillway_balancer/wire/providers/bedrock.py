"""Amazon Bedrock's Converse API, whose paths name the model: https://docs.aws.amazon.com/bedrock/latest/APIReference"""

from __future__ import annotations

from urllib.parse import urlsplit


def join(base_url: str, path: str) -> str:
    """The request target for `/model/…/converse`, behind whatever path the base URL has. Not kept: there is a path for
    each model that anybody asks for."""
    return urlsplit(base_url).path.rstrip("/") + path
