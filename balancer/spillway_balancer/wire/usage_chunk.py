"""Streams tell their usage if they are asked to: how we ask, and how the answer is left out where the client did not.

Format: https://platform.openai.com/docs/api-reference/chat/create `stream_options.include_usage`: one more chunk
before `data: [DONE]`, whose `choices` is empty and whose `usage` is not null.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .peeked import Edit, Peeked

_EMPTY: Final = re.compile(rb'"choices"[ \t]*:[ \t]*\[[ \t]*\]')
_EVENT: Final = re.compile(rb".*?(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))[\r\n]*", re.DOTALL)
_DATA: Final = re.compile(rb"^data: ?(\{.*)$", re.MULTILINE)


_options = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode


def ask_for_usage(peeked: Peeked) -> Edit | None:
    """What to change in a body so that its stream tells its usage; None where it does so anyway, or cannot."""
    if not peeked.stream or peeked.path.stream_end != "done-sentinel":
        return None
    spans = peeked.spans()
    if "stream_options" not in spans:
        end = spans["model"][2]
        return end, end, b',"stream_options":{"include_usage":true}'
    _, start, end = spans["stream_options"]
    try:
        options = _options(peeked.values()["stream_options"]) or {}
    except msgspec.DecodeError:
        return None  # no object: for the engine to refuse
    if bytes(options.get("include_usage", msgspec.Raw())) == b"true":
        return None
    return start, end, msgspec.json.encode({**options, "include_usage": True})


def wants_usage(values: Mapping[str, msgspec.Raw]) -> bool:
    """Whether a client has asked for it."""
    try:
        options = _options(values["stream_options"]) if "stream_options" in values else None
    except msgspec.DecodeError:
        return False
    return options is not None and bytes(options.get("include_usage", msgspec.Raw())) == b"true"


class _Chunk(msgspec.Struct, gc=False):
    choices: Any = None
    usage: Any = None


_chunk = msgspec.json.Decoder(_Chunk).decode


def without_usage(events: bytes) -> bytes:
    """Whole events of a stream, but for those that say nothing beside its usage."""
    if not _EMPTY.search(events):
        return events
    kept: list[bytes] = []
    at = 0
    for found in _EVENT.finditer(events):
        at = found.end()
        if not _only_usage(found[0]):
            kept.append(found[0])
    return b"".join((*kept, events[at:]))


def _only_usage(event: bytes) -> bool:
    if not _EMPTY.search(event):
        return False
    found = _DATA.search(event.replace(b"\r", b"\n"))
    if found is None:
        return False
    try:
        chunk = _chunk(found[1])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return chunk.choices == [] and chunk.usage is not None
