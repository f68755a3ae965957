"""What an answer tells of itself as it goes by: how many tokens it took, and what it said.

Both watch whole answers and event streams, and look into them a few kilobytes at a time: a chunk costs little more
than being put on a list. Formats: `usage` of OpenAI's /v1/chat/completions, /v1/completions and /v1/responses, and of
Anthropic's /v1/messages; what its numbers mean is said in counts.py.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from ..core.learning import Usage
from .counts import counted

MAX_CHARS: Final = 64 * 1024
"""An answer longer than this is not kept: 16,000 tokens of prose."""

_BATCH: Final = 6 * 1024
_OBJECT_BYTES: Final = 2048
"""A usage object is 100 to 500 bytes long; one that is longer than this may be missed where reads divide it."""

_MAX_EVENT: Final = 4 * MAX_CHARS
"""An event longer than this is no piece of text that anybody keeps."""

_NAME: Final = b'"usage"'
_START: Final = b'"message_start"'
_FIELD: Final = b'_tokens"'
_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_INNER: Final = rb'\{(?:[^{}"]++|%b)*+\}' % _STRING
_DEEPER: Final = rb'\{(?:[^{}"]++|%b|%b)*+\}' % (_STRING, _INNER)
_USAGE = re.compile(rb'"usage"[ \t\r\n]*:[ \t\r\n]*(\{(?:[^{}"]++|%b|%b)*+\})' % (_STRING, _DEEPER), re.DOTALL).match
_BACKSLASH: Final = ord("\\")

_any = msgspec.json.Decoder().decode
Said = dict[str, object]
"""A usage object."""


def _last(tail: bytes) -> tuple[Said, Usage] | None:
    """The last usage object in the last bytes of an answer, whole or an event stream, and what it counts.

    Text of the model cannot pass for it: within a JSON string quotes stand behind a backslash. A number that is
    negative, absurd or no integer is unknown.
    """
    at = tail.rfind(_NAME, 0, tail.rfind(_FIELD) + 1)  # many servers say "usage":null with every chunk
    while at >= 0:
        found = _said(tail, at)
        if found is not None:
            return found
        at = tail.rfind(_NAME, 0, at)
    return None


def _said(data: bytes, at: int) -> tuple[Said, Usage] | None:
    """The usage object whose name stands there, if it counts anything, and what."""
    found = _USAGE(data, at)
    if not found or (at and data[at - 1] == _BACKSLASH):
        return None
    try:
        said: Said = _any(found[1])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    usage = counted(said)
    return None if usage is None else (said, usage)


class _Batches:
    """Gathers what is fed, and hands it on a few kilobytes at a time with what was left over before."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Take bytes of an answer's body as they arrived. Not for one that is compressed."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _BATCH:
            self._flush()

    def _flush(self) -> None:
        rest = self._take(b"".join(self._pieces))
        self._pieces = [rest]
        self._size = len(rest)

    def _take(self, data: bytes) -> bytes:
        """Look into `data`; returns what is to come again, with more behind it."""
        raise NotImplementedError


class UsageWatch(_Batches):
    """Finds the usage of one answer. Holds 6 KB of it at most, and the chunk that came last.

    Streams of Messages tell it in two parts, the prompt with `message_start` and the answer with `message_delta`, which
    may repeat the first: https://docs.anthropic.com/en/api/messages-streaming.
    """

    __slots__ = ("_found", "_looked", "_start")

    def __init__(self) -> None:
        super().__init__()
        self._found: tuple[Said, Usage] | None = None
        self._start: tuple[Said, Usage] | None = None
        self._looked = False

    def usage(self) -> Usage | None:
        """The last that was told so far: engines may tell it with every chunk."""
        self._flush()
        if self._found is None or self._start is None:
            return None if self._found is None else self._found[1]
        found, start = self._found[0], self._start[0]
        if found == start:  # its count of the answer is that of a stream that has just begun
            return counted({name: value for name, value in start.items() if name != "output_tokens"})
        return counted({**start, **{name: value for name, value in found.items() if value is not None}})

    def _take(self, data: bytes) -> bytes:
        if not self._looked:
            start = data.find(_START)
            at = -1 if start < 0 else data.find(_NAME, start)
            self._start = None if at < 0 else _said(data, at)
            self._looked = self._start is not None or len(data) > _OBJECT_BYTES
        self._found = _last(data) or self._found
        return data[-_OBJECT_BYTES:]


class _Said(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    text: str | None = None
    delta: _Said | None = None
    message: _Said | None = None


class _Part(msgspec.Struct, gc=False):
    text: str | None = None


class _Item(msgspec.Struct, gc=False):
    type: str = "message"
    content: list[_Part] | None = None


class _Event(msgspec.Struct, gc=False):
    """A chunk of a stream, or a whole answer, of any of the four paths."""

    choices: list[_Choice] = []
    type: str | None = None
    delta: Any = None
    content: Any = None
    output: list[_Item] = []


_event = msgspec.json.Decoder(_Event).decode


class AnswerText(_Batches):
    """Collects what an answer says, as the next turn will repeat it: the text of the first choice.

    Gives up (`text()` is None) on an answer that is too long, that does not parse, or that begins with reasoning:
    clients leave that out of the next turn, and an engine's cache then ends before the answer.
    """

    __slots__ = ("_gone", "_left", "_stream", "_text")

    def __init__(self, stream: bool) -> None:
        super().__init__()
        self._stream = stream
        self._text: list[str] = []
        self._left = MAX_CHARS
        self._gone = False

    def feed(self, data: bytes) -> None:
        if not self._gone:
            super().feed(data)

    def text(self) -> str | None:
        """All that was said; call it once, at the end."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._stream:
            self._take(data + b"\n")
        elif not self._gone:
            self._look(data)
        return None if self._gone else "".join(self._text)

    def _take(self, data: bytes) -> bytes:
        if self._stream:
            *lines, data = data.split(b"\n")
            for line in lines:
                if line.startswith(b"data:") and not self._gone:
                    self._look(line[5:])
        if len(data) > _MAX_EVENT:
            self._gone = True
        return b"" if self._gone else data

    def _look(self, data: bytes) -> None:
        try:
            event = _event(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._gone = self._gone or not data.lstrip().startswith(b"[DONE]")
            return
        for choice in event.choices:
            if choice.index:
                continue
            said = choice.delta or choice.message
            if said is None:
                self._add(choice.text)
                continue
            if said.reasoning_content or said.reasoning:
                self._gone = True
            self._add(said.content)
        if event.type is not None:
            if event.type == "response.output_text.delta":
                self._add(event.delta)
            elif event.type.startswith("response.reasoning"):
                self._gone = True
            elif event.type == "content_block_delta" and isinstance(event.delta, dict):
                self._block(event.delta)
            elif event.type == "message" and isinstance(event.content, list):
                for block in event.content:
                    if isinstance(block, dict):
                        self._block(block)
        for item in event.output:
            self._gone = self._gone or item.type == "reasoning"
            for part in item.content or ():
                self._add(part.text)

    def _block(self, block: dict[str, object]) -> None:
        """A piece of what Messages say, or a whole one."""
        if block.get("type") in ("text", "text_delta"):
            self._add(block.get("text"))
        elif block.get("type") in ("thinking", "thinking_delta"):  # which clients of this API say again
            self._add(block.get("thinking"))
        elif block.get("type") == "redacted_thinking":
            self._gone = True

    def _add(self, text: object) -> None:
        if text and isinstance(text, str):
            self._left -= len(text)
            self._gone = self._gone or self._left < 0
            self._text.append(text)
