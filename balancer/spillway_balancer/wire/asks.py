"""What a JSON body asks of a model, for the expressions of rules: tools, images, JSON as the answer's form, a limit.

Read when an expression asks, and only as deep as it takes. A value of an unexpected type is for the engine to refuse,
and counts here as not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

OUTPUT_LIMITS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""Fields that limit what is generated, the one that counts first."""

_IMAGES: Final = frozenset({"image_url", "input_image", "image"})
_MARKS: Final = re.compile(b'"(?:%b)"' % "|".join(sorted(_IMAGES)).encode())
"""What a body without an image has nowhere; one pass over it, which is all that hardly any body needs."""
_JSON: Final = frozenset({"json_object", "json_schema"})


class _Turn(msgspec.Struct):
    content: msgspec.Raw = msgspec.Raw(b"null")
    type: Any = None


class _Typed(msgspec.Struct):
    type: Any = None


class _Text(msgspec.Struct):
    format: Any = None


_any = msgspec.json.Decoder().decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_turns = msgspec.json.Decoder(list[_Turn]).decode
_typed = msgspec.json.Decoder(_Typed).decode
_text = msgspec.json.Decoder(_Text).decode

Values = Mapping[str, msgspec.Raw]


def tools(values: Values) -> bool:
    """Whether the model is offered tools, by either of their names."""
    for name in ("tools", "functions"):
        try:
            if name in values and _list(values[name]):
                return True
        except msgspec.DecodeError:
            continue
    return False


def images(values: Values) -> bool:
    """Whether a message holds an image, as chat completions or responses write it."""
    for name in ("messages", "input"):
        raw = values.get(name)
        if raw is None or _MARKS.search(raw) is None:
            continue
        try:
            turns = _turns(raw)
        except msgspec.DecodeError:
            continue
        if any(_is_image(turn.type) or _holds_image(turn.content) for turn in turns):
            return True
    return False


def _holds_image(content: msgspec.Raw, tools: bool = True) -> bool:
    """As a part of it; with `tools`, as a part of what a tool has answered, too (Anthropic)."""
    try:
        parts = _turns(content)
        return any(_is_image(part.type) or (tools and _holds_image(part.content, tools=False)) for part in parts)
    except msgspec.DecodeError:  # mostly a string
        return False


def _is_image(kind: Any) -> bool:
    return isinstance(kind, str) and kind in _IMAGES


def wants_json(values: Values) -> bool:
    """Whether the answer has to be JSON, by `response_format`; in /v1/responses `text.format`, in /v1/messages
    `output_config.format` or, as it was before, `output_format`."""
    try:
        for name in ("response_format", "output_format"):
            if name in values:
                kind = _typed(values[name]).type
                break
        else:
            within = values.get("text", values.get("output_config"))
            form = None if within is None else _text(within).format
            kind = form.get("type") if isinstance(form, dict) else None
    except msgspec.DecodeError:
        return False
    return isinstance(kind, str) and kind in _JSON


def output_limit(values: Values) -> int | None:
    """The most tokens that may be generated, as the request says; None where it does not."""
    for name in OUTPUT_LIMITS:
        if name in values:
            try:
                limit = _any(values[name])
            except msgspec.DecodeError:  # a number beyond all bounds
                continue
            if isinstance(limit, int) and not isinstance(limit, bool):
                return limit
    return None
