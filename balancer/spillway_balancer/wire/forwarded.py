"""`core.forwarded` as it goes from a sidecar to its gateway.

One header, `x-spillway-forwarded`, such as

    route=team/chat; rule=default; tier=paid; home=yes; others=9; attempts=2; deadline=12.500

All parts but the deadline may be left out, in any order; parts that a reader does not know are ignored, so that either
side may be the newer one. Values are percent-encoded (RFC 3986, section 2.1). It is heeded only beside
`x-spillway-pod`, a token that says whose word it is.
"""

from __future__ import annotations

import math
import re
from typing import Final
from urllib.parse import quote, unquote

from ..core.errors import InvalidForwarded
from ..core.forwarded import Forwarded

FORWARDED: Final = "x-spillway-forwarded"
POD: Final = "x-spillway-pod"
"""Carries `Bearer` and the token of the sidecar's Pod, of the audience `spillway_api.stream.AT_GATEWAY`."""
SERVED_BY: Final = "x-spillway-served-by"
"""Header of answers to what was forwarded. With the value `gateway` the answer is the last word on the request."""
GATEWAY: Final = "gateway"
NOBODY: Final = "nobody"
"""In its place: nothing was open to the request, nothing was sent anywhere, and the sidecar may have it back."""

MOST_SECONDS: Final = 10.0**9
"""Of a deadline. More says nothing more."""
MOST_ATTEMPTS: Final = 1000
MOST_OTHERS: Final = 100_000
LONGEST: Final = 2048
"""Characters of the header: names of Kubernetes, all of them percent-encoded, need less."""

_SECONDS: Final = re.compile(r"\d{1,12}(?:\.\d{1,9})?", re.ASCII)
_COUNT: Final = re.compile(r"\d{1,9}", re.ASCII)
_VALUE: Final = re.compile(r"(?:[!#$&-:<-~]|%[0-9A-Fa-f]{2})+", re.ASCII)
_NAMES: Final = frozenset({"route", "rule", "tier", "home", "others", "attempts", "deadline"})


def write(forwarded: Forwarded) -> str:
    """The header's value. Seconds are cut to whole milliseconds, so that no time is made on the way."""
    parts = [
        f"{name}={quote(value, safe='/')}"
        for name, value in (("route", forwarded.route), ("rule", forwarded.rule), ("tier", forwarded.tier))
        if value
    ]
    if forwarded.home:
        parts.append("home=yes")
    if forwarded.others > 0:
        parts.append(f"others={min(forwarded.others, MOST_OTHERS)}")
    if forwarded.attempts is not None:
        parts.append(f"attempts={min(max(0, forwarded.attempts), MOST_ATTEMPTS)}")
    left = math.floor(min(max(0.0, forwarded.deadline), MOST_SECONDS) * 1000)
    parts.append(f"deadline={left // 1000}.{left % 1000:03d}")
    return "; ".join(parts)


def parse(value: str) -> Forwarded:
    """What the header says. Raises InvalidForwarded, and nothing else, on what is none."""
    if len(value) > LONGEST:
        raise _wrong("is too long")
    said: dict[str, str] = {}
    for part in value.split(";"):
        name, equals, text = part.strip(" \t").partition("=")
        if not equals or not _VALUE.fullmatch(text):
            raise _wrong("has a part that is no name=value")
        if name not in _NAMES:
            continue
        if name in said:
            raise _wrong(f"says {name} twice")
        said[name] = text
    deadline, attempts = said.get("deadline"), said.get("attempts")
    if deadline is None:
        raise _wrong("has no deadline")
    if not _SECONDS.fullmatch(deadline):
        raise _wrong("has a deadline that is no number of seconds")
    if attempts is not None and not _COUNT.fullmatch(attempts):
        raise _wrong("has attempts that are no number")
    others = said.get("others", "0")
    if not _COUNT.fullmatch(others):
        raise _wrong("has others that are no number")
    route, rule, tier = (_text(said.get(name, "")) for name in ("route", "rule", "tier"))
    if bool(route) != bool(rule) or (tier and not rule):
        raise _wrong("names a route without a rule, a rule without a route, or a tier without both")
    left = None if attempts is None else min(int(attempts), MOST_ATTEMPTS)
    home, beside = said.get("home") == "yes", min(int(others), MOST_OTHERS)
    return Forwarded(min(float(deadline), MOST_SECONDS), left, route, rule, tier, home, beside)


def _text(value: str) -> str:
    try:
        text = unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise _wrong("has a name that is no UTF-8") from None
    if not text.isprintable():
        raise _wrong("has a name with characters that are none to print")
    return text


def _wrong(why: str) -> InvalidForwarded:
    return InvalidForwarded(f"the header {FORWARDED} {why}", param=FORWARDED)
