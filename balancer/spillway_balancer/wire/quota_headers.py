"""What a provider's answer says of the account's quota, in the headers of the two families that say anything.

OpenAI and those like it: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, with resets as durations (`6m0s`,
`1s`, `20ms`). Anthropic: `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`,
with resets as RFC 3339 times. What is absurd is unknown, and a number without a reset says nothing: nobody would know
for how long it holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from ..core.quotas import KINDS, Kind, Said

MOST: Final = 10**15
"""Of anything counted. Beyond it a number is a way to say "no limit", or nonsense."""

LONGEST: Final = 86_400.0
"""Seconds. Quotas of a day are the longest that are told; a clock that is wrong by more must close nothing."""

_DURATION: Final = re.compile(r"(?:\d{1,15}(?:\.\d{1,15})?(?:h|ms|m|s|us|µs|ns))+", re.ASCII)
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)", re.ASCII)
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_COUNT: Final = re.compile(r"\d{1,16}", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,15}(?:\.\d{1,15})?", re.ASCII)

_OPENAI: Final = {
    f"x-ratelimit-{what}-{kind}".encode(): (what, kind)
    for what in ("limit", "remaining", "reset")
    for kind in KINDS
    if kind in ("requests", "tokens")
}
_ANTHROPIC: Final = {
    f"anthropic-ratelimit-{kind}-{what}".encode(): (what, kind)
    for what in ("limit", "remaining", "reset")
    for kind in KINDS
}
_NAMES: Final[dict[bytes, tuple[str, Kind]]] = {**_OPENAI, **_ANTHROPIC}


def quotas(headers: Iterable[tuple[bytes, bytes]], now_wall: float) -> tuple[Said, ...]:
    """What is left of each kind that is told whole. Names of headers are in lower case. Never raises.

    `now_wall` is Unix time in seconds, which a reset that is a date is compared with. Azure says -1 for what it does
    not know, and 0 for a limit that there is none of: such a kind is left out, as is a 0 with no limit beside it.
    """
    found: dict[Kind, dict[str, bytes]] = {}
    for name, value in headers:
        at = _NAMES.get(name)
        if at is not None:
            found.setdefault(at[1], {})[at[0]] = value
    return tuple(said for kind, each in found.items() if (said := _said(kind, each, now_wall)) is not None)


def limited_for(headers: Iterable[tuple[bytes, bytes]], now_wall: float) -> float | None:
    """Seconds until the quota that is used up is back, of an answer that says 429 and no Retry-After; None without."""
    return max((each.reset for each in quotas(headers, now_wall) if each.remaining == 0), default=None)


def _said(kind: Kind, values: dict[str, bytes], now_wall: float) -> Said | None:
    remaining, reset = _count(values.get("remaining")), _reset(values.get("reset"), now_wall)
    limit = _count(values.get("limit"))
    if remaining is None or reset is None or limit == 0 or (remaining == 0 and limit is None):
        return None
    if "limit" in values and limit is None:
        return None  # -1: what stands beside it is as meaningless
    return Said(kind, remaining if limit is None else min(remaining, limit), reset, limit)


def _count(value: bytes | None) -> int | None:
    text = "" if value is None else value.strip().decode("latin-1")
    return int(text) if _COUNT.fullmatch(text) and int(text) <= MOST else None


def _reset(value: bytes | None, now_wall: float) -> float | None:
    """Seconds from now, above 0 and at most LONGEST: of a duration, a number of seconds, Unix time, or RFC 3339."""
    text = "" if value is None else value.strip().decode("utf-8", "replace")
    if len(text) > 64:
        return None
    if _DURATION.fullmatch(text):
        wait = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    elif _NUMBER.fullmatch(text):
        wait = float(text)
        if wait > LONGEST:
            wait -= now_wall
    else:
        try:
            at = datetime.fromisoformat(text)
            wait = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() - now_wall
        except (ValueError, OverflowError):
            return None
    return wait if math.isfinite(wait) and 0 < wait <= LONGEST else None
