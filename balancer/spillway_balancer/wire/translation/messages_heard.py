"""What Anthropic's Messages API answers, whole or in a stream, read into events.

https://platform.claude.com/docs/en/build-with-claude/streaming and …/api/messages. What a server of Anthropic's has
done by itself (a search, code that ran) has no event: who can be given it asks in this API, and is not translated.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ...core.learning import NOT_TOLD, Usage
from ..counts import counted
from ..faults import ErrorFacts, error_of
from .frames import MAX_EVENT, Frame, Frames
from .said import Alive, Argument, Asked, Began, Done, End, Ended, Event, Fault, Said, Thought, Told

UNSIGNED: Final = "unsigned.spillway"
"""Stands for the signature of a thought that has none: clients hand it back, and SDKs want one to be there."""

MAX_BYTES: Final = 64 << 20
"""Of a whole answer."""

ENDS: Final[dict[str, End]] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tools",
    "stop_sequence": "sequence",
    "refusal": "refusal",
    "pause_turn": "pause",
    "model_context_window_exceeded": "context",
}

_any = msgspec.json.Decoder().decode
_UNREAD: Final = Fault(ErrorFacts(), "the provider's answer cannot be read")
_TOLD: Final = Fault(ErrorFacts(), "the provider tells of an error")


class Usages:
    """Counts that are told by and by, each cumulative."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[str, Any] = {}

    def told(self, usage: Any) -> Usage:
        if isinstance(usage, dict):
            self._told.update((name, value) for name, value in usage.items() if value is not None)
        return counted(self._told) or NOT_TOLD


