"""Events written as an answer of Anthropic's Messages API, whole or as a stream, and `ANSWERING`, with their reader.

https://platform.claude.com/docs/en/build-with-claude/streaming: blocks come one after another, each with its start, its
deltas and its stop; the end and the usage stand in `message_delta`. Other APIs hand several tools their arguments at
once: what belongs to a later block waits until the one before it is whole.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

from ...core.learning import Usage
from ...core.reasons import status_of
from ..anthropic import error_type
from .dialects import Answering, AnswerReader
from .messages_asks import tool_id
from .messages_heard import UNSIGNED, Stream, Whole
from .said import Alive, Argument, Asked, Began, Done, End, Ended, Event, Fault, Said, Thought, Told

_REASONS: Final[dict[End, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tools": "tool_use",
    "sequence": "stop_sequence",
    "filter": "refusal",
    "refusal": "refusal",
    "pause": "pause_turn",
    "context": "model_context_window_exceeded",
}

_encode = msgspec.json.encode


class _Block:
    """A block of the answer. Deltas wait in it until it is its turn."""

    __slots__ = ("deltas", "kind", "start", "tool", "whole")

    def __init__(self, kind: Literal["text", "thinking", "tool_use"], start: dict[str, Any], tool: int | None) -> None:
        self.kind = kind
        self.start = start
        self.tool = tool
        self.deltas: list[tuple[str, str]] = []
        self.whole: list[str] = []
        """Pieces of a tool's arguments."""

    @property
    def finished(self) -> bool:
        """Whether nothing more can come once another block has begun."""
        if self.tool is None:
            return True
        try:
            msgspec.json.decode("".join(self.whole))
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


class _Content:
    """What both writers keep of an answer while it comes."""

    __slots__ = ("_ended", "_id", "_model", "_seen", "_sequence", "_usage")

    def __init__(self, model: str) -> None:
        self._model = model
        self._id = ""
        self._usage = Usage()
        self._ended: End = "stop"
        self._sequence: str | None = None
        self._seen: set[int] = set()

    def note(self, event: Event) -> None:
        match event:
            case Began(usage=usage):
                self._id = event.id
                self._usage = usage or self._usage
            case Told(usage):
                self._usage = Usage(
                    *(new if new is not None else old for new, old in zip(usage, self._usage, strict=True))
                )
            case Ended(end, sequence):
                self._ended, self._sequence = end, sequence
            case Asked(at):
                self._seen.add(at)

    def id(self) -> str:
        self._id = self._id or f"msg_{uuid.uuid4().hex}"
        return self._id

    def call(self, event: Asked) -> dict[str, Any]:
        """With an id that Anthropic takes, too: clients hand it back, and the next turn may go there."""
        name = tool_id(event.id) if event.id else tool_id(f"{self.id()}_{event.at}")
        return {"type": "tool_use", "id": name, "name": event.name, "input": {}}

    def message(self, content: list[dict[str, Any]], stop: dict[str, Any]) -> dict[str, Any]:
        head = {"id": self.id(), "type": "message", "role": "assistant", "model": self._model}
        return {**head, "content": content, **stop, "usage": self.usage()}

    def stop(self) -> dict[str, Any]:
        """Some servers end an answer that asks for tools as any other; agents go by this alone."""
        end = "tools" if self._ended == "stop" and self._seen else self._ended
        return {"stop_reason": _REASONS[end], "stop_sequence": self._sequence}

    def usage(self) -> dict[str, Any]:
        """As Anthropic counts: what was read from a cache or written to it is not in `input_tokens`."""
        prompt, cached, output, written, thought, kept = self._usage
        usage: dict[str, Any] = {
            "input_tokens": max(0, (prompt or 0) - (cached or 0) - (written or 0)),
            "cache_creation_input_tokens": written or 0,
            "cache_read_input_tokens": cached or 0,
            "output_tokens": output or 0,
        }
        if kept is not None and written is not None:
            ttls = {"ephemeral_5m_input_tokens": written - kept, "ephemeral_1h_input_tokens": kept}
            usage["cache_creation"] = ttls
        if thought is not None:
            usage["output_tokens_details"] = {"thinking_tokens": thought}
        return usage


