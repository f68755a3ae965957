"""What an answer says, as a chat completion: its chunks, or the whole of it.

Format: https://platform.openai.com/docs/api-reference/chat/streaming. Beyond it, as its SDKs hand on what they do not
know: reasoning is `reasoning_content`, as DeepSeek and engines write it, and a block of it that its provider wants to
see again is one of OpenRouter's `reasoning_details`, with all of its text, for clients to send back as it is.

A model that declines has `finish_reason` content_filter, a window that is full has length.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from ...core.learning import Usage
from .said import Alive, Argument, Asked, Began, Done, End, Ended, Event, Fault, Said, Thought, Told

REASONS: Final[dict[End, str]] = {
    "stop": "stop",
    "length": "length",
    "tools": "tool_calls",
    "sequence": "stop",
    "filter": "content_filter",
    "refusal": "content_filter",
    "pause": "stop",
    "context": "length",
}
_NO_ARGUMENTS: Final = "{}"

_encode = msgspec.json.Encoder().encode


class _Thoughts:
    """Puts pieces of reasoning together until they are closed."""

    __slots__ = ("_index", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._index = 0

    def take(self, thought: Thought) -> dict[str, Any] | None:
        """The block that is closed, if one is."""
        if thought.text:
            self._pieces.append(thought.text)
        detail: dict[str, Any]
        if thought.sealed is not None:
            detail = {"type": "reasoning.encrypted", "data": thought.sealed}
        elif thought.signature is not None:
            detail = {"type": "reasoning.text", "text": "".join(self._pieces), "signature": thought.signature}
            self._pieces.clear()
        else:
            return None
        detail["index"] = self._index
        self._index += 1
        return detail


class Stream:
    """Chunks of a stream, one for each event. `model` is the public name."""

    __slots__ = ("_bare", "_head", "_model", "_over", "_tail", "_thoughts", "_usage", "_wants")

    def __init__(self, model: str, usage: bool) -> None:
        self._model = model
        self._wants = usage
        self._usage = Usage()
        self._thoughts = _Thoughts()
        self._head = b""
        self._tail = b',"usage":null}\n\n' if usage else b"}\n\n"
        self._bare: int | None = None
        """The tool that was asked for and has been handed nothing."""
        self._over = False

    def write(self, events: Iterable[Event]) -> bytes:
        return b"".join(self._write(event) for event in events)

    def end(self) -> bytes:
        return b""

    def _write(self, event: Event) -> bytes:
        if self._over:
            return b""
        if isinstance(event, Said):
            return self._delta(b'{"content":%b}' % _encode(event.text))
        if isinstance(event, Argument):
            if self._bare == event.at:
                self._bare = None
            return self._argument(event)
        if isinstance(event, Thought):
            return self._thought(event)
        if isinstance(event, Asked):
            handed = self._handed()
            self._bare = event.at
            call = {
                "index": event.at,
                "id": event.id,
                "type": "function",
                "function": {"name": event.name, "arguments": ""},
            }
            return handed + self._delta(b'{"tool_calls":[%b]}' % _encode(call))
        if isinstance(event, Began):
            return self._begin(event)
        if isinstance(event, Told):
            self._usage = replaced(self._usage, event.usage)
            return b""
        if isinstance(event, Ended):
            return self._handed() + self._delta(b"{}", _encode(REASONS[event.end]))
        if isinstance(event, Alive):
            return b": alive\n\n"
        self._over = True
        if isinstance(event, Fault):
            return b"data: %b\n\n" % _fault(event)
        return self._told() + b"data: [DONE]\n\n"

    def _begin(self, began: Began) -> bytes:
        if began.usage is not None:
            self._usage = replaced(self._usage, began.usage)
        if self._head:
            return b""
        head = {
            "id": began.id or _new_id(),
            "object": "chat.completion.chunk",
            "created": began.created or 0,
            "model": self._model,
        }
        self._head = b"data: %b," % _encode(head)[:-1]
        return self._delta(b'{"role":"assistant","content":""}')

    def _delta(self, delta: bytes, reason: bytes = b"null") -> bytes:
        begun = b"" if self._head else self._begin(Began())
        return b'%b%b"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]%b' % (
            begun,
            self._head,
            delta,
            reason,
            self._tail,
        )

    def _argument(self, event: Argument) -> bytes:
        return self._delta(
            b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (event.at, _encode(event.json))
        )

    def _handed(self) -> bytes:
        """A tool that is handed nothing is handed an object of nothing: clients parse what they get."""
        at, self._bare = self._bare, None
        return b"" if at is None else self._argument(Argument(at, _NO_ARGUMENTS))

    def _thought(self, thought: Thought) -> bytes:
        out = self._delta(b'{"reasoning_content":%b}' % _encode(thought.text)) if thought.text else b""
        detail = self._thoughts.take(thought)
        return out if detail is None else out + self._delta(b'{"reasoning_details":[%b]}' % _encode(detail))

    def _told(self) -> bytes:
        if not self._wants or self._usage == Usage():
            return b""
        begun = b"" if self._head else self._begin(Began())
        return begun + b'%b"choices":[],"usage":%b}\n\n' % (self._head, _encode(usage_object(self._usage)))


class Whole:
    """An answer at once. One with a `Fault` in it is that error."""

    __slots__ = (
        "_arguments",
        "_asked",
        "_began",
        "_details",
        "_end",
        "_fault",
        "_model",
        "_said",
        "_thought",
        "_thoughts",
        "_usage",
    )

    def __init__(self, model: str, usage: bool = True) -> None:
        self._model = model
        self._began = Began()
        self._said: list[str] = []
        self._thought: list[str] = []
        self._thoughts = _Thoughts()
        self._details: list[dict[str, Any]] = []
        self._asked: list[Asked] = []
        self._arguments: dict[int, list[str]] = {}
        self._usage = Usage()
        self._end: End = "stop"
        self._fault: Fault | None = None

    def write(self, events: Iterable[Event]) -> bytes:
        for event in events:
            self._take(event)
        return b""

    def _take(self, event: Event) -> None:
        match event:
            case Said(text):
                self._said.append(text)
            case Thought(text):
                if text:
                    self._thought.append(text)
                detail = self._thoughts.take(event)
                if detail is not None:
                    self._details.append(detail)
            case Asked():
                self._asked.append(event)
            case Argument(at, json):
                self._arguments.setdefault(at, []).append(json)
            case Began(usage=usage):
                self._began = event
                if usage is not None:
                    self._usage = replaced(self._usage, usage)
            case Told(usage):
                self._usage = replaced(self._usage, usage)
            case Ended(end):
                self._end = end
            case Fault():
                self._fault = self._fault or event
            case Alive() | Done():
                pass

    def end(self) -> bytes:
        if self._fault is not None:
            return _fault(self._fault)
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._said), "refusal": None}
        if self._thought:
            message["reasoning_content"] = "".join(self._thought)
        if self._details:
            message["reasoning_details"] = self._details
        if self._asked:
            message["content"] = message["content"] or None
            message["tool_calls"] = [
                {
                    "id": asked.id,
                    "type": "function",
                    "function": {
                        "name": asked.name,
                        "arguments": "".join(self._arguments.get(asked.at, ())) or _NO_ARGUMENTS,
                    },
                }
                for asked in self._asked
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": REASONS[self._end]}
        answer = {
            "id": self._began.id or _new_id(),
            "object": "chat.completion",
            "created": self._began.created or 0,
            "model": self._model,
            "choices": [choice],
        }
        if self._usage != Usage():
            answer["usage"] = usage_object(self._usage)
        return _encode(answer)


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


def replaced(before: Usage, told: Usage) -> Usage:
    """Numbers that are told take the place of those before."""
    return Usage(*(old if new is None else new for old, new in zip(before, told, strict=True)))


def usage_object(usage: Usage) -> dict[str, Any]:
    """As OpenAI's SDKs want it: three numbers that are always there, and details where they are known."""
    prompt, output = usage.prompt_tokens or 0, usage.output_tokens or 0
    said: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    read = {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.written_tokens}
    read = {name: tokens for name, tokens in read.items() if tokens is not None}
    if read:
        said["prompt_tokens_details"] = read
    if usage.reasoning_tokens is not None:
        said["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return said


def error(status: int, message: str, kind: str | None, code: str | None) -> bytes:
    """OpenAI's error body. Its types go by the status where nothing is known, or what AWS calls it."""
    if kind is None or kind.endswith("exception"):
        kind = "invalid_request_error" if 400 <= status < 500 else "server_error"
    return _encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


def _fault(fault: Fault) -> bytes:
    facts = fault.facts
    return error(facts.status or 500, fault.message, facts.type, facts.code)