class Whole:
    """An answer that is no stream."""

    __slots__ = ("_over", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._over = False

    def feed(self, data: bytes) -> list[Event]:
        self._size += len(data)
        if self._over or self._size > MAX_BYTES:
            self._pieces.clear()
            over, self._over = self._over, True
            return [] if over else [_UNREAD]
        self._pieces.append(data)
        return []

    def end(self) -> list[Event]:
        if self._over:
            return []
        self._over = True
        try:
            message = _any(b"".join(self._pieces))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return [_UNREAD]
        fault = _fault(message)
        if fault is not None:
            return [fault]
        if not isinstance(message, dict) or not isinstance(message.get("content"), list):
            return [_UNREAD]
        usage = Usages().told(message.get("usage"))
        events: list[Event] = [_began(message, usage)]
        blocks = _Blocks()
        for index, block in enumerate(message["content"]):
            events += blocks.start(index, block)
            events += blocks.stop(index)
        if usage != NOT_TOLD:
            events.append(Told(usage))
        return [*events, *_ended(message), Done()]


class Stream:
    """An event stream."""

    __slots__ = ("_blocks", "_frames", "_over", "_usages")

    def __init__(self) -> None:
        self._frames = Frames()
        self._blocks = _Blocks()
        self._usages = Usages()
        self._over = False

    def feed(self, data: bytes) -> list[Event]:
        if self._over:
            return []
        events = self._read(self._frames.feed(data))
        if not self._over and self._frames.held > MAX_EVENT:
            self._over = True
            events.append(_UNREAD)
        return events

    def end(self) -> list[Event]:
        events = [] if self._over else self._read(self._frames.end())
        self._over = True
        return events

    def _read(self, frames: list[Frame]) -> list[Event]:
        events: list[Event] = []
        for frame in frames:
            said = self._event(frame)
            events += said
            if said and isinstance(said[-1], Fault | Done):
                self._over = True
                break
        return events

    def _event(self, frame: Frame) -> list[Event]:
        name, data = frame
        if data is None:
            return [_TOLD] if name == "error" else [Alive()]
        try:
            value = _any(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return [_UNREAD]
        if not isinstance(value, dict):
            return [_UNREAD]
        kind = value.get("type")
        kind = kind if isinstance(kind, str) else name
        match kind:
            case "content_block_delta":
                return self._blocks.delta(value.get("index"), value.get("delta"))
            case "content_block_start":
                return self._blocks.start(value.get("index"), value.get("content_block"))
            case "content_block_stop":
                return self._blocks.stop(value.get("index"))
            case "ping":
                return [Alive()]
            case "message_start":
                message = value.get("message")
                message = message if isinstance(message, dict) else {}
                return [_began(message, self._usages.told(message.get("usage")))]
            case "message_delta":
                return self._closing(value)
            case "message_stop":
                return [Done()]
        fault = _fault(value)
        if fault is None and "error" in (kind, name):
            return [_TOLD]
        return [] if fault is None else [fault]

    def _closing(self, value: dict[str, Any]) -> list[Event]:
        events: list[Event] = []
        if isinstance(value.get("usage"), dict):
            events.append(Told(self._usages.told(value["usage"])))
        delta = value.get("delta")
        return events + (_ended(delta) if isinstance(delta, dict) else [])


class _Blocks:
    """Blocks of an answer, by their place in it; tools are counted by themselves."""

    __slots__ = ("_input", "_tools")

    def __init__(self) -> None:
        self._tools: dict[Any, int] = {}
        self._input: dict[int, str | None] = {}  # what a tool is handed, as long as no piece of it has come

    def start(self, index: Any, block: Any) -> list[Event]:
        if not isinstance(block, dict):
            return []
        match block.get("type"):
            case "text":
                return _said(block.get("text"))
            case "thinking":
                return [*_thought(block.get("thinking")), *_signature(block.get("signature"))]
            case "redacted_thinking":
                data = block.get("data")
                return [Thought(sealed=data)] if isinstance(data, str) else []
            case "tool_use":
                at = len(self._input)
                if isinstance(index, int):
                    self._tools[index] = at
                handed = block.get("input")
                self._input[at] = msgspec.json.encode(handed if isinstance(handed, dict) else {}).decode()
                return [Asked(at, _text(block.get("id")), _text(block.get("name")))]
        return []

    def delta(self, index: Any, delta: Any) -> list[Event]:
        if not isinstance(delta, dict):
            return []
        match delta.get("type"):
            case "text_delta":
                return _said(delta.get("text"))
            case "input_json_delta":
                piece = delta.get("partial_json")
                at = self._tools.get(index) if isinstance(index, int) else None
                if at is None or not isinstance(piece, str) or not piece:
                    return []
                self._input[at] = None
                return [Argument(at, piece)]
            case "thinking_delta":
                return _thought(delta.get("thinking"))
            case "signature_delta":
                return _signature(delta.get("signature"))
        return []

    def stop(self, index: Any) -> list[Event]:
        """A tool that is handed nothing is handed an object with nothing in it."""
        at = self._tools.get(index) if isinstance(index, int) else None
        handed = None if at is None else self._input[at]
        if at is None or handed is None:
            return []
        self._input[at] = None
        return [Argument(at, handed)]


def _began(message: dict[str, Any], usage: Usage) -> Began:
    known = usage._replace(output_tokens=None, reasoning_tokens=None)
    return Began(_text(message.get("id")), _text(message.get("model")), None if known == NOT_TOLD else known)


def _ended(value: dict[str, Any]) -> list[Event]:
    reason, sequence = value.get("stop_reason"), value.get("stop_sequence")
    if not isinstance(reason, str):
        return []
    end = ENDS.get(reason, "stop")
    return [Ended(end, sequence if end == "sequence" and isinstance(sequence, str) else None)]


def _fault(value: Any) -> Fault | None:
    facts = error_of(value)
    if facts is None:
        return None
    error = value.get("error") if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return Fault(facts, message if isinstance(message, str) and message else _TOLD.message)


def _said(text: Any) -> list[Event]:
    return [Said(text)] if isinstance(text, str) and text else []


def _thought(text: Any) -> list[Event]:
    return [Thought(text)] if isinstance(text, str) and text else []


def _signature(signature: Any) -> list[Event]:
    known = isinstance(signature, str) and signature and signature != UNSIGNED
    return [Thought(signature=signature)] if known else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
