"""What one event of a stream is: content, the stream's terminator, an error, or nothing that a client waits for."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec

from .faults import ErrorFacts, error_of
from .paths import StreamEnd


class Verdict(NamedTuple):
    """`content`: commits the answer. `end`: the stream is complete. `error`: what failed, when it is an error."""

    content: bool
    end: bool = False
    error: ErrorFacts | None = None


NOTHING: Final = Verdict(content=False)
CONTENT: Final = Verdict(content=True)
END: Final = Verdict(content=True, end=True)

_BEFORE_CONTENT: Final = frozenset(
    {
        "response.created",
        "response.in_progress",
        "response.queued",
        "response.output_item.added",
        "response.content_part.added",
    }
)
_TERMINAL: Final = frozenset({"response.completed", "response.failed", "response.incomplete"})
_PINGS: Final = frozenset({"ping", "keepalive"})
_FRAME: Final = frozenset({"message_start", "content_block_start", "content_block_stop"})
_BLANK: Final = frozenset({"text", "thinking"})
"""Blocks that begin with nothing in them: https://docs.claude.com/en/docs/build-with-claude/streaming"""
_TERMINAL_TYPE = re.compile(rb'^event: ?(response\.\w+)|"type"\s*:\s*"(response\.\w+)"', re.MULTILINE)

_any = msgspec.json.Decoder().decode


def judge(event: bytes, kind: StreamEnd) -> Verdict:
    """The verdict on one whole event. What is not understood counts as content: it is somebody's answer."""
    name, data = _fields(event)
    if data is None:
        return Verdict(content=False, error=ErrorFacts()) if name == "error" else NOTHING
    if data.lstrip().startswith(b"[DONE]"):  # as OpenAI's SDKs compare it
        return END if kind == "done-sentinel" else CONTENT
    try:
        value = _any(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    kind_of = value.get("type") if isinstance(value, dict) else None
    said = kind_of if isinstance(kind_of, str) else name
    if said in _PINGS:
        return NOTHING
    error = error_of(value)
    if error is None and (name == "error" or said == "error"):
        error = ErrorFacts()
    if kind == "responses-event" and said in _TERMINAL:
        if said == "response.failed":
            response = value.get("response") if isinstance(value, dict) else None
            return Verdict(content=False, end=True, error=error_of(response) or error or ErrorFacts())
        return END
    if kind == "message-stop":
        return _of_message(said, value, error)
    if error is not None:
        return Verdict(content=False, error=error)
    if kind == "responses-event":
        return NOTHING if said in _BEFORE_CONTENT else CONTENT
    if kind == "done-sentinel" and isinstance(value, dict):
        return CONTENT if _says_something(value) else NOTHING
    return CONTENT


def judge_head(head: bytes, kind: StreamEnd) -> Verdict:
    """The verdict on an event of which only the beginning is at hand, because it is very large: so it has content."""
    if kind == "responses-event":
        found = _TERMINAL_TYPE.search(head)
        if found and (found[1] or found[2]).decode() in _TERMINAL:
            return END
    return CONTENT


def _of_message(said: str | None, value: Any, error: ErrorFacts | None) -> Verdict:
    """An event of Anthropic's Messages. An error is the last of them: no `message_stop` follows it."""
    if error is not None:
        return Verdict(content=False, end=True, error=error)
    if said == "message_stop":
        return END
    if said not in _FRAME:
        return CONTENT
    block = value.get("content_block") if isinstance(value, dict) else None
    if not isinstance(block, dict):
        return NOTHING
    kind = block.get("type")
    return CONTENT if kind not in _BLANK or block.get(kind) else NOTHING


def _fields(event: bytes) -> tuple[str | None, bytes | None]:
    """An event's name and data, None where it has none: a comment, an id, a retry time."""
    name: str | None = None
    data: list[bytes] = []
    for line in event.removeprefix(b"\xef\xbb\xbf").splitlines():
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ").decode("utf-8", "replace")
    return name, b"\n".join(data) if data else None


def _says_something(chunk: dict[str, Any]) -> bool:
    """Whether a chunk of a (chat) completion has more than a role and empty deltas.

    A chunk without choices is content only by its usage: Azure begins streams with one about content filters.
    """
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return True
    if not choices:
        return bool(chunk.get("usage"))
    return any(_choice_says_something(choice) for choice in choices)


def _choice_says_something(choice: Any) -> bool:
    if not isinstance(choice, dict):
        return True
    if choice.get("finish_reason") or choice.get("text") or choice.get("message"):
        return True
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return any(value for key, value in delta.items() if key != "role")
    return delta is not None or not ({"text", "message", "finish_reason"} & choice.keys())