class _StreamWriter:
    """An event stream."""

    __slots__ = ("_begun", "_blocks", "_content", "_index", "_open")

    def __init__(self, model: str, usage: bool) -> None:
        """`usage` is not asked for in this API: it is always told."""
        self._content = _Content(model)
        self._blocks: list[_Block] = []  # the one that is open, and those that wait behind it
        self._open = False
        self._index = 0
        self._begun = False

    def write(self, events: Iterable[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            self._event(event, out)
        return b"".join(out)

    def end(self) -> bytes:
        return b""

    def _event(self, event: Event, out: list[bytes]) -> None:
        self._content.note(event)
        match event:
            case Alive():
                out.append(_frame({"type": "ping"}))
                return
            case Fault():
                out.append(_frame(_fault(event)))
                return
        self._begin(out)
        match event:
            case Said(text):
                self._add("text", {"type": "text", "text": ""}, "text_delta", text, out)
            case Thought(sealed=sealed) if sealed is not None:
                self._queue(_Block("thinking", {"type": "redacted_thinking", "data": sealed}, None), out)
            case Thought(text, signature):
                start = {"type": "thinking", "thinking": "", "signature": ""}
                if text or signature:
                    self._add("thinking", start, "thinking_delta", text, out)
                if signature is not None:
                    self._delta(self._blocks[-1], "signature_delta", signature, out)
            case Asked(at):
                self._queue(_Block("tool_use", self._content.call(event), at), out)
            case Argument(at, piece):
                block = next((block for block in self._blocks if block.tool == at), None)
                if block is not None and piece:
                    block.whole.append(piece)
                    self._delta(block, "input_json_delta", piece, out)
                    self._advance(out)
            case Ended():
                self._finish(out)
            case Done():
                self._finish(out)
                delta = self._content.stop()
                out.append(_frame({"type": "message_delta", "delta": delta, "usage": self._content.usage()}))
                out.append(_frame({"type": "message_stop"}))

    def _begin(self, out: list[bytes]) -> None:
        if not self._begun:
            self._begun = True
            message = self._content.message([], {"stop_reason": None, "stop_sequence": None})
            out.append(_frame({"type": "message_start", "message": message}))

    def _add(self, kind: Any, start: dict[str, Any], name: str, piece: str, out: list[bytes]) -> None:
        """A piece of text or of a thought: to the last block, where it is of this kind and not signed yet."""
        last = self._blocks[-1] if self._blocks else None
        if last is None or last.start["type"] != kind or last.whole:
            last = _Block(kind, start, None)
            self._queue(last, out)
        if piece:
            self._delta(last, name, piece, out)

    def _queue(self, block: _Block, out: list[bytes]) -> None:
        self._blocks.append(block)
        self._advance(out)

    def _delta(self, block: _Block, name: str, piece: str, out: list[bytes]) -> None:
        if name == "signature_delta":
            block.whole.append(piece)  # and so is closed to further thoughts
        if self._open and block is self._blocks[0]:
            out.append(self._piece(name, piece))
        else:
            block.deltas.append((name, piece))

    def _advance(self, out: list[bytes]) -> None:
        while self._blocks:
            if not self._open:
                self._start(out)
            if len(self._blocks) == 1 or not self._blocks[0].finished:
                return
            self._stop(out)

    def _finish(self, out: list[bytes]) -> None:
        while self._blocks:
            if not self._open:
                self._start(out)
            self._stop(out)

    def _start(self, out: list[bytes]) -> None:
        block = self._blocks[0]
        self._open = True
        out.append(_frame({"type": "content_block_start", "index": self._index, "content_block": block.start}))
        out += [self._piece(name, piece) for name, piece in block.deltas]
        block.deltas.clear()

    def _stop(self, out: list[bytes]) -> None:
        block = self._blocks.pop(0)
        if block.start["type"] == "thinking" and not block.whole:
            out.append(self._piece("signature_delta", UNSIGNED))
        out.append(_frame({"type": "content_block_stop", "index": self._index}))
        self._index += 1
        self._open = False

    def _piece(self, name: str, piece: str) -> bytes:
        delta = {"type": name, _FIELDS[name]: piece}
        return _frame({"type": "content_block_delta", "index": self._index, "delta": delta})


_FIELDS: Final = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


class _WholeWriter:
    """An answer at once."""

    __slots__ = ("_arguments", "_blocks", "_content", "_fault")

    def __init__(self, model: str) -> None:
        self._content = _Content(model)
        self._blocks: list[dict[str, Any]] = []
        self._arguments: dict[int, list[str]] = {}
        self._fault: Fault | None = None

    def write(self, events: Iterable[Event]) -> bytes:
        for event in events:
            self._event(event)
        return b""

    def end(self) -> bytes:
        if self._fault is not None:
            return _encode(_fault(self._fault))
        calls = iter(self._arguments.values())
        for block in self._blocks:
            if block["type"] == "tool_use":
                block["input"] = _object("".join(next(calls)))
            elif block["type"] == "thinking":
                block["signature"] = block["signature"] or UNSIGNED
        return _encode(self._content.message(self._blocks, self._content.stop()))

    def _event(self, event: Event) -> None:
        self._content.note(event)
        last: dict[str, Any] = self._blocks[-1] if self._blocks else {"type": None}
        match event:
            case Fault():
                self._fault = self._fault or event
            case Said(text) if text:
                if last["type"] == "text":
                    last["text"] += text
                else:
                    self._blocks.append({"type": "text", "text": text})
            case Thought(sealed=sealed) if sealed is not None:
                self._blocks.append({"type": "redacted_thinking", "data": sealed})
            case Thought(text, signature) if text or signature:
                if last["type"] != "thinking" or last["signature"]:
                    last = {"type": "thinking", "thinking": "", "signature": ""}
                    self._blocks.append(last)
                last["thinking"] += text
                last["signature"] = signature or ""
            case Asked(at):
                self._blocks.append(self._content.call(event))
                self._arguments[at] = []
            case Argument(at, piece) if at in self._arguments:
                self._arguments[at].append(piece)


def _object(arguments: str) -> Any:
    """Arguments as they were written, where they are an object; a model may have been broken off in the middle."""
    try:
        msgspec.json.decode(arguments or "{}", type=dict[str, msgspec.Raw])
        return msgspec.Raw((arguments or "{}").encode())
    except (msgspec.DecodeError, RecursionError):
        return {"arguments": arguments}


def _frame(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encode(event))


def _fault(fault: Fault) -> dict[str, Any]:
    facts = fault.facts
    return _error(facts.status or status_of(facts.code, facts.type), fault.message)


def _error(status: int, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": error_type(status), "message": message}}


def error(status: int, message: str, kind: str | None = None, code: str | None = None) -> bytes:
    """An error answer. This API knows types by the status; OpenAI's code goes with it for those who look for one."""
    body = _error(status, message)
    if code is not None:
        body["error"]["code"] = code
    return _encode(body)


def reader(media_type: str) -> AnswerReader:
    return Stream() if media_type.lstrip().lower().startswith("text/event-stream") else Whole()


ANSWERING: Final = Answering(reader, _StreamWriter, _WholeWriter, error)
