"""OpenAI's wire format: what a request says, and how this balancer's own answers and errors look."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from ..core.errors import BadRequest, SpillwayError, UnsupportedMediaType
from . import asks, canonical, json_body, multipart
from .content_type import parse_value
from .faults import ErrorFacts, parse_error, retry_after
from .paths import Path
from .peeked import DEFAULT_OUTPUT_TOKENS, Peeked, checked_model
from .prompt_blocks import PromptBlocks, prompt_of

__all__ = [
    "ErrorFacts",
    "Peeked",
    "error_body",
    "error_event",
    "model_object",
    "models_list",
    "parse_error",
    "peek",
    "retry_after",
]

MAX_OUTPUT_TOKENS: Final = 131_072

_TEXT: Final = (
    "messages",
    "prompt",
    "input",
    "instructions",
    "system",
    "tools",
    "query",
    "documents",
    "text_1",
    "text_2",
)
_LOOK_FOR_MEDIA: Final = 8192
"""Bytes of JSON below which nobody looks for base64 data in it."""

_STRIDE, _WINDOW = 4096, 256
"""Base64 data is told from text by its having no spaces: so many bytes are looked at, so far apart."""

_DATA: Final = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*"').finditer

_JSON: Final[tuple[str, dict[str, str]]] = ("application/json", {})

_encode = msgspec.json.encode
_any = msgspec.json.Decoder().decode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_flags: Final[dict[bytes, bool]] = {b"true": True, b"false": False, b"null": False}


def peek(path: Path, content_type: str, body: bytes) -> Peeked:
    """Look at a request's body once, without copying it. Raises a BadRequest that says what is wrong with it.

    JSON is read on every path (image and audio routes take it from some servers in place of a form), a form only
    where the path takes one. A missing content type counts as JSON, as engines treat it.
    """
    kind, parameters = _JSON if content_type == "application/json" else parse_value(content_type)
    if kind == "multipart/form-data" and path.body == "multipart":
        return multipart.peek(path, parameters.get("boundary", ""), body)
    if kind not in ("", "application/json") and not (kind.startswith("application/") and kind.endswith("+json")):
        wanted = "multipart/form-data" if path.body == "multipart" else "application/json"
        raise UnsupportedMediaType(f"{path.path} takes {wanted}")
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaType("JSON must be UTF-8")
    top = json_body.read(body)
    values, spans = top.values, top.spans
    model = checked_model(_any(values["model"]) if "model" in values else None)
    stream = _flags.get(bytes(values["stream"])) if "stream" in values else False
    if stream is None:
        raise BadRequest("the field 'stream' must be true or false", param="stream")
    text = 0
    for name in _TEXT:
        if name in spans:
            _, start, end = spans[name]
            text += end - start
            if end - start > _LOOK_FOR_MEDIA and _has_spaceless_run(body, start, end):
                text -= _media_bytes(body, start, end)
    _, start, end = spans["model"]
    return Peeked(
        path,
        model,
        stream,
        max(1, -(-text // 4)),
        _output_tokens(values),
        body,
        (start, end),
        top.cuts,
        _encode,
        JsonFields(values, spans, "input" if path.stream_end == "responses-event" else "messages"),
    )


class JsonFields:
    """Fields of a JSON body, parsed when asked for."""

    __slots__ = ("_spans", "_turns", "_values")

    def __init__(self, values: Mapping[str, msgspec.Raw], spans: Mapping[str, json_body.Span], turns: str) -> None:
        self._values = values
        self._spans = spans
        self._turns = turns

    def field(self, name: str) -> str | None:
        raw = self._values.get(name)
        if raw is None and "." in name:
            raw = self._at(name.split("."))
        if raw is None or bytes(memoryview(raw)[:1]) in (b"{", b"["):
            return None
        value = _any(raw)
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value) if isinstance(value, str | int) else None

    def prefix(self, chars: int | None) -> bytes | None:
        return canonical.prefix(self._values, self._turns, chars)

    def prompt(self, seed: int) -> PromptBlocks | None:
        return prompt_of(self._values, self._turns, seed)

    def values(self) -> Mapping[str, msgspec.Raw]:
        return self._values

    def spans(self) -> Mapping[str, json_body.Span]:
        return self._spans

    def _at(self, steps: list[str]) -> msgspec.Raw | None:
        values = self._values
        for step in steps[:-1]:
            try:
                values = _object(values[step])
            except (KeyError, msgspec.DecodeError):
                return None
        return values.get(steps[-1])


def _output_tokens(values: Mapping[str, msgspec.Raw]) -> int:
    """What the request allows to be generated; a value that is no positive integer is for the engine to refuse."""
    limit = asks.output_limit(values)
    return DEFAULT_OUTPUT_TOKENS if limit is None else min(max(limit, 1), MAX_OUTPUT_TOKENS)


def _has_spaceless_run(body: bytes, start: int, end: int) -> bool:
    """Whether a JSON value may hold base64 data of more than about 4 KB. Looks at every sixteenth byte."""
    find = body.find
    return any(find(b" ", at, at + _WINDOW) < 0 for at in range(start, end - _WINDOW, _STRIDE))


def _media_bytes(body: bytes, start: int, end: int) -> int:
    """By how much the base64 data in a JSON value (`data:` URLs and `input_audio`) is larger than what it counts."""
    excess = 0
    for mark in (b";base64,", b'"input_audio"'):
        at = body.find(mark, start, end)
        while at >= 0:
            first = at + len(mark)
            if mark == b'"input_audio"':
                key = body.find(b'"data"', first, end)
                first = body.find(b'"', key + 6, end) + 1 if key >= 0 else 0
                if first <= 0:
                    break
            last = body.find(b'"', first, end)
            if last < 0:
                break
            excess += max(0, last - first - canonical.MEDIA_BYTES)
            at = body.find(mark, last, end)
    if body.find(b'"base64"', start, end) >= 0:  # sources of Anthropic's images and documents
        for found in _DATA(body, start, end):
            first, last = found.end(), body.find(b'"', found.end(), end)
            if last - first > canonical.MEDIA_BYTES and body.find(b" ", first, first + _WINDOW) < 0:
                excess += last - first - canonical.MEDIA_BYTES
    return excess


def models_list(names: Iterable[str], created: int) -> bytes:
    """Body of `GET /v1/models`. `created` is Unix time in seconds."""
    return _encode({"object": "list", "data": [_model(name, created) for name in names]})


def model_object(name: str, created: int) -> bytes:
    """Body of `GET /v1/models/{name}`."""
    return _encode(_model(name, created))


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "spillway"}


def error_body(error: SpillwayError) -> bytes:
    """An error as OpenAI shapes it. `attempts` is ours, inside `error`, where SDKs hand it out as the error's body."""
    return _encode({"error": _error(error)})


def error_event(error: SpillwayError, path: Path) -> bytes:
    """An error as the last event of a stream that has begun.

    OpenAI's SDKs raise APIError for `data: {"error": …}`. /v1/responses has typed events: there the error stands both
    flat, as its reference says, and nested, as its servers send it and its SDKs look for it. There is no header for a
    Retry-After any more: it stands beside the message, in seconds.
    """
    body = _error(error)
    if error.retry_after is not None:
        body["retry_after"] = round(error.retry_after, 3)
    if path.stream_end != "responses-event":
        return b"data: %b\n\n" % _encode({"error": body})
    event = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
    return b"event: error\ndata: %b\n\n" % _encode({**event, "sequence_number": 0, "error": body})


def _error(error: SpillwayError) -> dict[str, Any]:
    body: dict[str, Any] = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    if error.attempts:
        body["attempts"] = error.attempts
    return body
