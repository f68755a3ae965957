"""Which headers go on, in each direction, and which requests are not HTTP that two servers would read alike.

Works on raw pairs (name, value) as they came. What never goes on: headers of the one connection (RFC 9110, 7.6.1),
those that `Connection` nominates, credentials of the client, and names that are ours to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from ..core.errors import MethodNotAllowed, ProtocolError, UnsupportedEncoding, VersionNotSupported
from .forwarded import FORWARDED, POD

RawHeaders = Iterable[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

OURS: Final = b"x-spillway-"
"""Prefix of the headers that this balancer speaks with its clients; nobody else may, in either direction."""

_NOT_NOMINATED: Final = frozenset({b"authorization", b"content-type", b"content-length", b"host"})
"""Names that a `Connection` header cannot take away: without them a message would mean something else."""

_CREDENTIALS: Final = frozenset(
    {
        b"api-key",
        b"authorization",
        b"cookie",
        b"cookie2",
        b"openai-organization",
        b"openai-project",
        b"x-api-key",
        b"x-goog-api-key",
    }
)
"""What says who the client is, to us. An endpoint gets the pool's own credential, or none."""

_SENT_BY_US: Final = frozenset({b"accept-encoding", b"content-length", b"expect", b"host"})
"""Framing and negotiation of the request to the endpoint: made anew."""

_CLIENT_ADDRESS: Final = frozenset(
    {
        b"cf-connecting-ip",
        b"forwarded",
        b"true-client-ip",
        b"via",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-real-ip",
    }
)
"""Where the client is, with all of `x-forwarded-*`. Dropped and not set anew: an engine has no use for it, and a
provider has no business to know it. Access logs of the balancer are the place to look."""

_NOT_SENT_BACK: Final = frozenset(
    {
        b"alt-svc",
        b"content-length",
        b"date",
        b"nel",
        b"openai-organization",
        b"openai-project",
        b"report-to",
        b"set-cookie",
        b"set-cookie2",
        b"strict-transport-security",
    }
)
"""What an endpoint says about itself: cookies, transport policy of its own host, the account it was asked by. Length
and date are the answer's framing, which is written anew."""

_IDENTITY: Final = (b"accept-encoding", b"identity")
"""Asked of every endpoint: an event stream has to be read as it passes by."""

_NOT_FORWARDED: Final = HOP_BY_HOP | _SENT_BY_US | {FORWARDED.encode(), POD.encode()}

_LF, _CR, _NUL = b"\n\r\0"  # as numbers: looked for in bytes, these cost a fifth of what bytes do

ANTHROPIC: Final = b"anthropic-"
"""Prefix of what is said of a version of Anthropic's API, and of what is tried in it."""

_GO_ON, _DROP, _NOMINATES, _FOR_US, _OF_MESSAGES = range(5)


@lru_cache(maxsize=1024)
def _of_request(name: bytes) -> tuple[bytes, int]:
    """A request header's name in lower case, and what becomes of it. Clients send few different names: remembered."""
    lower = name.lower()
    if lower == b"connection":
        return lower, _NOMINATES
    drop = (
        lower in HOP_BY_HOP
        or lower in _CREDENTIALS
        or lower in _SENT_BY_US
        or lower in _CLIENT_ADDRESS
        or lower.startswith(b"x-forwarded-")
    )
    if lower.startswith(ANTHROPIC):
        return lower, _OF_MESSAGES
    return lower, _FOR_US if lower.startswith(OURS) else _DROP if drop else _GO_ON


@lru_cache(maxsize=1024)
def _of_response(name: bytes) -> tuple[bytes, int]:
    lower = name.lower()
    if lower == b"connection":
        return lower, _NOMINATES
    drop = lower in HOP_BY_HOP or lower in _NOT_SENT_BACK
    return lower, _FOR_US if lower.startswith(OURS) else _DROP if drop else _GO_ON


def request_headers(headers: RawHeaders, messages: bool = False) -> list[tuple[bytes, bytes]]:
    """Headers to send to an endpoint, names in lower case, without Host, Content-Length and credential: the sender's.
    Those of Anthropic's API go on where it is asked (`messages`).

    `accept-encoding: identity` is added. Values that hold CR, LF or NUL are dropped with their name; a server's
    parser has refused them before, and nothing is lost by not relying on it.
    """
    kept: list[tuple[bytes, bytes]] = [_IDENTITY]
    nominated: set[bytes] | None = None
    for name, value in headers:
        lower, what = _of_request(name)
        if what == _GO_ON or (what == _OF_MESSAGES and messages):
            if _LF not in value and _CR not in value and _NUL not in value:
                kept.append((lower, value))
        elif what == _NOMINATES:
            nominated = _nominated(value, nominated)
    return _without(kept, nominated) if nominated else kept


