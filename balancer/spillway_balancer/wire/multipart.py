"""Forms (multipart/form-data, RFC 7578): find `model` among the parts and leave every other byte as it is.

Only what all readers of forms agree on is taken. Where they are known to differ (escapes in names, transfer
encodings, bytes around the delimiters) the form is refused: what was judged here must be what the endpoint reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple, NoReturn

import msgspec

from ..core.errors import AmbiguousKey, BadRequest, InvalidMultipart, ProtocolError
from .content_type import parse_value
from .names import ACTED_ON, FORBIDDEN, fold, shown
from .paths import Path
from .peeked import DEFAULT_OUTPUT_TOKENS, Peeked, checked_model
from .prompt_blocks import PromptBlocks

MAX_PARTS: Final = 256
"""Fields and files. OpenAI's routes have at most 16 images and a dozen fields."""

MAX_HEAD_BYTES: Final = 4096
"""Headers of one part."""

MAX_FIELD_BYTES: Final = 64 * 1024
"""A field longer than this cannot be asked for by name; it is no session key."""

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]").fullmatch
_FLAGS: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off", ""), False),
}


class Part(NamedTuple):
    """One part. `start` is its delimiter's first byte, `end` the next one's; `value` and `stop` bound its content."""

    name: str
    is_file: bool
    start: int
    value: int
    stop: int
    end: int


class FormFields:
    """Fields of a form that are text."""

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, str]) -> None:
        self._fields = fields

    def field(self, name: str) -> str | None:
        return self._fields.get(name)

    def prefix(self, chars: int | None) -> bytes | None:
        return None

    def prompt(self, seed: int) -> PromptBlocks | None:
        return None

    def values(self) -> Mapping[str, msgspec.Raw]:
        return {}

    def spans(self) -> Mapping[str, tuple[int, int, int]]:
        return {}


def peek(path: Path, boundary: str, body: bytes) -> Peeked:
    """As openai.peek, for a form. Raises InvalidMultipart, AmbiguousKey, MissingModel or another BadRequest."""
    parts = read(body, boundary)
    fields: dict[str, str] = {}
    text = 0
    cuts: list[tuple[int, int]] = []
    model: Part | None = None
    for part in parts:
        if fold(part.name) in FORBIDDEN:
            cuts.append((part.start, part.end))
            continue
        if part.name == "model":
            model = part
        if part.is_file:
            continue
        if part.name == "prompt":
            text += part.stop - part.value
        if part.name not in fields and part.stop - part.value <= MAX_FIELD_BYTES:
            try:
                fields[part.name] = body[part.value : part.stop].decode()
            except UnicodeDecodeError:
                if part.name in ACTED_ON:
                    raise InvalidMultipart(f"the field {part.name!r} is not UTF-8", param=part.name) from None
    if model is not None and model.is_file:
        raise InvalidMultipart("the field 'model' must not be a file", param="model")
    name = checked_model(fields.get("model"))
    assert model is not None
    stream = _FLAGS.get(fields.get("stream", "").lower())
    if stream is None:
        raise BadRequest("the field 'stream' must be true or false", param="stream")
    return Peeked(
        path,
        name,
        stream,
        max(1, -(-text // 4)),
        DEFAULT_OUTPUT_TOKENS,
        body,
        (model.value, model.stop),
        cuts,
        str.encode,
        FormFields(fields),
    )


def read(body: bytes, boundary: str) -> list[Part]:
    """The parts of a form, in order. Raises InvalidMultipart and AmbiguousKey.

    A name that is acted on may come once only, and only in its exact spelling; other names may repeat (`image[]`).
    """
    if not _BOUNDARY(boundary):
        _bad("the content type names no valid boundary")
    opening = f"--{boundary}".encode()
    start = 2 if body.startswith(b"\r\n") else 0  # some clients begin with an empty line
    if not body.startswith(opening, start):
        _bad("the body does not begin with the boundary")
    parts: list[Part] = []
    seen: dict[str, str] = {}
    at = start + len(opening)
    while body[at : at + 2] != b"--":
        if body[at : at + 2] != b"\r\n":
            _bad("a boundary is not at the end of its line")
        value = body.find(b"\r\n\r\n", at, at + MAX_HEAD_BYTES) + 4
        if value < 4:
            _bad("a part has no headers, or too many")
        stop = body.find(opening, value) - 2
        if stop < 0:
            _bad("the last boundary is missing")
        if stop < value or body[stop : stop + 2] != b"\r\n":
            _bad("the boundary stands within a part")
        name, is_file = _disposition(body[at + 2 : value - 4])
        _check_name(name, seen)
        end = stop + 2
        parts.append(Part(name, is_file, start, value, stop, end))
        if len(parts) > MAX_PARTS:
            _bad(f"more than {MAX_PARTS} parts")
        start, at = end, end + len(opening)
    if body[at + 2 :].strip(b"\r\n"):
        _bad("bytes after the last boundary")
    return parts


def _disposition(head: bytes) -> tuple[str, bool]:
    """A part's name, and whether it is a file, from its headers."""
    found: tuple[str, bool] | None = None
    charset = "utf-8"
    try:
        lines = head.decode().split("\r\n")
        for line in lines:
            name, colon, value = line.partition(":")
            lower = name.lower()
            if not colon or name != name.strip() or "\r" in line or "\n" in line:
                _bad("a part's headers do not parse")
            if lower == "content-disposition":
                kind, parameters = parse_value(value)
                if found or kind != "form-data" or "name" not in parameters or "name*" in parameters:
                    _bad("a part's Content-Disposition is not form-data with one name")
                if "\\" in value:
                    _bad("a backslash in a part's Content-Disposition is read in more than one way")
                found = parameters["name"], "filename" in parameters or "filename*" in parameters
            elif lower == "content-type":
                charset = parse_value(value)[1].get("charset", charset).lower()
            elif lower == "content-transfer-encoding" and value.strip().lower() not in (
                "7bit",
                "8bit",
                "binary",
            ):
                _bad("a part has a transfer encoding")
    except UnicodeDecodeError:
        _bad("a part's headers are not UTF-8")
    except ProtocolError:
        _bad("a part's headers do not parse")
    if found is None:
        _bad("a part has no Content-Disposition")
    if not found[1] and charset not in ("utf-8", "utf8", "us-ascii"):
        _bad("a field is not UTF-8")
    return found


def _check_name(name: str, seen: dict[str, str]) -> None:
    folded = fold(name)
    other = seen.get(folded)
    seen[folded] = name
    if folded in ACTED_ON or folded in FORBIDDEN:
        if other is not None:
            raise AmbiguousKey(f"the field {shown(name)!r} is given twice", param=shown(name))
        if folded in ACTED_ON and name != folded:
            raise AmbiguousKey(f"the field {shown(name)!r} must be spelled {folded!r}", param=shown(name))
    elif other is not None and other != name:
        names = f"{shown(other)!r} and {shown(name)!r}"
        raise AmbiguousKey(f"the fields {names} differ only in case", param=shown(name))


def _bad(what: str) -> NoReturn:
    raise InvalidMultipart(f"the form is not valid: {what}")
