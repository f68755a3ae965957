"""Pictures and documents, between Anthropic's blocks and the common values.

https://platform.claude.com/docs/en/build-with-claude/vision and …/pdf-support: pictures as base64 or by URL, PDFs the
same, plain text as it is. Documents made of blocks and files of the Files API are left to Anthropic.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

import msgspec

from .conversation import Media

PICTURES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_PDF: Final = "application/pdf"
_PLAIN: Final = "text/plain"


class Source(msgspec.Struct):
    """Of a picture or a document. `data` is base64, or text where the type is `text`."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


def media(block: str, source: Source, name: str | None, cached: bool, ttl: str | None) -> Media | None:
    """None where the common values have no place for it."""
    if source.type == "base64" and source.data is not None:
        return Media(source.data, None, source.media_type, name, None, cached, ttl)
    if source.type == "url" and source.url is not None:
        return Media(None, source.url, None if block == "image" else _PDF, name, None, cached, ttl)
    if source.type == "text" and source.data is not None:
        data = base64.b64encode(source.data.encode()).decode()
        return Media(data, None, source.media_type or _PLAIN, name, None, cached, ttl)
    return None


def block(part: Media) -> dict[str, Any] | None:
    """Anthropic's block without its mark for the cache; None where it has none for this."""
    if part.data is not None:
        source: dict[str, Any] = {"type": "base64", "media_type": part.kind, "data": part.data}
        if part.kind in PICTURES:
            return {"type": "image", "source": source}
        if part.kind is not None and part.kind.partition("/")[0] == "text":
            text = _text(part.data)
            if text is None:
                return None
            source = {"type": "text", "media_type": _PLAIN, "data": text}
        elif part.kind != _PDF:
            return None
    elif part.url is None or not part.url.startswith(("https://", "http://")):
        return None
    else:
        source = {"type": "url", "url": part.url}
        if part.kind is None or not part.document:
            return {"type": "image", "source": source}
        if part.kind != _PDF:
            return None
    return {"type": "document", "source": source} | ({"title": part.name} if part.name else {})


def _text(data: str) -> str | None:
    try:
        return base64.b64decode(data, validate=True).decode() or None
    except (binascii.Error, ValueError):
        return None
