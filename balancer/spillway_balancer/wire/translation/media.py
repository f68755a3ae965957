"""Pictures and documents as URLs carry them: `data:` URLs (RFC 2397) to values and back."""

from __future__ import annotations

import base64
import binascii

from .conversation import Media


def of_url(url: str) -> Media | None:
    """What stands at a URL, or in it; None for one that is neither HTTP nor base64 data."""
    scheme, _, rest = url.partition(":")
    scheme = scheme.lower()
    if scheme in ("http", "https"):
        return Media(url=url)
    if scheme != "data":
        return None
    head, comma, data = rest.partition(",")
    kind, *parameters = head.split(";")
    if not comma or "base64" not in (each.strip().lower() for each in parameters):
        return None
    return Media(data=data, kind=kind.strip().lower() or "text/plain")


def url_of(media: Media) -> str:
    if media.url is not None:
        return media.url
    return f"data:{media.kind};base64,{media.data}"


def text_of(media: Media) -> str | None:
    """The words of a document that is plain text, whatever its markup; None for what is no text."""
    if media.data is None or media.kind is None or not media.kind.startswith("text/"):
        return None
    try:
        return base64.b64decode(media.data, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
