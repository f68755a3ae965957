"""What exchanges are made of: files that are read and requests that are sent, each of them answered by a `Reply`.

An exchange is a generator: it yields what it wants done, is sent the reply, and returns the grant. So it has neither
sockets nor a clock, and a test can go through it line by line. None of these values shows what it carries.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec

from ...core.grants import Grant

MAX_REPLY_BYTES: Final = 64 * 1024
"""Of a file or an answer. Tokens have a few kilobytes."""

FORM: Final = ("content-type", "application/x-www-form-urlencoded")


class Denied(Exception):
    """An exchange came to nothing. The text is for people: it says why, in words of ours and with no secret."""


@dataclass(frozen=True, slots=True)
class File:
    """To be read anew each time: kubelet changes tokens in place."""

    path: str


@dataclass(frozen=True, slots=True)
class Ask:
    """To be sent, without following redirects."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """A file's content, or an answer."""

    body: bytes = field(repr=False)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Names in lower case."""


Step = File | Ask
Exchange = Generator[Step, Reply, Grant]
Text = Generator[Step, Reply, str]

_object = msgspec.json.Decoder(dict[str, Any]).decode
_visible = re.compile(r"[\x21-\x7e]{1,32768}").fullmatch
_word = re.compile(r"[A-Za-z][\w.:-]{0,63}").fullmatch


def post(url: str, form: Mapping[str, str], *headers: tuple[str, str]) -> Ask:
    """A form, as OAuth and AWS' query protocol take it."""
    return Ask("POST", url, (FORM, *headers), urlencode(form).encode())


def token_in(path: str) -> Text:
    """The token that a file holds."""
    reply = yield File(path)
    return visible(reply.body.decode("utf-8", "replace").strip(), f"the token in {path}")


def visible(value: object, what: str) -> str:
    """A token as it can stand in a header."""
    if not isinstance(value, str) or not _visible(value):
        raise Denied(f"{what} is missing, or none")
    return value


def said(reply: Reply, who: str) -> dict[str, Any]:
    """The object that a good answer holds."""
    try:
        value = _object(reply.body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = None
    if reply.status != 200:
        raise Denied(answers(who, reply.status, *codes(value or {})))
    if value is None:
        raise Denied(f"{who} answers with something that is no JSON object")
    return value


def answers(who: str, status: int, *words: str) -> str:
    return " ".join((f"{who} answers {status}", *words))


def codes(value: Mapping[str, Any]) -> list[str]:
    """The words by which OAuth (`error`), Google (`error.status`) and AWS (`code`) name an error. Never its text: that
    may quote what was sent."""
    error = value.get("error")
    found = [error, value.get("code")]
    if isinstance(error, dict):
        found = [error.get("status")]
    found += re.findall(r"\bAADSTS\d{4,9}\b", str(value.get("error_description"))[:256])[:1]
    return [each for each in found if isinstance(each, str) and _word(each)]


def url_of(url: str, what: str, plain: Collection[str] = ()) -> str:
    """A URL that secrets may be sent to: https, or one of the hosts that clouds serve plainly within a machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        host = "" if "@" in parts.netloc else host
    except ValueError:
        host = ""
    if not host or any(each.isspace() for each in url):
        raise Denied(f"{what} is no URL")
    if parts.scheme == "https" or (parts.scheme == "http" and (host in plain or is_loopback(host))):
        return url
    raise Denied(f"{what} must be https")


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def until(seconds: object, now: float, who: str) -> float:
    """When a token ends that lives so many seconds from now; a few answer with text."""
    try:
        life = float(seconds) if isinstance(seconds, (int, float, str)) else math.nan
    except ValueError:
        life = math.nan
    if not 0 < life < 1e9:
        raise Denied(f"{who} does not say how long its token lives")
    return now + life


def date(text: object, who: str) -> float:
    """Unix time of an RFC 3339 date."""
    try:
        when = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        when = None
    if when is None:
        raise Denied(f"{who} does not say how long its token lives")
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
