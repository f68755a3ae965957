"""URLs as the API server reads them: the values behind `isURL()` and `url()` in CEL rules.

Kubernetes' CEL library calls Go's `url.ParseRequestURI`. Python's `urlsplit` accepts much that Go refuses (a
space or a port of letters in the host), so a file would pass here and be refused by a cluster. This follows
Go's net/url, https://go.dev/src/net/url/url.go.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import unquote

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# What Go allows in a host: the unreserved and sub-delimiter characters of RFC 3986, and the five others that
# browsers let pass. Escapes may only stand for bytes beyond ASCII, or for the % of an IPv6 zone.
_HOST = re.compile(r"(?:[A-Za-z0-9\-_.~!$&'()*+,;=:\[\]<>\"]|[^\x00-\x7f]|%25|%[89A-Fa-f][0-9A-Fa-f])*")
_USER = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")
_PORT = re.compile(r"(?::[0-9]*)?")


class WebUrl(NamedTuple):
    """The parts of a URL that rules ask for; `host` has no port and no brackets, `query` is undecoded."""

    scheme: str
    host: str
    query: str


def parse(text: str) -> WebUrl | None:
    """The parts of an absolute URL or absolute path, or None where Go's `url.ParseRequestURI` errs."""
    if not text or any(character < " " or character == "\x7f" for character in text):
        return None
    if text == "*":
        return WebUrl("", "", "")
    found = _SCHEME.match(text)
    scheme, rest = (found[1].lower(), text[found.end() :]) if found else ("", text)
    rest, _, query = rest.partition("?")
    if not rest.startswith("/"):
        # A scheme without a slash after it is an opaque URL (mailto:x): valid, but it has no host.
        return WebUrl(scheme, "", query) if scheme else None
    host: str | None = ""
    if scheme and rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        rest = slash + path
        user, at, address = authority.rpartition("@")
        if at and (not _USER.fullmatch(user) or _BAD_ESCAPE.search(user)):
            return None
        host = _hostname(address)
    if host is None or _BAD_ESCAPE.search(rest):
        return None
    return WebUrl(scheme, host, query)


def parameters(query: str) -> dict[str, list[str]]:
    """The parameters of a query as Go's `url.ParseQuery` keeps them: what it cannot read is dropped."""
    found: dict[str, list[str]] = {}
    for part in query.split("&"):
        if not part or ";" in part or _BAD_ESCAPE.search(part):
            continue
        key, _, value = part.partition("=")
        found.setdefault(unquote(key.replace("+", " ")), []).append(unquote(value.replace("+", " ")))
    return found


def _hostname(address: str) -> str | None:
    if not _HOST.fullmatch(address):
        return None
    if "[" in address:
        inside, bracket, port = address[1:].rpartition("]")
        if not address.startswith("[") or not bracket or not _PORT.fullmatch(port):
            return None
        try:
            ipaddress.IPv6Address(inside.partition("%25")[0])
        except ValueError:
            return None
        return unquote(inside)
    host, colon, port = address.rpartition(":")
    if not _PORT.fullmatch(colon + port if colon else ""):
        return None
    return unquote(host if colon else address)
