"""Values of a client's JSON, of the types that its API gives them; what is none is refused by the client's own words.

`at` is where a value stands, as `messages[3].content[1].type`: it becomes the error's `param`, which SDKs hand out.
Values themselves are never quoted: they may be a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import msgspec

from ...core.errors import BadRequest

_any = msgspec.json.Decoder().decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode


def refuse(at: str, what: str) -> NoReturn:
    raise BadRequest(f"the field {at!r} {what}", param=at)


def read(raw: msgspec.Raw, at: str) -> Any:
    """A value as Python has it."""
    try:
        return _any(raw)
    except (msgspec.DecodeError, RecursionError):  # well-formed, and cannot be held: 1e999, or nested without end
        refuse(at, "has a value that cannot be read")


def items(raw: msgspec.Raw, at: str) -> list[msgspec.Raw]:
    try:
        return _list(raw)
    except (msgspec.DecodeError, RecursionError):
        refuse(at, "must be a list")


def members(raw: msgspec.Raw, at: str) -> dict[str, msgspec.Raw]:
    try:
        return _object(raw)
    except (msgspec.DecodeError, RecursionError):
        refuse(at, "must be an object")


def is_object(raw: bytes) -> bool:
    try:
        _object(raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def given(values: Mapping[str, msgspec.Raw], name: str) -> Any:
    """A top-level field, None where it is not there or null."""
    return read(values[name], name) if name in values else None


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))


def text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        refuse(at, "must be a string")
    return value


def text_or_none(value: Any, at: str) -> str | None:
    return None if value is None else text(value, at)


def flag(value: Any, at: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        refuse(at, "must be true or false")
    return value


def number(value: Any, at: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        refuse(at, "must be a number")
    return value


def count(value: Any, at: str, least: int = 1) -> int | None:
    """A whole number; one that is written with a fraction of nothing (1024.0) is one, too."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        refuse(at, f"must be a whole number of at least {least}")
    return value


def one_of(value: Any, words: Iterable[str], at: str) -> str:
    words = tuple(words)
    if not isinstance(value, str) or value not in words:
        refuse(at, f"must be one of {', '.join(words)}")
    return value


def mapping(value: Any, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        refuse(at, "must be an object")
    return value


def sequence(value: Any, at: str) -> list[Any]:
    if not isinstance(value, list):
        refuse(at, "must be a list")
    return value
