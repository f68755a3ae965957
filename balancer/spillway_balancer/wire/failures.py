"""What an endpoint's error answer comes to: the reason of a failed attempt, and the words for a client."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..core.reasons import Failure, of_status
from .faults import RawHeaders, parse_error, retry_after
from .quota_headers import limited_for

MAX_WORDS: Final = 4096
"""Characters of a message that are handed on."""

_any = msgspec.json.Decoder().decode


def failure_of(status: int, headers: RawHeaders, body: bytes, now_wall: float) -> Failure:
    """What an error answer means, by the words of whoever gave it. `now_wall` is Unix time in seconds."""
    facts = parse_error(status, headers, body)
    wait = retry_after(headers, now_wall)
    if wait is None and status == 429:
        wait = limited_for(headers, now_wall)
    return Failure(of_status(status, facts.code, facts.type), status, facts.wait if wait is None else wait)


def message_of(body: bytes) -> str | None:
    """The words of an error answer, for the client alone: they may quote its prompt. None where there are none."""
    try:
        return words_of(_any(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def words_of(value: Any) -> str | None:
    """An error's own words, wherever they stand in a parsed body or event."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    places = [value, value.get("error"), value.get("detail")] if isinstance(value, dict) else [value]
    for place in reversed(places):
        words = place.get("message", place.get("Message")) if isinstance(place, dict) else place
        if isinstance(words, dict):
            words = words.get("detail")
        if isinstance(words, list):
            words = _of_fields(words)
        if isinstance(words, str) and words:
            return words[:MAX_WORDS]
    return None


def _of_fields(errors: list[Any]) -> str:
    """What FastAPI and Mistral have against fields of a body: `[{"loc": ["body", name, …], "msg": text}, …]`."""
    said = []
    for each in errors:
        if isinstance(each, dict) and isinstance(each.get("msg"), str):
            place = each.get("loc")
            names = [str(name) for name in place if name != "body"] if isinstance(place, list) else []
            said.append(f"{'.'.join(names)}: {each['msg']}" if names else each["msg"])
    return "; ".join(said)
