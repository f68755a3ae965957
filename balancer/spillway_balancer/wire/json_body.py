"""The top level of a JSON body: each key once, each value's place in the bytes, everything else refused.

Engines disagree on JSON that says a thing twice: Python takes the last of two equal keys, other readers the first,
and Go's encoding/json also takes `MODEL` for `model`. What was judged here must be what the engine reads, so a body
that could be read in two ways is refused, and the bytes that were judged are the bytes that go on.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, NoReturn

import msgspec

from ..core.errors import AmbiguousKey, InvalidJSON
from .names import ACTED_ON, FORBIDDEN, fold, shown

MAX_KEYS: Final = 512
"""Top-level keys. No API has a tenth of them; the bound keeps the walk below a millisecond."""

_top_level = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_string = msgspec.json.Decoder(str).decode

_ENTRY = re.compile(rb'[ \t\n\r]*[{,][ \t\n\r]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\n\r]*:[ \t\n\r]*', re.DOTALL).match
_CLOSE = re.compile(rb"[ \t\n\r]*\}").match
_BACKSLASH: Final = ord("\\")
_BYTE = re.compile(r"\(byte (\d+)\)")


Span = tuple[int, int, int]
"""Where an entry of the object stands: its key's opening quote, its value's first byte and the byte after it."""


class TopLevel(NamedTuple):
    """A JSON object's top level. `cuts` are the byte ranges to leave out so that forbidden fields are gone."""

    values: dict[str, msgspec.Raw]
    spans: dict[str, Span]
    cuts: list[tuple[int, int]]


def read(body: bytes) -> TopLevel:
    """Read a JSON object's top level; values stay unparsed, but are known to be well-formed.

    Raises InvalidJSON, with the position where it is known and never with content, and AmbiguousKey for a key that
    comes twice, that equals another without regard to case, or that is acted on only so (`Stream`). A key spelled
    with an escape (`"mod\\u0065l"`) is the same key to a JSON parser, but not to a reader of bytes: refused where the
    key is acted on, allowed elsewhere.
    """
    try:
        values = _top_level(body)
        if not body.isascii():
            body.decode()  # inside values msgspec does not look for invalid UTF-8
    except RecursionError:
        raise InvalidJSON("the body is nested too deeply") from None
    except UnicodeDecodeError as error:
        _not_utf8(body, error)
    except msgspec.ValidationError:
        raise InvalidJSON("the body must be a JSON object") from None
    except msgspec.DecodeError as error:
        _malformed(body, error)
    if len(values) > MAX_KEYS:
        raise InvalidJSON(f"the body has more than {MAX_KEYS} fields")
    spans, odd = _walk(body, values)
    if odd:
        _check_spelling(values, odd)
    forbidden = not FORBIDDEN.isdisjoint(values) or any(fold(key) in FORBIDDEN for key in odd)
    return TopLevel(values, spans, _cuts(spans) if forbidden else [])


def _walk(body: bytes, values: dict[str, msgspec.Raw]) -> tuple[dict[str, Span], list[str]]:
    """Every entry's place, and the keys whose spelling needs a closer look.

    The decoder keeps a repeated key at its first place with its last value. So if every key and every value stands
    in the body where the dict's order says, and the object closes after the last, then no key came twice.
    """
    spans: dict[str, Span] = {}
    odd: list[str] = []
    at = 0
    # What stands before a key and after it. Writers of JSON space every entry alike, so what the second entry shows
    # is tried on the others before the pattern is, which costs three times as much.
    before = after = b""
    for expected, raw in values.items():
        around = before + expected.encode() + after
        start = at + len(around)
        if before and body.startswith(around, at) and body.startswith(raw, start):
            opening = at + len(before) - 1
        else:
            entry = _ENTRY(body, at)
            if entry is None:  # the value before is longer in the body than the one that the dict holds
                _twice(next(reversed(spans), expected))
            literal = entry[1]
            if _BACKSLASH in literal:
                key = _string(b'"%b"' % literal)
                if key in ACTED_ON:
                    raise AmbiguousKey(f"the field {shown(key)!r} is spelled with escapes", param=shown(key))
            else:
                key = literal.decode()
            if key != expected:
                _twice(key)
            opening = entry.start(1) - 1
            start = entry.end()
            if at:
                before, after = body[at : opening + 1], body[entry.end(1) : start]
            if not body.startswith(raw, start):
                _twice(expected)
        at = start + len(raw)
        spans[expected] = (opening, start, at)
        if expected != expected.casefold() or not expected.isascii():
            odd.append(expected)
    if values and _CLOSE(body, at) is None:
        entry = _ENTRY(body, at)
        _twice(_string(b'"%b"' % entry[1]) if entry else next(reversed(spans)))
    return spans, odd


def _check_spelling(values: dict[str, msgspec.Raw], odd: list[str]) -> None:
    """Raise AmbiguousKey where a reader that ignores case would see a key twice, or one that we do not see."""
    folded: dict[str, str] = {}
    for key in values:
        other = folded.setdefault(fold(key), key)
        if other is not key:
            names = f"{shown(other)!r} and {shown(key)!r}"
            raise AmbiguousKey(f"the fields {names} differ only in case", param=shown(key))
    for key in odd:
        if fold(key) in ACTED_ON:
            message = f"the field {shown(key)!r} must be spelled {fold(key)!r}"
            raise AmbiguousKey(message, param=shown(key))


def _cuts(spans: dict[str, Span]) -> list[tuple[int, int]]:
    """Byte ranges that remove the forbidden entries and just the commas that go with them.

    An entry is removed with the comma before it; a leading run of them with the comma after it.
    """
    cuts: list[tuple[int, int]] = []
    leading: int | None = None  # where a run of forbidden entries at the object's beginning starts
    kept = False
    end_before = 0
    for key, (opening, _, end) in spans.items():
        if fold(key) in FORBIDDEN:
            if kept:
                cuts.append((end_before, end))
            elif leading is None:
                leading = opening
        else:
            if leading is not None and not kept:
                cuts.append((leading, opening))
            kept = True
        end_before = end
    return cuts


def _twice(key: str) -> NoReturn:
    raise AmbiguousKey(f"the field {shown(key)!r} is given twice", param=shown(key))


def _not_utf8(body: bytes, error: UnicodeDecodeError) -> NoReturn:
    start = error.start
    if error.object != body:  # a key alone; its place in the body is found again
        try:
            body.decode()
        except UnicodeDecodeError as whole:
            start = whole.start
    raise InvalidJSON(f"the body is not UTF-8 (byte {start})") from None


def _malformed(body: bytes, error: msgspec.DecodeError) -> NoReturn:
    """Never the decoder's own text: only the position is taken from it."""
    if body.startswith(b"\xef\xbb\xbf"):
        raise InvalidJSON("the body begins with a byte order mark; JSON has none") from None
    text = str(error)
    found = _BYTE.search(text)
    if found:
        where = f"byte {int(found[1]) - ('trailing characters' in text)}"  # there msgspec counts one too far
    elif body.rstrip().endswith(b"}"):  # msgspec says "truncated" of a high surrogate that a quote follows, too
        where = "half of a \\u surrogate pair, or cut short"
    else:
        where = f"cut short after {len(body)} bytes"
    raise InvalidJSON(f"the body is not valid JSON ({where})") from None