def forwarded_headers(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Headers to send to our own gateway for the client: all that are no framing, its credentials and what it says to
    us included. Those by which one balancer speaks to the other are the sender's."""
    kept: list[tuple[bytes, bytes]] = [_IDENTITY]
    nominated: set[bytes] | None = None
    for name, value in headers:
        lower = name.lower()
        if lower == b"connection":
            nominated = _nominated(value, nominated)
        elif lower not in _NOT_FORWARDED and _LF not in value and _CR not in value and _NUL not in value:
            kept.append((lower, value))
    return _without(kept, nominated) if nominated else kept


def response_headers(headers: RawHeaders, ours: bool = False) -> list[tuple[bytes, bytes]]:
    """Headers to send back to the client, names in lower case, without Content-Length and Date: the sender's. `ours`:
    it was a balancer of ours that has sent them, and what it says to clients is meant for this one."""
    kept: list[tuple[bytes, bytes]] = []
    nominated: set[bytes] | None = None
    for name, value in headers:
        lower, what = _of_response(name)
        if what == _GO_ON or (what == _FOR_US and ours):
            if _LF not in value and _CR not in value and _NUL not in value:
                kept.append((lower, value))
        elif what == _NOMINATES:
            nominated = _nominated(value, nominated)
    return _without(kept, nominated) if nominated else kept


def _nominated(value: bytes, before: set[bytes] | None) -> set[bytes] | None:
    names = {token.strip().lower() for token in value.split(b",")} - {b"", b"close", b"keep-alive"}
    return names | before if before else names


def _without(headers: list[tuple[bytes, bytes]], nominated: set[bytes]) -> list[tuple[bytes, bytes]]:
    names = nominated - _NOT_NOMINATED - {_IDENTITY[0]}
    return [pair for pair in headers if pair[0] not in names]


_LENGTH: Final = b"content-length"
_CODING: Final = b"transfer-encoding"
_HOST: Final = b"host"
_ENCODING: Final = b"content-encoding"
_ONCE: Final = frozenset({_LENGTH, _CODING, _HOST, _ENCODING, b"content-type"})


def check_request(method: str, version: tuple[int, int], headers: RawHeaders) -> bool:
    """Refuse what a server could read otherwise than the one behind it (RFC 9112, 6 and 11.2). Returns whether one of
    the headers is said to this balancer itself.

    Raises MethodNotAllowed for TRACE and CONNECT; VersionNotSupported for anything but HTTP/1.0 and 1.1;
    UnsupportedEncoding for a compressed body; ProtocolError for a body framed twice or in another way than by length
    or as `chunked`, for chunks in HTTP/1.0, for a Host header that is missing in 1.1 or given twice, and for two
    Content-Types.
    """
    if version not in ((1, 1), (1, 0)):
        raise VersionNotSupported("HTTP/1.1 is spoken here")
    if method in ("TRACE", "CONNECT"):
        raise MethodNotAllowed(f"{method} is not served")
    seen: dict[bytes, bytes] = {}
    for_us = False
    for name, value in headers:
        lower, what = _of_request(name)
        if what == _FOR_US:
            for_us = True
        if lower in _ONCE:
            if lower in seen:
                raise ProtocolError(f"the header {lower.decode()} is given twice")
            seen[lower] = value
    if _HOST not in seen and version == (1, 1):
        raise ProtocolError("the Host header is missing")
    coding = seen.get(_CODING)
    if coding is not None:
        if _LENGTH in seen:
            raise ProtocolError("the body is framed twice: Content-Length and Transfer-Encoding")
        if coding.strip(b" \t").lower() != b"chunked":
            raise ProtocolError("the only transfer encoding that is served is chunked")
        if version == (1, 0):
            raise ProtocolError("HTTP/1.0 has no chunked bodies")
    length = seen.get(_LENGTH)
    if length is not None and not length.strip(b" \t").isdigit():
        raise ProtocolError("Content-Length is not a number")
    encoding = seen.get(_ENCODING)
    if encoding is not None and encoding.strip(b" \t").lower() not in (b"", b"identity"):
        raise UnsupportedEncoding("compressed request bodies are not taken; send the body as it is")
    return for_us
